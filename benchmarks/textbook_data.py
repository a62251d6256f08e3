"""Nodule crops as a textbook feeds them to a network: the baseline of ``benchmarks.training``.

Every candidate asks for its whole CT, read with SimpleITK and kept only until another one is asked for; finished crops
are pickled into a folder, one compressed file each, as the disk cache of such code has them. (Without compression
they load ten times faster and take three times the disk; ``benchmarks.training`` measures that too.) Every sample is
changed on its own by an affine grid. The training step is plain float32 in PyTorch's default memory layout.
"""

import gzip
import math
import pickle
import random
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

import numpy as np
import SimpleITK
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import DataLoader, Dataset

Center = tuple[int, int, int]


@lru_cache(maxsize=1)
def read_scan(path: Path) -> np.ndarray:
    """A whole CT as float32, clipped."""
    hu = np.array(SimpleITK.GetArrayFromImage(SimpleITK.ReadImage(str(path))), dtype=np.float32)
    hu.clip(-1000, 1000, hu)
    return hu


def raw_crop(path: Path, center_zyx: Center, shape_zyx: Center) -> np.ndarray:
    """A crop of the CT; near a border it is moved inwards."""
    hu = read_scan(path)
    box = []
    for center, width, size in zip(center_zyx, shape_zyx, hu.shape, strict=True):
        start = min(max(center - width // 2, 0), size - width)
        box.append(slice(start, start + width))
    return hu[tuple(box)]


class CachedCrops(Dataset[tuple[Tensor, Tensor]]):
    """Candidates whose crops are pickled when they are first asked for.

    Args:
        folder: of the cache.
        candidates: file of the CT, centre and class of each.
        shape_zyx: of the crops.
        compress: whether the pickles are compressed.
    """

    def __init__(
        self, folder: Path, candidates: Sequence[tuple[Path, Center, int]], shape_zyx: Center, *, compress: bool
    ) -> None:
        self.folder, self.candidates, self.shape, self.compress = folder, candidates, shape_zyx, compress

    def __len__(self) -> int:
        return len(self.candidates)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        path, center, target = self.candidates[index]
        cached = self.folder / f"{path.stem}-{'-'.join(map(str, center))}.pickle{'.gz' * self.compress}"
        if cached.is_file():
            content = cached.read_bytes()
            crop = pickle.loads(gzip.decompress(content) if self.compress else content)
        else:
            crop = np.ascontiguousarray(raw_crop(path, center, self.shape))
            content = pickle.dumps(crop, protocol=pickle.HIGHEST_PROTOCOL)
            cached.write_bytes(gzip.compress(content, 1) if self.compress else content)
        return torch.from_numpy(crop).unsqueeze(0), torch.tensor(target)


def loader(dataset: CachedCrops, batch: int) -> DataLoader[tuple[Tensor, Tensor]]:
    """Batches in the calling process, as one core has them."""
    return DataLoader(dataset, batch_size=batch)


def augmented(crop: Tensor) -> Tensor:
    """One crop [1 z y x] flipped, shifted, scaled, turned about z and made noisy."""
    matrix = torch.eye(4)
    for axis in range(3):
        if random.random() < 0.5:
            matrix[axis, axis] *= -1
        matrix[axis, 3] = 0.1 * (2 * random.random() - 1)
        matrix[axis, axis] *= 1 + 0.2 * (2 * random.random() - 1)
    angle = 2 * math.pi * random.random()
    turn = torch.eye(4)
    turn[0, 0] = turn[1, 1] = math.cos(angle)
    turn[0, 1], turn[1, 0] = -math.sin(angle), math.sin(angle)
    batch = crop.unsqueeze(0)
    grid = functional.affine_grid((matrix @ turn)[:3].unsqueeze(0), list(batch.shape), align_corners=False)
    moved = functional.grid_sample(batch, grid, padding_mode="border", align_corners=False)
    return (moved + 25.0 * torch.randn_like(moved))[0]


def training_step(model: nn.Module, optimizer: torch.optim.Optimizer, crops: Tensor, target: Tensor) -> float:
    """One step on crops [b 1 z y x]."""
    optimizer.zero_grad()
    loss = nn.functional.cross_entropy(model(crops), target)
    loss.backward()
    optimizer.step()
    return loss.item()

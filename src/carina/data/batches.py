"""From a list of crops to batches of tensors, cut from the store's memory maps.

Only the bytes of the crops are touched. Must not know how crops are chosen (``data.sampling``) or changed
(``data.augment``), nor when they are cut: ``learn.batches`` makes them ahead of the training step.
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np
import torch
from jaxtyping import Int16, Int64, UInt8
from torch import Tensor

from carina.data.sampling import CropList
from carina.data.store import Scan
from carina.geometry import Shape3
from carina.hu import AIR
from carina.io.luna import IGNORE


@dataclass(frozen=True, eq=False)
class Batch:
    """Crops as they are stored; voxel ``shape // 2`` is the crop's centre.

    Attributes:
        hu: HU; what lies outside of the scan is as ``cut_batch`` says.
        label: 0 background, k nodule k of the scan, 255 ignore and outside of the scan; no voxels unless asked for.
        lung: 1 in the lungs; no voxels unless asked for.
        target: class of each crop.
        kind: kind of each crop (``data.sampling``).
        scan: index of each crop's scan.
    """

    hu: Int16[Tensor, "b 1 z y x"]
    label: UInt8[Tensor, "b 1 z2 y2 x2"]
    lung: UInt8[Tensor, "b 1 z2 y2 x2"]
    target: Int64[Tensor, " b"]
    kind: Int64[Tensor, " b"]
    scan: Int64[Tensor, " b"]

    def to(self, device: torch.device | str) -> "Batch":
        """The batch on another device."""
        return Batch(*(getattr(self, f.name).to(device) for f in fields(self)))

    def __len__(self) -> int:
        return len(self.hu)


def cut_batch(scans: Sequence[Scan], crops: CropList, shape_zyx: Shape3, *, masks: bool = True) -> Batch:
    """Cut these crops.

    Args:
        scans: what ``crops.scan`` counts.
        crops: the crops.
        shape_zyx: size of every crop.
        masks: whether label and lung are wanted; without, they are of size (b, 1, 0, 0, 0). Who learns to mark voxels
            wants them, and gets the outermost voxels repeated outside of the scan; who learns to judge candidates gets
            air there. Both as the pipeline does it.
    """
    n = len(crops)
    mask_shape = shape_zyx if masks else (0, 0, 0)
    hu = np.empty((n, 1, *shape_zyx), np.int16)
    label, lung = np.empty((n, 1, *mask_shape), np.uint8), np.empty((n, 1, *mask_shape), np.uint8)
    first = crops.center_zyx - np.asarray(shape_zyx) // 2
    for i, (s, start) in enumerate(zip(crops.scan.tolist(), first.tolist(), strict=True)):
        scan = scans[s]
        _copy_box(scan.hu(), start, hu[i, 0], None if masks else AIR)
        if masks:
            _copy_box(scan.label(), start, label[i, 0], IGNORE)
            _copy_box(scan.lung(), start, lung[i, 0], 0)
    tensors = (hu, label, lung, crops.target, crops.kind, crops.scan)
    return Batch(*(torch.from_numpy(a) for a in tensors))


def _copy_box(array: np.ndarray, start: list[int], out: np.ndarray, fill: int | None) -> None:
    """Copy the box of ``out``'s size at ``start``; the same as ``ct.crops.cut_crops``, into memory that is there.

    Without ``fill`` the outermost voxels are repeated beyond the array.
    """
    low = [max(a, 0) for a in start]
    high = [max(min(a + n, m), b) for a, n, m, b in zip(start, out.shape, array.shape, low, strict=True)]
    inside = tuple(slice(b - a, c - a) for a, b, c in zip(start, low, high, strict=True))
    if any(c - b < n for b, c, n in zip(low, high, out.shape, strict=True)):
        if fill is None:
            near = (np.arange(a, a + n).clip(0, m - 1) for a, n, m in zip(start, out.shape, array.shape, strict=True))
            out[...] = array[np.ix_(*near)]
            return
        out.fill(fill)
    source, target = array[low[0] : high[0], low[1] : high[1], low[2] : high[2]], out[inside]
    if target.size:
        # A row as one element: NumPy copies it at once, in half the time that it takes voxel by voxel.
        row = np.dtype((np.void, target.shape[2] * target.itemsize))
        target.view(row)[..., 0] = source.view(row)[..., 0]

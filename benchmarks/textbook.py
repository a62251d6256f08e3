"""The textbook's way from a CT to nodule probabilities, written anew as the baseline of ``benchmarks.detect``.

Eager PyTorch on every slice of the whole volume in batches of four; components, sizes and centres of mass over the
whole volume; crops in voxels, four at a time. The same networks as Carina's, and the same definition of a region
(26 neighbours, no erosion, centre weighted by probability), so that both must come to the same answers.
"""

from pathlib import Path

import numpy as np
import SimpleITK
import torch
from scipy import ndimage
from torch import nn

BATCH = 4


def read(path: Path) -> np.ndarray:
    """HU of the whole volume as float32."""
    return SimpleITK.GetArrayFromImage(SimpleITK.ReadImage(str(path))).astype(np.float32)


def scale(hu: np.ndarray, clip_hu: tuple[float, float]) -> torch.Tensor:
    low, high = clip_hu
    return torch.from_numpy((hu.clip(low, high) - low) * np.float32(2 / (high - low)) - 1)


def segment(hu: np.ndarray, network: nn.Module, channels: int, clip_hu: tuple[float, float]) -> np.ndarray:
    """Probability per voxel of the whole volume."""
    scaled = scale(hu, clip_hu)
    probability = np.zeros_like(hu)
    with torch.no_grad():
        for first in range(0, len(hu), BATCH):
            chosen = range(first, min(first + BATCH, len(hu)))
            slabs = []
            for k in chosen:
                near = [min(max(j, 0), len(hu) - 1) for j in range(k - channels // 2, k + channels // 2 + 1)]
                slabs.append(scaled[near])
            answer = torch.sigmoid(network(torch.stack(slabs)))
            probability[chosen.start : chosen.stop] = answer[:, 0].numpy()
    return probability


def group(probability: np.ndarray, inside: np.ndarray, threshold: float, fewest: float) -> np.ndarray:
    """Centres (n, 3) of the regions of at least ``fewest`` voxels."""
    labels, n = ndimage.label((probability > threshold) & inside, np.ones((3, 3, 3)))
    if n == 0:
        return np.zeros((0, 3))
    index = np.arange(1, n + 1)
    sizes = ndimage.sum(np.ones_like(probability), labels, index)
    centers = np.array(ndimage.center_of_mass(probability, labels, index))
    return centers[sizes >= fewest]


def classify(
    hu: np.ndarray, centers: np.ndarray, network: nn.Module, shape: tuple[int, int, int], clip_hu: tuple[float, float]
) -> np.ndarray:
    """Probability of the positive class for the crop around every centre."""
    answers = []
    with torch.no_grad():
        for first in range(0, len(centers), BATCH):
            crops = [crop(hu, center, shape) for center in centers[first : first + BATCH]]
            logits = network(scale(np.stack(crops), clip_hu)[:, None])
            answers.append(torch.softmax(logits, 1)[:, 1].numpy())
    return np.concatenate(answers) if answers else np.zeros(0)


def crop(hu: np.ndarray, center: np.ndarray, shape: tuple[int, int, int]) -> np.ndarray:
    """Voxels around a centre; where the textbook shifts crops at the border, air is filled in, as Carina does."""
    first = np.rint(center).astype(int) - np.array(shape) // 2
    out = np.full(shape, -1000, np.float32)
    low, high = np.maximum(first, 0), np.minimum(first + shape, hu.shape)
    source = tuple(slice(a, b) for a, b in zip(low, high, strict=True))
    out[tuple(slice(a, b) for a, b in zip(low - first, high - first, strict=True))] = hu[source]
    return out

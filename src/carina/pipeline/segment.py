"""Segmentation: the 2.5-D U-Net over every slice of the lung box.

Must not know candidates or reports.
"""

from collections.abc import Callable

import numpy as np
from jaxtyping import Float32, Int16
from scipy.special import expit

from carina.hu import normalise
from carina.pipeline.runtime import Network

FLIPS: tuple[tuple[int, ...], ...] = ((), (2,), (1,), (0,), (1, 2), (0, 2), (0, 1), (0, 1, 2))
"""Mirrored copies of a scan, best first: averaging over the first n of them is cheap test-time augmentation."""


def segment(
    hu: Int16[np.ndarray, "z y x"],
    network: Network,
    *,
    flips: int = 1,
    batch: int = 4,
    progress: Callable[[float], None] = lambda _: None,
) -> Float32[np.ndarray, "z y x"]:
    """Probability that a voxel belongs to a nodule.

    Args:
        hu: a scan on the network's grid.
        network: takes ``in_channels`` neighbouring slices, gives the logits of the middle one.
        flips: over how many mirrored copies the probability is averaged, 1 to 8.
        batch: slices per call.
        progress: told the fraction done, in [0, 1].
    """
    probability = np.zeros(hu.shape, np.float32)
    for number, axes in enumerate(FLIPS[:flips]):
        part = _one_pass(np.flip(hu, axes), network, batch, lambda d, n=number: progress((n + d) / flips))
        probability += np.flip(part, axes)
    probability /= flips
    return probability


def _one_pass(
    hu: Int16[np.ndarray, "z y x"], network: Network, batch: int, progress: Callable[[float], None]
) -> Float32[np.ndarray, "z y x"]:
    depth, height, width = hu.shape
    context = int(network.card.spec["in_channels"]) // 2
    multiple = 2 ** (int(network.card.spec["depth"]) - 1)
    pad_y, pad_x = -height % multiple, -width % multiple
    probability = np.empty(hu.shape, np.float32)
    for first in range(0, depth, batch):
        slices = range(first, min(depth, first + batch))
        # The first and last slice are repeated beyond the ends, as in training.
        needed = np.clip(np.arange(slices.start - context, slices.stop + context), 0, depth - 1)
        scaled = normalise(hu[needed].astype(np.float32), network.card.preprocessing.clip_hu)
        scaled = np.pad(scaled, ((0, 0), (0, pad_y), (0, pad_x)), mode="edge")
        logits = network(_slabs(scaled, len(slices), 2 * context + 1))
        probability[slices.start : slices.stop] = expit(logits[:, 0, :height, :width])
        progress(slices.stop / depth)
    return probability


def _slabs(
    scaled: Float32[np.ndarray, "z y x"], count: int, channels: int
) -> Float32[np.ndarray, "count channels y x"]:
    return np.stack([scaled[k : k + channels] for k in range(count)])

"""Segmentation with the 3-D U-Net: overlapping blocks of one size, each answering for its inner part.

Must not know candidates or reports.
"""

from collections.abc import Callable
from itertools import product

import numpy as np
from jaxtyping import Bool, Float32, Int16
from scipy.special import expit

from carina.hu import normalise
from carina.models.unet3d import TILE_MARGIN, TILE_ZYX
from carina.pipeline.runtime import Network


def segment_blocks(
    hu: Int16[np.ndarray, "z y x"],
    wanted: Bool[np.ndarray, "z y x"],
    network: Network,
    progress: Callable[[float], None] = lambda _: None,
) -> Float32[np.ndarray, "z y x"]:
    """Probability that a voxel belongs to a nodule.

    Args:
        hu: a scan on the network's grid.
        wanted: blocks without any of these voxels are left out; the answer there is 0.
        network: takes blocks (1, 1, z, y, x), gives their logits.
        progress: told the fraction done, in [0, 1].
    """
    inner = [side - 2 * TILE_MARGIN for side in TILE_ZYX]
    probability = np.zeros(hu.shape, np.float32)
    starts = list(product(*(range(0, size, step) for size, step in zip(hu.shape, inner, strict=True))))
    for done, start in enumerate(starts, 1):
        part = tuple(slice(a, a + step) for a, step in zip(start, inner, strict=True))
        if wanted[part].any():
            # The outermost voxels are repeated beyond the edges.
            near = [
                np.arange(a - TILE_MARGIN, a - TILE_MARGIN + side).clip(0, size - 1)
                for a, side, size in zip(start, TILE_ZYX, hu.shape, strict=True)
            ]
            block = normalise(hu[np.ix_(*near)].astype(np.float32), network.card.preprocessing.clip_hu)
            out = probability[part]
            answered = tuple(slice(TILE_MARGIN, TILE_MARGIN + n) for n in out.shape)
            expit(network(block[None, None])[0, 0][answered], out=out)
        progress(done / len(starts))
    return probability

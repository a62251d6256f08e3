"""Findings painted into the geometry of the input, so that the mask lies on the images a person looks at."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float32, UInt8
from scipy import ndimage

from carina.findings import Candidate
from carina.geometry import Geometry, corners


def paint(
    candidates: Sequence[Candidate],
    regions: Sequence[Bool[np.ndarray, "_z _y _x"]],
    probability: Float32[np.ndarray, "z y x"],
    grid: Geometry,
    target: Geometry,
) -> UInt8[np.ndarray, "Z Y X"]:
    """A mask on ``target`` whose value is the position of the candidate in ``candidates``, from 1.

    The probability around each region is interpolated at the target's voxels and cut at the candidate's threshold:
    only the box of the region is touched.

    Args:
        candidates: at most 255, the most important first (it wins where two overlap).
        regions: the voxels of each candidate's box that belong to it, as ``group`` found them on ``grid``.
        probability: what was segmented, on ``grid``.
        grid: the analysis grid.
        target: the grid to paint on.
    """
    mask = np.zeros(target.shape_zyx, np.uint8)
    to_grid = np.linalg.inv(grid.affine) @ target.affine
    for value, (candidate, region) in reversed(list(enumerate(zip(candidates, regions, strict=True), start=1))):
        first, past = np.asarray(candidate.box_zyx)
        start, stop = np.maximum(first - 2, 0), np.minimum(past + 2, grid.shape_zyx)
        box = tuple(slice(a, b) for a, b in zip(start, stop, strict=True))
        near = ndimage.binary_dilation(np.pad(region, np.stack([first - start, stop - past], 1)))
        index = target.to_zyx(grid.to_lps(start + corners(near.shape)))
        low = np.clip(np.floor(index.min(axis=0)).astype(int), 0, target.shape_zyx)
        high = np.clip(np.ceil(index.max(axis=0)).astype(int) + 1, 0, target.shape_zyx)
        if np.any(high <= low):
            continue
        values = ndimage.affine_transform(
            np.where(near, probability[box], np.float32(0)),
            to_grid[:3, :3],
            to_grid[:3, :3] @ low + to_grid[:3, 3] - start,
            output_shape=tuple(high - low),
            order=1,
        )
        part = mask[tuple(slice(a, b) for a, b in zip(low, high, strict=True))]
        part[values > candidate.threshold] = value
    return mask

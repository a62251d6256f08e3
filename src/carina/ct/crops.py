"""Boxes of one size around many centres, cut in one call; what lies outside the array is filled.

Works on memory maps without reading more than the boxes. Must not know what the array holds.
"""

import numpy as np
from jaxtyping import Integer, Shaped

from carina.geometry import Shape3


def cut_crops(
    array: Shaped[np.ndarray, "z y x"],
    centers_zyx: Integer[np.ndarray, "n 3"],
    shape_zyx: Shape3,
    fill: float,
) -> Shaped[np.ndarray, "n d h w"]:
    """Cut one box per centre; no box is shifted to stay inside the array.

    Args:
        array: a volume, also a memory map.
        centers_zyx: whole index of each centre, also outside the array.
        shape_zyx: size of every box; voxel ``shape // 2`` of a box is its centre.
        fill: value of voxels outside the array.

    Returns:
        The boxes in the order of the centres, in the array's dtype.
    """
    crops = np.full((len(centers_zyx), *shape_zyx), fill, array.dtype)
    size = np.asarray(shape_zyx)
    first = centers_zyx.astype(np.int64) - size // 2
    start = np.minimum(np.maximum(first, 0), array.shape)
    stop = np.maximum(np.minimum(first + size, array.shape), start)
    for crop, origin, low, high in zip(crops, first, start, stop, strict=True):
        inside = tuple(slice(a, b) for a, b in zip(low - origin, high - origin, strict=True))
        crop[inside] = array[tuple(slice(a, b) for a, b in zip(low, high, strict=True))]
    return crops

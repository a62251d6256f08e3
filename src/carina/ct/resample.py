"""Resampling to grids whose axes are the patient's own, exact under any rotation of the input.

Interpolation is trilinear. A voxel reaches half a spacing beyond its centre: inside that the outermost value holds,
beyond it ``fill``. Grids that are turned by quarters or flipped against each other go through a separable path, all
others through ``scipy.ndimage``. Both work plane by plane, so that only the result is ever held as a whole.

Must not know files, lungs or networks.
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float32, Int16, Shaped
from numpy.typing import ArrayLike
from scipy import ndimage

from carina import hu
from carina.geometry import Geometry, Vector3
from carina.volume import Volume

_STRAIGHT_VOXELS = 1e-3
"""Grids count as parallel when ignoring their tilt moves no sample by more than this many source voxels."""


def grid_between(low_lps: ArrayLike, high_lps: ArrayLike, end_lps: ArrayLike, spacing_zyx_mm: Vector3) -> Geometry:
    """The patient-aligned grid that begins at ``low_lps`` and reaches ``high_lps`` or just beyond it.

    Args:
        low_lps: centre of the first voxel, mm.
        high_lps: the position to be reached, mm; no coordinate smaller than in ``low_lps``.
        end_lps: where the image ends, mm. A plane that would lie beyond is left out: it would hold nothing but fill,
            and tissue that is cut off by air looks like a nodule.
        spacing_zyx_mm: distance of voxel centres from feet to head, front to back, right to left.
    """
    low, high, end = (np.asarray(position, float) for position in (low_lps, high_lps, end_lps))
    wanted = np.ceil((high - low)[::-1] / spacing_zyx_mm - 1e-3)
    filled = np.floor((end - low)[::-1] / spacing_zyx_mm + 1e-7)
    steps = np.minimum(wanted, filled).astype(int)
    z, y, x = (int(n) + 1 for n in np.maximum(steps, 0))
    return Geometry.from_axes((z, y, x), spacing_zyx_mm=spacing_zyx_mm, origin_lps=low)


def analysis_grid(geometry: Geometry, spacing_zyx_mm: Vector3) -> Geometry:
    """The patient-aligned grid over ``geometry``, from its lowest voxel centre as far as its voxels reach.

    Its axes run from feet to head, from front to back and from the patient's right to the left, whatever the
    orientation of the input.
    """
    low, high = geometry.bounds_lps()
    half_voxel = np.abs(geometry.affine[:3, :3]).sum(axis=1) / 2
    return grid_between(low, high, high + half_voxel, spacing_zyx_mm)


def resample(volume: Volume, target: Geometry, fill: int = hu.AIR) -> Int16[np.ndarray, "z y x"]:
    """HU at the voxel centres of ``target``, rounded; ``fill`` outside the volume."""
    out = np.empty(target.shape_zyx, np.int16)
    for z, plane in enumerate(sample_planes(volume.hu, volume.geometry, target, fill)):
        np.rint(plane, out=out[z], casting="unsafe")
    return out


def resample_mask(mask: Bool[np.ndarray, "z y x"], source: Geometry, target: Geometry) -> Bool[np.ndarray, "z1 y1 x1"]:
    """The mask on another grid: true where its linear interpolation exceeds one half, false outside."""
    out = np.empty(target.shape_zyx, bool)
    for z, plane in enumerate(sample_planes(mask.view(np.uint8), source, target, 0)):
        np.greater(plane, 0.5, out=out[z])
    return out


def sample_planes(
    array: Shaped[np.ndarray, "z y x"], source: Geometry, target: Geometry, fill: float
) -> Iterator[Float32[np.ndarray, "y1 x1"]]:
    """Interpolate ``array`` at ``target`` and hand out one plane after the other along the target's first axis.

    Args:
        array: values at the voxel centres of ``source``; any real type, never copied as a whole.
        source: where the values lie.
        target: where they are wanted.
        fill: the value outside ``source``.
    """
    step = np.linalg.inv(source.affine) @ target.affine
    along = np.abs(step[:3, :3]).argmax(axis=0)
    tilt = np.abs(step[:3, :3])
    tilt[along, [0, 1, 2]] = 0.0
    if sorted(along) == [0, 1, 2] and (tilt @ target.shape_zyx).max() < _STRAIGHT_VOXELS:
        return _separable(array, step, along.tolist(), target, fill)
    return _oblique(array, step, target, fill)


class _Taps(NamedTuple):
    """Along one axis: the target voxels inside the source, their two source voxels, the weight of the second."""

    inside: slice
    low: np.ndarray
    high: np.ndarray
    weight: np.ndarray


def _taps(n_source: int, n_target: int, start: float, step: float) -> _Taps:
    position = start + step * np.arange(n_target)
    hit = np.flatnonzero((position >= -0.5 - 1e-6) & (position <= n_source - 0.5 + 1e-6))
    inside = slice(int(hit[0]), int(hit[-1]) + 1) if hit.size else slice(0, 0)
    position = position[inside].clip(0, n_source - 1)
    low = np.minimum(position.astype(int), max(n_source - 2, 0))
    high = np.minimum(low + 1, n_source - 1)
    return _Taps(inside, low, high, (position - low).astype(np.float32))


def _mix(first: np.ndarray, second: np.ndarray, weight: np.ndarray | np.float32) -> np.ndarray:
    mixed: np.ndarray = np.subtract(second, first, dtype=np.float32)
    mixed *= weight
    mixed += first
    return mixed


def _separable(
    array: np.ndarray, step: np.ndarray, along: list[int], target: Geometry, fill: float
) -> Iterator[np.ndarray]:
    """One axis after the other; touches only the part of the source that the target covers."""
    turned = array.transpose(along)
    z, y, x = (_taps(turned.shape[k], target.shape_zyx[k], step[along[k], 3], step[along[k], k]) for k in range(3))
    hits = all(taps.low.size for taps in (z, y, x))
    if hits:
        top, left = y.low.min(), x.low.min()
        turned = turned[:, top : y.high.max() + 1, left : x.high.max() + 1]
        y, x = y._replace(low=y.low - top, high=y.high - top), x._replace(low=x.low - left, high=x.high - left)
    for k in range(target.shape_zyx[0]):
        plane = np.full(target.shape_zyx[1:], fill, np.float32)
        if hits and z.inside.start <= k < z.inside.stop:
            j = k - z.inside.start
            slab = _mix(turned[z.low[j]], turned[z.high[j]], z.weight[j])
            slab = _mix(slab[y.low], slab[y.high], y.weight[:, None])
            slab = _mix(slab.take(x.low, axis=1), slab.take(x.high, axis=1), x.weight)
            plane[y.inside, x.inside] = slab
        yield plane


def _oblique(array: np.ndarray, step: np.ndarray, target: Geometry, fill: float) -> Iterator[np.ndarray]:
    """Any rotation: eight neighbours of every sample."""
    rows, columns = np.arange(target.shape_zyx[1])[:, None], np.arange(target.shape_zyx[2])
    for k in range(target.shape_zyx[0]):
        start = step[:3, :3] @ (k, 0, 0) + step[:3, 3]
        inside = np.ones(target.shape_zyx[1:], bool)
        for axis, n in enumerate(array.shape):
            position = (start[axis] + step[axis, 1] * rows) + step[axis, 2] * columns
            inside &= (position >= -0.5 - 1e-6) & (position <= n - 0.5 + 1e-6)
        plane = np.full(target.shape_zyx[1:], fill, np.float32)
        if inside.any():
            shape = (1, *plane.shape)
            sampled = ndimage.affine_transform(
                array, step[:3, :3], start, shape, output=np.dtype(np.float32), order=1, mode="nearest"
            )
            np.copyto(plane, sampled[0], where=inside)
        yield plane

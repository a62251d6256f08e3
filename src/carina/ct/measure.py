"""How large an outlined nodule is, as radiology measures it: axes on an axial slice, volume, solid part.

The outline says which voxels are meant, the HU near its edge say how much of each belongs to the nodule. Both come
together in one map, the share of every voxel, from which everything is measured; ``docs/reference/measurements.md``
says how far that can be trusted. Must not know who drew the outline, files or networks.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float32, Float64, Integer
from scipy import ndimage
from scipy.spatial import ConvexHull, QhullError

from carina import hu
from carina.errors import InputError
from carina.geometry import Vector3
from carina.volume import Volume

EDGE_MM = 1.5
"""How far the scanner's blur reaches to each side of an outline; at least one voxel."""

LEAST_CONTRAST_HU = 100.0
"""Below this difference between a nodule and its surroundings, HU do not tell where its edge is."""

SOLID_HU = -300
"""Tissue denser than this counts as solid."""

_FINE_MM = 0.2
"""Points of the outline on a slice are sought on a grid this fine."""

Segment = tuple[Vector3, Vector3]


@dataclass(frozen=True)
class Measures:
    """The size of one nodule.

    Attributes:
        long_axis_mm: greatest diameter on the axial slice on which the nodule is largest.
        short_axis_mm: greatest diameter perpendicular to it on the same slice.
        long_axis_lps: its two ends, mm in the patient.
        short_axis_lps: likewise.
        volume_mm3: volume with voxels at the edge counted by their share.
        solid_volume_mm3: the part of it that is denser than ``SOLID_HU``.
    """

    long_axis_mm: float
    short_axis_mm: float
    long_axis_lps: Segment
    short_axis_lps: Segment
    volume_mm3: float
    solid_volume_mm3: float

    @property
    def mean_axis_mm(self) -> float:
        """Mean of both axes: the diameter that follow-up guidelines ask for."""
        return (self.long_axis_mm + self.short_axis_mm) / 2


def measure(volume: Volume, labels: Integer[np.ndarray, "z y x"]) -> dict[int, Measures]:
    """Measure every region of a label map.

    Args:
        volume: the CT.
        labels: on its grid; 0 is background, each other value a nodule.

    Returns:
        By label; labels without a voxel are left out.

    Raises:
        InputError: the map does not fit the volume.
    """
    if labels.shape != volume.hu.shape:
        raise InputError(f"labels of shape {labels.shape} for a volume of shape {volume.hu.shape}")
    boxes = enumerate(ndimage.find_objects(labels), start=1)
    return {label: _measure(volume, labels, label, box) for label, box in boxes if box is not None}


def _measure(volume: Volume, labels: Integer[np.ndarray, "z y x"], label: int, tight: tuple[slice, ...]) -> Measures:
    spacing = np.asarray(volume.geometry.spacing_zyx_mm)
    reach = np.maximum(np.ceil(EDGE_MM / spacing), 1).astype(int)
    start = [max(side.start - 2 * int(n) - 1, 0) for side, n in zip(tight, reach, strict=True)]
    box = tuple(slice(a, side.stop + 2 * int(n) + 1) for a, side, n in zip(start, tight, reach, strict=True))
    values = volume.hu[box].astype(np.float32)
    inside = labels[box] == label
    others = (labels[box] != 0) & ~inside
    share = shares(values, inside, others, reach)

    axial = int(np.abs(volume.geometry.axes[2]).argmax())
    area = share.sum(axis=tuple(k for k in range(3) if k != axial))
    level = int(area.argmax())
    across = [k for k in range(3) if k != axial]
    ends = _axes(share.take(level, axis=axial), spacing[across])
    index = np.insert(ends / spacing[across], axial, level, axis=-1) + start
    (a, b), (c, d) = volume.geometry.to_lps(index)
    calm = ndimage.median_filter(values, size=tuple(1 if k == axial else 3 for k in range(3)))
    solid = np.zeros_like(share)
    if (core := inside & (calm > SOLID_HU)).any():
        solid = np.minimum(share, shares(values, core, others, reach))
    voxel_mm3 = volume.geometry.voxel_volume_mm3
    return Measures(
        long_axis_mm=float(np.linalg.norm(ends[0, 1] - ends[0, 0])),
        short_axis_mm=float(np.linalg.norm(ends[1, 1] - ends[1, 0])),
        long_axis_lps=(_triple(a), _triple(b)),
        short_axis_lps=(_triple(c), _triple(d)),
        volume_mm3=float(share.sum()) * voxel_mm3,
        solid_volume_mm3=float(solid.sum()) * voxel_mm3,
    )


def shares(
    values: Float32[np.ndarray, "z y x"],
    inside: Bool[np.ndarray, "z y x"],
    others: Bool[np.ndarray, "z y x"],
    reach: Integer[np.ndarray, "3"],
) -> Float32[np.ndarray, "z y x"]:
    """How much of each voxel the nodule fills, from 0 to 1.

    Near the outline (within ``reach`` voxels of it on both sides) the share is where a voxel's HU lies between the
    level around the nodule and the level within it; further in it is 1 and further out 0. Dense voxels outside that
    hang together with dense tissue further away, such as a vessel or the wall, stay with that tissue. Where the
    nodule hardly differs from its surroundings the outline itself is the answer.

    After J.-M. Kuhnigk and others, IEEE Transactions on Medical Imaging 25 (2006), pages 417 to 434.

    Args:
        values: HU around the nodule.
        inside: the outline; at least one voxel.
        others: voxels of other nodules, which never count.
        reach: width of the band in voxels along each axis.
    """
    sampling = 1 / reach
    outward = ndimage.distance_transform_edt(~inside, sampling=sampling)
    inward = ndimage.distance_transform_edt(inside, sampling=sampling)
    around = (outward > 1) & (outward <= 2) & ~others
    core = values[inward > 1]
    # A small nodule is blurred to its very middle; only its brightest voxels come near its own level.
    within = float(np.median(core)) if core.size >= 8 else float(np.percentile(values[inside], 90))
    air = values[around & (values < (within + hu.AIR) / 2)]
    if air.size < 8 or within - np.median(air) < LEAST_CONTRAST_HU:
        return inside.astype(np.float32)
    beyond = float(np.median(air))
    share = np.clip((values - beyond) / (within - beyond), 0, 1)
    dense = (share > 0.5) & ~inside
    foreign = others | ndimage.binary_propagation((dense & around) | others, mask=dense | others)
    share[inward > 1] = 1
    share[(outward > 1) | foreign] = 0
    parts, _ = ndimage.label(share > 0)
    share[~np.isin(parts, np.unique(parts[inside]))] = 0
    return np.asarray(share, np.float32)


def _axes(
    share: Float32[np.ndarray, "rows columns"], spacing_mm: Float64[np.ndarray, "2"]
) -> Float64[np.ndarray, "2 2 2"]:
    """Both ends of the longest diameter and of the longest one perpendicular to it, in mm from the first pixel.

    The outline is where the interpolated share crosses one half.
    """
    fine = np.maximum(np.ceil(spacing_mm / _FINE_MM), 1)
    padded = np.pad(share, 1)
    lines = [np.arange((n - 1) * int(k) + 1) / k for n, k in zip(padded.shape, fine, strict=True)]
    smooth = ndimage.map_coordinates(padded, np.meshgrid(*lines, indexing="ij"), order=1)
    region = smooth >= min(0.5, 0.5 * float(smooth.max()))
    edge = region & ~ndimage.binary_erosion(region)
    points = (np.argwhere(edge) / fine - 1) * spacing_mm
    outer = points
    if len(points) > 3:
        try:
            outer = points[ConvexHull(points).vertices]
        except QhullError:  # all on one line
            outer = points
    apart = np.linalg.norm(outer[:, None] - outer[None], axis=-1)
    i, j = np.unravel_index(int(apart.argmax()), apart.shape)
    first, second = outer[i], outer[j]
    length = float(np.linalg.norm(second - first))
    along = (second - first) / length if length > 0 else np.array([0.0, 1.0])
    perpendicular = np.array([-along[1], along[0]])
    u, v = (points - first) @ along, (points - first) @ perpendicular
    # The edge is a chain of grid points, so every strip as wide as the grid's diagonal meets it on both sides.
    step = float(np.linalg.norm(spacing_mm / fine))
    strip = np.floor((u - u.min()) / step).astype(int)
    high = ndimage.maximum(v, strip, np.arange(strip.max() + 1))
    low = ndimage.minimum(v, strip, np.arange(strip.max() + 1))
    k = int(np.argmax(high - low))
    middle = first + (k + 0.5) * step * along + u.min() * along
    # Half a grid step lies between the outermost points and the true outline, at either end.
    margin = step / 4
    return np.array(
        [
            [first - margin * along, second + margin * along],
            [middle + (low[k] - margin) * perpendicular, middle + (high[k] + margin) * perpendicular],
        ]
    )


def _triple(position: Float64[np.ndarray, "3"]) -> Vector3:
    x, y, z = position
    return float(x), float(y), float(z)

"""The lungs of a CT by plain image processing, without a network, or the reason why there are none.

All work is done on a patient-aligned grid of 2 mm, so that every orientation and slice thickness looks alike: the
body's outline, air inside it, the components of air that look like lung and not like gas, without the trachea, then a
closing that takes in what touches the pleura or the hilum.

Must not know files, networks or torch.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float32, UInt16
from scipy import ndimage

from carina.ct.resample import analysis_grid, grid_between, resample, resample_mask, sample_planes
from carina.errors import NoLungsError
from carina.geometry import Geometry, Vector3
from carina.volume import Volume

GRID_MM = 2.0
_LITRES = GRID_MM**3 / 1e6

_TISSUE_HU, _AIR_HU, _GAS_HU = -350.0, -400.0, -960.0
_GAS_SHARE = 0.75
_CLOSING_MM = 15.0
_LUMEN_HU = -920.0
_WIDEST_AIRWAY_CM2, _SHORTEST_AIRWAY_MM, _AIRWAYS_FROM_MIDLINE_MM = 8.0, 30.0, 40.0
_SMALLEST_PART_LITRES = 0.15
_SMALLEST_PART_OF_LARGEST = 0.1
_LOWEST_LITRES, _HIGHEST_LITRES = 1.0, 12.0
_LOWEST_HEIGHT_MM, _LOWEST_CUT_HEIGHT_MM = 100.0, 150.0
_LARGEST_VIEW_MM = 2500.0
_IN_PLANE = np.array([[[0, 0, 0]] * 3, [[0, 1, 0], [1, 1, 1], [0, 1, 0]], [[0, 0, 0]] * 3], bool)

Mask = Bool[np.ndarray, "z y x"]
Field = Float32[np.ndarray, "z y x"]


@dataclass(frozen=True, eq=False)
class LungMask:
    """Both lungs with what touches them.

    Attributes:
        mask: true inside the lungs.
        geometry: the patient-aligned grid of 2 mm that ``mask`` lies on; it covers the scan but for a rim below 2 mm.
        litres: volume of the mask.
    """

    mask: Mask
    geometry: Geometry
    litres: float

    def on(self, target: Geometry, dilate_mm: float = 0.0) -> Bool[np.ndarray, "z1 y1 x1"]:
        """The mask on another grid, grown by ``dilate_mm`` on all sides."""
        reach = int(np.ceil(dilate_mm / GRID_MM)) + 2
        part, geometry = self._cut(reach)
        if dilate_mm <= 0:
            return resample_mask(part, geometry, target)
        distance_mm = GRID_MM * np.sqrt(_squared_distance(part, reach).astype(np.float32))
        out = np.empty(target.shape_zyx, bool)
        limit = dilate_mm + GRID_MM / 2  # voxels reach half a spacing beyond their centres
        for z, plane in enumerate(sample_planes(distance_mm, geometry, target, np.inf)):
            np.less_equal(plane, limit, out=out[z])
        return out

    def box(self, spacing_zyx_mm: Vector3, margin_mm: float) -> Geometry:
        """The patient-aligned grid around the lungs with a margin on all sides, as far as the scan reaches."""
        _, inner = self._cut(0)
        low, high = inner.bounds_lps()
        scan_low, scan_high = self.geometry.bounds_lps()
        wanted = np.maximum(low - margin_mm, scan_low), np.minimum(high + margin_mm, scan_high)
        return grid_between(*wanted, scan_high, spacing_zyx_mm)

    def _cut(self, margin: int) -> tuple[Mask, Geometry]:
        """The box of the mask with a margin of whole voxels, empty beyond the grid."""
        box = _bounding_box(self.mask)
        part = np.pad(self.mask[box], margin)
        start = np.array([side.start for side in box]) - margin
        return part, self.geometry.crop(start, part.shape)


def find_lungs(volume: Volume) -> LungMask:
    """Find both lungs, with nodules, tumours and consolidation that touch their surface.

    Args:
        volume: a chest CT in any orientation.

    Raises:
        NoLungsError: nothing in the scan looks like lungs, or only a part of them is in view.
    """
    grid = analysis_grid(volume.geometry, (GRID_MM, GRID_MM, GRID_MM))
    if max(grid.shape_zyx) * GRID_MM > _LARGEST_VIEW_MM:
        spacing = ", ".join(f"{mm:.4g}" for mm in volume.geometry.spacing_zyx_mm)
        raise NoLungsError(
            f"no lungs found: with voxels of {spacing} mm (z, y, x) the scan is {max(grid.shape_zyx) * GRID_MM:.0f} mm "
            f"long, expected at most {_LARGEST_VIEW_MM:.0f} mm; check the spacing in the file"
        )
    hu = resample(volume, grid).clip(-1024, 400).astype(np.float32)
    ndimage.gaussian_filter(hu, 0.75, output=hu, truncate=2.7)
    air = _open((hu < _AIR_HU) & _body(hu > _TISSUE_HU))
    lungs = _lung_like(air, hu)
    lungs = _lung_like(lungs & ~_airways(lungs, hu), hu)
    lungs = _close_each_side(lungs)
    _require_plausible(lungs)
    return LungMask(lungs, grid, float(np.count_nonzero(lungs)) * _LITRES)


def _body(tissue: Mask) -> Mask:
    """In every axial slice the largest piece of tissue with all that it encloses."""
    labels, n = ndimage.label(_open(tissue), _IN_PLANE)
    if n == 0:
        raise NoLungsError(
            f"no lungs found: nothing denser than {_TISSUE_HU:.0f} HU in view, not even a body; "
            "check that the file holds HU"
        )
    sizes = np.bincount(labels.ravel())
    sizes[0] = 0
    size = sizes[labels]
    body = (size > 0) & (size == size.max(axis=(1, 2), keepdims=True))
    return _fill_in_plane(np.pad(body, ((0, 0), (1, 1), (1, 1))) | _cut_outline(body))[:, 1:-1, 1:-1]


def _cut_outline(body: Mask) -> Bool[np.ndarray, "z y+2 x+2"]:
    """The outline where the view cuts the body, as a ring of one voxel around every slice.

    It is set between the outermost body voxels of an edge of which much shows the body (the rest may be lung).
    """
    ring = np.pad(np.zeros_like(body), ((0, 0), (1, 1), (1, 1)))
    front_and_back = [(ring[:, 0, 1:-1], body[:, 0]), (ring[:, -1, 1:-1], body[:, -1])]
    sides = [(ring[:, 1:-1, 0], body[:, :, 0]), (ring[:, 1:-1, -1], body[:, :, -1])]
    for line, edge in front_and_back + sides:
        between = np.logical_or.accumulate(edge, 1) & np.logical_or.accumulate(edge[:, ::-1], 1)[:, ::-1]
        touched, length = edge.sum(1), between.sum(1)
        cut = (touched > 0.1 * edge.shape[1]) & (touched >= 0.25 * length)
        line[:] = between & cut[:, None]
    return ring


def _fill_in_plane(mask: Mask) -> Mask:
    """Fill what no path within its axial slice connects with the slice's border."""
    labels, n = ndimage.label(~mask, _IN_PLANE)
    open_ends = np.zeros(n + 1, bool)
    for side in (labels[:, 0], labels[:, -1], labels[:, :, 0], labels[:, :, -1]):
        open_ends[side] = True
    open_ends[0] = False
    return ~open_ends[labels]


def _lung_like(air: Mask, hu: Field) -> Mask:
    """The large components of air in the body that hold parenchyma.

    Well inside its wall gas is nearly all below -960 HU; lung is not, even with severe emphysema.
    """
    labels, n = ndimage.label(air)
    core = _squared_distance(~air, 2) > 4
    inner, gas = labels[core], hu[core] < _GAS_HU
    litres = np.bincount(labels.ravel(), minlength=n + 1) * _LITRES
    litres[0] = 0.0
    gas_share = np.bincount(inner, gas, minlength=n + 1) / np.maximum(np.bincount(inner, minlength=n + 1), 1)
    large = litres > _SMALLEST_PART_LITRES
    lung = large & (gas_share <= _GAS_SHARE)
    if not lung.any():
        pieces = zip(litres[large], gas_share[large], strict=True)
        seen = ", ".join(f"{volume:.2f} l ({100 * share:.0f} % gas)" for volume, share in pieces)
        raise NoLungsError(
            f"no lungs found: the air inside the body is gas, not lung: {seen}"
            if seen
            else f"no lungs found: the largest of {n} pieces of air inside the body holds {litres.max():.2f} l, "
            f"a lung at least {_SMALLEST_PART_LITRES} l"
        )
    lung &= litres > _SMALLEST_PART_OF_LARGEST * litres[lung].max()
    kept: Mask = lung[labels]
    return kept


def _airways(lungs: Mask, hu: Field) -> Mask:
    """Trachea and main bronchi as far as they lie apart from the lungs in axial slices.

    They are small, darker than lung, near the midline, and follow each other over several centimetres.
    """
    labels, _ = ndimage.label(lungs, _IN_PLANE)
    voxels = np.bincount(labels.ravel())
    lumen = np.bincount(labels.ravel(), hu.ravel() < _LUMEN_HU)
    pieces = (voxels * (GRID_MM / 10) ** 2 < _WIDEST_AIRWAY_CM2) & (lumen > 0.05 * voxels)
    pieces[0] = False
    tubes = pieces[labels]
    middle, reach = _midline(lungs), int(_AIRWAYS_FROM_MIDLINE_MM / GRID_MM)
    tubes[:, :, : max(middle - reach, 0)] = tubes[:, :, middle + reach :] = False
    chains, _ = ndimage.label(tubes, np.ones((3, 3, 3)))
    heights = [(box[0].stop - box[0].start) * GRID_MM for box in ndimage.find_objects(chains)]
    return np.array([False, *(height >= _SHORTEST_AIRWAY_MM for height in heights)])[chains]


def _midline(lungs: Mask) -> int:
    """The column between the lungs: where the middle third of their width holds least of them."""
    columns = np.flatnonzero(lungs.any(axis=(0, 1)))
    third = len(columns) // 3
    first, last = int(columns[0]) + third, int(columns[-1]) + 1 - third
    profile = ndimage.uniform_filter1d(np.count_nonzero(lungs, axis=(0, 1)).astype(float), 5)
    return first + int(np.argmin(profile[first:last]))


def _close_each_side(lungs: Mask) -> Mask:
    """Close with a ball of 15 mm and fill holes, each side apart so that the mediastinum is not bridged."""
    reach = int(_CLOSING_MM / GRID_MM)
    middle = _midline(lungs)
    closed = np.zeros_like(lungs)
    for side in (slice(None, middle), slice(middle, None)):
        half = lungs[:, :, side]
        if half.any():
            box = _bounding_box(half)
            part = np.pad(half[box], reach + 1)
            grown = _squared_distance(part, reach) <= reach**2
            part = _fill_in_plane(_squared_distance(~grown, reach) > reach**2)
            inner = slice(reach + 1, -reach - 1)
            closed[:, :, side][box] |= part[inner, inner, inner]
    return closed


def _require_plausible(lungs: Mask) -> None:
    """Refuse what is too small or too low for the lungs of one person, or only their lower or upper part."""
    area = np.count_nonzero(lungs, axis=(1, 2))
    litres, height_mm = area.sum() * _LITRES, len(np.trim_zeros(area)) * GRID_MM
    ends = (("feet", area[:3].max()), ("head", area[-3:].max()))
    cut = " and ".join(end for end, cut_area in ends if cut_area > 0.5 * area.max())
    lowest_mm = _LOWEST_CUT_HEIGHT_MM if cut else _LOWEST_HEIGHT_MM
    if _LOWEST_LITRES <= litres <= _HIGHEST_LITRES and height_mm >= lowest_mm:
        return
    raise NoLungsError(
        f"no lungs found: what looks like lung fills {litres:.2f} l over a height of {height_mm:.0f} mm"
        + (f" and runs out of the view towards the {cut}" if cut else "")
        + f"; expected {_LOWEST_LITRES:.0f} to {_HIGHEST_LITRES:.0f} l over at least {lowest_mm:.0f} mm. "
        "Give a CT of the whole chest"
    )


def _open(mask: Mask) -> Mask:
    """Remove what is thinner than three voxels."""
    kept = _squared_distance(~mask, 1) > 1
    return _squared_distance(kept, 1) <= 1


def _bounding_box(mask: Mask) -> tuple[slice, slice, slice]:
    z, y, x = (np.flatnonzero(mask.any(axis=axes)) for axes in ((1, 2), (0, 2), (0, 1)))
    return slice(z[0], z[-1] + 1), slice(y[0], y[-1] + 1), slice(x[0], x[-1] + 1)


def _squared_distance(mask: Mask, reach: int) -> UInt16[np.ndarray, "z y x"]:
    """Squared distance to the mask in voxels, exact up to ``reach``, larger than ``reach**2`` farther away.

    One axis after the other, as far as asked: many times faster than a distance transform of the whole image.
    """
    far = np.uint16(3 * reach**2 + 1)
    squared = np.where(mask, np.uint16(0), far)
    for axis in range(3):
        previous = squared.copy()
        for k in range(1, min(reach, mask.shape[axis] - 1) + 1):
            ahead = tuple(slice(k, None) if a == axis else slice(None) for a in range(3))
            behind = tuple(slice(None, -k) if a == axis else slice(None) for a in range(3))
            step = np.uint16(k * k)
            np.minimum(squared[behind], previous[ahead] + step, out=squared[behind])
            np.minimum(squared[ahead], previous[behind] + step, out=squared[ahead])
    return squared

"""What is true in a scan, drawn on the analysis grid: label map, nodules and hard negatives.

The mask comes from the best source at hand: a label map beside the scan, LIDC's reader outlines, or, where only
centre and diameter are known (LUNA16), tissue grown from the centre inside the annotated sphere.

Must not know folders, the store or networks.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import get_args

import numpy as np
from jaxtyping import Bool, Float32, Int16, UInt8
from scipy import ndimage

from carina.ct.preprocess import PreparedScan
from carina.ct.resample import sample_planes
from carina.data.cases import Case
from carina.data.lidc import find_nodules, read_scan
from carina.data.store import Nodule, NoduleType
from carina.errors import InputError
from carina.geometry import Geometry, Vector3
from carina.io.image import read_image
from carina.io.luna import IGNORE, MOST_NODULES, Annotation, nodule_at

SMALLEST_SHARE = 0.25
"""A grown mask is believed if it fills so much of the annotated sphere; else the sphere itself is taken."""


@dataclass
class Truth:
    """What is true in one scan.

    Attributes:
        label: 0 background, k a nodule, 255 ignore; on the grid of the prepared scan.
        nodules: in order of their labels.
        negatives: index of each hard negative.
        warnings: what was left out or put right, in words.
    """

    label: UInt8[np.ndarray, "z y x"]
    nodules: list[Nodule] = field(default_factory=list)
    negatives: Float32[np.ndarray, "n 3"] = field(default_factory=lambda: np.empty((0, 3), np.float32))
    warnings: list[str] = field(default_factory=list)


def draw_truth(case: Case, prepared: PreparedScan, source: Geometry) -> Truth:
    """Draw what is known about a scan.

    Args:
        case: what is known.
        prepared: the scan on the analysis grid.
        source: geometry of the scan as it was read; reader outlines refer to it.

    Raises:
        InputError: tables, mask and scan contradict each other.
    """
    truth = Truth(np.zeros(prepared.geometry.shape_zyx, np.uint8))
    for finding in case.excluded:
        if finding.diameter_mm > 0:
            _ignore_ball(truth, finding.center_lps, finding.diameter_mm, prepared.geometry)
    if case.lidc_sqlite is not None:
        _draw_outlines(truth, case, prepared.geometry, source)
    elif case.mask is not None:
        _draw_mask(truth, case, prepared)
    else:
        if len(case.nodules) > MOST_NODULES:
            raise InputError(f"{len(case.nodules)} nodules in one series, expected {MOST_NODULES} at most")
        for label, row in enumerate(case.nodules, 1):
            _add(truth, case, prepared, row, label, grow=True)
    if case.negatives_lps is not None and len(case.negatives_lps):
        truth.negatives = _negatives(case, truth, prepared.geometry)
    return truth


def grow_nodule(
    hu: Int16[np.ndarray, "z y x"], geometry: Geometry, center_zyx: Vector3, diameter_mm: float
) -> tuple[tuple[slice, ...], Bool[np.ndarray, "d h w"]]:
    """The tissue around a point that stands out from the lung, inside a sphere.

    The threshold lies midway between the core's HU and the lung's around it (a low percentile just outside, so
    that a chest wall on one side does not count), which serves solid and ground-glass nodules alike.

    Args:
        hu: the scan.
        geometry: its grid.
        center_zyx: centre of the nodule.
        diameter_mm: diameter of the sphere.

    Returns:
        The box of the sphere and the mask in it. The whole sphere where less than ``SMALLEST_SHARE`` of it grew.
    """
    box, sphere = _ball(center_zyx, diameter_mm, geometry)
    shell_box, shell = _ball(center_zyx, diameter_mm + 8.0, geometry)
    core_box, core = _ball(center_zyx, min(diameter_mm, max(diameter_mm / 2, 2.0)), geometry)
    inside, outside = np.median(hu[core_box][core]), np.percentile(hu[shell_box][shell], 20)
    tissue = sphere & (hu[box] > (inside + outside) / 2)
    labels, _ = ndimage.label(tissue)
    seeds = np.zeros_like(tissue)
    offset = tuple(slice(c.start - b.start, c.stop - b.start) for c, b in zip(core_box, box, strict=True))
    seeds[offset] = core
    grown = np.isin(labels, np.setdiff1d(labels[seeds], [0]))
    grown = np.asarray(ndimage.binary_fill_holes(grown), bool)
    return box, grown if grown.sum() / sphere.sum() >= SMALLEST_SHARE else sphere


def _ball(
    center_zyx: Vector3, diameter_mm: float, geometry: Geometry
) -> tuple[tuple[slice, ...], Bool[np.ndarray, "d h w"]]:
    """What of a sphere lies on the grid, as a box and a mask in it; at least the voxel at a centre on the grid."""
    spacing, center = np.array(geometry.spacing_zyx_mm), np.array(center_zyx)
    radius = diameter_mm / 2
    low = np.maximum(np.floor(center - radius / spacing), 0).astype(int)
    high = np.maximum(np.minimum(np.ceil(center + radius / spacing) + 1, geometry.shape_zyx).astype(int), low)
    axes = [(np.arange(a, b) - c) * s for a, b, c, s in zip(low, high, center, spacing, strict=True)]
    squared = axes[0][:, None, None] ** 2 + axes[1][:, None] ** 2 + axes[2] ** 2
    mask = squared <= max(radius**2, squared.min(initial=np.inf))
    return tuple(slice(int(a), int(b)) for a, b in zip(low, high, strict=True)), mask


def _draw(label: UInt8[np.ndarray, "z y x"], part: tuple[tuple[slice, ...], np.ndarray], value: int) -> int:
    """Write a value into the masked voxels of a box; returns how many there are."""
    box, mask = part
    label[box][mask] = value
    return int(mask.sum())


def _ignore_ball(truth: Truth, center_lps: Vector3, diameter_mm: float, geometry: Geometry) -> None:
    """What of a sphere lies on the grid is neither nodule nor background, also where its centre lies beyond."""
    z, y, x = geometry.to_zyx(center_lps)
    _draw(truth.label, _ball((float(z), float(y), float(x)), diameter_mm, geometry), IGNORE)


def _inside(center_lps: Vector3, geometry: Geometry) -> Vector3 | None:
    if not geometry.contains(center_lps):
        return None
    z, y, x = geometry.to_zyx(center_lps)
    return float(z), float(y), float(x)


def _moved(
    mask: Bool[np.ndarray, "z y x"], source: Geometry, target: Geometry
) -> tuple[tuple[slice, ...], Bool[np.ndarray, "d h w"]] | None:
    """A mask on the analysis grid: the box it falls into and the mask there; None outside of the grid.

    It is interpolated and as many voxels are taken as keep its volume, the fullest first and of equally full ones
    those nearest to the centre. Cut at one half instead, a nodule of 4 mm on slices of 3 mm would lose half of itself.
    What is so small that it lies between the points of the analysis grid becomes the voxel nearest to it.
    """
    padded, around = np.pad(mask, 1), source.crop((-1, -1, -1), tuple(n + 2 for n in mask.shape))
    corners = target.to_zyx(around.bounds_lps())
    low, high = np.floor(corners.min(axis=0)).astype(int), np.ceil(corners.max(axis=0)).astype(int) + 1
    shape = (int(high[0] - low[0]), int(high[1] - low[1]), int(high[2] - low[2]))
    planes = sample_planes(padded.view(np.uint8), around, target.crop(low, shape), 0)
    share = np.stack(list(planes))
    if not share.any():
        center_zyx = target.to_zyx(source.to_lps(np.argwhere(mask).mean(axis=0)))
        share[tuple(np.rint(center_zyx - low).astype(int))] = 1
    voxels = max(round(mask.sum() * source.voxel_volume_mm3 / target.voxel_volume_mm3), 1)
    places = np.argwhere(share > 0)
    fullness = share[share > 0].astype(np.float64)
    center = (fullness[:, None] * places).sum(axis=0) / fullness.sum()
    distance = np.linalg.norm((places - center) * target.spacing_zyx_mm, axis=1)
    moved = np.zeros(shape, bool)
    moved[tuple(places[np.lexsort((distance, -fullness))[:voxels]].T)] = True
    first, last = np.maximum(low, 0), np.minimum(high, target.shape_zyx)
    if (last <= first).any():
        return None
    box = tuple(slice(int(a), int(b)) for a, b in zip(first, last, strict=True))
    return box, moved[tuple(slice(int(a), int(b)) for a, b in zip(first - low, last - low, strict=True))]


def _draw_outlines(truth: Truth, case: Case, target: Geometry, source: Geometry) -> None:
    """LIDC: the consensus of enough readers is a nodule, what fewer saw is to be ignored."""
    assert case.lidc_sqlite is not None
    nodules = find_nodules(read_scan(case.lidc_sqlite, case.series_uid).readings, source)
    for n in nodules:
        if n.readers < case.min_readers:
            part = _moved(n.union, source.crop(n.start_zyx, n.union.shape), target)
            if part is not None:
                _draw(truth.label, part, IGNORE)
    agreed = [n for n in nodules if n.readers >= case.min_readers]
    for label, n in enumerate(agreed, 1):
        center = _inside(n.center_lps, target)
        part = _moved(n.consensus, source.crop(n.start_zyx, n.consensus.shape), target)
        if center is None or part is None:
            truth.warnings.append(_left_out(n.center_lps))
            if part is not None:
                _draw(truth.label, part, IGNORE)
            continue
        _draw(truth.label, part, label)
        truth.nodules.append(Nodule(label, center, n.diameter_mm, n.volume_mm3, n.type, n.malignant, n.malignancy))


def _draw_mask(truth: Truth, case: Case, prepared: PreparedScan) -> None:
    """A label map beside the scan; regions of it that no annotation names are to be ignored."""
    assert case.mask is not None
    array, geometry = read_image(case.mask)
    if array.dtype != np.uint8:
        raise InputError(f"{case.mask} holds {array.dtype}, expected uint8: 0, the nodules' labels, 255 for ignore")
    rows = {}
    for row in case.nodules:
        label = row.label if row.label is not None else _value_at(array, geometry, row.center_lps)
        if not 1 <= label <= MOST_NODULES or label in rows:
            raise InputError(
                f"{case.mask}: the nodule at {row.center_lps} mm has label {label}, expected a number of its own "
                f"from 1 to {MOST_NODULES}"
            )
        rows[label] = row
    boxes = ndimage.find_objects(array)
    present = [k for k, box in enumerate(boxes, 1) if box is not None]
    for k in sorted(present, key=lambda k: k in rows):
        box = boxes[k - 1]
        start = [side.start for side in box]
        mask = array[box] == k
        part = _moved(mask, geometry.crop(start, mask.shape), prepared.geometry)
        if part is not None:
            _draw(truth.label, part, k if k in rows else IGNORE)
    unnamed = sorted(set(present) - set(rows) - {IGNORE})
    if unnamed:
        truth.warnings.append(f"labels {unnamed} of the mask are in no annotation and are ignored")
    for label, row in sorted(rows.items()):
        if label not in present:
            truth.warnings.append(f"label {label} is not in the mask; the nodule was grown from its centre")
        _add(truth, case, prepared, row, label, grow=label not in present)


def _value_at(array: np.ndarray, geometry: Geometry, center_lps: Vector3) -> int:
    index = np.rint(geometry.to_zyx(center_lps)).astype(int)
    return int(array[tuple(index)]) if geometry.contains(center_lps) else 0


def _add(truth: Truth, case: Case, prepared: PreparedScan, row: Annotation, label: int, *, grow: bool) -> None:
    """Record an annotated nodule; draw it as well unless the mask has done so."""
    if row.diameter_mm <= 0:
        raise InputError(
            f"the nodule at {row.center_lps} mm has a diameter of {row.diameter_mm:g} mm, expected more than 0; "
            "a nodule of unknown size may stand in annotations_excluded.csv"
        )
    geometry = prepared.geometry
    center = _inside(row.center_lps, geometry)
    if center is None:
        truth.warnings.append(_left_out(row.center_lps))
        truth.label[truth.label == label] = IGNORE
        if grow:
            _ignore_ball(truth, row.center_lps, row.diameter_mm, geometry)
        return
    if grow:
        _draw(truth.label, grow_nodule(prepared.hu, geometry, center, row.diameter_mm), label)
    voxels = int((truth.label == label).sum())
    if not voxels:
        # Smaller than a voxel: it still is somewhere.
        _draw(truth.label, _ball(center, 0.0, geometry), label)
        voxels = 1
    said = nodule_at(row.center_lps, case.malignancy)
    truth.nodules.append(
        Nodule(
            label,
            center,
            row.diameter_mm,
            row.volume_mm3 or voxels * geometry.voxel_volume_mm3,
            _type(row),
            float(said.malignant) if said else None,
            said.ratings if said else (),
        )
    )


def _type(row: Annotation) -> NoduleType:
    for known in get_args(NoduleType):
        if known == (row.type or "unknown"):
            return known  # type: ignore[no-any-return]
    raise InputError(f"nodule type {row.type!r} is none of {', '.join(get_args(NoduleType))}")


def _left_out(center_lps: Sequence[float]) -> str:
    place = ", ".join(f"{c:.1f}" for c in center_lps)
    return f"the nodule at ({place}) mm lies outside of the box around the lungs and was left out"


def _negatives(case: Case, truth: Truth, geometry: Geometry) -> Float32[np.ndarray, "n 3"]:
    """Candidates in the box that lie in no nodule, in no sphere of one, and in nothing to be ignored."""
    assert case.negatives_lps is not None
    index = geometry.to_zyx(case.negatives_lps)
    whole = np.rint(index).astype(int)
    kept = ((whole >= 0) & (whole < geometry.shape_zyx)).all(axis=1)
    kept[kept] = truth.label[tuple(whole[kept].T)] == 0
    for nodule in truth.nodules:
        distance = np.linalg.norm((index - nodule.center_zyx) * geometry.spacing_zyx_mm, axis=1)
        kept &= distance > nodule.diameter_mm / 2
    return np.asarray(index[kept], np.float32)

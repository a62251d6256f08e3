"""``carina synthesize``: a training or test cohort with inserted nodules."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

import tyro

from carina.cli.seed import Seed
from carina.errors import UsageError


@dataclass
class Synthesize:
    """Insert nodules of known shape into CTs and phantoms, and write them as a cohort in LUNA16's layout.

    The CTs' own lesions are unknown to the tables: name them with --ignore, or they count as background.
    """

    output: Annotated[Path, tyro.conf.arg(aliases=["-o"])]
    """A new folder for the cohort."""
    backgrounds: tuple[Path, ...] = ()
    """CTs: DICOM folders, or MetaImage, NIfTI or NRRD files."""
    ignore: tuple[Path, ...] = ()
    """Known lesions: JSON of spheres by folder name, or folders of Lung-PET-CT-Dx boxes (XML)."""
    scans: Annotated[int, tyro.conf.arg(aliases=["-n"])] = 0
    """How many scans to make from the CTs, each used in turn; default: one of each."""
    phantoms: int = 0
    """How many more scans to make from phantoms."""
    nodules_per_scan: tuple[int, int] = (12, 20)
    """Fewest and most nodules to try in one scan."""
    distractors_per_scan: tuple[int, int] = (12, 24)
    """Fewest and most distractors (vessels, scars, plaques) to try in one scan."""
    shapes: Literal["train", "test"] = "train"
    """Which patients' shapes to use."""
    atlas: Path | None = None
    """Another file of shapes than the shipped one."""
    seed: Seed = 0
    """Source of all randomness; the same seed gives the same cohort."""
    jobs: Annotated[int, tyro.conf.arg(aliases=["-j"])] = 1
    """Number of processes."""
    quiet: Annotated[bool, tyro.conf.arg(aliases=["-q"])] = field(default=False)
    """No progress, no summary."""

    def run(self) -> None:
        """Make the cohort."""
        from tqdm import tqdm

        from carina.data.synthesize import Recipe, synthesize
        from carina.io.luna import MOST_NODULES

        for name, (low, high) in {
            "--nodules-per-scan": self.nodules_per_scan,
            "--distractors-per-scan": self.distractors_per_scan,
        }.items():
            if not 0 <= low <= high <= MOST_NODULES:
                raise UsageError(f"{name} {low} {high}: expected two numbers, 0 <= first <= second <= {MOST_NODULES}")
        scans = self.scans or len(self.backgrounds)
        recipe = Recipe(
            self.output, self.seed, self.nodules_per_scan, self.distractors_per_scan, self.shapes, self.atlas
        )
        with tqdm(total=scans + self.phantoms, unit="scan", disable=self.quiet) as bar:
            made = synthesize(
                recipe,
                self.backgrounds,
                self.ignore,
                scans=scans,
                phantoms=self.phantoms,
                jobs=self.jobs,
                on_scan=bar.update,
            )
        if not self.quiet:
            nodules = sum(len(scan.nodules) for scan in made)
            negatives = sum(len(scan.negatives_lps) for scan in made)
            print(f"{self.output}: {len(made)} scans with {nodules} nodules and {negatives} hard negatives")

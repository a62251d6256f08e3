"""``carina robustness``: which findings stay when a CT is changed."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import tyro

from carina.cli.seed import Seed
from carina.errors import UsageError


@dataclass
class Robustness:
    """Insert nodules into a CT, change kernel, slices, noise and position, and tell which findings stay."""

    input: Annotated[Path, tyro.conf.arg(aliases=["-i"])]
    """A CT: a DICOM folder, or a MetaImage, NIfTI or NRRD file."""
    annotations: Path
    """Nodules that are in it: a CSV with seriesuid, coordX, coordY, coordZ, diameter_mm."""
    output: Annotated[Path | None, tyro.conf.arg(aliases=["-o"])] = None
    """Folder for summary.json, summary.txt and index.html."""
    nodules: int = 12
    """How many nodules to insert, of shapes that trained nothing."""
    seed: Seed = 0
    """Of the insertion."""
    weights: Path | None = None
    """Folder of other models than the shipped ones."""
    device: str = "auto"
    """auto, cpu, cuda, cuda:N or mps."""
    quiet: Annotated[bool, tyro.conf.arg(aliases=["-q"])] = field(default=False)
    """No progress."""

    def run(self) -> None:
        """Insert, change, look, and show the table."""
        from tqdm import tqdm

        from carina.data.changes import CHANGES
        from carina.data.shapes import load_shapes
        from carina.evaluate.present_robustness import present_robustness
        from carina.evaluate.robustness import robustness
        from carina.io import read_ct
        from carina.io.luna import MOST_NODULES, read_annotations
        from carina.pipeline import Detector

        if not 0 <= self.nodules <= MOST_NODULES:
            raise UsageError(f"--nodules {self.nodules}: expected 0 to {MOST_NODULES}")
        volume = read_ct(self.input)
        name = volume.source.case_id
        known = [row for row in read_annotations(self.annotations, any_name=True) if row.series_uid == name]
        if not known:
            raise UsageError(f"{self.annotations} names no nodule of {name}")
        detector = Detector.load(self.weights, device=self.device)
        with tqdm(total=len(CHANGES), unit="change", disable=self.quiet) as bar:
            result = robustness(
                volume,
                known,
                detector,
                load_shapes().split("test"),
                nodules=self.nodules,
                seed=self.seed,
                on_change=bar.update,
            )
        summary = present_robustness(result, volume.source.case_id)
        print(summary.to_text())
        if self.output is not None:
            summary.write(self.output)

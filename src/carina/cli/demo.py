"""``carina demo``: the main job on a CT that Carina makes itself, beside the truth about it."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from carina.cli.seed import Seed


@dataclass
class Demo:
    """Make a synthetic chest CT as DICOM, find its nodules, and show where the report lies."""

    output: Annotated[Path, tyro.conf.arg(aliases=["-o"])] = Path("demo")
    """Folder for the CT and the report."""
    seed: Seed = 1
    """Which synthetic patient."""
    nodules: int = 3
    """How many nodules it has."""
    device: str = "auto"
    """auto, cpu, cuda, cuda:N or mps."""

    def run(self) -> int:
        """Make the CT, detect, and compare with the truth."""
        import numpy as np

        from carina.cli.detect import Detect
        from carina.data.phantom import make_phantom
        from carina.findings import Report
        from carina.io import write_dicom

        print("Making a synthetic chest CT ...")
        phantom = make_phantom(self.seed, nodules=self.nodules)
        dicom = self.output / f"dicom-{self.seed}-{self.nodules}"
        if not dicom.exists():  # the same seed makes the same CT: an earlier demo's files serve again
            write_dicom(phantom.volume, dicom, patient_id="PHANTOM")
        print(f"{phantom.volume.hu.shape[0]} DICOM slices are in {dicom}. Looking for nodules ...")
        results = self.output / "results"
        code = Detect(input=((str(dicom),),), output=results, device=self.device).run()
        if code:
            return code
        reports = sorted(results.glob("*/report.json"), key=lambda path: path.stat().st_mtime)
        findings = Report.read(reports[-1]).findings
        print("\ntruth: type           diameter  found as")
        for nodule in phantom.nodules:
            hits = [
                f"finding {f.id} (p {f.p_nodule:.2f}, {f.diameter_mm:.1f} mm)"
                for f in findings
                if np.linalg.norm(np.subtract(f.center_lps, nodule.center_lps)) <= nodule.diameter_mm / 2
            ]
            print(f"       {nodule.type:14s} {nodule.diameter_mm:5.1f} mm  {hits[0] if hits else 'missed'}")
        print(f"\nOpen {reports[-1].with_name('report.html')} in a browser.")
        return 0

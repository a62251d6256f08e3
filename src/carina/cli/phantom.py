"""``carina phantom``: synthetic chest CTs with exact truth, as a cohort in the LUNA16 layout or as DICOM series."""

from collections.abc import Iterator
from concurrent.futures import as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from carina.cli.seed import Seed
from carina.errors import InputError, UsageError
from carina.replacing import replacing

SHAPING = ("nodules", "empty", "slice_mm", "pixel_mm", "kernel", "dicom")
"""Options that decide, with the seed, what a scan is and how it is written; they are kept beside the cohort."""


@dataclass
class Phantom:
    """Make synthetic chest CTs with exact truth."""

    output: Annotated[Path, tyro.conf.arg(aliases=["-o"])]
    """Folder of the cohort; scans that are there already are kept, made with the same options."""

    scans: Annotated[int, tyro.conf.arg(aliases=["-n"])] = 1
    """How many to make."""

    seed: Seed = 0
    """The same seed gives the same cohort, and a longer one begins with the shorter."""

    nodules: int | None = None
    """Nodules in each scan; 0 to 6 are drawn where not given."""

    empty: float = 0.0
    """Share of the scans that hold no nodule for certain, 0 to 1."""

    slice_mm: float | None = None
    """Slice thickness in mm; 1 to 5 are drawn where not given."""

    pixel_mm: float | None = None
    """Pixel size in mm; 0.75 to 1 are drawn where not given."""

    kernel: Literal["soft", "sharp"] | None = None
    """Reconstruction kernel; drawn where not given."""

    dicom: bool = False
    """Write DICOM series under dicom/SERIES instead of MetaImage; masks and tables as ever."""

    malignancy_rule: bool = False
    """Also write annotations_with_malignancy.csv by a made-up rule (type and size) to try fine-tuning; no medicine."""

    jobs: Annotated[int, tyro.conf.arg(aliases=["-j"])] = 1
    """Scans that are made at the same time, each by its own process."""

    quiet: Annotated[bool, tyro.conf.arg(aliases=["-q"])] = False
    """No progress, no summary."""

    def run(self) -> int:
        """Make the scans and say where they lie."""
        from tqdm import tqdm

        from carina.data.cohort import recover
        from carina.data.phantom import phantom_uid

        if self.scans < 1 or self.jobs < 1 or not 0 <= self.empty <= 1 or (self.nodules or 0) < 0:
            raise UsageError("--scans and --jobs count from 1, --nodules from 0, --empty is a share from 0 to 1")
        for name, size in (("--slice-mm", self.slice_mm), ("--pixel-mm", self.pixel_mm)):
            if size is not None and not 0.3 <= size <= 10:
                raise UsageError(f"{name} {size:g} is not a size in mm from 0.3 to 10")
        done = recover(self.output)
        seeds = scan_seeds(self.seed, self.scans)
        self._keep_settings(goes_on=any(phantom_uid(seed) in done for seed in seeds))
        empty = empty_scans(self.seed, self.scans, self.empty)
        todo = [
            (self, seed, 0 if lacks else self.nodules)
            for seed, lacks in zip(seeds, empty, strict=True)
            if phantom_uid(seed) not in done
        ]
        for _ in tqdm(self._make(todo), total=len(todo), unit="scan", disable=self.quiet or None):
            pass
        if self.malignancy_rule:
            from carina.data.made_up_malignancy import RULE, label_cohort

            rows = label_cohort(self.output)
            if not self.quiet:
                print(f"{sum(row.malignant for row in rows)} of {len(rows)} nodules malignant by a {RULE}")
        if not self.quiet:
            print(f"{self.scans} scans in {self.output} ({self.scans - len(todo)} were there already)")
        return 0

    def _keep_settings(self, *, goes_on: bool) -> None:
        """Note what the scans of this seed are made with; refuse to go on with other options than before."""
        import msgspec

        path = self.output / f"seed-{self.seed}.json"
        settings = {name: getattr(self, name) for name in SHAPING}
        if goes_on and not path.is_file():
            return  # made before options were kept
        if goes_on:
            try:
                before = msgspec.json.decode(path.read_bytes(), type=dict[str, bool | int | float | str | None])
            except ValueError as error:
                raise InputError(f"{path} is damaged ({error}); use another folder") from error
            if other := [name for name in SHAPING if before.get(name) != settings[name]]:
                old, new = (", ".join(_option(name, of[name]) for name in other) for of in (before, settings))
                raise UsageError(
                    f"{self.output} holds scans of seed {self.seed} made with {old}, not {new}; use another folder"
                )
        self.output.mkdir(parents=True, exist_ok=True)
        with replacing(path) as draft:
            draft.write_bytes(msgspec.json.encode(settings) + b"\n")

    def _make(self, todo: "list[tuple[Phantom, int, int | None]]") -> Iterator[None]:
        if self.jobs == 1:
            yield from map(_make_one, todo)
            return
        from carina.data.pool import scan_pool

        with scan_pool(self.jobs) as pool:
            tasks = [pool.submit(_make_one, item) for item in todo]
            try:
                for task in as_completed(tasks):
                    yield task.result()
            except BaseException:
                pool.shutdown(cancel_futures=True)
                raise


def _option(name: str, value: object) -> str:
    flag = f"--{name.replace('_', '-')}"
    if value is None or value is False:
        return f"no {flag}"
    return flag if value is True else f"{flag} {value}"


def scan_seeds(seed: int, n: int) -> list[int]:
    """Seeds of the first ``n`` scans of a cohort."""
    import numpy as np

    return [int(np.random.SeedSequence([seed, i]).generate_state(1, np.uint64)[0] >> 1) for i in range(n)]


def empty_scans(seed: int, n: int, share: float) -> list[bool]:
    """Which of the first ``n`` scans hold no nodule for certain: the given share of any run of scans, to one scan."""
    import numpy as np

    start = float(np.random.default_rng(seed).random())
    return [int(start + (i + 1) * share) > int(start + i * share) for i in range(n)]


def _make_one(item: tuple[Phantom, int, int | None]) -> None:
    from carina.data.cohort import write_scan
    from carina.data.phantom import make_phantom
    from carina.io.luna import Annotation

    command, seed, nodules = item
    phantom = make_phantom(
        seed,
        nodules=nodules,
        pixel_mm=command.pixel_mm,
        slice_thickness_mm=command.slice_mm,
        kernel=command.kernel,
    )
    uid = phantom.volume.source.case_id
    write_scan(
        command.output,
        phantom.volume,
        phantom.label,
        [Annotation(uid, n.center_lps, n.diameter_mm, n.volume_mm3, n.type, n.label) for n in phantom.nodules],
        phantom.negatives,
        patient_id=f"phantom-{seed}",
        origin="phantom",
        dicom=command.dicom,
    )

"""``carina detect``: nodule reports for one or many CTs."""

import csv
import fcntl
import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import tyro

from carina.errors import CarinaError, InputError, UsageError
from carina.replacing import replacing

if TYPE_CHECKING:
    from carina.pipeline import Detection, Detector

DEFAULT_FORMATS = ("json", "csv", "html", "mask")
SUMMARY = ("input", "case", "status", "findings", "p_malignant", "seconds", "message", "path")


@dataclass
class Detect:
    """Find lung nodules in chest CTs and write a report for each."""

    output: Annotated[Path, tyro.conf.arg(aliases=["-o"])]
    """Folder for the results; each case gets a folder of its own in it."""
    input: Annotated[tuple[tuple[str, ...], ...], tyro.conf.arg(aliases=["-i"]), tyro.conf.UseAppendAction] = ()
    """DICOM folders, or MetaImage, NIfTI or NRRD files."""
    format: str = ",".join(DEFAULT_FORMATS)
    """What to write, separated by commas: json, csv, html, mask; for DICOM input also seg, sr, keyimages."""
    threshold: float | None = None
    """Lowest probability of a finding; default: the operating point in the model's card."""
    sensitivity: Literal["high", "balanced", "specific"] = "balanced"
    """Which operating point of the model's card, where no threshold is given: more findings, or fewer false ones."""
    device: str = "auto"
    """auto, cpu, cuda, cuda:N or mps."""
    runtime: str = "auto"
    """What computes the networks: auto (the fastest installed), openvino, onnxruntime or torch."""
    weights: Path | None = None
    """Folder of other models than the shipped ones."""
    first_stage_only: bool = False
    """Leave the second stage out: probabilities are the segmentation's scores (to find hard negatives)."""
    series: str | None = None
    """SeriesInstanceUID to take from a DICOM folder; default: the best CT series."""
    json: bool = False
    """Print each report to standard output too, one JSON document per line."""
    resume: bool = False
    """Leave out inputs that an earlier run into the same folder has finished."""
    quiet: Annotated[bool, tyro.conf.arg(aliases=["-q"])] = False
    """No progress, no summary; errors only."""
    verbose: Annotated[bool, tyro.conf.arg(aliases=["-v"])] = False
    """Print the seconds of each stage."""

    def run(self) -> int:
        """Analyse every input; a failing one is reported and the others go on."""
        from carina.report import FORMATS, check_formats

        formats = [f.strip() for f in self.format.split(",") if f.strip()]
        if not formats:
            raise UsageError(f"--format {self.format!r} names nothing to write; choose from {', '.join(FORMATS)}")
        check_formats(formats)
        inputs = list(chain.from_iterable(self.input))
        if not inputs:
            raise UsageError("detect needs an input: -i FOLDER_OR_FILE ...")
        ledger = _Ledger(self.output)
        from carina.pipeline import Detector

        detector = Detector.load(
            self.weights,
            device=self.device,
            runtime=self.runtime,
            threshold=self.threshold,
            sensitivity=self.sensitivity,
            first_stage_only=self.first_stage_only,
        )
        self.output.mkdir(parents=True, exist_ok=True)
        failures = 0
        for text in inputs:
            if self.resume and ledger.holds(text):
                self._say(f"{text}: done before, left out")
                continue
            try:
                self._one(text, detector, formats, ledger)
            except BrokenPipeError:  # whoever reads what is printed has seen enough; the case is written
                raise
            except (CarinaError, OSError) as error:  # OSError: the disk is full, a file may not be read or written
                failures += 1
                with ledger.alone():
                    ledger.add({"input": text, "status": "failed", "message": str(error)})
                named = str(error) if text in str(error) else f"{text}: {error}"
                print(f"carina: {named}", file=sys.stderr)
        if failures and len(inputs) > 1:
            self._say(f"{failures} of {len(inputs)} inputs failed; see {ledger.path}")
        return 1 if failures else 0

    def _one(self, text: str, detector: "Detector", formats: list[str], ledger: "_Ledger") -> None:
        from carina.report import DICOM_FORMATS, write_report
        from carina.volume import ending_of

        wanting = [name for name in DICOM_FORMATS if name in formats]
        if wanting and ending_of(Path(text)) is not None:
            raise InputError(f"the format {wanting[0]} describes DICOM images, and this is none; leave it out")
        with _Progress(text, shown=not self.quiet and sys.stderr.isatty()) as progress:
            detection = detector.detect(Path(text), series_uid=self.series, progress=progress)
        report = detection.report
        answer = report.patient.p_malignant
        row = {
            "input": text,
            "status": "done",
            "findings": str(len(report.findings)),
            "p_malignant": "" if answer is None else f"{answer:.4f}",
            "seconds": f"{sum(report.seconds.values()):.1f}",
        }
        with ledger.alone():
            folder = self.output / ledger.folder_for(report.case_id, text)
            written = write_report(report, folder, formats, volume=detection.volume, labels=detection.mask)
            ledger.add(row | {"case": folder.name})
        if self.json:
            print(json.dumps(json.loads(report.to_json())))
        self._say(_summary_line(text, detection))
        for name, path in written.items():
            self._say(f"  {name:9s} {path}")
        if self.verbose:
            for stage, seconds in report.seconds.items():
                self._say(f"  {stage:9s} {seconds:7.2f} s")

    def _say(self, line: str) -> None:
        if not self.quiet:
            print(line, file=sys.stderr if self.json else sys.stdout)


def _summary_line(text: str, detection: "Detection") -> str:
    report = detection.report
    count = len(report.findings)
    line = f"{text}: {count} finding{'' if count == 1 else 's'}"
    if report.patient.p_malignant is not None:
        line += f", patient p_malignant {report.patient.p_malignant:.2f} (finding {report.patient.finding_id})"
    return f"{line}, {sum(report.seconds.values()):.1f} s. {report.notice}"


class _Ledger:
    """``summary.csv`` of an output folder: one row per input, rewritten whole after every case.

    What earlier runs left there stays, and what others write meanwhile: another patient's case is never written over.
    An input is known by its absolute path, however and from wherever it is named.
    """

    def __init__(self, output: Path) -> None:
        self.path = output / "summary.csv"
        self._rows = self._read()

    def _read(self) -> list[dict[str, str]]:
        if not self.path.exists():
            return []
        with self.path.open(newline="", errors="surrogateescape") as file:
            reader = csv.DictReader(file)
            if not {"input", "case", "status"} <= set(reader.fieldnames or ()):
                raise InputError(f"{self.path}: not written by carina detect; choose another output folder")
            return [row | {"path": row.get("path") or os.path.realpath(row["input"])} for row in reader]

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Know what all others have written into the folder, and let nobody else write meanwhile."""
        folder = os.open(self.path.parent, os.O_RDONLY)
        try:
            fcntl.flock(folder, fcntl.LOCK_EX)
            self._rows = self._read()
            yield
        finally:
            os.close(folder)

    def holds(self, text: str) -> bool:
        """Whether an earlier run has finished this input."""
        path = os.path.realpath(text)
        return any(row["status"] == "done" and row["path"] == path for row in self._rows)

    def folder_for(self, case_id: str, text: str) -> str:
        """The case's folder; a second input of the same name gets a number."""
        path = os.path.realpath(text)
        taken = {row["case"] for row in self._rows if row["path"] != path}
        names = (case_id, *(f"{case_id}-{n}" for n in range(2, len(taken) + 3)))
        return next(name for name in names if name not in taken)

    def add(self, row: dict[str, str]) -> None:
        """Write the input's row; within ``alone``."""
        row = row | {"path": os.path.realpath(row["input"])}
        self._rows = [other for other in self._rows if other["path"] != row["path"]] + [row]
        # Names of files need not be UTF-8.
        with replacing(self.path) as draft, draft.open("w", newline="", errors="surrogateescape") as file:
            writer = csv.DictWriter(file, SUMMARY, restval="")
            writer.writeheader()
            writer.writerows(self._rows)


class _Progress:
    """One progress bar over all stages of a case."""

    def __init__(self, text: str, *, shown: bool) -> None:
        from tqdm import tqdm

        self._bar = tqdm(
            total=1.0,
            desc=text[-40:],
            disable=not shown,
            leave=False,
            bar_format="{desc} {bar} {percentage:3.0f}%",
        )

    def __enter__(self) -> "_Progress":
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.close()

    def __call__(self, stage: str, done: float) -> None:
        from carina.pipeline.progress import overall

        self._bar.n = overall(stage, done)
        self._bar.refresh()

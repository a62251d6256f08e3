"""``carina export``: networks in the formats of other runtimes, each measured against PyTorch."""

from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import tyro

from carina.errors import UsageError

if TYPE_CHECKING:
    from carina.export import Subject
    from carina.export.constants import PipelineConstants
    from carina.export.manifest import NetworkEntry
    from carina.export.parity import Batches
    from carina.volume import Volume

PIPELINE_ROLES = ("segmentation", "nodule")


@dataclass
class Export:
    """Write networks for other runtimes, and prove each equal to PyTorch."""

    weights: tyro.conf.Positional[tuple[Path, ...]] = ()
    """Model files (.safetensors with its card), or folders with segmentation and nodule, and malignancy where that is a
    network; default: the shipped ones."""

    to: str = "onnx,torchscript,exported"
    """Formats: onnx, torchscript (traced and scripted), exported, aoti, executorch, openvino; commas between."""

    output: Annotated[Path, tyro.conf.arg(aliases=["-o"])] = Path("exported")
    """Folder of the files and of manifest.json."""

    pipeline: bool = False
    """Write pipeline.json too: the constants with which another program repeats carina detect; and, with --scan,
    region-*.mha: the lungs of that scan on the networks' grids."""

    repository: Literal["triton"] | None = None
    """Write a model repository for an inference server too; needs onnx among the formats."""

    scan: Path | None = None
    """Chest CT whose crops the files are compared on, beside random ones; default: a phantom."""

    random_only: bool = False
    """Compare on random input only, which is faster."""

    table: Path | None = None
    """Write the comparison as a Markdown table too."""

    def run(self) -> int:
        """Export, compare, and say what was found."""
        from carina import __version__
        from carina.export import Subject, export_model
        from carina.export.artefacts import check_formats
        from carina.export.manifest import Manifest, write_manifest

        formats = _formats(self.to)
        check_formats(formats)
        if self.repository and "onnx" not in formats:
            raise UsageError("--repository triton is made of ONNX files; add onnx to --to")
        paths = _models(self.weights)
        subjects = [Subject.load(path) for path in paths]
        if len({subject.name for subject in subjects}) < len(subjects):
            raise UsageError(f"two of the networks have the same name: {', '.join(s.name for s in subjects)}")
        constants = _constants(paths) if self.pipeline else None
        volume = None if self.random_only else _volume(self.scan, subjects)
        entries = {}
        for subject in subjects:
            entries[subject.name] = export_model(
                subject,
                self.output,
                formats,
                samples=_samples(subject, volume, self.scan),
                progress=partial(_tell, subject.name),
            )
        now = datetime.now(UTC).isoformat(timespec="seconds")
        manifest = Manifest(__version__, now, entries)
        written = [write_manifest(self.output, manifest)]
        if constants is not None:
            from carina.export.constants import write_constants, write_regions

            written.append(write_constants(self.output, constants))
            if self.scan is not None and volume is not None:
                written += write_regions(self.output, volume, constants)
        if self.repository:
            from carina.export.model_repository import write_triton

            written.append(write_triton(self.output, manifest))
        lines = table(entries)
        print("\n".join(lines))
        if self.table:
            self.table.write_text("\n".join(lines) + "\n")
        for path in written:
            print(path)
        return 0


def table(entries: "dict[str, NetworkEntry]") -> list[str]:
    """The comparison as a Markdown table."""
    lines = [
        "| network | format | runtime | max. difference of probability | processor ms a call | PyTorch ms | size kB |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, entry in entries.items():
        lines += [
            f"| {name} | {a.format} | {a.runtime} | {a.parity.max_probability:.1e} | {a.parity.milliseconds:.1f} "
            f"| {a.parity.torch_milliseconds:.1f} | {a.size_bytes / 1000:.0f} |"
            for a in entry.artefacts
        ]
    return lines


def _formats(text: str) -> list[str]:
    names = [name.strip() for name in text.split(",") if name.strip()]
    if not names:
        raise UsageError(f"--to {text!r} names no format")
    spelled = [n for name in names for n in (("traced", "scripted") if name == "torchscript" else (name,))]
    return list(dict.fromkeys(spelled))


def _models(weights: tuple[Path, ...]) -> list[Path]:
    if not weights:
        from importlib.resources import files

        weights = (Path(str(files("carina") / "weights")),)
    return [path for given in weights for path in (_networks_in(given) if given.is_dir() else [given])]


def _networks_in(folder: Path) -> list[Path]:
    rater = folder / "malignancy"
    return [folder / role for role in PIPELINE_ROLES] + [rater] * rater.with_suffix(".safetensors").is_file()


def _constants(paths: list[Path]) -> "PipelineConstants":
    from carina.export.constants import pipeline_constants
    from carina.models.card import load_card
    from carina.models.malignancy import DiameterRule

    by_role = {path.name.removesuffix(".safetensors"): path for path in paths}
    if not set(PIPELINE_ROLES) <= set(by_role):
        raise UsageError("--pipeline needs both networks, segmentation and nodule; give the folder that holds them")
    if "malignancy" in by_role:
        raise UsageError("pipeline.json describes malignancy by the rule of size; these weights have a network for it")
    rule = DiameterRule.load(by_role["nodule"].with_name("malignancy.json"))
    return pipeline_constants(load_card(by_role["segmentation"]), load_card(by_role["nodule"]), rule)


def _volume(scan: Path | None, subjects: "list[Subject]") -> "Volume | None":
    if not any(subject.card.spec["kind"] in ("unet", "nodule") for subject in subjects):
        return None
    if scan is not None:
        from carina.io import read_ct

        return read_ct(scan)
    from carina.data.phantom import make_phantom

    return make_phantom(0, nodules=3, slice_thickness_mm=3.0, pixel_mm=1.0).volume


def _samples(subject: "Subject", volume: "Volume | None", scan: Path | None) -> "dict[str, Batches]":
    from carina.export.samples import samples

    if volume is None:
        return {}
    found = samples(subject, volume)
    return {"crops of a phantom" if scan is None else "crops of the scan given": found} if found else {}


def _tell(network: str, what: str) -> None:
    print(f"{network}: {what}", flush=True)

"""One network in every format asked for: written, run, compared, and only then kept.

``FORMATS`` is the one table of formats. Must not know the command line.
"""

import shutil
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

from carina.errors import UsageError
from carina.export import executorch, onnx, program, torchscript
from carina.export.manifest import Artefact, NetworkEntry, sha256
from carina.export.parity import TOLERANCE, Batches, measure, random_batches
from carina.export.runner import Runner
from carina.export.subject import Subject


@dataclass(frozen=True)
class Format:
    """How a format is written and run.

    Attributes:
        ending: of the file's name.
        write: writes a network to a path.
        run: loads the file and makes it callable.
        package: what runs it.
        needs: modules that must be installed.
        single: takes one sample at a time.
        note: what a user must know.
    """

    ending: str
    write: Callable[[Subject, Path], None]
    run: Callable[[Path], Runner]
    package: str
    needs: tuple[str, ...] = ()
    single: bool = False
    note: str = ""


FORMATS: dict[str, Format] = {
    "onnx": Format(
        ".onnx", onnx.write_onnx, onnx.run_onnx, "onnxruntime", ("onnx", "onnxscript", "onnxruntime"),
        note=f"opset {onnx.OPSET}; the card is in the metadata under carina.card",
    ),
    "traced": Format(".traced.pt", torchscript.write_traced, torchscript.run_torchscript, "torch"),
    "scripted": Format(".scripted.pt", torchscript.write_scripted, torchscript.run_torchscript, "torch"),
    "exported": Format(
        ".exported.pt2", program.write_program, program.run_program, "torch",
        note="torch.export.load reads it; tied to the version of PyTorch that wrote it and later ones",
    ),
    "aoti": Format(
        ".aoti.pt2", program.write_aoti, program.run_aoti, "torch",
        note="machine code for the processor that it was made on, to run with the same version of PyTorch",
    ),
    "executorch": Format(
        ".pte", executorch.write_executorch, executorch.run_executorch, "executorch", ("executorch",), single=True,
        note=f"batch of 1; slices of at most {executorch.LONGEST} x {executorch.LONGEST}; 3-D layers folded to 2-D",
    ),
    "openvino": Format(
        ".openvino.xml", onnx.write_openvino, onnx.run_openvino, "openvino", ("onnx", "onnxscript", "openvino"),
        note="the weights are in the .bin file beside it",
    ),
}  # fmt: skip
"""Every format by the name that ``carina export --to`` takes; ``torchscript`` there means both of its forms."""


def export_model(
    subject: Subject,
    folder: Path,
    formats: Sequence[str],
    *,
    samples: dict[str, Batches] | None = None,
    tolerance: float = TOLERANCE,
    progress: Callable[[str], None] = lambda _: None,
) -> NetworkEntry:
    """Write a network in several formats, each measured before it gets its name.

    Args:
        subject: the network.
        folder: where the files go; existing ones are replaced.
        formats: keys of ``FORMATS``.
        samples: real inputs by what they are, compared beside random ones.
        tolerance: largest difference of a probability.
        progress: told each format's name before it is written.

    Raises:
        UsageError: a format is unknown or its packages are not installed.
        WeightsError: an artefact differs from the network.
    """
    check_formats(formats)
    folder.mkdir(parents=True, exist_ok=True)
    artefacts = []
    for name in formats:
        progress(name)
        artefacts.append(_export(subject, folder, name, samples or {}, tolerance))
    return NetworkEntry(
        card=subject.card,
        input_name=subject.input_name,
        input_shape=subject.input_shape,
        input_values=_input_values(subject),
        multiple=subject.multiple,
        output_name="logits",
        output_shape=subject.output_shape,
        output_values=_OUTPUT_VALUES.get(subject.card.spec["kind"], "the answer itself"),
        artefacts=tuple(artefacts),
    )


def check_formats(formats: Sequence[str]) -> None:
    """Know every format, and have what it needs.

    Raises:
        UsageError: not so.
    """
    for name in formats:
        if name not in FORMATS:
            raise UsageError(f"unknown format {name!r}; choose from {', '.join(FORMATS)}, torchscript")
        if missing := [package for package in FORMATS[name].needs if find_spec(package) is None]:
            raise UsageError(f"format {name!r} needs {', '.join(missing)}: pip install 'carina-ct[export]'")


def _export(subject: Subject, folder: Path, name: str, samples: dict[str, Batches], tolerance: float) -> Artefact:
    form = FORMATS[name]
    with tempfile.TemporaryDirectory(dir=folder, prefix=".export-") as temporary:
        path = Path(temporary) / f"{subject.name}{form.ending}"
        form.write(subject, path)
        batches: dict[str, Batches] = {"random": random_batches(subject, single=form.single)}
        for kind, given in samples.items():
            batches[kind] = [row[None] for batch in given for row in batch] if form.single else given
        parity = measure(subject, form.run(path), batches, tolerance=tolerance)
        files = sorted(Path(temporary).iterdir())
        for file in files:
            shutil.move(file, folder / file.name)
    return Artefact(
        format=name,
        files={file.name: sha256(folder / file.name) for file in files},
        size_bytes=sum((folder / file.name).stat().st_size for file in files),
        runtime=f"{form.package} {version(form.package)}",
        note=form.note,
        parity=parity,
    )


def _input_values(subject: Subject) -> str:
    low, high = subject.card.preprocessing.clip_hu
    spacing = " x ".join(f"{length:g}" for length in subject.card.preprocessing.spacing_zyx_mm)
    scaled = f"(clip(HU, {low:g}, {high:g}) - ({low:g})) * {2 / (high - low):.9g} - 1, float32, voxels of {spacing} mm"
    match subject.card.spec["kind"]:
        case "unet":
            return f"neighbouring axial slices, feet to head, the first and last repeated beyond the ends; {scaled}"
        case "unet3d":
            return f"axes channel, z, y, x; any part of a scan; {scaled}"
        case "nodule":
            return f"axes channel, z, y, x; the candidate is voxel shape // 2; -1000 HU outside the scan; {scaled}"
        case "picture":
            return "RGB pictures, channels first, values of 0 to 255 as float32"
        case _:
            return "one number for each sample, float32"


_OUTPUT_VALUES = {
    "unet": "logit of nodule for each pixel of the middle slice; the probability is 1 / (1 + exp(-logit))",
    "unet3d": "logit of nodule for each voxel; the probability is 1 / (1 + exp(-logit))",
    "nodule": "logits; softmax over the last axis, second column, is the probability of the positive class",
    "picture": "logits; softmax over the last axis gives the probability of each class",
}

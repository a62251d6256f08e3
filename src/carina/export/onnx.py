"""ONNX, by PyTorch's exporter, checked and run in ONNX Runtime; and OpenVINO's form of the same graph.

The file holds graph and weights; the card and its constants go into its metadata, so that the file alone says how its
input is made. Must not know other formats.
"""

import io
from functools import lru_cache
from pathlib import Path

import msgspec
import numpy as np
import torch

from carina.export.program import exported
from carina.export.quiet import no_remarks
from carina.export.runner import Runner
from carina.export.subject import Subject

OPSET = 20
"""Version of ONNX's operators; ONNX Runtime 1.17 and later, OpenVINO 2024 and later and Triton 24 and later run it."""


def write_onnx(subject: Subject, path: Path) -> None:
    """Write the network with free batch, height and width, and check the file as ONNX's own checker does."""
    import onnx

    model = onnx.load_from_string(_graph(subject))
    for entry in model.graph.node, model.graph.input, model.graph.output, model.graph.value_info:
        for part in entry:  # where in our source each node came from; other programs have no use for it
            del part.metadata_props[:]
    onnx.helper.set_model_props(
        model, {"carina.card": msgspec.json.encode(subject.card).decode(), "carina.multiple": str(subject.multiple)}
    )
    onnx.checker.check_model(model, full_check=True)
    onnx.save_model(model, path)


def run_onnx(path: Path) -> Runner:
    """Load the file in ONNX Runtime, on the CPU."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name

    def run(batch: np.ndarray) -> np.ndarray:
        logits: np.ndarray = session.run(None, {name: batch})[0]
        return logits

    return run


def write_openvino(subject: Subject, path: Path) -> None:
    """Write OpenVINO's form: ``path`` (.xml) and the weights beside it (.bin), in float32.

    Made from ONNX: OpenVINO's converter for PyTorch reports its use to its maker over the network.
    """
    import openvino

    model = openvino.Core().read_model(_graph(subject))
    openvino.serialize(model, str(path), str(path.with_suffix(".bin")))


def run_openvino(path: Path) -> Runner:
    """Load the files in OpenVINO, on the CPU in float32."""
    import openvino

    settings = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": torch.get_num_threads()}
    compiled = openvino.Core().compile_model(str(path), "CPU", settings)

    def run(batch: np.ndarray) -> np.ndarray:
        logits: np.ndarray = compiled(batch)[0]
        return logits.copy()

    return run


@lru_cache(maxsize=1)
def _graph(subject: Subject) -> bytes:
    file = io.BytesIO()
    with no_remarks():
        program = torch.onnx.export(
            exported(subject),
            dynamo=True,
            opset_version=OPSET,
            input_names=[subject.input_name],
            output_names=["logits"],
            verbose=False,
        )
        assert program is not None
        program.save(file)  # type: ignore[arg-type]  # a file object serves, as torch's own docs say
    return file.getvalue()

"""Networks in OpenVINO and in ONNX Runtime, on the CPU in float32.

Both read the same ONNX graph, which is traced from the PyTorch module in memory when the models are loaded: under a
second for both networks, and no file beside the weights that could disagree with them. PyTorch's newer exporter takes
ten times as long. OpenVINO's own converter is not used: it reports its use to its maker over the network.

Must not know the stages. Imports its runtimes only when they are asked for.
"""

import io
import threading
import warnings

import numpy as np
import torch
from torch import nn

from carina.models.card import Card
from carina.models.unet3d import TILE_ZYX
from carina.pipeline.run_torch import Compute

_OPSET = 17


def prepare_openvino(module: nn.Module, card: Card) -> tuple[Compute, str]:
    """Make a network ready to be called; returns what computes its logits, and OpenVINO's version."""
    import openvino

    settings = {
        # Without it some processors compute in bfloat16, and the mask depends on the machine.
        "INFERENCE_PRECISION_HINT": "f32",
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_NUM_THREADS": torch.get_num_threads(),
        # Else every process takes the machine's first cores, and several on one machine wait for each other.
        "ENABLE_CPU_PINNING": False,
    }
    compiled = openvino.compile_model(openvino.Core().read_model(_onnx(module, card)), "CPU", settings)
    request, lock = compiled.create_infer_request(), threading.Lock()

    def compute(batch: np.ndarray) -> np.ndarray:
        with lock:  # a request holds the state of one call
            logits: np.ndarray = request.infer([batch], share_inputs=True)[0]
        return logits

    return compute, openvino.__version__.partition("-")[0]


def prepare_onnxruntime(module: nn.Module, card: Card) -> tuple[Compute, str]:
    """Make a network ready to be called; returns what computes its logits, and ONNX Runtime's version."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    session = onnxruntime.InferenceSession(_onnx(module, card), options, providers=["CPUExecutionProvider"])

    def compute(batch: np.ndarray) -> np.ndarray:
        logits: np.ndarray = session.run(None, {"input": batch})[0]
        return logits

    return compute, onnxruntime.__version__


def _onnx(module: nn.Module, card: Card) -> bytes:
    """The network as ONNX with any batch size and, for slices, any height and width that it takes."""
    if card.spec["kind"] == "unet3d":
        example, free = torch.zeros(1, 1, *TILE_ZYX), {0: "batch"}
    elif card.task == "segmentation":
        multiple = 2 ** (int(card.spec["depth"]) - 1)
        example = torch.zeros(2, int(card.spec["in_channels"]), 2 * multiple, 3 * multiple)
        free = {0: "batch", 2: "height", 3: "width"}
    else:
        example, free = torch.zeros(2, 1, *card.preprocessing.crop_zyx), {0: "batch"}
    file = io.BytesIO()
    with warnings.catch_warnings():
        # Tracing is announced to go; the tests of this module will say when it is gone.
        warnings.simplefilter("ignore")
        torch.onnx.export(
            module.eval(),
            (example,),
            file,  # type: ignore[arg-type]  # a stream is taken where dynamo is False
            dynamo=False,
            opset_version=_OPSET,
            input_names=["input"],
            output_names=["logits"],
            dynamic_axes={"input": free, "logits": free},
        )
    return file.getvalue()

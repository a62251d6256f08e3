"""Requests and answers of the Open Inference Protocol (KServe v2), JSON form.

https://github.com/kserve/open-inference-protocol/blob/main/specification/protocol/inference_rest.md. Must not know
servers or what computes the answer.
"""

import math
from typing import Any

import numpy as np
from jaxtyping import Float32

from carina.errors import InputError
from carina.export.manifest import NetworkEntry
from carina.export.subject import FREE


def parse_request(body: Any, entry: NetworkEntry) -> Float32[np.ndarray, "b *input"]:
    """The input tensor of a request.

    Raises:
        InputError: not such a request, or its tensor is not the network's input.
    """
    try:
        (tensor,) = body["inputs"]
        name, shape, kind, data = (tensor[key] for key in ("name", "shape", "datatype", "data"))
        shape = tuple(int(length) for length in shape)
        values = np.asarray(data, np.float32).reshape(-1)
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(
            f"not an inference request with one input of name, shape, datatype and data: {error}"
        ) from None
    if (name, kind) != (entry.input_name, "FP32"):
        raise InputError(f"input {name!r} of {kind}; expected {entry.input_name!r} of FP32")
    fits = len(shape) == len(entry.input_shape) and all(
        length > 0 and (length == wanted or (wanted == FREE and (axis == 0 or length % entry.multiple == 0)))
        for axis, (length, wanted) in enumerate(zip(shape, entry.input_shape, strict=False))
    )
    if not fits:
        raise InputError(
            f"input of shape {list(shape)}; expected {list(entry.input_shape)}, where -1 is any length "
            f"(height and width: a multiple of {entry.multiple})"
        )
    if values.size != math.prod(shape):
        raise InputError(f"{values.size} numbers for a tensor of shape {list(shape)}")
    return values.reshape(shape)


def answer(name: str, entry: NetworkEntry, logits: Float32[np.ndarray, "b *output"]) -> dict[str, Any]:
    """The body of the answer."""
    output = {
        "name": entry.output_name,
        "shape": list(logits.shape),
        "datatype": "FP32",
        "data": [float(value) for value in logits.ravel()],
    }
    return {"model_name": name, "model_version": "1", "outputs": [output]}


def metadata(name: str, entry: NetworkEntry) -> dict[str, Any]:
    """The body of ``GET /v2/models/NAME``."""
    return {
        "name": name,
        "versions": ["1"],
        "platform": "onnxruntime_onnx",
        "inputs": [{"name": entry.input_name, "datatype": "FP32", "shape": list(entry.input_shape)}],
        "outputs": [{"name": entry.output_name, "datatype": "FP32", "shape": list(entry.output_shape)}],
    }

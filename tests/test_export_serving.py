"""The model repository and the Open Inference Protocol (M46)."""

import json
import re
from importlib.util import find_spec

import numpy as np
import pytest

from carina.errors import InputError
from carina.export import export_model
from carina.export.manifest import Manifest
from carina.export.model_repository import example_request, write_triton
from carina.export.onnx import run_onnx
from carina.export.open_inference import answer, metadata, parse_request
from tiny_networks import tiny

pytestmark = pytest.mark.skipif(find_spec("onnxscript") is None, reason="onnxscript not installed")


@pytest.fixture(scope="module")
def repository(tmp_path_factory):
    folder = tmp_path_factory.mktemp("exported")
    entries = {name: export_model(tiny(name), folder, ["onnx"]) for name in ("segmentation", "nodule")}
    return write_triton(folder, Manifest("0", "", entries)), entries


@pytest.mark.parametrize("name", ["segmentation", "nodule"])
def test_the_configuration_is_that_of_the_model_beside_it(repository, name):
    import onnxruntime

    folder, _ = repository
    text = (folder / name / "config.pbtxt").read_text()
    model = onnxruntime.InferenceSession(folder / name / "1" / "model.onnx", providers=["CPUExecutionProvider"])
    for kind, tensors in (("input", model.get_inputs()), ("output", model.get_outputs())):
        block = re.search(rf"{kind} \[(.*?)\n\]", text, re.DOTALL).group(1)
        (tensor,) = tensors
        assert f'name: "{tensor.name}"' in block
        dims = [-1 if isinstance(length, str) else length for length in tensor.shape[1:]]
        assert f"dims: [ {', '.join(map(str, dims))} ]" in block
    assert "max_batch_size: 32" in text
    assert "dynamic_batching" in text


@pytest.mark.parametrize("name", ["segmentation", "nodule"])
def test_the_example_request_is_answered_by_the_model(repository, name):
    folder, entries = repository
    body = json.loads((folder / name / "request.json").read_text())
    inputs = parse_request(body, entries[name])
    logits = run_onnx(folder / name / "1" / "model.onnx")(inputs)
    reply = answer(name, entries[name], logits)
    assert reply["outputs"][0]["shape"] == list(logits.shape)
    assert np.allclose(reply["outputs"][0]["data"], logits.ravel())


def test_metadata_names_input_and_output(repository):
    _, entries = repository
    found = metadata("nodule", entries["nodule"])
    assert found["inputs"][0] == {"name": "crops", "datatype": "FP32", "shape": [-1, 1, 16, 16, 32]}


@pytest.mark.parametrize(("change", "message"), [
    ({"shape": [1, 1, 16, 16, 31]}, r"shape \[1, 1, 16, 16, 31\]; expected \[-1, 1, 16, 16, 32\]"),
    ({"shape": [0, 1, 16, 16, 32]}, "shape"),
    ({"datatype": "FP16"}, "FP16"),
    ({"name": "images"}, "'images'"),
    ({"data": [1.0]}, "1 numbers"),
    ({"data": ["x"]}, "not an inference request"),
    ({"shape": "large"}, "not an inference request"),
])  # fmt: skip
def test_a_request_that_does_not_fit_is_refused(repository, change, message):
    entry = repository[1]["nodule"]
    body = example_request(entry)
    body["inputs"][0].update(change)
    with pytest.raises(InputError, match=message):
        parse_request(body, entry)


@pytest.mark.parametrize("body", [None, [], {}, {"inputs": []}, {"inputs": [{}]}, {"inputs": [{}, {}]}])
def test_a_body_that_is_no_request_is_refused(repository, body):
    with pytest.raises(InputError, match="not an inference request"):
        parse_request(body, repository[1]["nodule"])


def test_slices_must_have_sizes_that_the_network_takes(repository):
    entry = repository[1]["segmentation"]
    body = example_request(entry)
    body["inputs"][0].update(shape=[1, 7, 16, 15], data=[0.0] * (7 * 16 * 15))
    with pytest.raises(InputError, match="multiple of 2"):
        parse_request(body, entry)

"""A model repository in the layout of the Triton Inference Server, from exported ONNX files.

``MODEL/config.pbtxt`` and ``MODEL/1/model.onnx`` for each network, and example requests in the Open Inference Protocol
(KServe v2), which Triton, KServe, OpenVINO Model Server and Ray Serve's own program here answer. Must not know how
ONNX is written.
"""

import json
import shutil
from pathlib import Path

import numpy as np

from carina.errors import UsageError
from carina.export.manifest import Manifest, NetworkEntry
from carina.export.subject import FREE

REPOSITORY = "triton"

_MOST_IN_BATCH = 32
_WAIT_US = 2000
"""How long the server waits for requests that share a batch; a crop takes about ten times as long on a CPU."""


def write_triton(folder: Path, manifest: Manifest) -> Path:
    """Write ``folder/triton``; an existing one is replaced.

    Args:
        folder: where the files of the manifest are.
        manifest: of networks that were exported to ONNX.

    Raises:
        UsageError: a network has no ONNX file.
    """
    repository = folder / REPOSITORY
    shutil.rmtree(repository, ignore_errors=True)
    for name, entry in manifest.networks.items():
        files = [file for a in entry.artefacts if a.format == "onnx" for file in a.files]
        if not files:
            raise UsageError(f"{name} has no ONNX file; export with --to onnx")
        version = repository / name / "1"
        version.mkdir(parents=True)
        shutil.copyfile(folder / files[0], version / "model.onnx")
        (version.parent / "config.pbtxt").write_text(triton_config(name, entry))
        (version.parent / "request.json").write_text(json.dumps(example_request(entry), indent=2) + "\n")
    return repository


def triton_config(name: str, entry: NetworkEntry) -> str:
    """The server's configuration of one network: batches are gathered by the server itself."""
    # Slabs of different size cannot share a batch; the server pads nothing, so it gathers those of one size.
    return f"""name: "{name}"
backend: "onnxruntime"
max_batch_size: {_MOST_IN_BATCH}
input [
  {{
    name: "{entry.input_name}"
    data_type: TYPE_FP32
    dims: [ {_dims(entry.input_shape)} ]
  }}
]
output [
  {{
    name: "{entry.output_name}"
    data_type: TYPE_FP32
    dims: [ {_dims(entry.output_shape)} ]
  }}
]
dynamic_batching {{
  preferred_batch_size: [ 4, 8, 16 ]
  max_queue_delay_microseconds: {_WAIT_US}
}}
instance_group [
  {{
    count: 1
    kind: KIND_AUTO
  }}
]
parameters {{
  key: "carina.card.sha256"
  value: {{
    string_value: "{entry.card.sha256}"
  }}
}}
"""


def example_request(entry: NetworkEntry) -> dict[str, object]:
    """One sample of air as the body of ``POST /v2/models/NAME/infer``."""
    shape = [1, *(8 * entry.multiple if length == FREE else length for length in entry.input_shape[1:])]
    return {
        "inputs": [
            {
                "name": entry.input_name,
                "shape": shape,
                "datatype": "FP32",
                "data": np.full(int(np.prod(shape)), -1.0).tolist(),
            }
        ],
        "outputs": [{"name": entry.output_name}],
    }


def _dims(shape: tuple[int, ...]) -> str:
    return ", ".join(str(length) for length in shape[1:])

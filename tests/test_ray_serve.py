"""M46: the Ray Serve deployment, really run: two replicas, batches, and the requests of the model repository."""

import json
import os
import subprocess
import sys
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec

import numpy as np
import pytest

from carina.export import export_model
from carina.export.manifest import Manifest, write_manifest
from carina.export.model_repository import example_request, write_triton
from tiny_networks import tiny
from waiting import free_port

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not (find_spec("ray") and find_spec("onnxscript")), reason="ray or onnxscript not installed"),
]

SERVER = """
import sys
import ray
from ray import serve
from carina.export.ray_serve import application

folder, port = sys.argv[1:]
ray.init(num_cpus=4, include_dashboard=False, object_store_memory=100_000_000, log_to_driver=False)
serve.start(http_options={"host": "127.0.0.1", "port": int(port)})
serve.run(application({"folder": folder, "network": "nodule", "replicas": "2"}))
(deployment,) = serve.status().applications["default"].deployments.values()
print("replicas", deployment.replica_states, flush=True)
sys.stdin.read()
serve.shutdown()
ray.shutdown()
"""


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """Address of the deployment, what it said of its replicas, and the manifest's entry."""
    folder = tmp_path_factory.mktemp("exported")
    entry = export_model(tiny("nodule"), folder, ["onnx"])
    manifest = Manifest("0", "", {"nodule": entry})
    write_manifest(folder, manifest)
    write_triton(folder, manifest)
    port = free_port()
    # Nothing is reported to anybody; workers are not put behind every other process of the machine.
    settings = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_worker_niceness": "0"}
    with subprocess.Popen(
        [sys.executable, "-W", "ignore", "-c", SERVER, str(folder), str(port)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, **settings},
    ) as process:
        said = next((line for line in process.stdout if line.startswith("replicas")), None)
        assert said, "the deployment did not come up"
        yield f"http://127.0.0.1:{port}", said, folder, entry
        process.stdin.close()
        process.wait(timeout=60)


def ask(address, body=None):
    data = None if body is None else json.dumps(body).encode()
    try:
        with urllib.request.urlopen(urllib.request.Request(address, data), timeout=60) as reply:
            content = reply.read()
            return reply.status, json.loads(content) if content else None
    except urllib.error.HTTPError as error:
        return error.code, json.loads(error.read())


def test_two_replicas_run(server):
    assert server[1].strip() == "replicas {'RUNNING': 2}"


def test_waiting_requests_share_batches_and_each_gets_its_own_answer(server):
    address, _, _, entry = server
    crops = tiny("nodule").example(24, seed=5)
    expected = tiny("nodule").module(crops).numpy()

    def request(k):
        body = example_request(entry)
        body["inputs"][0]["data"] = crops[k].flatten().tolist()
        return ask(f"{address}/v2/models/nodule/infer", body)

    with ThreadPoolExecutor(12) as pool:
        replies = list(pool.map(request, range(len(crops))))
    assert {status for status, _ in replies} == {200}
    logits = [reply["outputs"][0]["data"] for _, reply in replies]
    np.testing.assert_allclose(logits, expected, atol=1e-5)
    assert max(reply["parameters"]["requests_in_batch"] for _, reply in replies) > 1


def test_the_example_request_of_the_model_repository_is_answered(server):
    address, _, folder, _ = server
    body = json.loads((folder / "triton" / "nodule" / "request.json").read_text())
    status, reply = ask(f"{address}/v2/models/nodule/infer", body)
    assert (status, reply["model_name"]) == (200, "nodule")
    assert reply["outputs"][0]["shape"] == [1, 2]


def test_health_and_metadata_are_those_of_the_protocol(server):
    address = server[0]
    assert ask(f"{address}/v2/health/ready")[0] == 200
    assert ask(f"{address}/v2/models/nodule/ready")[0] == 200
    assert ask(f"{address}/v2/models/nodule")[1]["inputs"][0]["shape"] == [-1, 1, 16, 16, 32]


def test_a_bad_request_is_refused_in_words(server):
    address, _, _, entry = server
    body = example_request(entry)
    body["inputs"][0]["shape"] = [1, 1, 16, 16, 31]
    status, reply = ask(f"{address}/v2/models/nodule/infer", body)
    assert status == 400
    assert "expected [-1, 1, 16, 16, 32]" in reply["error"]
    assert ask(f"{address}/v2/models/unknown")[0] == 404

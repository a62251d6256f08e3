"""A Ray Serve deployment of exported networks: replicas, batches, and the Open Inference Protocol.

    serve run carina.export.ray_serve:application folder=exported network=nodule replicas=2

answers ``POST /v2/models/nodule/infer``. Needs ``pip install 'carina-ct[ray]'``. Must not know how networks were made.
"""

from pathlib import Path
from typing import Any

import numpy as np
from ray import serve
from ray.serve import Application
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from carina.errors import InputError
from carina.export.manifest import read_manifest
from carina.export.onnx import run_onnx
from carina.export.open_inference import answer, metadata, parse_request

MOST_IN_BATCH = 8
WAIT_S = 0.005


@serve.deployment
class InferenceServer:
    """One replica: a network in ONNX Runtime that takes the samples of waiting requests at once.

    Args:
        folder: what ``carina export --to onnx`` wrote.
        network: which network of the manifest.
    """

    def __init__(self, folder: str, network: str) -> None:
        self._name = network
        self._entry = read_manifest(Path(folder)).networks[network]
        file = next(file for a in self._entry.artefacts if a.format == "onnx" for file in a.files)
        self._run = run_onnx(Path(folder) / file)

    @serve.batch(max_batch_size=MOST_IN_BATCH, batch_wait_timeout_s=WAIT_S)
    async def _infer(self, inputs: list[np.ndarray]) -> list[tuple[np.ndarray, int]]:
        """Logits of every request, and how many requests shared their call: those of one shape do."""
        answers: list[tuple[np.ndarray, int]] = [(np.empty(0), 0)] * len(inputs)
        for shape in {batch.shape[1:] for batch in inputs}:
            chosen = [i for i, batch in enumerate(inputs) if batch.shape[1:] == shape]
            logits = self._run(np.concatenate([inputs[i] for i in chosen]))
            ends = np.cumsum([len(inputs[i]) for i in chosen])
            for i, part in zip(chosen, np.split(logits, ends[:-1]), strict=True):
                answers[i] = part, len(chosen)
        return answers

    async def __call__(self, request: Request) -> Response:
        """Answer the protocol's addresses under ``/v2``."""
        here = f"/v2/models/{self._name}"
        match request.method, request.url.path.rstrip("/"):
            case "GET", "/v2/health/live" | "/v2/health/ready":
                return Response(status_code=200)
            case "GET", path if path == here:
                return JSONResponse(metadata(self._name, self._entry))
            case "GET", path if path == f"{here}/ready":
                return Response(status_code=200)
            case "POST", path if path == f"{here}/infer":
                try:
                    body: Any = await request.json()
                    logits, shared = await self._infer(parse_request(body, self._entry))
                except (InputError, ValueError) as error:
                    return JSONResponse({"error": str(error)}, status_code=400)
                reply = answer(self._name, self._entry, logits)
                return JSONResponse({**reply, "parameters": {"requests_in_batch": shared}})
        return JSONResponse({"error": f"nothing at {request.url.path}; the network is {self._name}"}, status_code=404)


def application(arguments: dict[str, str]) -> Application:
    """What ``serve run`` starts: ``folder``, ``network`` and ``replicas`` from its command line."""
    replicas = int(arguments.get("replicas", "1"))
    deployment: Any = InferenceServer
    bound: Application = deployment.options(num_replicas=replicas).bind(
        arguments.get("folder", "exported"), arguments.get("network", "nodule")
    )
    return bound

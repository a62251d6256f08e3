"""The two servers in the textbook's way, as the baseline of ``benchmarks.serving``.

``flask``: one request after the other, eager PyTorch. ``sanic``: a queue of three, batches of two, a wait of one
second, eager PyTorch in a thread. Both take one crop of raw int16 HU, answer its probability, and trust what they get.

    python -m benchmarks.textbook_servers flask WEIGHTS PORT
"""

import asyncio
import contextlib
import sys
import time
from pathlib import Path

import numpy as np
import torch

from carina.hu import normalise
from carina.models import Card, load_model

MOST_WAITING = 3
BATCH = 2
WAIT_S = 1.0


class Eager:
    """The nodule network as it comes out of training."""

    def __init__(self, weights: Path) -> None:
        module, card = load_model(weights / "nodule.safetensors")
        self.module, self.card = module.eval(), card

    def __call__(self, bodies: list[bytes]) -> list[float]:
        card: Card = self.card
        crops = np.stack([np.frombuffer(b, "<i2").reshape(card.preprocessing.crop_zyx) for b in bodies])
        with torch.no_grad():
            batch = normalise(torch.from_numpy(crops.astype(np.float32)), card.preprocessing.clip_hu)[:, None]
            return self.module(batch).softmax(1)[:, 1].tolist()


def serve_flask(weights: Path, port: int) -> None:
    from flask import Flask, jsonify, request

    network = Eager(weights)
    app = Flask("textbook")

    @app.post("/v1/classify")
    def classify():
        return jsonify(p_nodule=network([request.get_data()])[0])

    app.run("127.0.0.1", port, threaded=False)


class Runner:
    """Gathers two requests, or what came within a second."""

    def __init__(self, network: Eager) -> None:
        self.network = network
        self.queue: list[tuple[bytes, asyncio.Future[float], float]] = []
        self.lock = asyncio.Lock()
        self.needed = asyncio.Event()

    async def ask(self, body: bytes) -> float | None:
        async with self.lock:
            if len(self.queue) >= MOST_WAITING:
                return None
            answer = asyncio.get_running_loop().create_future()
            self.queue.append((body, answer, time.monotonic()))
            if len(self.queue) >= BATCH:
                self.needed.set()
        return await answer

    async def run(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            while not self.queue:
                await asyncio.sleep(0.001)
            left = self.queue[0][2] + WAIT_S - time.monotonic()
            if len(self.queue) < BATCH and left > 0:
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self.needed.wait(), left)
            async with self.lock:
                batch, self.queue = self.queue[:BATCH], self.queue[BATCH:]
                if len(self.queue) < BATCH:
                    self.needed.clear()
            answers = await loop.run_in_executor(None, self.network, [body for body, _, _ in batch])
            for (_, future, _), answer in zip(batch, answers, strict=True):
                if not future.done():
                    future.set_result(answer)


def serve_sanic(weights: Path, port: int) -> None:
    from sanic import Sanic, json

    app = Sanic("textbook", configure_logging=False)

    @app.before_server_start
    async def start(app):
        app.ctx.runner = Runner(Eager(weights))
        app.add_task(app.ctx.runner.run())

    @app.post("/v1/classify")
    async def classify(request):
        answer = await app.ctx.runner.ask(request.body)
        return json({"error": "full"}, 503) if answer is None else json({"p_nodule": answer})

    app.run("127.0.0.1", port, single_process=True, motd=False, access_log=False)


if __name__ == "__main__":
    kind, folder, number = sys.argv[1:]
    {"flask": serve_flask, "sanic": serve_sanic}[kind](Path(folder), int(number))

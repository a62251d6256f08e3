"""Requests per second and waiting times of classification, beside the two servers in the textbook's way.

    python -m benchmarks.serving [--seconds 4] [--rounds 3] [--soak 10000] [--output FILE.json]

All servers run at the same time on the loopback address and are asked in turn, round after round, so that whatever else
the machine does meets them alike. Every request carries one crop of raw int16 HU.
"""

import argparse
import asyncio
import contextlib
import dataclasses
import json
import os
import platform
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from importlib.resources import files
from pathlib import Path

import numpy as np
import torch

from carina.models import build, save_model
from carina.models.card import load_card

WEIGHTS = Path(str(files("carina") / "weights"))
CROP_ZYX = load_card(WEIGHTS / "nodule.safetensors").preprocessing.crop_zyx
CLIENTS = (1, 8, 64)
SOAK_S = 600.0
"""The memory test ends after that time, with fewer requests, where the machine is slow."""


def small_weights(folder: Path) -> Path:
    """The shipped models with a second stage of one filter: as many bytes per request, hardly any arithmetic."""
    shutil.copytree(WEIGHTS, folder)
    card = load_card(WEIGHTS / "nodule.safetensors")
    spec = {**card.spec, "first_filters": 1}
    save_model(folder / "nodule", build(spec), dataclasses.replace(card, spec=spec))
    return folder


class Server:
    """A server in a process of its own."""

    def __init__(self, name: str, folder: Path, *options: str, weights: Path = WEIGHTS) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.name = name
        kind = name.split()[0]
        port = str(self.port)
        if kind == "carina":
            state = folder / name.replace(" ", "-")
            arguments = ["carina", "serve", "--port", port, "--folder", str(state), "--weights", str(weights), *options]
            self.path = f"/v1/classify?dtype=int16&shape={','.join(map(str, CROP_ZYX))}"
        else:
            arguments = ["benchmarks.textbook_servers", kind, str(weights), port]
            self.path = "/v1/classify"
        with (folder / f"{name}.log").open("w") as log:
            self.process = subprocess.Popen([sys.executable, "-m", *arguments], stdout=log, stderr=log)

    async def ready(self, body: bytes) -> None:
        """Until the server answers and, for ours, until all models are warm."""
        end = time.monotonic() + 300
        while time.monotonic() < end:
            with contextlib.suppress(OSError, asyncio.IncompleteReadError):
                if self.name.startswith("carina"):
                    await asyncio.to_thread(urllib.request.urlopen, f"http://127.0.0.1:{self.port}/readyz")
                if (await Client(self).ask(body))[0] == 200:
                    print(f"{self.name} answers", file=sys.stderr)
                    return
            await asyncio.sleep(0.5)
        raise SystemExit(f"{self.name} does not answer")

    def processor_s(self) -> float:
        """Processor time of the process that answers requests, in user mode and in the kernel."""
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def resident_mib(self) -> float:
        """Memory of the process that answers requests."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(status.partition("VmRSS:")[2].split()[0]) / 1024

    def stop(self) -> None:
        self.process.terminate()
        try:
            self.process.wait(30)
        except subprocess.TimeoutExpired:
            self.process.kill()


class Client:
    """One client; keeps its connection where the server does."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self.streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def ask(self, body: bytes) -> tuple[int, bool]:
        """Status of the answer, and whether it says when to come back."""
        if self.streams is None:
            self.streams = await asyncio.open_connection("127.0.0.1", self.server.port)
        reader, writer = self.streams
        head = f"POST {self.server.path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: {len(body)}\r\n\r\n"
        writer.write(head.encode() + body)
        answer = (await reader.readuntil(b"\r\n\r\n")).lower()
        length = int(answer.partition(b"content-length:")[2].split()[0])
        await reader.readexactly(length)
        if answer.startswith(b"http/1.0") or b"connection: close" in answer:
            self.close()
        return int(answer.split()[1]), b"retry-after" in answer

    def close(self) -> None:
        if self.streams is not None:
            self.streams[1].close()
            self.streams = None


async def load(server: Server, clients: int, seconds: float, body: bytes, most: float = float("inf")) -> dict:
    """Ask from so many clients, each one request after the other; after a refusal a client waits 20 ms."""
    waits: list[float] = []
    statuses: dict[int, int] = {}
    polite = True
    begin, processor = time.perf_counter(), server.processor_s()

    async def one() -> None:
        nonlocal polite
        client = Client(server)
        try:
            while time.perf_counter() - begin < seconds and sum(statuses.values()) < most:
                start = time.perf_counter()
                status, retry_after = await client.ask(body)
                statuses[status] = statuses.get(status, 0) + 1
                if status == 200:
                    waits.append(time.perf_counter() - start)
                else:
                    polite = polite and retry_after
                    await asyncio.sleep(0.02)
        finally:
            client.close()

    await asyncio.gather(*(one() for _ in range(clients)))
    print(f"{server.name}, {clients} clients: {statuses}", file=sys.stderr)
    return {
        "waits": waits,
        "statuses": statuses,
        "seconds": time.perf_counter() - begin,
        "processor_s": server.processor_s() - processor,
        "polite": polite,
    }


def figures(runs: list[dict]) -> dict:
    """Rate and waits of all rounds together."""
    waits = sorted(w for run in runs for w in run["waits"])
    statuses: dict[int, int] = {}
    for run in runs:
        for status, count in run["statuses"].items():
            statuses[status] = statuses.get(status, 0) + count
    return {
        "per_second": statistics.median(len(run["waits"]) / run["seconds"] for run in runs),
        "p50_ms": 1000 * float(np.percentile(waits, 50)) if waits else float("nan"),
        "p99_ms": 1000 * float(np.percentile(waits, 99)) if waits else float("nan"),
        "processor_ms": 1000 * sum(run["processor_s"] for run in runs) / max(1, len(waits)),
        "answered": statuses.get(200, 0),
        "refused": statuses.get(503, 0),
        "errors": sum(count for status, count in statuses.items() if status not in (200, 503)),
        "polite": all(run["polite"] for run in runs),
    }


def machine() -> str:
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return f"{line.partition(':')[2].strip()}, {os.cpu_count()} cores"
    return f"{platform.processor()}, {os.cpu_count()} cores"


async def measure(options: argparse.Namespace, folder: Path) -> dict:
    body = np.random.default_rng(0).integers(-1000, 400, CROP_ZYX).astype("<i2").tobytes()
    begin = os.getloadavg()[0]
    result = {"machine": machine(), "torch": torch.__version__, "table": []}
    if options.rounds:
        result |= await compare(options, folder, body)
    if options.soak:
        result["soak"] = await soak(folder, options.soak, body)
    return result | {"load_average": [begin, os.getloadavg()[0]]}


async def compare(options: argparse.Namespace, folder: Path, body: bytes) -> dict:
    """All servers in turn, and one with a small queue that is asked for too much."""
    servers = [Server("flask", folder), Server("sanic", folder)]
    servers += [Server(f"carina {runtime}", folder, "--runtime", runtime) for runtime in options.runtimes]
    small = Server("carina small queue", folder, "--limits.queued-crops", "8")
    try:
        for server in (*servers, small):
            await server.ready(body)
            await load(server, 2, 1.0, body)
        runs: dict[tuple[str, int], list[dict]] = {}
        for _ in range(options.rounds):
            for clients in CLIENTS:
                for server in servers:
                    runs.setdefault((server.name, clients), []).append(
                        await load(server, clients, options.seconds, body)
                    )
        return {
            "table": [
                {"server": name, "clients": clients, **figures(found)} for (name, clients), found in runs.items()
            ],
            "beyond_capacity": figures([await load(small, 64, options.seconds, body)]),
        }
    finally:
        for server in (*servers, small):
            server.stop()


async def soak(folder: Path, count: int, body: bytes) -> dict:
    """Memory after the first tenth of many requests, and after all."""
    server = Server("carina soak", folder, weights=small_weights(folder / "small"))
    try:
        await server.ready(body)
        await load(server, 8, SOAK_S / 10, body, count / 10)
        before = server.resident_mib()
        run = figures([await load(server, 8, SOAK_S, body, 0.9 * count)])
        return {**run, "requests": run["answered"], "before_mib": before, "after_mib": server.resident_mib()}
    finally:
        server.stop()


def claims(result: dict) -> dict[str, tuple[float, bool]]:
    """What is promised, what was measured, and whether it holds."""
    table = {(row["server"], row["clients"]): row for row in result["table"]}
    ours = [name for name, clients in table if name.startswith("carina") and clients == 8]
    found: dict[str, tuple[float, bool]] = {}
    for name in ours:
        flask, at_8, alone = table["flask", 8], table[name, 8], table[name, 1]
        rate, wait = at_8["per_second"] / flask["per_second"], at_8["p99_ms"] / flask["p99_ms"]
        least = 5 if name == "carina openvino" else 3
        found[f"{name}: rate at 8 clients over flask's, at least {least}"] = (rate, rate >= least)
        found[f"{name}: p99 at 8 clients over flask's, at most 0.25"] = (wait, wait <= 0.25)
        if name == "carina openvino":
            found[f"{name}: lone request in ms, below 20"] = (alone["p50_ms"], alone["p50_ms"] < 20)
        errors = sum(table[name, clients]["errors"] + table[name, clients]["refused"] for clients in CLIENTS)
        found[f"{name}: requests within capacity not answered"] = (errors, errors == 0)
    if beyond := result.get("beyond_capacity"):
        right = beyond["refused"] > 0 and beyond["answered"] > 0 and beyond["errors"] == 0 and beyond["polite"]
        found["beyond capacity: refused with 503 and Retry-After, the others answered"] = (beyond["refused"], right)
    if "soak" in result:
        growth = result["soak"]["after_mib"] - result["soak"]["before_mib"]
        found[f"growth in MiB over {result['soak']['requests']} requests, below 20"] = (growth, growth < 20)
    return found


def text(result: dict) -> str:
    """The table and the claims."""
    lines = [f"{result['machine']}; torch {result['torch']}; load average {result['load_average']}", ""]
    if result["table"]:
        lines += [
            "| server | clients | requests/s | p50 ms | p99 ms | processor ms | answered | 503 | errors |",
            "|---|---|---|---|---|---|---|---|---|",
        ]
        for row in result["table"]:
            times = " | ".join(f"{row[key]:.1f}" for key in ("per_second", "p50_ms", "p99_ms", "processor_ms"))
            counts = " | ".join(str(row[key]) for key in ("answered", "refused", "errors"))
            lines.append(f"| {row['server']} | {row['clients']} | {times} | {counts} |")
        lines.append("")
    for claim, (value, holds) in claims(result).items():
        lines.append(f"{'holds' if holds else 'FAILS':5s}  {value:9.2f}  {claim}")
    return "\n".join(lines)


def run() -> str:
    """The table in short, without the memory test."""
    with tempfile.TemporaryDirectory() as name:
        return text(asyncio.run(measure(_options(["--seconds", "2", "--rounds", "1", "--soak", "0"]), Path(name))))


def _options(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=4.0)
    parser.add_argument("--rounds", type=int, default=3, help="0 leaves the table out")
    parser.add_argument("--soak", type=int, default=10_000, help="requests of the memory test; 0 leaves it out")
    parser.add_argument("--runtimes", nargs="+", default=["torch", "openvino"])
    parser.add_argument("--output", type=Path)
    return parser.parse_args(arguments)


def main() -> None:
    options = _options()
    with tempfile.TemporaryDirectory() as name:
        result = asyncio.run(measure(options, Path(name)))
    print(text(result))
    if options.output:
        options.output.write_text(json.dumps(result, indent=1))
    raise SystemExit(0 if all(holds for _, holds in claims(result).values()) else 1)


if __name__ == "__main__":
    main()

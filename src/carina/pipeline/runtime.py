"""Which network runs where: the one place that chooses a device and a runtime.

A ``Network`` takes and gives NumPy arrays, so that the stages of the pipeline do not care what computes them. What each
runtime needs lies in ``run_torch`` and ``run_onnx``. Must not know the stages.
"""

from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Literal, TypeAlias

import numpy as np
import torch
from jaxtyping import Float32

from carina.errors import UsageError
from carina.models.card import Card, load_model
from carina.pipeline import run_onnx, run_torch
from carina.pipeline.run_torch import Compute

Runtime: TypeAlias = Literal["openvino", "onnxruntime", "torch"]

RUNTIMES: tuple[Runtime, ...] = ("openvino", "onnxruntime", "torch")
"""Fastest on a CPU first; the numbers are in docs/concepts/performance.md."""


def choose_device(name: str = "auto") -> torch.device:
    """The torch device of that name; ``auto`` takes CUDA, then Apple's MPS, then the CPU.

    Raises:
        UsageError: the device is unknown or not present on this machine.
    """
    present = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if name == "auto":
        return torch.device(next(kind for kind in ("cuda", "mps", "cpu") if present[kind]))
    kind = name.partition(":")[0]
    if kind not in present:
        raise UsageError(f"unknown device {name!r}; choose one of auto, {', '.join(present)}")
    if not present[kind]:
        raise UsageError(f"device {name!r} is not present on this machine; use --device cpu or auto")
    return torch.device(name)


def choose_runtime(name: str = "auto", device: torch.device | None = None) -> Runtime:
    """What computes the networks; ``auto`` takes the fastest that is installed on a CPU, and PyTorch elsewhere.

    Raises:
        UsageError: the runtime is unknown, not installed, or does not run on the device.
    """
    on_cpu = device is None or device.type == "cpu"
    if name == "auto":
        return next(r for r in RUNTIMES if not _missing(r)) if on_cpu else "torch"
    for runtime in RUNTIMES:
        if runtime == name:
            break
    else:
        raise UsageError(f"unknown runtime {name!r}; choose one of auto, {', '.join(RUNTIMES)}")
    if runtime != "torch" and not on_cpu:
        raise UsageError(f"runtime {name!r} runs on the CPU only here, not on {device}; use --runtime torch")
    if missing := _missing(runtime):
        raise UsageError(f"runtime {name!r} needs {' and '.join(missing)}: pip install {' '.join(missing)}")
    return runtime


def _missing(runtime: Runtime) -> list[str]:
    """Packages that the runtime needs and that are not installed."""
    needed = () if runtime == "torch" else ("onnx", runtime)
    return [package for package in needed if find_spec(package) is None]


@dataclass(frozen=True)
class Network:
    """A trained network, ready to be called on batches, from several threads too.

    Attributes:
        card: what the network is, how its input is made and what is known about it.
        compute: logits of one batch.
        device: where it runs.
        runtime: what runs the network and where, for the report.
    """

    card: Card
    compute: Compute
    device: torch.device
    runtime: str

    @classmethod
    def load(cls, path: Path, device: torch.device, runtime: Runtime = "torch") -> "Network":
        """Load weights and card, and make them ready to run.

        Args:
            path: as ``load_model`` takes it.
            device: where it runs; the CPU for all runtimes but torch.
            runtime: what ``choose_runtime`` said.

        Raises:
            WeightsError: missing, damaged, or not fitting their card.
        """
        module, card = load_model(path)
        match runtime:
            case "torch":
                compute, version = run_torch.prepare(module, device)
            case "openvino":
                compute, version = run_onnx.prepare_openvino(module, card)
            case "onnxruntime":
                compute, version = run_onnx.prepare_onnxruntime(module, card)
        return cls(card, compute, device, f"{runtime} {version} on {device}")

    def batch(self, voxels: int) -> int:
        """How many inputs of this many voxels to compute at once: few stay in a CPU's cache, CUDA takes what fits."""
        return run_torch.batch_that_fits(self.device, voxels)

    def __call__(self, batch: Float32[np.ndarray, "batch *input"]) -> Float32[np.ndarray, "batch *output"]:
        """Logits of one batch."""
        return self.compute(batch)

"""How far an artefact is from the same network in PyTorch with float64.

Must not know formats.
"""

import copy
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import torch
from jaxtyping import Float32

from carina.errors import WeightsError
from carina.export.runner import Runner
from carina.export.subject import Subject

TOLERANCE = 1e-4
"""Largest difference of a probability that an artefact may show; above it the export fails."""

Batches: TypeAlias = Sequence[Float32[np.ndarray, "..."]]
"""Inputs of any sizes."""


@dataclass(frozen=True)
class Parity:
    """An artefact measured against PyTorch in float64.

    Attributes:
        max_probability: largest difference of a probability.
        max_logit: largest difference of a logit.
        float32_probability: the same difference of PyTorch's own float32 answer, for scale.
        shapes: the inputs' shapes.
        kinds: what the inputs were, in words.
        milliseconds: median processor time of a call with the last input.
        torch_milliseconds: the same for PyTorch.
    """

    max_probability: float
    max_logit: float
    float32_probability: float
    shapes: tuple[tuple[int, ...], ...]
    kinds: tuple[str, ...]
    milliseconds: float
    torch_milliseconds: float


def random_batches(subject: Subject, *, single: bool = False) -> list[np.ndarray]:
    """Random inputs of several sizes, so that axes said to be free are shown to be.

    Args:
        subject: the network.
        single: of one sample each, for runtimes that take no more.
    """
    sizes = ((1, (2, 5, 3)), (1 if single else 3, (8, 6, 2)))
    return [subject.example(batch, steps, seed).numpy() for seed, (batch, steps) in enumerate(sizes)]


def measure(subject: Subject, run: Runner, batches: dict[str, Batches], *, tolerance: float = TOLERANCE) -> Parity:
    """Compare an artefact with its network.

    Args:
        subject: the network.
        run: the artefact.
        batches: inputs by what they are, in words; the last one is timed.
        tolerance: largest difference of a probability.

    Raises:
        WeightsError: the artefact differs by more, or gives something that is no number.
    """
    exact = copy.deepcopy(subject.module).double()
    inputs = [batch for kind in batches.values() for batch in kind]
    probability = logit = plain = 0.0
    for batch in inputs:
        with torch.inference_mode():
            truth = exact(torch.from_numpy(batch).double()).numpy()
            float32 = subject.module(torch.from_numpy(batch)).numpy()
        found = run(batch)
        if found.shape != truth.shape:
            raise WeightsError(f"{subject.name}: shape {found.shape} from an input of {batch.shape}, not {truth.shape}")
        expected = subject.probability(truth)
        logit = max(logit, _distance(found, truth))
        probability = max(probability, _distance(subject.probability(found.astype(np.float64)), expected))
        plain = max(plain, _distance(subject.probability(float32.astype(np.float64)), expected))
    if probability > tolerance:
        raise WeightsError(
            f"{subject.name}: the artefact's probability differs from PyTorch's float64 by {probability:.2e}; "
            f"at most {tolerance:.0e} is allowed. PyTorch's own float32 differs by {plain:.2e}"
        )
    last = inputs[-1]
    return Parity(
        probability,
        logit,
        plain,
        tuple(batch.shape for batch in inputs),
        tuple(batches),
        round(milliseconds(run, last), 3),
        round(milliseconds(_eager(subject), last), 3),
    )


def milliseconds(run: Runner, batch: np.ndarray, repeats: int = 5) -> float:
    """Median processor time of a call, over all threads; it means more than wall time where other programs run."""
    times = []
    for _ in range(repeats):
        begin = time.process_time()
        run(batch)
        times.append(1000 * (time.process_time() - begin))
    return statistics.median(times)


def _eager(subject: Subject) -> Runner:
    def run(batch: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
            logits: torch.Tensor = subject.module(torch.from_numpy(batch))
        return logits.numpy()

    return run


def _distance(a: np.ndarray, b: np.ndarray) -> float:
    largest = float(np.abs(a - b).max())
    return largest if np.isfinite(largest) else float("inf")

"""Weights and the card that travels with them: a safetensors file with a JSON file beside it.

The card says what the network is, how its input is made, what trained it, and what was measured. Loading checks the
weights against the card, so that a damaged or exchanged file is an error and never a wrong answer. Must not know how
networks are trained.
"""

import hashlib
import math
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

import msgspec
import numpy as np
import safetensors
import safetensors.torch
import torch
from jaxtyping import Float
from scipy.special import expit, logit
from torch import nn

from carina.ct.preprocess import Preprocessing
from carina.errors import WeightsError
from carina.models.build import Spec, build
from carina.replacing import replacing


@dataclass(frozen=True)
class DataSource:
    """A body of data that trained the weights: its name, its licence, and how many scans of it were used."""

    name: str
    licence: str
    scans: int


@dataclass(frozen=True)
class Training:
    """What made the weights.

    Attributes:
        command: the command line.
        revision: revision of the source code, "" where unknown.
        hardware: processor or accelerator, in words.
        seconds: wall time.
        seed: of all random draws.
        epochs: passes that were made.
        data: the bodies of data.
        series_uids: every series whose voxels trained the weights, so that leaks into a test can be found.
    """

    command: str = ""
    revision: str = ""
    hardware: str = ""
    seconds: float = 0.0
    seed: int = 0
    epochs: int = 0
    data: tuple[DataSource, ...] = ()
    series_uids: tuple[str, ...] = ()


LEAST = 1e-4
"""Probabilities are taken to be at least this far from 0 and 1: a stage that is certain does not silence the other."""


def log_odds(probability: Float[np.ndarray, " n"]) -> Float[np.ndarray, " n"]:
    """The logarithms of p / (1 - p), of probabilities that are certain as ``LEAST`` says."""
    return np.asarray(logit(np.clip(probability, LEAST, 1 - LEAST)))


@dataclass(frozen=True)
class Calibration:
    """How raw answers become probabilities: a logistic regression on log-odds.

    ``p = sigmoid(intercept + segmentation * logit(p_segmentation) + classification * logit(p_network))``. Temperature
    scaling is ``classification`` = 1 / temperature alone.

    Attributes:
        method: how the numbers were found, in words; "none" where nothing was fitted.
        intercept: added to the log-odds.
        segmentation: weight of the first stage's log-odds.
        classification: weight of this network's log-odds.
    """

    method: str = "none"
    intercept: float = 0.0
    segmentation: float = 0.0
    classification: float = 1.0

    def probability(
        self, segmentation: Float[np.ndarray, " n"], classification: Float[np.ndarray, " n"]
    ) -> Float[np.ndarray, " n"]:
        """Calibrated probability from what the first stage and this network said, as ``log_odds`` takes it."""
        first, second = log_odds(segmentation), log_odds(classification)
        return np.asarray(expit(self.intercept + self.segmentation * first + self.classification * second))


@dataclass(frozen=True)
class ReliabilityBin:
    """Candidates whose probability was about the same: what it was in the mean, and how often it came true."""

    mean_probability: float
    fraction: float
    count: int


@dataclass(frozen=True)
class Card:
    """Everything that is known about a set of weights.

    Attributes:
        name: short name, shown in reports.
        task: what the network answers.
        spec: rebuilds the network, see ``carina.models.build``.
        preprocessing: how its input is made.
        training: what made the weights.
        metrics: what was measured, by name.
        measured_on: the data of ``metrics``, in words.
        calibration: how its answers become probabilities.
        reliability: how often probabilities came true on the data of ``metrics``, out of fold.
        threshold: the cut on its probability that the pipeline uses.
        lower_thresholds: regions above one of these are candidates too where nothing is marked above a higher one
            (segmentation only).
        operating_points: other cuts by name (high, balanced, specific sensitivity), where they were measured.
        min_volume_mm3: regions below this volume are not candidates (segmentation only).
        flips: over how many mirrored copies of its input the answer is averaged in the pipeline.
        again_above: mirrored copies are looked at only where the first look gives this probability (nodule only).
        summary: what stands behind the answer, in one sentence for reports.
        intended_use: what it is for.
        limits: what it is known not to do.
        dtype: how the weights are stored; they are loaded as float32.
        sha256: of the safetensors file, in hexadecimal; filled in by ``save_model``.
    """

    name: str
    task: Literal["segmentation", "nodule", "malignancy"]
    spec: Spec
    preprocessing: Preprocessing = field(default_factory=Preprocessing)
    training: Training = field(default_factory=Training)
    metrics: dict[str, float] = field(default_factory=dict)
    measured_on: str = ""
    calibration: Calibration = field(default_factory=Calibration)
    reliability: tuple[ReliabilityBin, ...] = ()
    threshold: float = 0.5
    lower_thresholds: tuple[float, ...] = ()
    operating_points: dict[str, float] = field(default_factory=dict)
    min_volume_mm3: float = 0.0
    flips: int = 1
    again_above: float = 0.0
    summary: str = ""
    intended_use: str = "Research on lung nodules in chest CT. Not for diagnosis."
    limits: str = ""
    dtype: Literal["float32", "float16"] = "float32"
    sha256: str = ""
    schema_version: str = "1.0"


def save_model(path: Path, module: nn.Module, card: Card) -> Card:
    """Write ``path``'s stem as ``.safetensors`` and ``.json``, each under its final name only when complete.

    Args:
        path: folder and stem; an ending ``.safetensors`` or ``.json`` is ignored.
        module: the network of ``card.spec``.
        card: its ``dtype`` says how floating-point weights are stored.

    Returns:
        The card with the hash of the weights filled in, and without metrics that have no finite value.

    Raises:
        WeightsError: ``module`` is not the network of ``card.spec``.
    """
    weights_path, card_path = _both(path)
    weights_path.parent.mkdir(parents=True, exist_ok=True)
    dtype = getattr(torch, card.dtype)
    tensors = {
        name: (tensor.to(dtype) if tensor.is_floating_point() else tensor).detach().cpu().contiguous()
        for name, tensor in module.state_dict().items()
    }
    _fill(build(card.spec), tensors, str(weights_path))
    content = safetensors.torch.save(tensors)
    measured = {name: value for name, value in card.metrics.items() if math.isfinite(value)}
    card = replace(card, metrics=measured, sha256=hashlib.sha256(content).hexdigest())
    _write(weights_path, content)
    save_card(card_path, card)
    return card


def save_card(path: Path, card: Card) -> None:
    """Write a card beside its weights, which stay as they are; an existing card is replaced whole or not at all."""
    _, card_path = _both(path)
    _write(card_path, msgspec.json.format(msgspec.json.encode(card), indent=2) + b"\n")


def load_card(path: Path) -> Card:
    """Read a card without its weights.

    Raises:
        WeightsError: missing, or not a card.
    """
    _, card_path = _both(path)
    try:
        return msgspec.json.decode(card_path.read_bytes(), type=Card)
    except FileNotFoundError as error:
        raise WeightsError(f"no model card at {card_path}; weights need a .json file beside them") from error
    except ValueError as error:  # no JSON, other JSON, or bytes that are not UTF-8
        raise WeightsError(f"{card_path} is not a model card: {error}") from error


def load_model(path: Path) -> tuple[nn.Module, Card]:
    """Load weights and card.

    Args:
        path: the safetensors file, the card, or their common stem.

    Returns:
        The network in evaluation mode on the CPU in float32, and its card.

    Raises:
        WeightsError: a file is missing or damaged, the weights are not those of the card, or they do not fit its spec.
    """
    weights_path, _ = _both(path)
    card = load_card(path)
    try:
        content = weights_path.read_bytes()
    except FileNotFoundError as error:
        raise WeightsError(f"no weights at {weights_path}, though its card is there") from error
    found = hashlib.sha256(content).hexdigest()
    if found != card.sha256:
        raise WeightsError(
            f"{weights_path} has SHA-256 {found[:16]}..., its card says {card.sha256[:16]}...: "
            "the file is damaged or belongs to another card; fetch both again"
        )
    try:
        tensors = safetensors.torch.load(content)
    except safetensors.SafetensorError as error:
        raise WeightsError(f"{weights_path} is not a safetensors file: {error}") from error
    module = build(card.spec)
    _fill(module, tensors, str(weights_path))
    return module.eval(), card


def _fill(module: nn.Module, tensors: dict[str, torch.Tensor], where: str) -> None:
    try:
        module.load_state_dict(tensors)
    except RuntimeError as error:
        raise WeightsError(f"the weights of {where} do not fit the network of their card: {error}") from error


def _both(path: Path) -> tuple[Path, Path]:
    stem = path.with_suffix("") if path.suffix in (".safetensors", ".json") else path
    return stem.with_name(stem.name + ".safetensors"), stem.with_name(stem.name + ".json")


def _write(path: Path, content: bytes) -> None:
    with replacing(path) as draft:
        draft.write_bytes(content)

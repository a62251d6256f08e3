"""What the experiments on crops around candidates share: batches, the task of two classes, and what it shows.

Must not know where the candidates or their classes come from.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn import functional

from carina.data.augment import Parameters, apply, draw
from carina.data.batches import Batch, cut_batch
from carina.data.sampling import CropList
from carina.data.store import Scan
from carina.errors import TrainingError
from carina.geometry import Shape3, Vector3
from carina.hu import normalise
from carina.learn import Batches
from carina.learn.batches import generator_of, move
from carina.learn.log import RunLog
from carina.learn.metrics import BinaryMetrics
from carina.tasks.runs import RunSettings

SHOWN = 8
"""Crops of each class in the picture of the most mistaken ones."""


@dataclass(frozen=True)
class CandidateSettings(RunSettings):
    """What these experiments have in common.

    Attributes:
        batch: crops per step.
        crops_per_epoch: crops learned from in an epoch.
        validation_crops: negatives measured after an epoch, about.
        balanced: as many crops of one class as of the other; otherwise as they come.
        jitter_mm: how far the crop's centre may be off.
        smoothing: of the labels: 0.02 asks for probabilities of 0.99 and 0.01.
        monitor: the metric that chooses the best epoch.
    """

    batch: int = 16
    crops_per_epoch: int = 480
    validation_crops: int = 400
    balanced: bool = True
    jitter_mm: float = 2.0
    smoothing: float = 0.02
    monitor: str = "auc"


@dataclass(frozen=True, eq=False)
class CandidateBatch:
    """Crops as stored, how they shall be changed, and their series."""

    crops: Batch
    parameters: Parameters | None
    series_uids: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.crops)

    def to(self, device: torch.device) -> "CandidateBatch":
        """The batch on another device; the parameters follow when they are applied."""
        return replace(self, crops=self.crops.to(device))


@dataclass(frozen=True, eq=False)
class Answered:
    """What a batch came to.

    Attributes:
        log_odds: of the positive class.
        truth: whether it is true.
        middle: the middle slice of each crop, scaled to [-1, 1].
    """

    log_odds: Float[Tensor, " b"]
    truth: Bool[Tensor, " b"]
    middle: Float[Tensor, "b y x"]


@dataclass(frozen=True)
class Candidates:
    """The task: cross entropy of two classes, and the area under the ROC curve as what counts.

    Attributes:
        settings: of the experiment.
        clip_hu: of the preprocessing.
        spacing_zyx_mm: of the store's grid.
        crop_zyx: what the network sees.
    """

    settings: CandidateSettings
    clip_hu: tuple[float, float]
    spacing_zyx_mm: Vector3
    crop_zyx: Shape3

    @property
    def monitor(self) -> str:
        """What chooses the best epoch."""
        return self.settings.monitor

    @property
    def higher_is_better(self) -> bool:
        """Of all metrics but the loss."""
        return self.monitor != "loss"

    def loss(self, model: nn.Module, batch: CandidateBatch) -> tuple[Tensor, Answered]:
        """Cross entropy, smoothed while training; log-odds and truth for the metrics."""
        smoothing = self.settings.smoothing if model.training else 0.0
        inputs = self.inputs(batch)
        logits = model(inputs).float()
        loss = functional.cross_entropy(logits, batch.crops.target, label_smoothing=smoothing)
        return loss, Answered(log_odds(logits), batch.crops.target == 1, inputs[:, 0, inputs.shape[2] // 2])

    @torch.no_grad()
    def inputs(self, batch: CandidateBatch) -> Float[Tensor, "b 1 z y x"]:
        """From stored crops to what the network sees."""
        hu = batch.crops.hu.float()
        if batch.parameters is not None:
            hu, _ = apply(hu, None, batch.parameters, spacing_zyx_mm=self.spacing_zyx_mm, shape_zyx=self.crop_zyx)
        return normalise(hu, self.clip_hu)

    def metrics(self) -> "CandidateMetrics":
        """Accuracy by class, precision, recall, F1, area under the ROC curve."""
        return CandidateMetrics()


class CandidateMetrics:
    """The figures of two classes, and the crops that were most mistaken."""

    def __init__(self) -> None:
        self._counts = BinaryMetrics()
        self._worst: dict[bool, Answered] = {}

    @property
    def state(self) -> Tensor:
        """What was counted."""
        return self._counts.state

    @state.setter
    def state(self, counts: Tensor) -> None:
        self._counts.state = counts

    def update(self, answered: Answered) -> None:
        """Count a batch, and keep its most mistaken crops."""
        self._counts.count(answered.log_odds, answered.truth)
        for truth in (False, True):
            chosen = answered.truth == truth
            log_odds, middle = answered.log_odds[chosen].cpu(), answered.middle[chosen].cpu()
            if truth in self._worst:
                log_odds = torch.cat([log_odds, self._worst[truth].log_odds])
                middle = torch.cat([middle, self._worst[truth].middle])
            worst = torch.argsort(log_odds, descending=not truth)[:SHOWN]
            self._worst[truth] = Answered(log_odds[worst], torch.full((len(worst),), truth), middle[worst])

    def compute(self) -> dict[str, float]:
        """The metrics by name."""
        return self._counts.compute()

    def draw(self, log: RunLog, tag: str, epoch: int) -> None:
        """Curves, and two rows of crops: positives called least probable, negatives called most probable."""
        self._counts.draw(log, tag, epoch)
        rows = []
        for truth in (True, False):
            if truth in self._worst:
                middle = self._worst[truth].middle
                row = torch.full((SHOWN, *middle.shape[1:]), -1.0)
                row[: len(middle)] = middle
                rows.append(np.concatenate(list(row.numpy()), axis=1))
        if rows:
            log.picture(f"mistaken/{tag}", epoch, np.repeat((np.concatenate(rows)[..., None] + 1) / 2, 3, axis=2))


def log_odds(logits: Float[Tensor, "b 2"]) -> Float[Tensor, " b"]:
    """Of the positive class."""
    return (logits[:, 1] - logits[:, 0]).detach()


def changed_batches(
    scans: Sequence[Scan],
    settings: CandidateSettings,
    crop_zyx: Shape3,
    draw_crops: Callable[[int], CropList],
) -> Batches[CandidateBatch]:
    """Training batches, each a pure function of seed, epoch and index.

    Args:
        scans: what to cut from.
        settings: of the experiment.
        crop_zyx: what the network sees.
        draw_crops: the crops of an epoch.
    """
    seed, augment, shape = settings.fit.seed, settings.augment, crop_zyx
    if augment is not None:
        # Rotated, shrunk and shifted crops are filled with what lies around them.
        shape = (crop_zyx[0] + 8, crop_zyx[1] + 20, crop_zyx[2] + 20)
    epoch_crops = lru_cache(maxsize=2)(draw_crops)

    def make(epoch: int, index: int) -> CandidateBatch:
        chosen = epoch_crops(epoch).take(slice(index * settings.batch, (index + 1) * settings.batch))
        parameters = None
        if augment is not None:
            parameters = draw(generator_of(seed, epoch, index), len(chosen), augment)
        return _cut(scans, chosen, shape, parameters)

    return Batches(settings.crops_per_epoch // settings.batch, make)


def need_both(crops: CropList, said: str) -> None:
    """Refuse held-out crops of one class before the training takes its time: they calibrate nothing.

    Args:
        crops: of the held-out scans.
        said: what the positives among them are, for the message.

    Raises:
        TrainingError: one of the classes is missing.
    """
    positives = int(crops.target.sum())
    if not 0 < positives < len(crops):
        raise TrainingError(
            f"{positives} of {len(crops)} held-out {said}; both classes are needed: hold out more or other scans with "
            "--split, or none with --split none"
        )


def unchanged_batches(scans: Sequence[Scan], crops: CropList, size: int, crop_zyx: Shape3) -> Batches[CandidateBatch]:
    """All crops in their order, centred and unchanged."""

    def make(epoch: int, index: int) -> CandidateBatch:
        del epoch
        return _cut(scans, crops.take(slice(index * size, (index + 1) * size)), crop_zyx, None)

    return Batches(-(-len(crops) // size), make)


def _cut(scans: Sequence[Scan], chosen: CropList, shape: Shape3, parameters: Parameters | None) -> CandidateBatch:
    batch = cut_batch(scans, chosen, shape, masks=False)
    return CandidateBatch(batch, parameters, tuple(scans[s].series_uid for s in chosen.scan.tolist()))


@torch.no_grad()
def answers(
    task: Candidates, model: nn.Module, batches: Batches[CandidateBatch], device: torch.device
) -> tuple[Float[np.ndarray, " n"], Bool[np.ndarray, " n"]]:
    """Log-odds and truth of every candidate."""
    found, truth = [], []
    for index in range(batches.count):
        batch = move(batches.make(0, index), device)
        found.append(log_odds(model(task.inputs(batch)).float()).cpu())
        truth.append((batch.crops.target == 1).cpu())
    return torch.cat(found).double().numpy(), torch.cat(truth).numpy()

"""Birds or airplanes: small colour pictures told apart by nine networks, on the same training loop as the scans.

A tenth of the training pictures chooses the epoch; the test pictures are looked at once, after training. Must not
know the command line or how runs are compared.
"""

import math
import time
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Bool, Float, Int64, UInt8
from torch import Tensor, nn
from torch.nn import functional

from carina.data.pictures import Pictures, channel_statistics, split_pictures
from carina.errors import UsageError, WeightsError
from carina.learn import Batches, FitResult, FitSettings, fit
from carina.learn.batches import generator_of
from carina.learn.checkpoint import read_checkpoint
from carina.learn.engine import CHECKPOINT
from carina.learn.log import RunLog
from carina.models.birds import VARIANTS
from carina.models.build import Spec, build

PLAIN = FitSettings(epochs=12, optimizer="sgd", lr=0.02, momentum=0.9, schedule="cosine", channels_last=True)
"""How the convolutional networks are trained, so that they differ in one thing only."""

RECIPES: dict[str, FitSettings] = {
    # The plain gradient descent that the network with one hidden layer is usually shown with.
    "mlp": FitSettings(epochs=12, optimizer="sgd", lr=1e-2),
    "combined": replace(PLAIN, epochs=22, optimizer="adamw", lr=5e-3, weight_decay=0.05, schedule="one-cycle"),
}
"""Where a variant is trained in another way than ``PLAIN``."""


@dataclass(frozen=True)
class BirdsSettings:
    """How to train one network.

    Attributes:
        variant: which network, one of ``carina.models.birds.VARIANTS``.
        batch: pictures per step.
        held_out: share of the training pictures that chooses the epoch.
        penalty_l1: weight of the sum of absolute weights in the loss.
        penalty_l2: weight of the sum of squared weights in the loss.
        augment: mirror and shift pictures while training.
        fit: how to train.
    """

    variant: str = "cnn"
    batch: int = 64
    held_out: float = 0.1
    penalty_l1: float = 0.0
    penalty_l2: float = 0.0
    augment: bool = False
    fit: FitSettings = field(default_factory=lambda: PLAIN)

    def __post_init__(self) -> None:
        """Raises UsageError for a penalty that would reward large weights."""
        for name in ("penalty_l1", "penalty_l2"):
            if not getattr(self, name) >= 0:
                raise UsageError(f"{name} is {getattr(self, name):g}; expected at least 0")


def settings_of(variant: str, seed: int = 0) -> BirdsSettings:
    """What a variant is trained with in the comparison.

    Raises:
        UsageError: there is no such variant.
    """
    if variant not in VARIANTS:
        raise UsageError(f"no model {variant!r}; choose one of {', '.join(VARIANTS)}")
    return BirdsSettings(
        variant=variant,
        penalty_l2=0.001 if variant == "l2" else 0.0,
        augment=variant == "combined",
        fit=replace(RECIPES.get(variant, PLAIN), seed=seed),
    )


@dataclass(frozen=True, eq=False)
class PictureBatch:
    """Pictures and their classes."""

    images: UInt8[Tensor, "b 3 h w"]
    labels: Int64[Tensor, " b"]

    def to(self, device: torch.device) -> "PictureBatch":
        """The batch on another device."""
        return PictureBatch(self.images.to(device), self.labels.to(device))


class Accuracy:
    """How many of each class were called what."""

    def __init__(self, classes: int) -> None:
        self.state = torch.zeros(classes, classes, dtype=torch.float64)

    def update(self, outputs: tuple[Tensor, Tensor]) -> None:
        """Count true classes and answers."""
        truth, called = outputs
        classes = len(self.state)
        counts = torch.bincount(truth * classes + called, minlength=classes**2)
        self.state += counts.view(classes, classes).to(self.state)

    def compute(self) -> dict[str, float]:
        """Share of right answers."""
        return {"accuracy": float(self.state.diagonal().sum() / self.state.sum())}

    def draw(self, log: RunLog, tag: str, epoch: int) -> None:
        """Nothing beyond the numbers."""


@dataclass(frozen=True)
class Birds:
    """The task: cross entropy, with a penalty on large weights where one is set.

    Attributes:
        settings: of the experiment.
        classes: how many.
        monitor: accuracy chooses the epoch.
        higher_is_better: it is.
    """

    settings: BirdsSettings
    classes: int = 2
    monitor: str = "accuracy"
    higher_is_better: bool = True

    def loss(self, model: nn.Module, batch: PictureBatch) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """Cross entropy, while training with the penalty; true classes and answers for the metrics."""
        logits = model(batch.images)
        loss = functional.cross_entropy(logits, batch.labels)
        if model.training and (self.settings.penalty_l1 or self.settings.penalty_l2):
            loss = loss + penalty(model, l1=self.settings.penalty_l1, l2=self.settings.penalty_l2)
        return loss, (batch.labels, logits.detach().argmax(1))

    def metrics(self) -> Accuracy:
        """Share of right answers."""
        return Accuracy(self.classes)


def penalty(model: nn.Module, *, l1: float = 0.0, l2: float = 0.0) -> Float[Tensor, ""]:
    """``l1`` times the sum of absolute values of all parameters, plus ``l2`` times the sum of their squares.

    The gradient of the second part is 2 * l2 * w: for plain SGD it is the optimizer's weight decay of 2 * l2.
    """
    parameters = [p for p in model.parameters() if p.requires_grad]
    total = torch.zeros((), device=parameters[0].device)
    if l1:
        total = total + l1 * torch.stack([p.abs().sum() for p in parameters]).sum()
    if l2:
        total = total + l2 * torch.stack([(p**2).sum() for p in parameters]).sum()
    return total


def training_batches(pictures: Pictures, settings: BirdsSettings) -> Batches[PictureBatch]:
    """Shuffled anew in every epoch, as a pure function of seed, epoch and index."""
    seed, size = settings.fit.seed, settings.batch
    order: dict[int, Int64[Tensor, " n"]] = {}

    def make(epoch: int, index: int) -> PictureBatch:
        if epoch not in order:
            order.clear()
            order[epoch] = torch.randperm(len(pictures), generator=generator_of(seed, epoch, 0))
        chosen = pictures.take(order[epoch][index * size : (index + 1) * size])
        images = chosen.images
        if settings.augment:
            images = mirror_and_shift(images, generator_of(seed, epoch, index + 1))
        return PictureBatch(images, chosen.labels)

    return Batches(len(pictures) // size, make)


def unchanged_batches(pictures: Pictures, size: int = 500) -> Batches[PictureBatch]:
    """All pictures in their order."""

    def make(epoch: int, index: int) -> PictureBatch:
        del epoch
        part = slice(index * size, (index + 1) * size)
        return PictureBatch(pictures.images[part], pictures.labels[part])

    return Batches(-(-len(pictures) // size), make)


def mirror_and_shift(
    images: UInt8[Tensor, "b 3 h w"], generator: torch.Generator, most: int = 4
) -> UInt8[Tensor, "b 3 h w"]:
    """Mirror every second picture, on average, and shift each by up to ``most`` pixels; the edge is repeated."""
    count, _, height, width = images.shape
    dy, dx = torch.randint(-most, most + 1, (2, count, 1), generator=generator)
    mirrored = torch.rand(count, 1, generator=generator) < 0.5
    rows = (torch.arange(height) + dy).clamp(0, height - 1)
    columns = torch.arange(width).expand(count, width)
    columns = (torch.where(mirrored, width - 1 - columns, columns) + dx).clamp(0, width - 1)
    channels_last = images.permute(0, 2, 3, 1)
    moved = channels_last[torch.arange(count)[:, None, None], rows[:, :, None], columns[:, None, :]]
    return moved.permute(0, 3, 1, 2)


@dataclass(frozen=True, eq=False)
class BirdsResult:
    """One trained network, measured.

    Attributes:
        variant: which.
        seed: of its weights, its split and its shuffles.
        parameters: how many it has.
        train_accuracy: of the chosen epoch, on the pictures learned from, as they were learned from.
        val_accuracy: of the chosen epoch, on the pictures that chose it.
        test_accuracy: on the test pictures.
        best_epoch: the chosen epoch, from 0.
        cpu_seconds: processor time of the training; of one that was resumed, the part made now says how long all took;
            NaN where nothing was left to do.
        right: for each test picture whether the answer was right.
        p_called: for each test picture the probability of the answer.
        called: for each test picture the answer.
        spec: of the network.
        fit: the loop's record.
    """

    variant: str
    seed: int
    parameters: int
    train_accuracy: float
    val_accuracy: float
    test_accuracy: float
    best_epoch: int
    cpu_seconds: float
    right: Bool[Tensor, " n"]
    p_called: Float[Tensor, " n"]
    called: Int64[Tensor, " n"]
    spec: Spec
    fit: FitResult


def train_birds(
    train: Pictures,
    test: Pictures,
    settings: BirdsSettings,
    run_dir: Path | None = None,
    *,
    resume: bool = False,
    progress: bool = False,
) -> tuple[nn.Module, BirdsResult]:
    """Train one network and measure it once on the test pictures.

    Args:
        train: pictures to learn from; a share of them chooses the epoch.
        test: pictures of the same classes and size.
        settings: which network, and how.
        run_dir: for log, checkpoint and TensorBoard files.
        resume: go on from the checkpoint there.
        progress: show a bar per epoch.

    Raises:
        UsageError: the classes of the two differ.
    """
    if train.classes != test.classes:
        raise UsageError(f"the classes differ: {', '.join(train.classes)} to learn, {', '.join(test.classes)} to test")
    learned, chooses = split_pictures(train, settings.held_out, settings.fit.seed)
    mean, deviation = channel_statistics(learned.images)
    spec: Spec = {
        "kind": "picture",
        "variant": settings.variant,
        "mean": mean.tolist(),
        "deviation": deviation.tolist(),
        "classes": len(train.classes),
    }
    torch.manual_seed(settings.fit.seed)
    model = build(spec)
    already = _epochs_done(run_dir) if resume and run_dir is not None else 0
    began = time.process_time()
    result = fit(
        Birds(settings, len(train.classes)),
        model,
        training_batches(learned, settings),
        unchanged_batches(chooses),
        settings=settings.fit,
        run_dir=run_dir,
        resume=resume,
        config=_described(settings, spec, train.classes),
        progress=progress,
    )
    seconds, made = time.process_time() - began, result.epochs - already
    p = class_probabilities(model, test.images)
    p_called, called = p.max(1)
    right = called == test.labels
    return model, BirdsResult(
        variant=settings.variant,
        seed=settings.fit.seed,
        parameters=sum(p.numel() for p in model.parameters()),
        train_accuracy=result.metrics["train_accuracy"],
        val_accuracy=result.metrics["val_accuracy"],
        test_accuracy=float(right.double().mean()),
        best_epoch=result.best_epoch,
        cpu_seconds=seconds * result.epochs / made if made else math.nan,
        right=right,
        p_called=p_called,
        called=called,
        spec=spec,
        fit=result,
    )


@torch.no_grad()
def class_probabilities(model: nn.Module, images: UInt8[Tensor, "n 3 h w"]) -> Float[Tensor, "n classes"]:
    """Probability of each class, on the processor."""
    device = next(model.parameters()).device
    model.eval()
    return torch.cat([model(part.to(device)).float().softmax(1).cpu() for part in images.split(500)])


def load_birds(run_dir: Path) -> tuple[nn.Module, tuple[str, ...]]:
    """The best weights of a run, from its checkpoint, and the names of the classes.

    Raises:
        WeightsError: no checkpoint there, or one of another task.
    """
    path = run_dir / CHECKPOINT
    if not path.is_file():
        raise WeightsError(f"no checkpoint at {path}; give the folder of a run of `carina train birds`")
    state = read_checkpoint(path)
    spec = state["config"].get("spec", {})
    if spec.get("kind") != "picture":
        raise WeightsError(f"{path} is a checkpoint of another task; give one of `carina train birds`")
    model = build(spec)
    model.load_state_dict(state["best_weights"])
    return model.eval(), tuple(state["config"]["class_names"])


def _epochs_done(run_dir: Path) -> int:
    path = run_dir / CHECKPOINT
    return int(read_checkpoint(path)["result"]["epochs"]) if path.is_file() else 0


def _described(settings: BirdsSettings, spec: Spec, classes: tuple[str, ...]) -> dict[str, Any]:
    own = {name: getattr(settings, name) for name in ("batch", "held_out", "penalty_l1", "penalty_l2", "augment")}
    return {"spec": spec, "class_names": list(classes), **own}

"""The thermometer: eleven readings on an unknown scale, from which to learn how it relates to Celsius.

The first problem that the training loop solves, seven ways: the gradient from differences, from a formula, and from
autograd; steps by SGD and by Adam; then a linear layer and a small network, judged by readings that were held out.
All of them go through ``carina.learn.fit``. Must not know the command line.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, cast

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from carina.errors import TrainingError, UsageError
from carina.learn import Batches, FitResult, FitSettings, fit
from carina.learn.metrics import LossOnly
from carina.models.build import Spec, build
from carina.models.linear import Line

CELSIUS = (0.5, 14.0, 15.0, 28.0, 11.0, 8.0, 3.0, -4.0, 6.0, 13.0, 21.0)
"""Temperatures in degrees Celsius."""
UNKNOWN = (35.7, 55.9, 58.2, 81.9, 56.3, 48.9, 33.9, 21.8, 48.4, 60.4, 68.4)
"""What the thermometer with the unknown scale showed at those temperatures."""

Method = Literal["numeric", "analytic", "autograd", "sgd", "adam", "linear", "network"]
LINES = ("numeric", "analytic", "autograd", "sgd", "adam")
"""Methods that move the two numbers of a line; the others train layers."""
DELTA = 0.1
"""How far the numeric gradient looks to either side."""

Gradient = Callable[[Tensor, Tensor, Tensor, Tensor], tuple[Tensor, Tensor]]
"""(w, b, x, y) to the derivatives of the mean squared error by w and by b."""


@dataclass(frozen=True)
class ThermometerSettings:
    """How to solve it.

    Attributes:
        method: see the module's docstring; "autograd" and "sgd" are the same arithmetic.
        epochs: passes over the readings.
        lr: learning rate; None for the method's own.
        scale: what the unknown readings are multiplied with, so that one rate suits both numbers.
        held_out: share of the readings that only validates; None for the method's own.
        hidden: units of the network.
        seed: of the shuffled split and of fresh weights.
    """

    method: Method = "sgd"
    epochs: int = 5000
    lr: float | None = None
    scale: float = 0.1
    held_out: float | None = None
    hidden: int = 8
    seed: int = 0

    def fit(self) -> FitSettings:
        """The settings of the loop; one of its epochs holds several passes, so that its log stays readable."""
        rate = {"adam": 0.1, "network": 1e-3}.get(self.method, 1e-2)
        return FitSettings(
            epochs=self.epochs // self.passes(),
            optimizer="adam" if self.method == "adam" else "sgd",
            lr=rate if self.lr is None else self.lr,
            seed=self.seed,
        )

    def passes(self) -> int:
        """Passes over the readings between two records."""
        return math.gcd(self.epochs, 100)

    def share_held_out(self) -> float:
        """Share of the readings that validates: none while a line is fitted by hand, a fifth for layers."""
        own = 0.0 if self.method in LINES else 0.2
        return own if self.held_out is None else self.held_out


@dataclass(frozen=True, eq=False)
class Readings:
    """Readings in pairs, and in which pass over them.

    Attributes:
        x: unknown scale, scaled.
        y: degrees Celsius.
        epoch: passes that were made before this one.
    """

    x: Float[Tensor, "n 1"]
    y: Float[Tensor, "n 1"]
    epoch: int = 0


def numeric_gradient(w: Tensor, b: Tensor, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """How the loss changes over ``DELTA`` to either side of each number, the other one held still."""

    def loss(w: Tensor, b: Tensor) -> Tensor:
        return ((w * x + b - y) ** 2).mean()

    by_w = (loss(w + DELTA, b) - loss(w - DELTA, b)) / (2 * DELTA)
    by_b = (loss(w, b + DELTA) - loss(w, b - DELTA)) / (2 * DELTA)
    return by_w, by_b


def analytic_gradient(w: Tensor, b: Tensor, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """The chain rule on paper: the derivative of the square is 2 (height - y), times x by w and times 1 by b."""
    off = 2 * (w * x + b - y)
    return (off * x).mean(), off.mean()


GRADIENTS: dict[str, Gradient] = {"numeric": numeric_gradient, "analytic": analytic_gradient}
"""Methods that do not leave the gradient to autograd."""


class ByHand(torch.autograd.Function):
    """The mean squared error of a line with a gradient of our own: ``backward`` hands it to the training loop."""

    @staticmethod
    def forward(ctx: Any, w: Tensor, b: Tensor, x: Tensor, y: Tensor, gradient: Gradient) -> Tensor:
        """The loss; the gradient is taken at the same place."""
        ctx.gradient = gradient(w, b, x, y)
        return ((w * x + b - y) ** 2).mean()

    @staticmethod
    def backward(ctx: Any, *outer: Tensor) -> tuple[Tensor, Tensor, None, None, None]:
        """The gradient of our own, times what follows the loss."""
        by_w, by_b = ctx.gradient
        return outer[0] * by_w, outer[0] * by_b, None, None, None


@dataclass(frozen=True)
class Thermometer:
    """The task: mean squared error in degrees squared.

    Attributes:
        gradient: None leaves it to autograd.
        limit: a loss beyond this has diverged.
        lr: for the message then.
        monitor: the loss chooses the best weights.
        higher_is_better: it is not.
    """

    gradient: Gradient | None = None
    limit: float = math.inf
    lr: float = math.nan
    monitor: str = "loss"
    higher_is_better: bool = False

    def loss(self, model: nn.Module, batch: Readings) -> tuple[Tensor, None]:
        """Mean squared error.

        Raises:
            TrainingError: training diverged.
        """
        if self.gradient is not None and isinstance(model, Line):
            loss = cast(Tensor, ByHand.apply(model.w, model.b, batch.x, batch.y, self.gradient))  # type: ignore[no-untyped-call]
        else:
            loss = nn.functional.mse_loss(model(batch.x), batch.y)
        value = float(loss.detach())
        if not value <= self.limit:
            raise TrainingError(
                f"diverged at epoch {batch.epoch}, lower the rate or scale the input: the loss grew to {value:.3g} "
                f"at learning rate {self.lr:g} with inputs up to {float(batch.x.abs().max()):g}"
            )
        return loss, None

    def metrics(self) -> LossOnly:
        """The loss says it all."""
        return LossOnly()


def split_readings(count: int, held_out: float, seed: int) -> tuple[Int[Tensor, " train"], Int[Tensor, " val"]]:
    """Shuffled indices to learn from and to validate with.

    Raises:
        UsageError: the share leaves nothing to learn from.
    """
    if not 0 <= held_out < 1 or count - round(held_out * count) < 1:
        raise UsageError(f"{held_out:g} of {count} readings cannot be held out: give a share from 0 to below 1")
    shuffled = torch.randperm(count, generator=torch.Generator().manual_seed(seed))
    kept = count - round(held_out * count)
    return shuffled[:kept], shuffled[kept:]


@dataclass
class Solution:
    """What came out.

    Attributes:
        settings: how it was found.
        model: with its final weights.
        loss: mean squared error over the readings learned from.
        val_loss: over those held out; NaN without any.
        held_out: indices of the readings held out.
        result: the loop's record.
        parameters: shape by name.
    """

    settings: ThermometerSettings
    model: nn.Module
    loss: float
    val_loss: float
    held_out: tuple[int, ...]
    result: FitResult
    parameters: dict[str, tuple[int, ...]] = field(default_factory=dict)

    @torch.no_grad()
    def celsius(self, unknown: Float[Tensor, " n"]) -> Float[Tensor, " n"]:
        """What the solution makes of readings on the unknown scale."""
        heights: Tensor = self.model(self.settings.scale * unknown[:, None])
        return heights[:, 0]

    def line(self) -> tuple[float, float] | None:
        """Slope and offset for the scaled input; None for a network."""
        values = [value.item() for value in self.model.parameters() if value.numel() == 1]
        return (values[0], values[1]) if len(self.parameters) == 2 else None


def spec_of(settings: ThermometerSettings) -> Spec:
    """The network of a method."""
    match settings.method:
        case "linear":
            return {"kind": "linear"}
        case "network":
            return {"kind": "small", "hidden": settings.hidden}
        case _:
            return {"kind": "line"}


def train_thermometer(settings: ThermometerSettings, run_dir: Path | None = None, *, resume: bool = False) -> Solution:
    """Solve it; log, checkpoint and TensorBoard files go to ``run_dir`` if there is one.

    Raises:
        TrainingError: the learning rate is too high for this scale.
        UsageError: no epochs, no hidden units, or nothing left to learn from.
    """
    if settings.epochs < 1 or settings.hidden < 1:
        raise UsageError(f"{settings.epochs} epochs and {settings.hidden} hidden units: both start at 1")
    x = settings.scale * torch.tensor(UNKNOWN)[:, None]
    y = torch.tensor(CELSIUS)[:, None]
    train, val = split_readings(len(CELSIUS), settings.share_held_out(), settings.seed)
    passes, rule = settings.passes(), settings.fit()

    def everything(epoch: int, index: int) -> Readings:
        return Readings(x[train], y[train], epoch * passes + index)

    def held_out(epoch: int, index: int) -> Readings:
        del epoch, index
        return Readings(x[val], y[val])

    torch.manual_seed(settings.seed)
    model = build(spec_of(settings))
    with torch.no_grad():
        start = float(nn.functional.mse_loss(model(x), y))
    task = Thermometer(GRADIENTS.get(settings.method), 1000 * start, rule.lr)
    result = fit(
        task,
        model,
        Batches(passes, everything),
        Batches(1, held_out) if len(val) else None,
        settings=rule,
        run_dir=run_dir,
        resume=resume,
        config={"thermometer": settings.method, "scale": settings.scale, "held_out": settings.share_held_out()},
    )
    with torch.no_grad():
        losses = [float(nn.functional.mse_loss(model(x[part]), y[part])) for part in (train, val) if len(part)]
    return Solution(
        settings,
        model,
        losses[0],
        losses[1] if len(val) else math.nan,
        tuple(sorted(val.tolist())),
        result,
        {name: tuple(value.shape) for name, value in model.named_parameters()},
    )

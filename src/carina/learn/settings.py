"""How to train, and what a training came to, as plain values. Must not know what is trained."""

import math
from dataclasses import dataclass, field
from typing import Literal

from carina.errors import UsageError
from carina.learn.log import Record
from carina.learn.schedule import Schedule

Precision = Literal["auto", "fp32", "bf16", "fp16"]


@dataclass(frozen=True)
class FitSettings:
    """How to train.

    Attributes:
        epochs: passes over the data at most.
        minutes: time budget; training ends when it is used up, and the schedule follows the clock.
        optimizer: "sgd", "adam" or "adamw".
        lr: learning rate at its highest.
        momentum: of SGD.
        weight_decay: as torch's optimizers define it.
        schedule: "constant", "cosine" (from ``lr`` to 0) or "one-cycle" (slow start, ``lr``, almost 0).
        warmup: fraction of the training in which the learning rate rises linearly.
        clip_norm: longest gradient; longer ones are shortened. None: any length.
        accumulate: micro-batches per step of the optimizer, together over all processes.
        precision: "fp32", or mixed precision with "bf16" or "fp16"; "auto" is bf16 where the device has units for it,
            else fp32.
        ema: decay of the moving average of the weights that is validated and kept, 0.99 say. None: no average.
        patience: epochs without a better monitor after which training stops. None: never.
        seed: of the loop's own randomness (dropout); the task's data has the same seed by convention.
        device: where to train; under ``torchrun`` "cuda" becomes this process's card.
        channels_last: keep weights of convolutions with their channels last, which most processors convolve faster.
        validate_every: epochs between two looks at the validation data; the last one is always validated.
        prefetch: batches made ahead in threads; 0 makes each when it is needed.
    """

    epochs: int = 10
    minutes: float | None = None
    optimizer: Literal["sgd", "adam", "adamw"] = "adamw"
    lr: float = 1e-3
    momentum: float = 0.0
    weight_decay: float = 0.0
    schedule: Schedule = "constant"
    warmup: float = 0.0
    clip_norm: float | None = None
    accumulate: int = 1
    precision: Precision = "fp32"
    ema: float | None = None
    patience: int | None = None
    seed: int = 0
    device: str = "cpu"
    channels_last: bool = False
    validate_every: int = 1
    prefetch: int = 0

    def __post_init__(self) -> None:
        """Raises UsageError for numbers that nothing can be trained with."""
        for name, least in {"epochs": 1, "accumulate": 1, "validate_every": 1, "prefetch": 0, "seed": 0}.items():
            if getattr(self, name) < least:
                raise UsageError(f"{name} is {getattr(self, name)}; expected at least {least}")
        if self.seed >= 2**63:
            raise UsageError(f"seed is {self.seed}; expected less than 2**63")
        if self.patience is not None and self.patience < 1:
            raise UsageError(f"patience is {self.patience}; expected at least 1")
        below = {"lr": math.inf, "momentum": 1, "weight_decay": math.inf, "warmup": 1, "clip_norm": math.inf, "ema": 1}
        for name, limit in below.items():
            value = getattr(self, name)
            if value is not None and not 0 <= value < limit:
                raise UsageError(f"{name} is {value:g}; expected a number from 0 to below {limit:g}")
        if self.clip_norm == 0:
            raise UsageError("clip_norm is 0; expected more than 0, or none at all to clip nothing")
        if self.minutes is not None and not self.minutes > 0:
            raise UsageError(f"minutes is {self.minutes:g}; expected more than 0")


MAY_CHANGE = {"epochs", "minutes", "patience", "device", "prefetch", "name", "licences", "outcome"}
"""What may differ when a run is resumed: how long, where, words for the card; the rest would make it another run."""


@dataclass
class FitResult:
    """What a training came to; the model itself holds the best weights afterwards.

    Attributes:
        best_epoch: epoch (from 0) of the best monitor.
        best: its value.
        metrics: all metrics of that epoch.
        epochs: epochs made.
        steps: steps of the optimizer.
        seconds: time spent, over all resumed parts.
        history: one record per epoch.
    """

    best_epoch: int = -1
    best: float = math.nan
    metrics: dict[str, float] = field(default_factory=dict)
    epochs: int = 0
    steps: int = 0
    seconds: float = 0.0
    history: list[Record] = field(default_factory=list)

"""Learning-rate schedules as pure functions of how much of the training is done. Must not know optimizers."""

import math
from typing import Literal

Schedule = Literal["constant", "cosine", "one-cycle"]


def learning_rate_factor(schedule: Schedule, warmup: float, done: float) -> float:
    """What the highest learning rate is multiplied with.

    Args:
        schedule: "constant"; "cosine" falls from 1 to 0; "one-cycle" starts at 1/25, rises and falls as cosines
            (Smith and Topin, arXiv:1708.07120) and ends at 1e-4.
        warmup: fraction of the training in which it rises (one-cycle: 0 means 0.3).
        done: fraction of the training that is done, in [0, 1].
    """
    if schedule == "one-cycle":
        rise = warmup or 0.3
        if done < rise:
            return _cosine(1 / 25, 1.0, done / rise)
        return _cosine(1.0, 1e-4, (done - rise) / (1 - rise))
    # The first step must move: warm-up begins at a hundredth.
    start = min(1.0, 0.01 + 0.99 * done / warmup) if warmup else 1.0
    if schedule == "constant":
        return start
    return start * _cosine(1.0, 0.0, max(0.0, done - warmup) / (1 - warmup))


def _cosine(first: float, last: float, done: float) -> float:
    return last + (first - last) * 0.5 * (1 + math.cos(math.pi * min(1.0, done)))

"""Metrics that are counted batch by batch and add up over processes.

All state is one tensor of counts. Areas under curves come from a histogram of log-odds, fine enough for watching a
training; reported figures are computed exactly by ``carina.evaluate``. Must not know tasks or files.
"""

import numpy as np
import torch
from jaxtyping import Bool, Float, Shaped
from torch import Tensor

from carina.learn.log import RunLog

BINS = 960
LARGEST_LOGIT = 12.0


class LossOnly:
    """No metric besides the loss."""

    def __init__(self) -> None:
        self.state = torch.zeros(1, dtype=torch.float64)

    def update(self, outputs: object) -> None:
        """Nothing to count."""

    def compute(self) -> dict[str, float]:
        """Nothing was counted."""
        return {}

    def draw(self, log: RunLog, tag: str, epoch: int) -> None:
        """Nothing to draw."""


class BinaryMetrics:
    """Two classes: accuracy by class, precision, recall, F1, and the area under the ROC curve.

    Args:
        threshold: probability from which on the answer is "positive".
    """

    def __init__(self, threshold: float = 0.5) -> None:
        self.threshold = threshold
        self.state = torch.zeros(2, BINS, dtype=torch.float64)

    def update(self, outputs: tuple[Tensor, Tensor]) -> None:
        """Count log-odds [*any] and truth [*any] (bool)."""
        self.count(*outputs)

    def count(self, log_odds: Float[Tensor, "*any"], truth: Bool[Tensor, "*any"]) -> None:
        """Count log-odds of the positive class and whether it is true."""
        scaled = (log_odds.detach().float().clamp(-LARGEST_LOGIT, LARGEST_LOGIT) / LARGEST_LOGIT + 1) * (BINS / 2)
        index = scaled.long().clamp_(max=BINS - 1) + BINS * (~truth).long()
        self.state += torch.bincount(index.flatten(), minlength=2 * BINS).view(2, BINS).to(self.state)

    def compute(self) -> dict[str, float]:
        """The metrics by name; NaN where there is nothing to divide by."""
        return binary_metrics(self.state.numpy(), self.threshold)

    def draw(self, log: RunLog, tag: str, epoch: int) -> None:
        """ROC and precision-recall curves, and histograms of probabilities by class."""
        positives, negatives = self.state.numpy()
        log.curves(tag, epoch, probability_edges(), positives, negatives)


def probability_edges() -> Float[np.ndarray, " edges"]:
    """Limits of the bins as probabilities, from 0 to 1."""
    edges = 1 / (1 + np.exp(-np.linspace(-LARGEST_LOGIT, LARGEST_LOGIT, BINS + 1)))
    edges[0], edges[-1] = 0.0, 1.0
    return np.asarray(edges)


def binary_metrics(counts: Shaped[np.ndarray, "2 bins"], threshold: float) -> dict[str, float]:
    """Metrics from counts of positives and negatives per bin of log-odds."""
    positives, negatives = counts.astype(float)
    called = probability_edges()[:-1] >= threshold - 1e-9
    true, false = positives[called].sum(), negatives[called].sum()
    missed, left = positives.sum() - true, negatives.sum() - false
    below = np.cumsum(negatives) - negatives
    pairs = positives.sum() * negatives.sum()
    return {
        "recall": _ratio(true, true + missed),
        "specificity": _ratio(left, left + false),
        "precision": _ratio(true, true + false),
        "f1": _ratio(2 * true, 2 * true + false + missed),
        "accuracy": _ratio(true + left, positives.sum() + negatives.sum()),
        "auc": _ratio(float((positives * (below + negatives / 2)).sum()), pairs),
    }


def _ratio(part: float, whole: float) -> float:
    return float(part / whole) if whole > 0 else float("nan")

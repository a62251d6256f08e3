"""How good probabilities are: ROC, precision against recall, calibration, and intervals of each.

Functions of plain arrays. Must not know files, nodules or networks.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float64, Int64
from scipy.special import expit, logit, ndtri
from scipy.stats import rankdata

from carina.errors import InputError
from carina.learn.calibrate import binned, expected_calibration_error
from carina.learn.ranking import auc

Interval = tuple[float, float]


@dataclass(frozen=True, eq=False)
class Roc:
    """Receiver operating characteristic.

    Attributes:
        false_positive_rate: at each threshold, from the strictest (0) to the loosest (1).
        true_positive_rate: likewise.
        auc: area under the curve: probability that a positive scores above a negative, ties counting half.
        auc_interval: its interval by ``auc_interval`` (DeLong).
        n: cases.
        n_positive: positive cases.
    """

    false_positive_rate: Float64[np.ndarray, " points"]
    true_positive_rate: Float64[np.ndarray, " points"]
    auc: float
    auc_interval: Interval
    n: int
    n_positive: int


@dataclass(frozen=True, eq=False)
class PrecisionRecall:
    """Precision against recall, from the strictest threshold to the loosest; equal scores form one point.

    Attributes:
        recall: fraction of the positives at or above each threshold.
        precision: fraction of positives among the cases at or above it.
        average_precision: precision averaged over the steps of recall, without interpolation.
    """

    recall: Float64[np.ndarray, " points"]
    precision: Float64[np.ndarray, " points"]
    average_precision: float


@dataclass(frozen=True, eq=False)
class Reliability:
    """Whether probabilities mean what they say. One entry per equal-width bin of [0, 1] that holds cases.

    Attributes:
        mean_probability: mean probability in the bin.
        fraction: fraction of positives in the bin.
        fraction_interval: its 95 % Wilson interval.
        count: cases in the bin.
        expected_error: |mean_probability - fraction| averaged over cases (ECE).
        brier: mean squared difference of probability and outcome.
        log_loss: mean negative log-likelihood, in nats.
    """

    mean_probability: Float64[np.ndarray, " bins"]
    fraction: Float64[np.ndarray, " bins"]
    fraction_interval: tuple[Interval, ...]
    count: Int64[np.ndarray, " bins"]
    expected_error: float
    brier: float
    log_loss: float


def roc(positive: Bool[np.ndarray, " n"], score: Float64[np.ndarray, " n"]) -> Roc:
    """ROC curve, its area and the area's interval.

    Args:
        positive: the truth.
        score: higher means more likely positive.

    Raises:
        InputError: only one class is present, or a score is not finite.
    """
    _check(positive, score)
    true, false = _counts_from_the_top(positive, score)
    n_positive = int(positive.sum())
    return Roc(
        false_positive_rate=false / (len(positive) - n_positive),
        true_positive_rate=true / n_positive,
        auc=auc(positive, score),
        auc_interval=auc_interval(positive, score),
        n=len(positive),
        n_positive=n_positive,
    )


def auc_interval(
    positive: Bool[np.ndarray, " n"], score: Float64[np.ndarray, " n"], confidence: float = 0.95
) -> Interval:
    """Interval of the area under the ROC curve, for independent cases.

    DeLong's variance (DeLong, DeLong and Clarke-Pearson, Biometrics 44, 1988; ranks as Sun and Xu, 2014) on the
    logit scale, which keeps the interval inside (0, 1). With perfect separation that variance is 0 and would claim
    certainty: then the interval is the exact binomial one for as many independent right pairs as the smaller class
    has cases.
    """
    n_positive, n_negative = int(positive.sum()), int((~positive).sum())
    area = auc(positive, score)
    alpha = 1.0 - confidence
    if area in (0.0, 1.0):
        bound = (alpha / 2) ** (1.0 / min(n_positive, n_negative))
        return (bound, 1.0) if area == 1.0 else (0.0, 1.0 - bound)
    ranks = rankdata(score)
    above = (ranks[positive] - rankdata(score[positive])) / n_negative
    below = 1.0 - (ranks[~positive] - rankdata(score[~positive])) / n_positive
    variance = _variance_of_mean(above) + _variance_of_mean(below)
    half = float(ndtri(1 - alpha / 2)) * np.sqrt(variance) / (area * (1 - area))
    return float(expit(logit(area) - half)), float(expit(logit(area) + half))


def clustered_auc_interval(
    positive: Bool[np.ndarray, " n"],
    score: Float64[np.ndarray, " n"],
    group: Int64[np.ndarray, " n"],
    *,
    bootstraps: int = 1000,
    confidence: float = 0.95,
    seed: int = 0,
) -> Interval:
    """Interval of the area under the ROC curve when cases of one group (patient, scan) are alike.

    Percentiles over resamples of whole groups; resamples that lack a class are left out.

    Args:
        positive: the truth.
        score: higher means more likely positive.
        group: number of the group of each case, 0 to groups - 1.
        bootstraps: resamples.
        confidence: probability that the interval is meant to cover.
        seed: of the resamples.
    """
    areas = [
        auc(positive[cases], score[cases])
        for cases in resampled_groups(group, bootstraps, seed)
        if 0 < positive[cases].sum() < len(cases)
    ]
    if not areas:
        return float("nan"), float("nan")
    low, high = np.quantile(areas, [(1 - confidence) / 2, (1 + confidence) / 2])
    return float(low), float(high)


def resampled_groups(
    group: Int64[np.ndarray, " n"], bootstraps: int, seed: int
) -> Iterator[Int64[np.ndarray, " cases"]]:
    """Indices of cases, for resamples of whole groups drawn with replacement.

    Args:
        group: number of the group of each case, 0 to groups - 1.
        bootstraps: resamples.
        seed: of the draws.
    """
    generator = np.random.default_rng(seed)
    n_groups = int(group.max()) + 1
    for _ in range(bootstraps):
        drawn = np.bincount(generator.integers(n_groups, size=n_groups), minlength=n_groups)
        yield np.repeat(np.arange(len(group)), drawn[group])


def precision_recall(positive: Bool[np.ndarray, " n"], score: Float64[np.ndarray, " n"]) -> PrecisionRecall:
    """Precision and recall at every threshold.

    Raises:
        InputError: only one class is present, or a score is not finite.
    """
    _check(positive, score)
    true, false = _counts_from_the_top(positive, score)
    recall = true[1:] / true[-1]
    precision = true[1:] / (true[1:] + false[1:])
    return PrecisionRecall(recall, precision, float(np.sum(np.diff(recall, prepend=0.0) * precision)))


def reliability(
    positive: Bool[np.ndarray, " n"], probability: Float64[np.ndarray, " n"], bins: int = 10
) -> Reliability:
    """Compare probabilities with how often they come true.

    Args:
        positive: the truth.
        probability: in [0, 1].
        bins: equal-width bins of [0, 1]; 1.0 belongs to the last.

    Raises:
        InputError: no cases, or a probability outside [0, 1].
    """
    if not len(positive) or not ((probability >= 0) & (probability <= 1)).all():
        raise InputError("calibration needs at least one case and probabilities in [0, 1]")
    said, came, count = binned(probability, positive, bins)
    clipped = np.clip(probability, 1e-12, 1 - 1e-12)
    return Reliability(
        mean_probability=said,
        fraction=came,
        fraction_interval=tuple(wilson_interval(f * n, int(n)) for f, n in zip(came, count, strict=True)),
        count=count,
        expected_error=expected_calibration_error(probability, positive, bins),
        brier=float(np.mean((probability - positive) ** 2)),
        log_loss=float(-np.mean(np.where(positive, np.log(clipped), np.log1p(-clipped)))),
    )


def wilson_interval(successes: float, n: int, confidence: float = 0.95) -> Interval:
    """Wilson's interval of a fraction of ``n`` cases; (0, 1) without cases."""
    if n == 0:
        return 0.0, 1.0
    z = float(ndtri((1 + confidence) / 2))
    fraction = successes / n
    center = (fraction + z * z / (2 * n)) / (1 + z * z / n)
    half = z * np.sqrt(fraction * (1 - fraction) / n + z * z / (4 * n * n)) / (1 + z * z / n)
    return max(0.0, float(center - half)), min(1.0, float(center + half))


def corners(x: Float64[np.ndarray, " n"], y: Float64[np.ndarray, " n"]) -> Int64[np.ndarray, " kept"]:
    """Indices of the points where a curve turns, with both ends; the rest lie on lines between them.

    No two neighbouring points may be the same.
    """
    if len(x) < 3:
        return np.arange(len(x))
    step_x, step_y = np.diff(x), np.diff(y)
    turns = np.abs(step_x[1:] * step_y[:-1] - step_x[:-1] * step_y[1:]) > 1e-15
    return np.concatenate([[0], np.flatnonzero(turns) + 1, [len(x) - 1]])


def _counts_from_the_top(
    positive: Bool[np.ndarray, " n"], score: Float64[np.ndarray, " n"]
) -> tuple[Int64[np.ndarray, " points"], Int64[np.ndarray, " points"]]:
    """Positives and negatives at or above each distinct score, from the highest down; the first entry is (0, 0)."""
    levels, member = np.unique(-score, return_inverse=True)
    true = np.bincount(member[positive], minlength=len(levels))
    false = np.bincount(member[~positive], minlength=len(levels))
    return np.append(0, np.cumsum(true)), np.append(0, np.cumsum(false))


def _check(positive: Bool[np.ndarray, " n"], score: Float64[np.ndarray, " n"]) -> None:
    if not 0 < int(positive.sum()) < len(positive):
        raise InputError(f"{int(positive.sum())} positives among {len(positive)} cases; both classes are needed")
    if not np.isfinite(score).all():
        raise InputError("a score is not finite")


def _variance_of_mean(values: Float64[np.ndarray, " n"]) -> float:
    # A class of one case has no spread of its own; its part of the variance is bounded by a coin's.
    return float(np.var(values, ddof=1) / len(values)) if len(values) > 1 else 0.25

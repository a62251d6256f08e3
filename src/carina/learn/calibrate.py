"""From scores to probabilities: logistic regression of few features, fitted on held-out data; how far they are off.

Must not know networks.
"""

import numpy as np
from jaxtyping import Bool, Float, Float64, Int64
from scipy.optimize import minimize, minimize_scalar
from scipy.special import expit

from carina.errors import TrainingError


def fit_temperature(log_odds: Float[np.ndarray, " n"], truth: Bool[np.ndarray, " n"]) -> float:
    """The temperature that makes ``sigmoid(log_odds / temperature)`` most likely (Guo et al., arXiv:1706.04599).

    Raises:
        TrainingError: one of the classes is missing.
    """
    _need_both(truth)

    def cost(log_temperature: float) -> float:
        return _entropy(log_odds * np.exp(-log_temperature), truth)

    return float(np.exp(minimize_scalar(cost, bounds=(-3.0, 3.0), method="bounded").x))


def fit_logistic(
    features: Float[np.ndarray, "n k"], truth: Bool[np.ndarray, " n"], *, penalty: float = 1e-3
) -> tuple[float, Float[np.ndarray, " k"]]:
    """Intercept and weights of a logistic regression.

    Args:
        features: one row per sample.
        truth: the class.
        penalty: of the squared weights, so that separable classes give finite ones.

    Raises:
        TrainingError: one of the classes is missing.
    """
    _need_both(truth)
    x = np.column_stack([np.ones(len(features)), features])

    def cost(w: Float[np.ndarray, " k1"]) -> tuple[float, Float[np.ndarray, " k1"]]:
        slope = x.T @ (expit(x @ w) - truth) / len(truth)
        slope[1:] += 2 * penalty * w[1:]
        return _entropy(x @ w, truth) + penalty * float(w[1:] @ w[1:]), slope

    w = minimize(cost, np.zeros(x.shape[1]), jac=True, method="L-BFGS-B").x
    return float(w[0]), np.asarray(w[1:])


def expected_calibration_error(
    probability: Float[np.ndarray, " n"], truth: Bool[np.ndarray, " n"], bins: int = 10
) -> float:
    """Mean distance between what was promised and what came true, over equal bins of probability."""
    promised, came_true, count = binned(probability, truth, bins)
    return float(np.sum(np.abs(promised - came_true) * count) / len(truth))


def binned(
    probability: Float[np.ndarray, " n"], truth: Bool[np.ndarray, " n"], bins: int = 10
) -> tuple[Float64[np.ndarray, " filled"], Float64[np.ndarray, " filled"], Int64[np.ndarray, " filled"]]:
    """Mean probability, fraction of positives and number of cases, of those equal bins of [0, 1] that hold any."""
    member = np.minimum((probability * bins).astype(np.int64), bins - 1)
    count = np.bincount(member, minlength=bins)
    filled = count > 0
    sums = (np.bincount(member, values, bins)[filled] for values in (probability, truth))
    mean, fraction = (of_bins / count[filled] for of_bins in sums)
    return mean, fraction, count[filled]


def _entropy(log_odds: Float[np.ndarray, " n"], truth: Bool[np.ndarray, " n"]) -> float:
    return float(np.mean(np.logaddexp(0, log_odds) - truth * log_odds))


def _need_both(truth: Bool[np.ndarray, " n"]) -> None:
    if truth.all() or not truth.any():
        raise TrainingError(
            f"calibration needs both classes, got {int(truth.sum())} positives of {len(truth)}; hold out more scans"
        )

"""How well scores put positives above negatives, exactly, from all scores at once. Must not know networks or files."""

import numpy as np
from jaxtyping import Bool, Float, Float64


def auc(positive: Bool[np.ndarray, " n"], score: Float[np.ndarray, " n"]) -> float:
    """Area under the ROC curve, by ranks (Mann-Whitney); both classes must be present."""
    n_positive = int(positive.sum())
    wins = ranks(score)[positive].sum() - n_positive * (n_positive + 1) / 2
    return float(wins / (n_positive * (len(positive) - n_positive)))


def ranks(values: Float[np.ndarray, " n"]) -> Float64[np.ndarray, " n"]:
    """Rank of each value from 1 to n; equal values share the mean of their ranks."""
    _, member, count = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(count)
    return (last - (count - 1) / 2.0)[member]

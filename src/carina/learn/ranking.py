"""How well scores put positives above negatives, exactly, from all scores at once. Must not know networks or files."""

import numpy as np
from jaxtyping import Bool, Float
from scipy.stats import rankdata


def auc(positive: Bool[np.ndarray, " n"], score: Float[np.ndarray, " n"]) -> float:
    """Area under the ROC curve, by ranks (Mann-Whitney); both classes must be present."""
    n_positive = int(positive.sum())
    wins = rankdata(score)[positive].sum() - n_positive * (n_positive + 1) / 2
    return float(wins / (n_positive * (len(positive) - n_positive)))

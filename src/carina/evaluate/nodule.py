"""How well candidates are told apart: nodule or not, from probabilities and the truth.

Must not know images or networks.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float64

from carina.errors import InputError
from carina.evaluate.confusion import Confusion, confusion
from carina.evaluate.curves import (
    PrecisionRecall,
    Reliability,
    Roc,
    precision_recall,
    reliability,
    roc,
)
from carina.evaluate.match import Matches, Outcome
from carina.evaluate.tables import read_columns

CLASSES = ("not a nodule", "nodule")


@dataclass(frozen=True, eq=False)
class NoduleScore:
    """A classifier of candidates.

    Attributes:
        threshold: from this probability on a candidate is called a nodule.
        confusion: counts at the threshold.
        roc: over all thresholds; its interval takes candidates as independent.
        precision_recall: over all thresholds.
        calibration: of the probabilities.
    """

    threshold: float
    confusion: Confusion
    roc: Roc
    precision_recall: PrecisionRecall
    calibration: Reliability


def score_nodules(
    is_nodule: Bool[np.ndarray, " n"], p_nodule: Float64[np.ndarray, " n"], threshold: float = 0.5
) -> NoduleScore:
    """Judge probabilities of candidates.

    Raises:
        InputError: only one class is present, or a probability lies outside [0, 1].
    """
    said = (p_nodule >= threshold).astype(np.int64)
    return NoduleScore(
        threshold=threshold,
        calibration=reliability(is_nodule, p_nodule),
        confusion=confusion(is_nodule.astype(np.int64), said, CLASSES),
        roc=roc(is_nodule, p_nodule),
        precision_recall=precision_recall(is_nodule, p_nodule),
    )


def truth_of_matches(matches: Matches) -> tuple[Bool[np.ndarray, " judged"], Bool[np.ndarray, " detections"]]:
    """Truth of detections from their matches: (is a nodule, for those that are judged; which are judged).

    Every detection within a nodule is a nodule, the second one too; those on excluded findings are not judged.
    """
    judged = (matches.outcome != Outcome.IGNORED) & (matches.outcome != Outcome.UNUSED)
    return matches.outcome[judged] != Outcome.FALSE_POSITIVE, judged


def read_classified(path: Path) -> tuple[Bool[np.ndarray, " n"], Float64[np.ndarray, " n"]]:
    """Read a table whose columns ``class`` (0 or 1) and ``probability`` give truth and answer of each candidate.

    Raises:
        InputError: not such a table.
    """
    columns = read_columns(path, ["class", "probability"])
    truth = columns.numbers("class")
    wrong = np.flatnonzero(~np.isin(truth, (0.0, 1.0)))
    if len(wrong):
        raise InputError(f"{columns.where(int(wrong[0]))}: class must be 0 (not a nodule) or 1 (nodule)")
    return truth == 1.0, columns.numbers("probability")

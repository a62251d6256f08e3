"""Confusion tables and what is read from them: accuracy, precision, recall, F1.

Must not know files, nodules or networks.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Int64


@dataclass(frozen=True, eq=False)
class Confusion:
    """Counts of cases by truth (rows) and by what was said (columns).

    Attributes:
        truth: name of each row.
        said: name of each column.
        counts: cases.
    """

    truth: tuple[str, ...]
    said: tuple[str, ...]
    counts: Int64[np.ndarray, "truth said"]

    @property
    def accuracy(self) -> float:
        """Fraction of the cases on the diagonal; NaN without cases."""
        return _ratio(float(np.trace(self.counts)), float(self.counts.sum()))

    def recall(self, name: str) -> float:
        """Fraction of the cases of a class that are called so (its accuracy by class); NaN without cases."""
        return _ratio(self._correct(name), float(self.counts[self.truth.index(name)].sum()))

    def precision(self, name: str) -> float:
        """Fraction of the cases called ``name`` that are; NaN where none is called so."""
        return _ratio(self._correct(name), float(self.counts[:, self.said.index(name)].sum()))

    def f1(self, name: str) -> float:
        """Harmonic mean of precision and recall: 2 TP / (2 TP + FP + FN)."""
        row, column = self.truth.index(name), self.said.index(name)
        return _ratio(2 * self._correct(name), float(self.counts[row].sum() + self.counts[:, column].sum()))

    def _correct(self, name: str) -> float:
        return float(self.counts[self.truth.index(name), self.said.index(name)])


def confusion(
    truth: Int64[np.ndarray, " n"],
    said: Int64[np.ndarray, " n"],
    truth_names: tuple[str, ...],
    said_names: tuple[str, ...] | None = None,
) -> Confusion:
    """Count cases by truth and by what was said.

    Args:
        truth: number of the true class of each case.
        said: number of the class each case was given.
        truth_names: names of the true classes.
        said_names: names of the classes that can be given; default: the same.
    """
    said_names = truth_names if said_names is None else said_names
    shape = len(truth_names), len(said_names)
    counts = np.bincount(truth * shape[1] + said, minlength=shape[0] * shape[1]).reshape(shape)
    return Confusion(truth_names, said_names, counts)


def _ratio(part: float, whole: float) -> float:
    return part / whole if whole else float("nan")

"""Figures, tables and plots that several presentations share.

Must not know protocols.
"""

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from jaxtyping import Float64, Int64

from carina.evaluate.confusion import Confusion
from carina.evaluate.curves import PrecisionRecall, Reliability, Roc, corners
from carina.evaluate.froc import Curve, Interval
from carina.evaluate.page import Line, Plot, Table

UNIT_TICKS = (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)
MOST_POINTS = 1000
"""Points of a curve that files and drawings keep."""
DIAGONAL = Line("", ((0.0, 0.0), (1.0, 1.0)), dashed=True)


def calibration_rows(figures: Reliability) -> tuple[tuple[str, str], ...]:
    """The errors of probabilities, as rows of a table."""
    return (
        ("calibration error (ECE)", f"{figures.expected_error:.4f}"),
        ("Brier score", f"{figures.brier:.4f}"),
        ("log-loss", f"{figures.log_loss:.4f}"),
    )


def confusion_table(table: Confusion) -> Table:
    """Counts by truth and by what was said."""
    rows = tuple(
        (name, *(str(count) for count in counts))
        for name, counts in zip(table.truth, table.counts.tolist(), strict=True)
    )
    return Table("Counts", ("truth", *table.said), rows)


def froc_plot(lines: Sequence[Line], rates: Sequence[float]) -> Plot:
    """Sensitivity against false positives per scan."""
    return Plot("FROC", "false positives per scan", "sensitivity", tuple(rates), tuple(lines), log_x=True)


def thin_froc(curve: Curve) -> Curve:
    """The same curve without the points on its straight parts."""
    kept = corners(curve.false_per_scan, curve.sensitivity)
    return Curve(curve.false_per_scan[kept], curve.sensitivity[kept], curve.threshold[kept])


def share_plot(title: str, x_label: str, name: str, values: Sequence[float]) -> Plot:
    """The share of some figures in [0, 1] that are at least as large as x."""
    steps = np.linspace(0, 1, 101)
    share = (np.array(values)[None, :] >= steps[:, None]).mean(axis=1)
    return Plot(title, x_label, "share with at least as much", UNIT_TICKS, (Line(name, points_of(steps, share)),))


def roc_plot(curves: Sequence[tuple[str, Roc]]) -> Plot:
    """ROC curves with the line of chance."""
    lines = []
    for name, curve in curves:
        drawn = thin_roc(curve)
        points = points_of(drawn.false_positive_rate, drawn.true_positive_rate)
        lines.append(Line(f"{name}, AUC {curve.auc:.3f}", points))
    return Plot("ROC", "false positive rate", "true positive rate", UNIT_TICKS, (*lines, DIAGONAL))


def precision_recall_plot(name: str, curve: PrecisionRecall) -> Plot:
    """Precision against recall."""
    drawn = thin_precision_recall(curve)
    line = Line(f"{name}, AP {curve.average_precision:.3f}", points_of(drawn.recall, drawn.precision))
    return Plot("Precision and recall", "recall", "precision", UNIT_TICKS, (line,))


def thin_roc(curve: Roc) -> Roc:
    """The same curve with few points, for files and drawings; its area is that of all points."""
    x, y = curve.false_positive_rate, curve.true_positive_rate
    kept = _spread(corners(x, y))
    return replace(curve, false_positive_rate=x[kept], true_positive_rate=y[kept])


def thin_precision_recall(curve: PrecisionRecall) -> PrecisionRecall:
    """The same curve with few points, for files and drawings; its average precision is that of all points."""
    kept = _spread(np.arange(len(curve.recall)))
    return replace(curve, recall=curve.recall[kept], precision=curve.precision[kept])


def reliability_plot(name: str, figures: Reliability) -> Plot:
    """How often probabilities come true, with intervals."""
    points = points_of(figures.mean_probability, figures.fraction)
    line = Line(f"{name}, ECE {figures.expected_error:.3f}", points, figures.fraction_interval, marks=True)
    return Plot("Reliability", "mean probability", "fraction positive", UNIT_TICKS, (line, DIAGONAL))


def points_of(x: Float64[np.ndarray, " n"], y: Float64[np.ndarray, " n"]) -> tuple[tuple[float, float], ...]:
    """Pairs of coordinates."""
    return tuple(zip(x.tolist(), y.tolist(), strict=True))


def range_text(limits: Interval, *, sign: bool = False) -> str:
    """An interval as text, or the word none where it does not exist."""
    form = "+.4f" if sign else ".4f"
    return f"{limits[0]:{form}} to {limits[1]:{form}}" if math.isfinite(limits[0]) else "none"


def figure_text(value: float) -> str:
    """A figure as text, or the word none where it does not exist."""
    return f"{value:.4f}" if math.isfinite(value) else "none"


def _spread(indices: Int64[np.ndarray, " n"]) -> Int64[np.ndarray, " kept"]:
    if len(indices) <= MOST_POINTS:
        return indices
    return indices[np.linspace(0, len(indices) - 1, MOST_POINTS).round().astype(np.int64)]

"""Each protocol's result as a ``Summary``: which figures stand in the table, which curves are drawn.

Must not know how results are computed or how pages are laid out.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float64

from carina.evaluate.compare import Difference
from carina.evaluate.confusion import Confusion
from carina.evaluate.curves import Calibration, PrecisionRecall, Roc, corners, roc
from carina.evaluate.froc import Curve, Froc, Interval
from carina.evaluate.malignancy import HeldOut
from carina.evaluate.nodule import CLASSES, NoduleScore
from carina.evaluate.page import Line, Plot, Table
from carina.evaluate.pipeline import PipelineScore
from carina.evaluate.segmentation import SegmentationScore
from carina.evaluate.size_baseline import AgainstSize, SizeBaseline
from carina.evaluate.summary import Summary
from carina.models.malignancy import DiameterRule

FROC_METHOD = (
    "LUNA16's protocol: a detection hits a nodule when it lies closer to its centre than the radius; the best-scored "
    "hit counts, further hits and detections on excluded findings count neither way; sensitivity is read off straight "
    "lines between operating points."
)
_UNIT_TICKS = (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)
_DIAGONAL = Line("", ((0.0, 0.0), (1.0, 1.0)), dashed=True)


def present_froc(result: Froc, name: str) -> Summary:
    """Sensitivity at the rates, the average, and the curve."""
    percent = f"{100 * result.confidence:g} % interval"
    rows = [
        (f"{rate:g}", f"{value:.4f}", _range(limits), f"{threshold:.6g}")
        for rate, value, limits, threshold in zip(
            result.rates, result.sensitivity, result.sensitivity_interval, result.threshold, strict=True
        )
    ]
    rows.append(("average", f"{result.average:.5f}", _range(result.average_interval), ""))
    kept = corners(result.curve.false_per_scan, result.curve.sensitivity)
    curve = Curve(result.curve.false_per_scan[kept], result.curve.sensitivity[kept], result.curve.threshold[kept])
    read_off = tuple(zip(result.rates, result.sensitivity, strict=True))
    plot = Plot(
        "FROC",
        "false positives per scan",
        "sensitivity",
        result.rates,
        (
            Line(name, _points(curve.false_per_scan, curve.sensitivity)),
            Line("", read_off, low_high=result.sensitivity_interval, marks=True),
        ),
        log_x=True,
    )
    counts = (
        f"{result.n_scans} scans, {result.n_nodules} nodules, {result.n_found} of them hit at the loosest threshold; "
        f"{result.n_false} false positives, {result.n_duplicate} further hits, {result.n_ignored} detections on "
        f"excluded findings, {result.n_unused} not used (other scans, or beyond the marks per scan)."
    )
    drawn = f"Intervals: percentiles over {result.bootstraps} resamples of the scans."
    return Summary(
        title=f"FROC of {name}",
        notes=(counts, FROC_METHOD, drawn),
        tables=(Table("", ("false positives per scan", "sensitivity", percent, "threshold"), tuple(rows)),),
        plots=(plot,),
        data=replace(result, curve=curve),
    )


def present_comparison(differences: Sequence[Difference], first: str, second: str) -> Summary:
    """Average sensitivity of two systems, their difference and what follows from it."""
    better = {"first": f"{first} is better", "second": f"{second} is better", "undecided": "undecided"}
    rows = tuple(
        (
            d.group,
            str(d.n_nodules),
            f"{d.first:.4f}",
            f"{d.second:.4f}",
            f"{d.difference:+.4f}",
            _range(d.interval, sign=True),
            f"{d.p_value:.3f}",
            better[d.verdict],
        )
        for d in differences
    )
    header = ("nodules", "n", first, second, "difference", "interval", "p", "verdict")
    return Summary(
        title=f"{second} against {first}",
        notes=(
            (
                "Average sensitivity at LUNA16's rates. Both systems are judged on the same resamples of the scans; "
                "the interval is of their difference."
            ),
            "Groups overlap and are many: a verdict in one group is a hint where that over all nodules is not.",
        ),
        tables=(Table("", header, rows),),
        plots=(),
        data={"first": first, "second": second, "differences": list(differences)},
    )


def present_nodules(score: NoduleScore, name: str) -> Summary:
    """Confusion, ROC, precision against recall, calibration."""
    table = score.confusion
    by_class = tuple(
        (c, *(_figure(value) for value in (table.recall(c), table.precision(c), table.f1(c)))) for c in CLASSES
    )
    figures = (
        ("accuracy", _figure(table.accuracy)),
        ("ROC AUC", f"{score.roc.auc:.4f} ({_range(score.roc.auc_interval)})"),
        ("average precision", f"{score.precision_recall.average_precision:.4f}"),
        *_calibration_rows(score.calibration),
    )
    return Summary(
        title=f"Nodule or not: {name}",
        notes=(
            f"{score.roc.n} candidates, {score.roc.n_positive} nodules; called a nodule from {score.threshold:g} on.",
            "AUC interval: DeLong on the logit scale, 95 %, candidates taken as independent.",
        ),
        tables=(
            Table("", ("figure", "value"), figures),
            Table("By class", ("class", "accuracy (recall)", "precision", "F1"), by_class),
            _confusion_table(table),
        ),
        plots=(
            _roc_plot([(name, score.roc)]),
            _precision_recall_plot(name, score.precision_recall),
            _reliability_plot(name, score.calibration),
        ),
        data=_Thin(score.roc, score.precision_recall, score.calibration, table, score.threshold),
    )


def present_size_baseline(
    baseline: SizeBaseline, against: AgainstSize | None, rule: DiameterRule | None, judged: Sequence[HeldOut]
) -> Summary:
    """What a ruler achieves, what a network adds, and which form of the rule was chosen."""
    rows = [
        ("scans", str(baseline.n_scans)),
        ("nodules", f"{baseline.n_nodules}, {baseline.n_malignant} of them malignant"),
        ("AUC of the diameter", f"{baseline.roc.auc:.4f} ({_range(baseline.roc.auc_interval)})"),
        ("interval over scans", _range(baseline.auc_interval_by_scan)),
    ]
    curves = [("diameter", baseline.roc)]
    tables, plots = [], []
    if against is not None:
        rows += [
            ("nodules hit by a detection", f"{against.n_hit} of {against.n_nodules}"),
            ("AUC of the network on them", f"{against.network.auc:.4f} ({_range(against.network.auc_interval)})"),
            ("AUC of the diameter on them", f"{against.size.auc:.4f} ({_range(against.size.auc_interval)})"),
            ("gain over the diameter", f"{against.gain:+.4f} ({_range(against.gain_interval, sign=True)})"),
            *_calibration_rows(against.calibration),
        ]
        curves.append(("network", against.network))
        plots.append(_reliability_plot("network", against.calibration))
    if rule is not None:
        forms = tuple(
            (
                form.scale,
                f"{form.calibration.log_loss:.4f}",
                f"{form.calibration.brier:.4f}",
                f"{form.calibration.expected_error:.4f}",
                f"{form.roc.auc:.4f}",
            )
            for form in judged
        )
        tables.append(Table("Forms of the rule, out of fold", ("scale", "log-loss", "Brier", "ECE", "AUC"), forms))
        tables.append(
            Table(
                f"Rule of {rule.scale} diameter: intercept {rule.intercept:.4f}, slope {rule.slope:.4f}",
                ("diameter", "p_malignant"),
                tuple((f"{d} mm", f"{rule.p_malignant(d):.3f}") for d in (4, 6, 8, 10, 15, 20, 30)),
            )
        )
        plots += [_reliability_plot(f"rule, {form.scale}", form.calibration) for form in judged]
    return Summary(
        title="Malignancy from the diameter alone",
        notes=(
            "Malignant as the table says: radiologists' ratings, not pathology.",
            (
                "AUC interval: DeLong on the logit scale, 95 %, nodules taken as independent; "
                "the interval over scans resamples whole scans."
            ),
        ),
        tables=(Table("", ("figure", "value"), tuple(rows)), *tables),
        plots=(_roc_plot(curves), *plots),
        data={"baseline": baseline, "against_size": against, "rule": rule},
    )


def present_segmentation(score: SegmentationScore, name: str) -> Summary:
    """Overlap by voxel and by nodule."""
    rows = (
        ("Dice, all voxels", f"{score.pooled.dice:.4f} ({_range(score.pooled_dice_interval)})"),
        ("precision", _figure(score.pooled.precision)),
        ("recall", _figure(score.pooled.recall)),
        ("mean Dice per nodule", f"{_figure(score.mean_nodule_dice)} ({_range(score.nodule_dice_interval)})"),
        ("nodules touched", f"{score.touched} of {score.n_nodules}"),
    )
    scans = tuple(
        (
            s.name,
            f"{s.scan.dice:.4f}",
            _figure(s.scan.precision),
            _figure(s.scan.recall),
            " ".join(f"{o.dice:.3f}" for _, o in s.nodules) or "none",
        )
        for s in score.scans
    )
    return Summary(
        title=f"Segmentation: {name}",
        notes=(
            (
                f"{len(score.scans)} scans. A nodule is compared with the predicted regions that touch it; a nodule that "
                "none touches counts with Dice 0. Voxels marked 255 in the truth are left out."
            ),
            "Intervals: 95 % percentiles over resamples of the scans.",
        ),
        tables=(
            Table("", ("figure", "value"), rows),
            Table("By scan", ("scan", "Dice", "precision", "recall", "Dice of each nodule"), scans),
        ),
        plots=(),
        data=score,
    )


def present_pipeline(score: PipelineScore) -> Summary:
    """The confusion table of the whole pipeline, and the answer for the patient."""
    limit = "each report's own" if score.threshold is None else f"{score.threshold:g}"
    n_malignant = int(score.patient_malignant.sum())
    notes = [
        (
            f"{len(score.scans)} scans. Threshold of p_nodule: {limit}; called malignant from p_malignant "
            f"{score.malignancy_threshold:g} on."
        ),
        (
            "A nodule's fate is that of the most probable finding within its radius; findings that hit no nodule are "
            "not nodules."
        ),
    ]
    tables, plots = [_confusion_table(score.table)], []
    patient = None
    if 0 < n_malignant < len(score.scans):
        patient = roc(score.patient_malignant, score.patient_probability)
        figure = f"{patient.auc:.4f} ({_range(patient.auc_interval)})"
        tables.append(Table("Answer for the patient", ("figure", "value"), (("AUC", figure),)))
        plots.append(_roc_plot([("patient answer", patient)]))
    else:
        notes.append(f"{n_malignant} of {len(score.scans)} scans hold a malignant nodule: no AUC by patient.")
    return Summary(
        "The whole pipeline", tuple(notes), tuple(tables), tuple(plots), {"score": score, "patient": patient}
    )


@dataclass(frozen=True, eq=False)
class _Thin:
    """A classifier's figures with what JSON readers want of them."""

    roc: Roc
    precision_recall: PrecisionRecall
    calibration: Calibration
    confusion: Confusion
    threshold: float


def _calibration_rows(figures: Calibration) -> tuple[tuple[str, str], ...]:
    return (
        ("calibration error (ECE)", f"{figures.expected_error:.4f}"),
        ("Brier score", f"{figures.brier:.4f}"),
        ("log-loss", f"{figures.log_loss:.4f}"),
    )


def _confusion_table(table: Confusion) -> Table:
    rows = tuple(
        (name, *(str(count) for count in counts))
        for name, counts in zip(table.truth, table.counts.tolist(), strict=True)
    )
    return Table("Counts", ("truth", *table.said), rows)


def _roc_plot(curves: Sequence[tuple[str, Roc]]) -> Plot:
    lines = []
    for name, curve in curves:
        kept = corners(curve.false_positive_rate, curve.true_positive_rate)
        points = _points(curve.false_positive_rate[kept], curve.true_positive_rate[kept])
        lines.append(Line(f"{name}, AUC {curve.auc:.3f}", points))
    return Plot("ROC", "false positive rate", "true positive rate", _UNIT_TICKS, (*lines, _DIAGONAL))


def _precision_recall_plot(name: str, curve: PrecisionRecall) -> Plot:
    line = Line(f"{name}, AP {curve.average_precision:.3f}", _points(curve.recall, curve.precision))
    return Plot("Precision and recall", "recall", "precision", _UNIT_TICKS, (line,))


def _reliability_plot(name: str, figures: Calibration) -> Plot:
    points = _points(figures.mean_probability, figures.fraction)
    line = Line(f"{name}, ECE {figures.expected_error:.3f}", points, figures.fraction_interval, marks=True)
    return Plot("Reliability", "mean probability", "fraction positive", _UNIT_TICKS, (line, _DIAGONAL))


def _points(x: Float64[np.ndarray, " n"], y: Float64[np.ndarray, " n"]) -> tuple[tuple[float, float], ...]:
    return tuple(zip(x.tolist(), y.tolist(), strict=True))


def _range(limits: Interval, *, sign: bool = False) -> str:
    form = "+.4f" if sign else ".4f"
    return f"{limits[0]:{form}} to {limits[1]:{form}}" if math.isfinite(limits[0]) else "none"


def _figure(value: float) -> str:
    return f"{value:.4f}" if math.isfinite(value) else "none"

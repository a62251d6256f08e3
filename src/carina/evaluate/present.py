"""Each protocol's result as a ``Summary``: which figures stand in the table, which curves are drawn.

Must not know how results are computed or how pages are laid out.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from carina.evaluate.compare import Difference
from carina.evaluate.curves import roc
from carina.evaluate.figures import (
    calibration_rows,
    confusion_table,
    figure_text,
    froc_plot,
    points_of,
    precision_recall_plot,
    range_text,
    reliability_plot,
    roc_plot,
    thin_froc,
    thin_precision_recall,
    thin_roc,
)
from carina.evaluate.froc import LUNA_RATES, Curve, Froc
from carina.evaluate.groups import GroupSensitivity
from carina.evaluate.nodule import CLASSES, NoduleScore
from carina.evaluate.operating_point import OperatingPoint
from carina.evaluate.page import Line, Table
from carina.evaluate.pipeline import PipelineScore
from carina.evaluate.summary import Summary
from carina.findings import MOST_FINDINGS

FROC_METHOD = (
    "LUNA16's protocol: a detection hits a nodule when it lies closer to its centre than the radius; the best-scored "
    "hit counts, further hits and detections on excluded findings count neither way; sensitivity is read off straight "
    "lines between operating points."
)


def present_froc(result: Froc, name: str, groups: Sequence[GroupSensitivity] = ()) -> Summary:
    """Sensitivity at the rates, the average, the curve, and sensitivity by size and type."""
    percent = f"{100 * result.confidence:g} % interval"
    rows = [
        (f"{rate:g}", f"{value:.4f}", range_text(limits), f"{threshold:.6g}")
        for rate, value, limits, threshold in zip(
            result.rates, result.sensitivity, result.sensitivity_interval, result.threshold, strict=True
        )
    ]
    rows.append(("average", f"{result.average:.5f}", range_text(result.average_interval), ""))
    curve = thin_froc(result.curve)
    read_off = tuple(zip(result.rates, result.sensitivity, strict=True))
    lines = (
        Line(name, points_of(curve.false_per_scan, curve.sensitivity)),
        Line("", read_off, low_high=result.sensitivity_interval, marks=True),
    )
    counts = (
        f"{result.n_scans} scans, {result.n_nodules} nodules, {result.n_found} of them hit at the loosest threshold; "
        f"{result.n_false} false positives, {result.n_duplicate} further hits, {result.n_ignored} detections on "
        f"excluded findings, {result.n_unused} not used (other scans, or beyond the marks per scan)."
    )
    of_what = f"the {result.n_scans} scans"
    if result.n_patients < result.n_scans:
        of_what = f"the {result.n_patients} patients, each with all its scans"
    drawn = f"Intervals: percentiles over {result.bootstraps} resamples of {of_what}."
    return Summary(
        title=f"FROC of {name}",
        notes=(counts, FROC_METHOD, drawn),
        tables=(
            Table("", ("false positives per scan", "sensitivity", percent, "threshold"), tuple(rows)),
            *(group_table(groups),) * bool(groups),
        ),
        plots=(froc_plot(lines, result.rates),),
        data={**vars(replace(result, curve=curve)), "groups": list(groups)},
    )


def group_table(groups: Sequence[GroupSensitivity]) -> Table:
    """Sensitivity of each group of nodules, with intervals."""
    rows = tuple(
        (
            group.group,
            str(group.n_nodules),
            *(
                f"{value:.2f} ({low:.2f} to {high:.2f})"
                for value, (low, high) in zip(group.sensitivity, group.sensitivity_interval, strict=True)
            ),
            f"{group.n_marked / group.n_nodules:.2f}",
        )
        for group in groups
    )
    rates = tuple(f"at {rate:g}" for rate in groups[0].rates)
    return Table("Sensitivity by size and type, at false positives per scan", ("nodules", "n", *rates, "marked"), rows)


def present_operating_point(point: OperatingPoint, measured_on: str) -> Summary:
    """The FROC of the joined probability with its groups, and how often probabilities come true out of fold."""
    found = present_froc(point.froc, "both stages", point.groups)
    rows = tuple((name, f"{threshold:.4f}") for name, threshold in point.thresholds.items())
    stages = tuple(
        (name, f"{point.metrics[average]:.4f}", f"{point.metrics[auc]:.4f}")
        for name, average, auc in (
            ("segmentation alone", "froc_average_first_stage", "auc_first_stage"),
            ("nodule network alone", "froc_average_second_stage", "auc_second_stage"),
            ("product of both", "froc_average_product", "auc_product"),
            ("joined, calibrated", "froc_average", "auc_joined_out_of_fold"),
        )
    )
    return Summary(
        title=f"Operating point on {measured_on}",
        notes=(
            *found.notes,
            "Reliability is out of fold, folds being made of whole patients.",
            "Thresholds do not count false findings on look-alikes that the cohort lists.",
        ),
        tables=(
            *found.tables,
            Table("What each stage adds", ("score", "average sensitivity", "AUC of candidates"), stages),
            Table("Thresholds", ("sensitivity setting", "threshold"), rows),
            Table("Probabilities, out of fold", ("figure", "value"), calibration_rows(point.reliability)),
        ),
        plots=(*found.plots, reliability_plot("joined probability", point.reliability)),
        data={
            "calibration": point.calibration,
            "thresholds": point.thresholds,
            "metrics": point.metrics,
            "groups": list(point.groups),
            "reliability": point.reliability,
        },
    )


def present_comparison(differences: Sequence[Difference], curves: Mapping[str, Curve]) -> Summary:
    """Average sensitivity of two systems, their difference and what follows from it; both curves by name."""
    first, second = curves
    thin = {name: thin_froc(curve) for name, curve in curves.items()}
    lines = [Line(name, points_of(curve.false_per_scan, curve.sensitivity)) for name, curve in thin.items()]
    better = {"first": f"{first} is better", "second": f"{second} is better", "undecided": "undecided"}
    rows = tuple(
        (
            d.group,
            str(d.n_nodules),
            f"{d.first:.4f}",
            f"{d.second:.4f}",
            f"{d.difference:+.4f}",
            range_text(d.interval, sign=True),
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
        plots=(froc_plot(lines, LUNA_RATES),),
        data={"first": first, "second": second, "differences": list(differences)},
    )


def present_nodules(score: NoduleScore, name: str) -> Summary:
    """Confusion, ROC, precision against recall, calibration."""
    table = score.confusion
    by_class = tuple(
        (c, *(figure_text(value) for value in (table.recall(c), table.precision(c), table.f1(c)))) for c in CLASSES
    )
    figures = (
        ("accuracy", figure_text(table.accuracy)),
        ("ROC AUC", f"{score.roc.auc:.4f} ({range_text(score.roc.auc_interval)})"),
        ("average precision", f"{score.precision_recall.average_precision:.4f}"),
        *calibration_rows(score.calibration),
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
            confusion_table(table),
        ),
        plots=(
            roc_plot([(name, score.roc)]),
            precision_recall_plot(name, score.precision_recall),
            reliability_plot(name, score.calibration),
        ),
        data=replace(score, roc=thin_roc(score.roc), precision_recall=thin_precision_recall(score.precision_recall)),
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
    if score.full:
        notes.append(
            f"{score.full} of the reports list {MOST_FINDINGS} findings, the most that a report can: a nodule that "
            "ranked lower there counts as missed."
        )
    tables, plots = [confusion_table(score.table)], []
    patient = None
    if 0 < n_malignant < len(score.scans):
        patient = roc(score.patient_malignant, score.patient_probability)
        figure = f"{patient.auc:.4f} ({range_text(patient.auc_interval)})"
        tables.append(Table("Answer for the patient", ("figure", "value"), (("AUC", figure),)))
        plots.append(roc_plot([("patient answer", patient)]))
    else:
        notes.append(f"{n_malignant} of {len(score.scans)} scans hold a malignant nodule: no AUC by patient.")
    return Summary(
        "The whole pipeline", tuple(notes), tuple(tables), tuple(plots), {"score": score, "patient": patient}
    )

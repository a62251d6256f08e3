"""The malignancy baseline and the fitted rule as a ``Summary``.

Must not know how results are computed or how pages are laid out.
"""

from collections.abc import Sequence

from carina.evaluate.diameter_rule import OutOfFold
from carina.evaluate.figures import (
    calibration_rows,
    range_text,
    reliability_plot,
    roc_plot,
)
from carina.evaluate.malignancy import AgainstSize, SizeBaseline
from carina.evaluate.page import Table
from carina.evaluate.summary import Summary
from carina.models.malignancy import DiameterRule


def present_size_baseline(
    baseline: SizeBaseline, against: AgainstSize | None, rule: DiameterRule | None, judged: Sequence[OutOfFold]
) -> Summary:
    """What a ruler achieves, what a network adds, and which form of the rule was chosen."""
    rows = [
        ("scans", str(baseline.n_scans)),
        ("nodules", f"{baseline.n_nodules}, {baseline.n_malignant} of them malignant"),
        ("AUC of the diameter", f"{baseline.roc.auc:.4f} ({range_text(baseline.roc.auc_interval)})"),
        ("interval over scans", range_text(baseline.auc_interval_by_scan)),
    ]
    curves = [("diameter", baseline.roc)]
    tables, plots = [], []
    if against is not None:
        rows += [
            ("nodules hit by a detection", f"{against.n_hit} of {against.n_nodules}"),
            ("AUC of the network on them", f"{against.network.auc:.4f} ({range_text(against.network.auc_interval)})"),
            ("AUC of the diameter on them", f"{against.size.auc:.4f} ({range_text(against.size.auc_interval)})"),
            ("gain over the diameter", f"{against.gain:+.4f} ({range_text(against.gain_interval, sign=True)})"),
            *calibration_rows(against.calibration),
        ]
        curves.append(("network", against.network))
        plots.append(reliability_plot("network", against.calibration))
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
        if rule.rated is not None:
            known = rule.rated.evidence
            rated = tuple(
                (name, f"{area:.4f} ({range_text((low, high))})")
                for name, (area, low, high) in known.auc_and_interval.items()
            )
            title = f"What readers' ratings add: {known.n} nodules of {known.patients} patients, out of fold"
            tables.append(Table(title, ("the rule knows", "AUC"), rated))
        plots += [reliability_plot(f"rule, {form.scale}", form.calibration) for form in judged]
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
        plots=(roc_plot(curves), *plots),
        data={"baseline": baseline, "against_size": against, "rule": rule},
    )

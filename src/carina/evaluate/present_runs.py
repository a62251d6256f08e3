"""A comparison of runs as a ``Summary``. Must not know how it was made."""

import math

from carina.evaluate.figures import figure_text, range_text
from carina.evaluate.page import Line, Plot, Table
from carina.evaluate.runs import RunComparison
from carina.evaluate.summary import Summary

FEW_SCANS = 10


def present_runs(comparison: RunComparison) -> Summary:
    """The runs in order, the best one against the others, and what was different about them."""
    metric, standings = comparison.metric, comparison.standings
    others = sorted({n.partition("_")[2] for s in standings for n in s.metrics if n.startswith("val_")} - {metric})
    # Without held-out scans there are only the training metrics.
    prefix = "val_" if others else "train_"
    if not others:
        others = sorted({n.partition("_")[2] for s in standings for n in s.metrics} - {metric})
    rows = tuple(
        (
            s.name,
            figure_text(s.value),
            range_text(s.interval),
            *(figure_text(s.metrics.get(prefix + name, math.nan)) for name in others),
            f"{s.best_epoch} of {s.epochs}" + ("" if s.finished else ", running or broken off"),
            f"{s.minutes:.1f}",
        )
        for s in standings
    )
    tables = [Table("", ("run", metric, "95 % interval", *others, "best epoch", "minutes"), rows)]
    notes = []
    if comparison.gaps:
        best = standings[0].name
        gap_rows = tuple(
            (
                gap.other,
                f"{gap.difference:+.4f}",
                range_text(gap.interval, sign=True),
                "no answers kept" if math.isnan(gap.interval[0]) else "same crops" if gap.paired else "other crops",
                f"{best} is better" if gap.verdict == "better" else "undecided",
            )
            for gap in comparison.gaps
        )
        header = ("against", "gain", "95 % interval", "measured on", "verdict")
        tables.append(Table(f"{best}, the best by {metric}", header, gap_rows))
        if any(math.isnan(gap.interval[0]) for gap in comparison.gaps):
            notes.append("No interval where a run keeps no held-out answers for this metric; then nothing is decided.")
    if comparison.differing:
        settings = tuple((name, *values) for name, values in comparison.differing.items())
        tables.append(Table("Settings that differ", ("setting", *(s.name for s in standings)), settings))
    scans = [s.scans for s in standings if s.scans]
    better = "more" if comparison.higher_is_better else "less"
    notes.insert(0, f"By {metric}, of which {better} is better; other columns are those of the best epoch's log.")
    if scans:
        few = ": so few that the intervals are rough" if min(scans) < FEW_SCANS else ""
        notes.append(
            f"Intervals: percentiles over {comparison.bootstraps} resamples of {min(scans)} held-out scans{few}. "
            "They hold for these weights; another seed of the training may differ by more."
        )
    return Summary("Comparison of runs", tuple(notes), tuple(tables), _courses(comparison), comparison)


def _courses(comparison: RunComparison) -> tuple[Plot, ...]:
    """The metric by epoch, one line for each run, where it lies between 0 and 1 as most metrics do."""
    values = [value for s in comparison.standings for _, value in s.course]
    if not values or min(values) < 0 or max(values) > 1:
        return ()
    last = max(1, *(s.epochs - 1 for s in comparison.standings))
    step = math.ceil(last / 8)
    ticks = tuple(float(tick) for tick in range(0, last + step, step))
    lines = tuple(Line(s.name, s.course) for s in comparison.standings)
    return (Plot("While training", "epoch", comparison.metric, ticks, lines),)

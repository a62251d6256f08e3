"""Which of several trainings came out better, and is the difference larger than chance?

A run is a folder with ``log.jsonl`` and, where scans were held out, ``held_out.csv`` with the best weights' answers on
every crop. Intervals come from resampling the held-out scans; runs that answered the same crops are resampled
together, so that what is hard about a scan cancels. Must not know networks or how runs are shown.
"""

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float64, Int64

from carina.errors import InputError, UsageError
from carina.evaluate.froc import Interval, interval
from carina.learn.log import LOG
from carina.tasks.held_out import CLASSIFIED, HELD_OUT, HeldOut
from carina.tasks.marked import FALSE_MARK_VOXELS
from carina.tasks.runs import LOWER_IS_BETTER

NO_DIFFERENCE = ("name", "licences", "device", "prefetch")
"""Settings that change nothing about what is learned."""


@dataclass(frozen=True, eq=False)
class Run:
    """One training.

    Attributes:
        name: shortest end of its path that tells the runs apart.
        settings: everything it was started with.
        history: of every epoch the metrics by name; ``val_`` in front where they come from held-out scans.
        metrics: those of its best epoch.
        monitor: metric that chose the best epoch, without ``val_`` or ``train_``.
        higher_is_better: whether more of the monitor is better.
        epochs: epochs made.
        best_epoch: the one whose weights were kept, from 0.
        seconds: time spent.
        finished: whether it ran to its end.
        held_out: its answers on held-out crops; None where there are none.
    """

    name: str
    settings: dict[str, Any]
    history: tuple[dict[str, float], ...]
    metrics: dict[str, float]
    monitor: str
    higher_is_better: bool
    epochs: int
    best_epoch: int
    seconds: float
    finished: bool
    held_out: HeldOut | None

    def logged(self, metric: str) -> float:
        """A metric of the best epoch, of held-out scans where there are some; NaN where it is not known."""
        return _logged(self.metrics, metric)

    def course(self, metric: str) -> tuple[tuple[float, float], ...]:
        """(epoch, metric) of every epoch of which it is known."""
        values = ((float(epoch), _logged(metrics, metric)) for epoch, metrics in enumerate(self.history))
        return tuple((epoch, value) for epoch, value in values if math.isfinite(value))


@dataclass(frozen=True)
class Standing:
    """One run's value of the metric that decides.

    Attributes:
        name: of the run.
        value: of the metric; from the answers where they are kept, else from the log.
        interval: 95 %, over resamples of the held-out scans; NaN where answers are not kept.
        scans: held-out scans.
        metrics: everything that was logged for the best epoch.
        course: (epoch, value) as training logged it.
        epochs: epochs made.
        best_epoch: whose weights were kept.
        minutes: time spent.
        finished: whether it ran to its end.
    """

    name: str
    value: float
    interval: Interval
    scans: int
    metrics: dict[str, float]
    course: tuple[tuple[float, float], ...]
    epochs: int
    best_epoch: int
    minutes: float
    finished: bool


@dataclass(frozen=True)
class Gap:
    """The best run against another.

    Attributes:
        other: name of the other run.
        difference: by how much the best run's value is larger (where less is better: smaller).
        interval: of the difference, 95 %; NaN where the answers of one of them are not kept.
        paired: whether both answered the same crops.
    """

    other: str
    difference: float
    interval: Interval
    paired: bool

    @property
    def verdict(self) -> str:
        """``better`` where the interval lies above 0, ``undecided`` where it holds 0 or does not exist."""
        return "better" if self.interval[0] > 0 else "undecided"


@dataclass(frozen=True)
class RunComparison:
    """Several runs by one metric.

    Attributes:
        metric: what decides.
        higher_is_better: whether more of it is better.
        standings: one per run, best first.
        gaps: the best run against each of the others.
        differing: settings in which the runs differ, with the value of each run in the order of ``standings``.
        bootstraps: resamples behind the intervals.
    """

    metric: str
    higher_is_better: bool
    standings: tuple[Standing, ...]
    gaps: tuple[Gap, ...]
    differing: dict[str, tuple[str, ...]]
    bootstraps: int


def read_run(folder: Path, name: str = "") -> Run:
    """Read a run's folder.

    Raises:
        InputError: no log of a training that made an epoch.
    """
    path = folder / LOG
    try:
        lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    except FileNotFoundError:
        raise InputError(f"{folder} is not the folder of a run: it holds no {LOG}") from None
    except (OSError, ValueError) as error:
        raise InputError(f"cannot read {path}: {error}") from error
    settings: dict[str, Any] = next((line["settings"] for line in lines if "settings" in line), {})
    epochs = [line for line in lines if "epoch" in line]
    if not epochs:
        raise InputError(f"{path} records no epoch yet; compare the run when it has made one")
    best = max((record for record in epochs if record["best"]), key=lambda record: record["epoch"], default=epochs[-1])
    monitor = str(settings.get("monitor", "loss"))
    return Run(
        name=name or folder.name,
        settings=settings,
        history=tuple(map(_metrics, epochs)),
        metrics=_metrics(best),
        monitor=monitor,
        higher_is_better=bool(settings.get("higher_is_better", monitor not in LOWER_IS_BETTER)),
        epochs=len(epochs),
        best_epoch=int(best["epoch"]),
        seconds=float(epochs[-1]["seconds"]),
        finished=any("final" in line for line in lines),
        held_out=HeldOut.read(folder) if (folder / HELD_OUT).is_file() else None,
    )


def compare_runs(
    runs: Sequence[Run], *, metric: str | None = None, bootstraps: int = 1000, seed: int = 0
) -> RunComparison:
    """Put runs in order and hold the best one against the others.

    Args:
        runs: at least one.
        metric: what decides, without ``val_``; default: the monitor that all runs share.
        bootstraps: resamples of the held-out scans.
        seed: of the resamples.

    Raises:
        UsageError: the runs have different monitors and no metric is named, or a run does not know the metric.
    """
    monitors = sorted({run.monitor for run in runs})
    if metric is None and len(monitors) > 1:
        raise UsageError(f"the runs were judged by different metrics ({', '.join(monitors)}); name one with --by")
    metric = metric or monitors[0]
    for run in runs:
        if not math.isfinite(run.logged(metric)):
            known = sorted({name.partition("_")[2] for name, value in run.metrics.items() if math.isfinite(value)})
            raise UsageError(f"{run.name} has no metric {metric!r}; it has {', '.join(known)}")
    higher = next((run.higher_is_better for run in runs if run.monitor == metric), metric not in LOWER_IS_BETTER)
    sign = 1.0 if higher else -1.0
    values = {id(run): _value(run, metric) for run in runs}
    order = sorted(runs, key=lambda run: -sign * values[id(run)])
    drawn = [resampled(run.held_out, metric, bootstraps, seed) for run in order]
    # Where other crops were answered, resamples must not share their draws.
    apart = [resampled(run.held_out, metric, bootstraps, seed + 1) for run in order]
    gaps = []
    for k, run in enumerate(order[1:], 1):
        first, second = order[0].held_out, run.held_out
        paired = first is not None and second is not None and first.same_crops(second)
        difference = sign * (values[id(order[0])] - values[id(run)])
        spread = interval(sign * (drawn[0] - (drawn if paired else apart)[k]), 0.95)
        gaps.append(Gap(run.name, difference, spread, paired))
    standings = tuple(
        Standing(
            name=run.name,
            value=values[id(run)],
            interval=interval(resamples, 0.95),
            scans=0 if run.held_out is None else len(set(run.held_out.series_uid)),
            metrics=run.metrics,
            course=run.course(metric),
            epochs=run.epochs,
            best_epoch=run.best_epoch,
            minutes=run.seconds / 60,
            finished=run.finished,
        )
        for run, resamples in zip(order, drawn, strict=True)
    )
    return RunComparison(metric, higher, standings, tuple(gaps), differing_settings(order), bootstraps)


def differing_settings(runs: Sequence[Run]) -> dict[str, tuple[str, ...]]:
    """Settings that are not the same in all runs; names, licences and what belongs to the machine are left out."""
    flat = [_flat({k: v for k, v in run.settings.items() if k not in NO_DIFFERENCE}) for run in runs]
    names = sorted({name for settings in flat for name in settings})
    table = {name: tuple(settings.get(name, "") for settings in flat) for name in names}
    return {name: values for name, values in table.items() if len(set(values)) > 1}


def resampled(held_out: HeldOut | None, metric: str, bootstraps: int, seed: int) -> Float64[np.ndarray, " bootstraps"]:
    """A metric over resamples of whole scans; NaN where it cannot be had from the answers that are kept."""
    missing = np.full(bootstraps, math.nan)
    if held_out is None:
        return missing
    scans, scan_of_row = np.unique(np.array(held_out.series_uid), return_inverse=True)
    draws = np.random.default_rng(seed).integers(len(scans), size=(bootstraps, len(scans)))
    for k, drawn in enumerate(draws):
        times = np.bincount(drawn, minlength=len(scans))[scan_of_row].astype(np.int64)
        missing[k] = weighted_metrics(held_out, times).get(metric, math.nan)
    return missing


def weighted_metrics(held_out: HeldOut, times: Int64[np.ndarray, " crops"]) -> dict[str, float]:
    """The metrics that training logs, from answers of which each counts ``times``; NaN where nothing can be divided."""
    weight = times.astype(np.float64)
    if held_out.columns == CLASSIFIED:
        truth, p = held_out.values[:, 0] > 0, held_out.values[:, 1]
        called = p >= 0.5
        true, false = weight[called & truth].sum(), weight[called & ~truth].sum()
        missed, left = weight[~called & truth].sum(), weight[~called & ~truth].sum()
        right = np.where(truth, p, 1 - p).clip(1e-12)
        return {
            "loss": _ratio(-(weight * np.log(right)).sum(), weight.sum()),
            "recall": _ratio(true, true + missed),
            "specificity": _ratio(left, left + false),
            "precision": _ratio(true, true + false),
            "f1": _ratio(2 * true, 2 * true + false + missed),
            "accuracy": _ratio(true + left, weight.sum()),
            "auc": _weighted_auc(truth, p, weight),
        }
    both, marked, true_voxels = (held_out.values * weight[:, None]).sum(0)
    with_nodule = held_out.values[:, 2] > 0
    touched = weight[with_nodule & (held_out.values[:, 0] > 0)].sum()
    wrong = weight[~with_nodule & (held_out.values[:, 1] >= FALSE_MARK_VOXELS)].sum()
    return {
        "dice": _ratio(2 * both, marked + true_voxels),
        "recall": _ratio(both, true_voxels),
        "precision": _ratio(both, marked),
        "touched": _ratio(touched, weight[with_nodule].sum()),
        "false_crops": _ratio(wrong, weight[~with_nodule].sum()),
    }


def _weighted_auc(truth: np.ndarray, score: np.ndarray, weight: np.ndarray) -> float:
    _, level = np.unique(score, return_inverse=True)
    positives = np.bincount(level, weight * truth)
    negatives = np.bincount(level, weight * ~truth)
    below = np.cumsum(negatives) - negatives
    return _ratio(float((positives * (below + negatives / 2)).sum()), positives.sum() * negatives.sum())


def _value(run: Run, metric: str) -> float:
    if run.held_out is None:
        return run.logged(metric)
    once = np.ones(len(run.held_out.series_uid), np.int64)
    return weighted_metrics(run.held_out, once).get(metric, run.logged(metric))


def _metrics(record: dict[str, Any]) -> dict[str, float]:
    """What a line of the log tells of an epoch's metrics; null is NaN."""
    parts = {key: value for key, value in record.items() if key.startswith(("val_", "train_"))}
    return {key: math.nan if value is None else float(value) for key, value in parts.items()}


def _logged(metrics: dict[str, float], metric: str) -> float:
    return metrics.get(f"val_{metric}", metrics.get(f"train_{metric}", math.nan))


def _flat(settings: dict[str, Any], prefix: str = "") -> dict[str, str]:
    flat: dict[str, str] = {}
    for name, value in settings.items():
        if isinstance(value, dict) and value:
            flat |= _flat(value, f"{prefix}{name}.")
        else:
            flat[prefix + name] = json.dumps(value)
    return flat


def _ratio(part: float, whole: float) -> float:
    return float(part / whole) if whole > 0 else math.nan

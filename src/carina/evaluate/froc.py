"""Free-response ROC: sensitivity against false positives per scan, as LUNA16 scores it.

The score is the mean sensitivity at 1/8, 1/4, 1/2, 1, 2, 4 and 8 false positives per scan (Setio et al., Medical
Image Analysis 42, 2017), read off the straight lines between operating points. Intervals are percentiles over
resamples of whole scans, or of patients with all their scans. Must not know how detections were matched or read.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64, Int64

from carina.errors import InputError
from carina.evaluate.match import Matches, Outcome

LUNA_RATES = (0.125, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0)
"""False positives per scan at which LUNA16 reads the curve."""

Interval = tuple[float, float]


@dataclass(frozen=True, eq=False)
class Curve:
    """Operating points from the strictest threshold to the loosest; the first is (0, 0) at infinity.

    Attributes:
        false_per_scan: false positives per scan at or above each threshold.
        sensitivity: fraction of the nodules that a detection at or above it hits.
        threshold: score from which on a detection counts.
    """

    false_per_scan: Float64[np.ndarray, " points"]
    sensitivity: Float64[np.ndarray, " points"]
    threshold: Float64[np.ndarray, " points"]


@dataclass(frozen=True, eq=False)
class Froc:
    """The result of a FROC evaluation.

    Attributes:
        rates: false positives per scan at which the curve was read.
        sensitivity: sensitivity at each of them.
        sensitivity_interval: its interval at each of them.
        threshold: lowest score at which no more false positives than the rate are let in.
        average: mean of ``sensitivity``; LUNA16's score (CPM).
        average_interval: its interval.
        confidence: probability that the intervals are meant to cover.
        bootstraps: resamples behind the intervals; those without a nodule are left out.
        curve: all operating points.
        n_scans: scans, with and without nodules.
        n_patients: patients that the resamples draw from; as many as scans where each counts as a patient of its own.
        n_nodules: nodules that had to be found.
        n_found: nodules hit at the loosest threshold.
        n_false: false positives at the loosest threshold.
        n_duplicate: further detections of nodules already hit.
        n_ignored: detections on excluded findings.
        n_unused: detections outside the scans or beyond the marks per scan.
    """

    rates: tuple[float, ...]
    sensitivity: tuple[float, ...]
    sensitivity_interval: tuple[Interval, ...]
    threshold: tuple[float, ...]
    average: float
    average_interval: Interval
    confidence: float
    bootstraps: int
    curve: Curve
    n_scans: int
    n_patients: int
    n_nodules: int
    n_found: int
    n_false: int
    n_duplicate: int
    n_ignored: int
    n_unused: int


def froc(
    matches: Matches,
    *,
    rates: tuple[float, ...] = LUNA_RATES,
    bootstraps: int = 1000,
    confidence: float = 0.95,
    seed: int = 0,
    patients: Mapping[str, str] | None = None,
) -> Froc:
    """Score matches by LUNA16's protocol.

    Args:
        matches: from ``carina.evaluate.match.match``.
        rates: false positives per scan at which to read the curve.
        bootstraps: resamples of the scans for the intervals; 0 for none (the intervals are then NaN).
        confidence: probability that the intervals are meant to cover.
        seed: of the resamples; the same seed draws the same scans for every system on these scans.
        patients: patient of a scan, whose scans are drawn together; a scan that is not named counts as a patient of
            its own.

    Raises:
        InputError: no nodules, so that no sensitivity exists.
    """
    if not len(matches.nodules):
        raise InputError("the scans to evaluate hold no nodule, so that there is no sensitivity; check the series")
    curve = froc_curve(matches)
    sensitivity = read_off(curve.false_per_scan, curve.sensitivity, rates)
    resampled = resampled_sensitivity(matches, rates, bootstraps, seed, patients)
    outcomes = np.bincount(matches.outcome, minlength=len(Outcome))
    return Froc(
        rates=rates,
        sensitivity=tuple(sensitivity.tolist()),
        sensitivity_interval=tuple(interval(column, confidence) for column in resampled.T),
        threshold=tuple(curve.threshold[np.searchsorted(curve.false_per_scan, rates, side="right") - 1].tolist()),
        average=float(sensitivity.mean()),
        average_interval=interval(resampled.mean(axis=1), confidence),
        confidence=confidence,
        bootstraps=int(np.isfinite(resampled[:, 0]).sum()),
        curve=curve,
        n_scans=len(matches.scans),
        n_patients=len(set(_patient_numbers(matches.scans, patients))),
        n_nodules=len(matches.nodules),
        n_found=int((matches.nodule_detection >= 0).sum()),
        n_false=len(matches.false_score),
        n_duplicate=int(outcomes[Outcome.DUPLICATE]),
        n_ignored=int(outcomes[Outcome.IGNORED]),
        n_unused=int(outcomes[Outcome.UNUSED]),
    )


def froc_curve(matches: Matches) -> Curve:
    """Every operating point; equal scores form one point. With no nodules the sensitivity is 0."""
    events = _events(matches)
    return Curve(
        events.false_to / len(matches.scans),
        events.hits_to / max(1, len(matches.nodules)),
        events.threshold,
    )


def average_sensitivity(matches: Matches, rates: tuple[float, ...] = LUNA_RATES) -> float:
    """Mean sensitivity at ``rates`` false positives per scan; LUNA16's score with the default rates."""
    curve = froc_curve(matches)
    return float(read_off(curve.false_per_scan, curve.sensitivity, rates).mean())


def resampled_sensitivity(
    matches: Matches,
    rates: tuple[float, ...],
    bootstraps: int,
    seed: int,
    patients: Mapping[str, str] | None = None,
) -> Float64[np.ndarray, "bootstraps rates"]:
    """Sensitivity at ``rates`` on resamples of the scans, or of the patients, drawn with replacement.

    A scan brings its nodules and its false positives along as often as it, or its patient, is drawn. A resample
    without any nodule gives NaN. Two systems judged on the same scans with the same seed see the same resamples.
    """
    events = _events(matches)
    result = np.full((bootstraps, len(rates)), np.nan)
    # The curve matters only up to the highest rate; a resample seldom needs more than half as much again.
    head = events.with_false_up_to(int(1.5 * max(rates) * len(matches.scans)))
    patient = _patient_numbers(matches.scans, patients)
    for row, weight in enumerate(_scan_weights(patient, bootstraps, seed)):
        n_nodules = int(weight[matches.nodule_scan].sum())
        if n_nodules:
            # Patients have different numbers of scans, so that resamples of them do too.
            n_scans = int(weight.sum())
            hits, false = head.weighted(weight)
            if false[-1] <= max(rates) * n_scans:
                hits, false = events.weighted(weight)
            result[row] = read_off(false / n_scans, hits / n_nodules, rates)
    return result


def interval(values: Float64[np.ndarray, " n"], confidence: float) -> Interval:
    """The central percentiles of ``values`` that hold ``confidence`` of them; NaN values are left out."""
    values = values[np.isfinite(values)]
    if not len(values):
        return float("nan"), float("nan")
    tail = 50.0 * (1.0 - confidence)
    low, high = np.percentile(values, [tail, 100.0 - tail])
    return float(low), float(high)


def _patient_numbers(scans: Sequence[str], patients: Mapping[str, str] | None) -> Int64[np.ndarray, " scans"]:
    """Number of the patient of each scan, in order of first appearance."""
    names = [(patients or {}).get(uid, uid) for uid in scans]
    number = {name: i for i, name in enumerate(dict.fromkeys(names))}
    return np.array([number[name] for name in names], np.int64)


def _scan_weights(
    patient: Int64[np.ndarray, " scans"], bootstraps: int, seed: int
) -> Iterator[Int64[np.ndarray, " scans"]]:
    """How often each scan is drawn, one array per resample: as often as its patient."""
    generator = np.random.default_rng(seed)
    n_patients = int(patient.max()) + 1
    for _ in range(bootstraps):
        yield np.bincount(generator.integers(n_patients, size=n_patients), minlength=n_patients)[patient]


@dataclass(frozen=True, eq=False)
class _Events:
    """Hits and false positives from the highest score down, and how many of each every operating point takes in."""

    hit_scan: Int64[np.ndarray, " hits"]
    false_scan: Int64[np.ndarray, " false"]
    threshold: Float64[np.ndarray, " points"]
    hits_to: Int64[np.ndarray, " points"]
    false_to: Int64[np.ndarray, " points"]

    def with_false_up_to(self, count: int) -> "_Events":
        """The operating points with at most so many false positives; there is always the one without any."""
        points = int(np.searchsorted(self.false_to, count, side="right"))
        return _Events(
            self.hit_scan[: self.hits_to[points - 1]],
            self.false_scan[: self.false_to[points - 1]],
            self.threshold[:points],
            self.hits_to[:points],
            self.false_to[:points],
        )

    def weighted(
        self, weight: Int64[np.ndarray, " scans"]
    ) -> tuple[Int64[np.ndarray, " points"], Int64[np.ndarray, " points"]]:
        """Hits and false positives that every operating point takes in, each counted as often as its scan."""
        hits = np.append(0, np.cumsum(weight[self.hit_scan]))[self.hits_to]
        return hits, np.append(0, np.cumsum(weight[self.false_scan]))[self.false_to]


def _events(matches: Matches) -> _Events:
    found = matches.nodule_detection >= 0
    hits = np.argsort(-matches.nodule_score[found], kind="stable")
    false = np.argsort(-matches.false_score, kind="stable")
    falling_hits = -matches.nodule_score[found][hits]
    falling_false = -matches.false_score[false]
    falling = np.unique(np.concatenate([[-np.inf], falling_hits, falling_false]))
    return _Events(
        hit_scan=matches.nodule_scan[found][hits],
        false_scan=matches.false_scan[false],
        threshold=-falling,
        hits_to=np.searchsorted(falling_hits, falling, side="right"),
        false_to=np.searchsorted(falling_false, falling, side="right"),
    )


def read_off(
    false_per_scan: Float64[np.ndarray, " points"],
    sensitivity: Float64[np.ndarray, " points"],
    rates: tuple[float, ...],
) -> Float64[np.ndarray, " rates"]:
    """Sensitivity at ``rates`` on straight lines between points; the last value beyond the end of the curve.

    Where the curve rises straight up, its upper end counts.
    """
    return np.asarray(np.interp(rates, false_per_scan, sensitivity))

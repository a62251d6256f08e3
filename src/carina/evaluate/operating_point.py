"""From scores to decisions, on held-out data: hard negatives, one calibrated probability, and where to cut it.

Works on the files that ``carina detect`` writes with ``--threshold 0``. Must not know voxels or networks.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float64, Int64

from carina.errors import InputError
from carina.evaluate.curves import Reliability, reliability, roc
from carina.evaluate.froc import Froc, froc
from carina.evaluate.groups import GroupSensitivity, sensitivity_by_group
from carina.evaluate.match import Matches, Outcome, match
from carina.evaluate.tables import Detections, Nodules, read_detections_with, read_nodules
from carina.io import read_image
from carina.io.luna import IGNORE, Candidate, LunaCohort, read_candidates
from carina.learn.calibrate import fit_logistic
from carina.models.card import Calibration, Card, ReliabilityBin, log_odds

OPERATING_RATES = {"high": 4.0, "balanced": 1.0, "specific": 0.25}
"""False positives per scan that each sensitivity setting allows on held-out data, not counting look-alikes."""

LOOKALIKE_MM = 10.0
"""Marks this close to a listed look-alike lie on it."""

FOLDS = 5


@dataclass(frozen=True, eq=False)
class Judged:
    """Candidates of the pipeline held against the truth of a cohort.

    Attributes:
        detections: one row per candidate; ``score`` is what ``carina detect`` called ``probability``.
        nodules: the truth, in the scans that were detected in.
        segmentation: score of the first stage.
        classification: score of the second stage, NaN where it was left out.
        truth: 1 nodule, 0 not, -1 not judged.
        lookalike: whether it lies on something that the cohort's candidates.csv lists as looking like a nodule.
        on_nodule: whether it lies on a nodule's voxels, within the radius or not.
        patients: patient of a scan; synthetic scans of one CT share theirs. Scans that are not named have one each.
    """

    detections: Detections
    nodules: Nodules
    segmentation: Float64[np.ndarray, " n"]
    classification: Float64[np.ndarray, " n"]
    truth: Int64[np.ndarray, " n"]
    lookalike: Bool[np.ndarray, " n"]
    on_nodule: Bool[np.ndarray, " n"]
    patients: Mapping[str, str]

    @property
    def counted(self) -> Bool[np.ndarray, " n"]:
        """Which candidates are judged."""
        return self.truth >= 0


def judge(results: Path, cohort: Path) -> Judged:
    """Hold the output of ``carina detect --threshold 0`` against the tables and masks of its cohort.

    A candidate within a nodule's radius is a nodule. One that misses every centre but lies on a voxel that the
    mask calls nodule or ignore is not judged: it is neither right nor a hard negative.

    Raises:
        InputError: no results, or tables that do not fit.
    """
    detections, segmentation = read_detections_with(results, "segmentation_score", empty=np.nan)
    _, classification = read_detections_with(results, "classification_score", empty=np.nan)
    nodules = read_nodules(cohort / "annotations.csv")
    # Results of one cohort may lie in several folders; each brings the nodules of its own scans.
    nodules = nodules.where(np.isin(nodules.series_uid, list(detections.scans)))
    outcome = match(detections, nodules, scans=sorted(detections.scans), marks_per_scan=None).outcome
    truth = np.isin(outcome, [Outcome.HIT, Outcome.DUPLICATE]).astype(np.int64)
    label = labels_under(detections, cohort)
    truth[(truth == 0) & (label > 0)] = -1
    lookalike, on_nodule = _on_lookalikes(detections, cohort), (label > 0) & (label != IGNORE)
    patients = {row.series_uid: row.patient_id for row in LunaCohort(cohort).scan_rows if row.patient_id}
    return Judged(detections, nodules, segmentation, classification, truth, lookalike, on_nodule, patients)


def _on_lookalikes(detections: Detections, cohort: Path) -> Bool[np.ndarray, " n"]:
    near = np.zeros(len(detections.series_uid), bool)
    if not (cohort / "candidates.csv").is_file():
        return near
    listed: dict[str, list[tuple[float, float, float]]] = {}
    for row in read_candidates(cohort / "candidates.csv"):
        if not row.is_nodule:
            listed.setdefault(row.series_uid, []).append(row.center_lps)
    for i, (uid, center) in enumerate(zip(detections.series_uid, detections.center_lps, strict=True)):
        if uid in listed:
            near[i] = np.linalg.norm(np.array(listed[uid]) - center, axis=1).min() < LOOKALIKE_MM
    return near


def labels_under(detections: Detections, cohort: Path) -> Int64[np.ndarray, " n"]:
    """What the mask of their scan says at the marks: 0 background, 255 ignore, else a nodule; 0 where there is none."""
    luna = LunaCohort(cohort)
    series = np.array(detections.series_uid)
    label = np.zeros(len(series), np.int64)
    for uid in sorted(set(detections.series_uid)):
        path = luna.mask(uid)
        if path is None:
            continue
        mask, geometry = read_image(path)
        rows = np.flatnonzero(series == uid)
        index = np.rint(geometry.to_zyx(detections.center_lps[rows])).astype(int)
        index = np.clip(index, 0, np.subtract(mask.shape, 1))
        label[rows] = mask[tuple(index.T)]
    return label


def candidates(judged: Judged) -> list[Candidate]:
    """The candidates in LUNA16's form, for ``carina train nodule --mined``.

    Those on a nodule's voxels teach as nodules, even beyond its radius: a mass is marked in parts.
    """
    nodule = (judged.truth == 1) | judged.on_nodule
    return [
        Candidate(judged.detections.series_uid[i], _triple(judged.detections.center_lps[i]), bool(nodule[i]))
        for i in np.flatnonzero(judged.counted | judged.on_nodule)
    ]


@dataclass(frozen=True, eq=False)
class OperatingPoint:
    """What held-out candidates say about the joined probability.

    Attributes:
        calibration: the fitted join of both stages.
        thresholds: cut on the joined probability by sensitivity setting.
        froc: of the joined probability.
        groups: its sensitivity by size and type.
        reliability: how often the joined probability comes true, out of fold.
        metrics: figures for the card.
    """

    calibration: Calibration
    thresholds: dict[str, float]
    froc: Froc
    groups: tuple[GroupSensitivity, ...]
    reliability: Reliability
    metrics: dict[str, float]

    def on(self, card: Card, measured_on: str) -> Card:
        """The nodule network's card with this operating point."""
        return replace(
            card,
            calibration=self.calibration,
            threshold=self.thresholds["balanced"],
            operating_points=self.thresholds,
            reliability=tuple(
                ReliabilityBin(float(p), float(share), int(n))
                for p, share, n in zip(
                    self.reliability.mean_probability, self.reliability.fraction, self.reliability.count, strict=True
                )
            ),
            metrics={**card.metrics, **self.metrics},
            measured_on=measured_on,
        )


def calibrate(parts: Sequence[Judged], *, bootstraps: int = 1000, seed: int = 0) -> OperatingPoint:
    """Fit the join of both stages on held-out candidates, and read the thresholds off the FROC curve.

    The calibration error is measured out of fold, folds being made of whole patients; thresholds and the final fit
    use all of them.

    Args:
        parts: one per cohort.
        bootstraps: resamples of the patients behind the intervals.
        seed: of the resamples.

    Raises:
        InputError: the second stage was left out, or the scans are of one patient.
        TrainingError: one of the classes is missing.
    """
    whole = _join(parts)
    if np.isnan(whole.classification).any():
        raise InputError("some candidates have no classification score; run `carina detect --threshold 0` again")
    kept = whole.counted
    first, second = whole.segmentation[kept], whole.classification[kept]
    truth = whole.truth[kept] == 1
    patient = np.array([whole.patients.get(uid, uid) for uid in whole.detections.series_uid])[kept]
    if len(set(patient)) < 2:
        raise InputError("all candidates are of one patient, and folds are made of whole patients; hold out more")
    fit = _fit(first, second, truth)
    honest = np.zeros(len(truth))
    folds = np.unique(patient, return_inverse=True)[1] % FOLDS
    for fold in range(FOLDS):
        inside = folds == fold
        fold_fit = _fit(first[~inside], second[~inside], truth[~inside])
        honest[inside] = fold_fit.probability(first[inside], second[inside])
    joined = replace(whole.detections, score=fit.probability(whole.segmentation, whole.classification))
    result = _froc(joined, whole, bootstraps, seed)
    alone = {
        "first_stage": whole.segmentation,
        "second_stage": whole.classification,
        "product": whole.segmentation * whole.classification,
    }
    averages = {name: _froc(replace(joined, score=score), whole, 0, seed).average for name, score in alone.items()}
    groups = sensitivity_by_group(_matches(joined, whole), bootstraps=bootstraps, seed=seed, patients=whole.patients)
    curve = reliability(truth, honest)
    # A synthetic scan holds dozens of look-alikes that were put there to be learned from; no other scan does.
    as_they_come = replace(whole, truth=np.where(whole.lookalike & (whole.truth == 0), -1, whole.truth))
    bare = _froc(joined, as_they_come, 0, seed)
    thresholds = {name: _cut(bare, rate) for name, rate in OPERATING_RATES.items()}
    low, high = result.average_interval
    metrics = {
        "froc_average": result.average,
        "froc_average_low": low,
        "froc_average_high": high,
        **{f"froc_average_{name}": average for name, average in averages.items()},
        "calibration_error_out_of_fold": curve.expected_error,
        **{f"auc_{name}": roc(truth, score[kept]).auc for name, score in alone.items()},
        "auc_joined_out_of_fold": roc(truth, honest).auc,
        "scans": float(result.n_scans),
        "patients": float(result.n_patients),
        "nodules": float(result.n_nodules),
    }
    for rate, sensitivity in zip(result.rates, result.sensitivity, strict=True):
        metrics[f"sensitivity_at_{rate:g}_fp"] = float(sensitivity)
    return OperatingPoint(fit, thresholds, result, groups, curve, metrics)


def _join(parts: Sequence[Judged]) -> Judged:
    detections = Detections(
        tuple(uid for part in parts for uid in part.detections.series_uid),
        np.concatenate([part.detections.center_lps for part in parts]),
        np.concatenate([part.detections.score for part in parts]),
        frozenset().union(*(part.detections.scans for part in parts)),
    )
    nodules = Nodules(
        tuple(uid for part in parts for uid in part.nodules.series_uid),
        np.concatenate([part.nodules.center_lps for part in parts]),
        np.concatenate([part.nodules.diameter_mm for part in parts]),
        tuple(kind for part in parts for kind in part.nodules.type),
    )
    return Judged(
        detections,
        nodules,
        np.concatenate([part.segmentation for part in parts]),
        np.concatenate([part.classification for part in parts]),
        np.concatenate([part.truth for part in parts]),
        np.concatenate([part.lookalike for part in parts]),
        np.concatenate([part.on_nodule for part in parts]),
        {uid: patient for part in parts for uid, patient in part.patients.items()},
    )


def _froc(detections: Detections, whole: Judged, bootstraps: int, seed: int) -> Froc:
    return froc(_matches(detections, whole), bootstraps=bootstraps, seed=seed, patients=whole.patients)


def _matches(detections: Detections, whole: Judged) -> Matches:
    judged = detections.where(whole.counted)
    return match(judged, whole.nodules, scans=sorted(detections.scans), marks_per_scan=None)


def _cut(result: Froc, rate: float) -> float:
    """The lowest threshold that lets in no more than ``rate`` false positives per scan, rounded up to four digits."""
    curve = result.curve
    allowed = curve.threshold[(curve.false_per_scan <= rate) & np.isfinite(curve.threshold)]
    cut = float(allowed.min()) if len(allowed) else 1.0
    return min(1.0, float(np.ceil(cut * 1e4) / 1e4))


def _fit(
    segmentation: Float64[np.ndarray, " n"], classification: Float64[np.ndarray, " n"], truth: Bool[np.ndarray, " n"]
) -> Calibration:
    features = np.column_stack([log_odds(segmentation), log_odds(classification)])
    intercept, (first, second) = fit_logistic(features, truth)
    return Calibration(
        "logistic regression on the log-odds of both stages, on held-out candidates",
        intercept,
        float(first),
        float(second),
    )


def _triple(position: Float64[np.ndarray, "3"]) -> tuple[float, float, float]:
    x, y, z = position
    return float(x), float(y), float(z)

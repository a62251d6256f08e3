"""The whole pipeline held against the truth: what became of every nodule, and what every finding is.

Counts {not a nodule, benign, malignant} against {missed, filtered out, called benign, called malignant} over a cohort
of reports, and judges the answer for the patient. Must not know images or networks.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float64

from carina.errors import InputError
from carina.evaluate.confusion import Confusion, confusion
from carina.evaluate.malignancy import MalignancyTable
from carina.findings import MOST_FINDINGS, Report

TRUTH = ("not a nodule", "benign", "malignant")
SAID = ("missed", "filtered out", "called benign", "called malignant")
_BENIGN, _MALIGNANT = 1, 2
_MISSED, _FILTERED, _CALLED_BENIGN = 0, 1, 2


@dataclass(frozen=True, eq=False)
class PipelineScore:
    """A cohort of reports against the truth.

    Attributes:
        table: counts; a row per truth, a column per fate. Findings that hit no nodule are "not a nodule", and
            nothing can be missed there.
        scans: series UIDs that were judged, one report each.
        patient_malignant: for each scan, whether it holds a malignant nodule.
        patient_probability: for each scan, the highest ``p_nodule * p_malignant``; 0 without findings.
        threshold: lowest ``p_nodule`` of a finding, None where each report's own counted.
        malignancy_threshold: from this ``p_malignant`` on a finding is called malignant.
        full: how many reports list as many findings as a report can: what ranked lower there looks missed.
    """

    table: Confusion
    scans: tuple[str, ...]
    patient_malignant: Bool[np.ndarray, " scans"]
    patient_probability: Float64[np.ndarray, " scans"]
    threshold: float | None
    malignancy_threshold: float
    full: int = 0


def read_reports(folder: Path) -> list[Report]:
    """Every ``report.json`` in a folder and below it, in the order of their paths.

    Raises:
        InputError: there is none, or one is no report.
    """
    paths = sorted(folder.rglob("report.json"))
    if not paths:
        raise InputError(f"{folder}: no report.json in this folder or below it; expected output of `carina detect`")
    return [Report.read(path) for path in paths]


def score_pipeline(
    reports: Sequence[Report],
    truth: MalignancyTable,
    *,
    threshold: float | None = None,
    malignancy_threshold: float = 0.5,
) -> PipelineScore:
    """Hold reports against nodules with an outcome.

    A finding hits a nodule when it lies within the nodule's radius. A nodule's fate is that of its most probable
    hit: called malignant or benign when it passes the threshold, filtered out when it does not, missed when nothing
    hit it. A report lists only what passed the threshold it was made with: make reports with ``--threshold 0`` and
    give the operating threshold here to tell what was filtered out from what was missed.

    Args:
        reports: one per scan; scans without a nodule in ``truth`` take part.
        truth: nodules with outcome; those of scans without a report are left out.
        threshold: lowest ``p_nodule`` that counts as called; None takes each report's own.
        malignancy_threshold: lowest ``p_malignant`` that is called malignant.

    Raises:
        InputError: no report, two reports of one scan, or a threshold below the one a report was made with.
    """
    if not reports:
        raise InputError("there is no report to judge")
    names = [report.input.series_uid or report.case_id for report in reports]
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise InputError(f"two reports describe series {twice}; keep one of them")
    fates: list[tuple[int, int]] = []
    malignant_patient, probability = [], []
    for name, report in zip(names, reports, strict=True):
        limit = report.threshold if threshold is None else threshold
        if limit < report.threshold:
            raise InputError(
                f"the report of {name} was made with threshold {report.threshold:g} and lists nothing below it; "
                f"threshold {limit:g} cannot be judged from it. Run carina detect with --threshold 0"
            )
        nodules = truth.of_series([name])
        fates += _fates(report, nodules, limit, malignancy_threshold)
        malignant_patient.append(bool(nodules.malignant.any()))
        counted = [f.p_nodule * f.p_malignant for f in report.findings if f.p_nodule >= limit]
        probability.append(max(counted, default=0.0))
    rows = np.array(fates, np.int64).reshape(-1, 2)
    return PipelineScore(
        table=confusion(rows[:, 0], rows[:, 1], TRUTH, SAID),
        scans=tuple(names),
        patient_malignant=np.array(malignant_patient, bool),
        patient_probability=np.array(probability, np.float64),
        threshold=threshold,
        malignancy_threshold=malignancy_threshold,
        full=sum(len(report.findings) == MOST_FINDINGS for report in reports),
    )


def _fates(
    report: Report, nodules: MalignancyTable, threshold: float, malignancy_threshold: float
) -> list[tuple[int, int]]:
    """(truth, fate) of every nodule, then of every finding that hit none."""
    findings = report.findings
    center_lps = np.array([f.center_lps for f in findings], np.float64).reshape(-1, 3)
    said = [
        _FILTERED if f.p_nodule < threshold else _CALLED_BENIGN + int(f.p_malignant >= malignancy_threshold)
        for f in findings
    ]
    distance = np.linalg.norm(nodules.center_lps[:, None] - center_lps[None], axis=2)
    hit = distance < nodules.diameter_mm[:, None] / 2.0
    p_nodule = np.array([f.p_nodule for f in findings])
    fates = []
    for malignant, hits in zip(nodules.malignant, hit, strict=True):
        fate = said[int(np.argmax(np.where(hits, p_nodule, -1.0)))] if hits.any() else _MISSED
        fates.append((_MALIGNANT if malignant else _BENIGN, fate))
    return fates + [(0, said[i]) for i in np.flatnonzero(~hit.any(axis=0))]

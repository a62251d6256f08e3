"""Reports with chosen findings, for tests of what reads reports."""

import numpy as np

from carina.ct.measure import measure
from carina.findings import Finding, InputSummary, ModelInfo, PatientAnswer, Report
from carina.volume import Volume


def report(uid, findings, threshold=0.0):
    """A report whose findings are given as (centre, p_nodule, p_malignant)."""
    return Report(
        case_id=uid,
        input=InputSummary("x.mhd", "metaimage", uid, None, None, (9, 9, 9), (1.0, 1.0, 1.0), 5.0),
        findings=tuple(
            Finding(n, center, (0.0, 0.0, 0.0), 8.0, 268.0, -50.0, p_nodule, p_malignant, 0)
            for n, (center, p_nodule, p_malignant) in enumerate(findings, 1)
        ),
        patient=PatientAnswer(None, None, ""),
        threshold=threshold,
        models=(),
        seconds={},
        warnings=(),
        carina_version="0",
        created="",
    )


def report_on(volume: Volume, labels: np.ndarray) -> Report:
    """A report whose findings are the labels of a map, measured, with probabilities made up."""
    findings = []
    for label, size in measure(volume, labels).items():
        center = np.argwhere(labels == label).mean(axis=0)
        findings.append(
            Finding(
                id=label,
                center_lps=tuple(volume.geometry.to_lps(center).tolist()),
                center_zyx=tuple(center.tolist()),
                diameter_mm=8.25,
                volume_mm3=294.0,
                mean_hu=-31.5,
                p_nodule=0.8 / label,
                p_malignant=0.3,
                slice_index=round(center[0]),
                long_axis_mm=size.long_axis_mm,
                short_axis_mm=size.short_axis_mm,
                mean_axis_mm=size.mean_axis_mm,
                long_axis_lps=size.long_axis_lps,
                short_axis_lps=size.short_axis_lps,
                corrected_volume_mm3=size.volume_mm3,
                solid_volume_mm3=size.solid_volume_mm3,
            )
        )
    source = volume.source
    return Report(
        case_id=source.case_id,
        input=InputSummary(
            source.path,
            source.format,
            source.series_uid,
            source.study_uid,
            source.frame_of_reference_uid,
            volume.hu.shape,
            volume.geometry.spacing_zyx_mm,
            4.2,
        ),
        findings=tuple(findings),
        patient=PatientAnswer(0.24 if findings else None, 1 if findings else None, "maximum over the findings"),
        threshold=0.3,
        models=(ModelInfo("segmentation", "unet", "ab" * 32, "torch"), ModelInfo("nodule", "net", "cd" * 32, "torch")),
        seconds={},
        warnings=("slices of 2 mm lie 3 mm apart",),
        carina_version="0.1.0",
        created="2026-01-02T03:04:05+00:00",
    )

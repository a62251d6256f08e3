"""Reports with chosen findings, for tests of what reads reports."""

from carina.findings import Finding, InputSummary, PatientAnswer, Report


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

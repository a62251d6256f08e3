"""The answer for the patient: the most suspicious finding decides."""

from collections.abc import Sequence

from carina.findings import Finding, PatientAnswer

METHOD = "maximum over the findings of p_nodule x p_malignant"


def diagnose(findings: Sequence[Finding]) -> PatientAnswer:
    """The patient's probability of a malignant nodule and the finding that drove it; None without findings."""
    if not findings:
        return PatientAnswer(p_malignant=None, finding_id=None, method=METHOD)
    driver = max(findings, key=lambda f: f.p_nodule * f.p_malignant)
    return PatientAnswer(driver.p_nodule * driver.p_malignant, driver.id, METHOD)

"""The fit of the malignancy rule that ships: a logistic curve of the diameter, judged by patient.

Must not know images or networks, nor how the rule is applied.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float64, Int64
from scipy.optimize import minimize
from scipy.special import expit

from carina.errors import InputError
from carina.evaluate.curves import Reliability, Roc, clustered_auc_interval, reliability, roc
from carina.evaluate.malignancy import MalignancyTable, number_groups
from carina.models.malignancy import DiameterRule, RuleEvidence, Scale

LUNA_LICENCE = "LUNA16, CC BY 4.0"


@dataclass(frozen=True, eq=False)
class OutOfFold:
    """A form of the rule, judged on folds of patients that its fit did not see.

    Attributes:
        scale: form of the rule.
        probability: out-of-fold probability of each nodule.
        roc: of these probabilities.
        calibration: of these probabilities.
    """

    scale: Scale
    probability: Float64[np.ndarray, " n"]
    roc: Roc
    calibration: Reliability


def held_out(
    table: MalignancyTable,
    scale: Scale,
    *,
    patients: Mapping[str, str] | None = None,
    folds: int = 10,
    seed: int = 0,
) -> OutOfFold:
    """Judge one form of the rule by cross-validation over patients.

    Args:
        table: nodules with outcome.
        scale: form of the rule.
        patients: patient of a series; a series that is not named counts as a patient of its own.
        folds: parts that the patients are dealt into.
        seed: of the deal.

    Raises:
        InputError: fewer patients than folds, or a class is missing.
    """
    patient = _patient_numbers(table, patients)
    n_patients = int(patient.max()) + 1 if len(patient) else 0
    if n_patients < folds:
        raise InputError(f"{n_patients} patients cannot be dealt into {folds} folds")
    fold = (np.random.default_rng(seed).permutation(n_patients) % folds)[patient]
    probability = np.zeros(len(table))
    for part in range(folds):
        seen = fold != part
        intercept, slope = _fit(_scaled(table.diameter_mm[seen], scale), table.malignant[seen])
        probability[~seen] = expit(intercept + slope * _scaled(table.diameter_mm[~seen], scale))
    return OutOfFold(
        scale=scale,
        probability=probability,
        roc=roc(table.malignant, probability),
        calibration=reliability(table.malignant, probability),
    )


def fit_diameter_rule(
    table: MalignancyTable,
    *,
    exclude_series: Sequence[str] = (),
    patients: Mapping[str, str] | None = None,
    scale: Scale | None = None,
    data: str = "annotations_with_malignancy.csv",
    licence: str = LUNA_LICENCE,
) -> DiameterRule:
    """Fit the rule on every nodule outside ``exclude_series``, by maximum likelihood.

    Args:
        table: nodules with outcome.
        exclude_series: scans that must take no part, such as those kept for tests.
        patients: patient of a series, for the cross-validation behind the quoted figures.
        scale: form of the rule; None takes the one with the lower held-out log-loss.
        data: name of the table for the card.
        licence: its licence for the card.

    Raises:
        InputError: too few patients, a class is missing, or malignancy does not grow with size.
    """
    used = table.of_series(sorted(set(table.series_uid) - set(exclude_series)))
    scales: tuple[Scale, ...] = ("log", "linear") if scale is None else (scale,)
    judged = [held_out(used, form, patients=patients) for form in scales]
    best = min(judged, key=lambda form: form.calibration.log_loss)
    intercept, slope = _fit(_scaled(used.diameter_mm, best.scale), used.malignant)
    # Few patients were scanned twice, but the card must not claim what nobody told.
    unit = "patients" if set(used.series_uid) <= set(patients or ()) else "series"
    evidence = RuleEvidence(
        data=data,
        licence=licence,
        excluded_series=tuple(sorted(exclude_series)),
        n=len(used),
        n_malignant=int(used.malignant.sum()),
        auc=best.roc.auc,
        auc_interval=clustered_auc_interval(used.malignant, best.probability, _patient_numbers(used, patients)),
        calibration_error=best.calibration.expected_error,
        brier=best.calibration.brier,
        method=f"figures from 10-fold cross-validation over {unit}, interval by bootstrap over {unit}; "
        "coefficients from all nodules by maximum likelihood",
        series_uids=tuple(sorted(set(used.series_uid))),
    )
    return DiameterRule(intercept=intercept, slope=slope, scale=best.scale, evidence=evidence)


def _patient_numbers(table: MalignancyTable, patients: Mapping[str, str] | None) -> Int64[np.ndarray, " n"]:
    return number_groups([(patients or {}).get(uid, uid) for uid in table.series_uid])


def _fit(size: Float64[np.ndarray, " n"], malignant: Bool[np.ndarray, " n"]) -> tuple[float, float]:
    """Intercept and slope of a logistic curve by maximum likelihood.

    A penalty far below the data's weight (1e-6 of a squared unit) keeps the answer finite under perfect separation.
    """
    if not 0 < int(malignant.sum()) < len(malignant):
        raise InputError("benign and malignant nodules are both needed for a fit")
    # Centred and scaled, the two coefficients are nearly uncorrelated and the solver needs a few steps only.
    mean, deviation = float(size.mean()), float(size.std()) or 1.0
    design = np.stack([np.ones_like(size), (size - mean) / deviation], axis=1)

    def loss(coefficients: Float64[np.ndarray, "2"]) -> tuple[float, Float64[np.ndarray, "2"]]:
        log_odds = design @ coefficients
        value = np.mean(np.logaddexp(0.0, log_odds) - malignant * log_odds) + 1e-6 * coefficients @ coefficients
        return float(value), design.T @ (expit(log_odds) - malignant) / len(size) + 2e-6 * coefficients

    solution = minimize(loss, np.zeros(2), jac=True, method="BFGS", options={"gtol": 1e-9}).x
    slope = float(solution[1] / deviation)
    if slope <= 0:
        raise InputError("in this table malignancy does not grow with the diameter; a rule of size makes no sense")
    return float(solution[0] - solution[1] * mean / deviation), slope


def _scaled(diameter_mm: Float64[np.ndarray, " n"], scale: Scale) -> Float64[np.ndarray, " n"]:
    return np.log(diameter_mm) if scale == "log" else diameter_mm

"""What the readers' ratings of type and spiculation add to the diameter, judged by patient, and the rule with them.

Must not know images, networks or files.
"""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float64
from scipy.special import expit

from carina.data.lidc_ratings import RatedNodule
from carina.errors import InputError
from carina.evaluate.curves import clustered_auc_interval
from carina.evaluate.malignancy import number_groups
from carina.learn.calibrate import fit_logistic
from carina.learn.ranking import auc
from carina.models.malignancy import TYPE_TERMS, RatedEvidence, RatedRule

SETS = {
    "diameter": 1,
    "diameter, type": 1 + len(TYPE_TERMS),
    "diameter, type, spiculation": 2 + len(TYPE_TERMS),
}
"""What a rule may look at, in words, and how many columns of ``_features`` that is."""

FEWEST_READERS = 2


def fit_rated_rule(nodules: Sequence[RatedNodule], *, data: str, folds: int = 10, seed: int = 0) -> RatedRule:
    """Fit the rule with type and spiculation, and judge it beside those that know less.

    Nodules of fewer than two readers, and those whose mean rating is indeterminate (3), take no part.

    Args:
        nodules: as rated.
        data: name of the table for the card.
        folds: parts that the patients are dealt into.
        seed: of the deal.

    Raises:
        InputError: fewer patients than folds, or a class is missing.
    """
    used = [one for one in nodules if one.readers >= FEWEST_READERS and one.malignancy != 3]
    malignant = np.array([one.malignancy > 3 for one in used], bool)
    patient = number_groups([one.patient_id for one in used])
    n_patients = int(patient.max()) + 1 if len(used) else 0
    if n_patients < folds or not 0 < malignant.sum() < len(used):
        raise InputError(f"{len(used)} rated nodules of {n_patients} patients are too few, or all of one class")
    features = _features(used)
    fold = (np.random.default_rng(seed).permutation(n_patients) % folds)[patient]
    areas = {}
    for name, columns in SETS.items():
        score = np.zeros(len(used))
        for part in range(folds):
            seen = fold != part
            score[~seen] = _apply(features[~seen, :columns], *_fit(features[seen, :columns], malignant[seen]))
        low, high = clustered_auc_interval(malignant, score, patient)
        areas[name] = (auc(malignant, score), low, high)
    intercept, weights = _fit(features, malignant)
    return RatedRule(
        intercept=intercept,
        log_diameter=float(weights[0]),
        types={name: float(weight) for name, weight in zip(TYPE_TERMS, weights[1:], strict=False)},
        spiculation=float(weights[-1]),
        evidence=RatedEvidence(
            data=data,
            n=len(used),
            n_malignant=int(malignant.sum()),
            patients=n_patients,
            auc_and_interval=areas,
            method=f"{folds}-fold cross-validation over patients, intervals by bootstrap over patients; malignant: "
            f"mean rating above 3 of at least {FEWEST_READERS} readers; indeterminate left out",
        ),
    )


def _features(nodules: Sequence[RatedNodule]) -> Float64[np.ndarray, "n k"]:
    columns = [np.log([one.diameter_mm for one in nodules])]
    columns += [np.array([one.type == name for one in nodules], float) for name in TYPE_TERMS]
    columns.append(np.array([one.spiculation - 1 for one in nodules]))
    return np.column_stack(columns)


def _fit(
    features: Float64[np.ndarray, "n k"], malignant: Bool[np.ndarray, " n"]
) -> tuple[float, Float64[np.ndarray, " k"]]:
    return fit_logistic(features, malignant, penalty=1e-4)


def _apply(
    features: Float64[np.ndarray, "n k"], intercept: float, weights: Float64[np.ndarray, " k"]
) -> Float64[np.ndarray, " n"]:
    return np.asarray(expit(intercept + features @ weights))

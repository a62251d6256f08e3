"""A stated rule that calls made-up nodules malignant, so that fine-tuning can be shown where no outcomes are at hand.

The rule is no medicine: it is chosen so that type and size matter together and a ruler alone cannot answer. Tables
that hold its answers say so in a column of their own. Must not know images.
"""

from pathlib import Path

import numpy as np

from carina.errors import InputError
from carina.io.luna import Annotation, Malignancy, read_annotations, write_malignancy
from carina.io.uid import made_uid

FROM_MM = {"part-solid": 5.0, "solid": 10.0, "ground-glass": 18.0}
"""Diameter in mm from which on a nodule of each type is called malignant; other types never are."""

FLIPPED = 0.05
"""Share of the answers that are turned round, as outcomes never follow a rule exactly."""

RULE = (
    "made-up rule: malignant from 5 mm if part-solid, from 10 mm if solid, from 18 mm if ground-glass, never if "
    "calcified; 5 % turned round"
)


def rule_says(nodule: Annotation) -> bool:
    """Whether the rule calls a nodule malignant; depends on the nodule alone.

    Raises:
        InputError: its type is not known.
    """
    if nodule.type is None:
        raise InputError(f"{nodule.series_uid}: a nodule has no type, and the made-up rule of malignancy needs it")
    malignant = nodule.diameter_mm >= FROM_MM.get(nodule.type, np.inf)
    # The UID's number is a hash, evenly spread.
    drawn = int(made_uid("malignancy", nodule.series_uid, nodule.label).rpartition(".")[2]) % 10_000
    return bool(malignant) != (drawn < 10_000 * FLIPPED)


def label_cohort(cohort: Path) -> list[Malignancy]:
    """Write ``annotations_with_malignancy.csv`` for the nodules of a cohort's ``annotations.csv``.

    Raises:
        InputError: no annotations, or a nodule without a type.
    """
    rows = [
        Malignancy(nodule.series_uid, nodule.center_lps, nodule.diameter_mm, rule_says(nodule), ())
        for nodule in read_annotations(cohort / "annotations.csv")
    ]
    write_malignancy(cohort / "annotations_with_malignancy.csv", rows, RULE)
    return rows

"""Sensitivity by size and by type of nodule. Must not know files or how detections were made."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from jaxtyping import Bool

from carina.evaluate.froc import Interval, froc_curve, interval, read_off, resampled_sensitivity
from carina.evaluate.match import Matches
from carina.evaluate.tables import Nodules

BORDERS_MM = (0.0, 6.0, 9.0, 13.0, float("inf"))
"""Borders of size groups of about equal numbers in synthetic cohorts, whose nodules have 3 to 32 mm."""


@dataclass(frozen=True)
class GroupSensitivity:
    """How many nodules of one group are found where all scans together have so many false positives.

    Attributes:
        group: which nodules, in words.
        n_nodules: how many.
        n_marked: those that a detection hits at any threshold.
        rates: false positives per scan.
        sensitivity: at each of them.
        sensitivity_interval: its 95 % interval over resamples of the scans or patients.
    """

    group: str
    n_nodules: int
    n_marked: int
    rates: tuple[float, ...]
    sensitivity: tuple[float, ...]
    sensitivity_interval: tuple[Interval, ...]


def sensitivity_by_group(
    matches: Matches,
    *,
    rates: tuple[float, ...] = (0.25, 1.0, 4.0),
    bootstraps: int = 1000,
    seed: int = 0,
    patients: Mapping[str, str] | None = None,
) -> tuple[GroupSensitivity, ...]:
    """Sensitivity for all nodules, those of each size and those of each type; thresholds are the same for all.

    Args:
        matches: detections held against the truth.
        rates: false positives per scan that fix the thresholds.
        bootstraps: resamples of the scans behind the intervals.
        seed: of the resamples.
        patients: patient of a scan, whose scans are drawn together, as for ``carina.evaluate.froc.froc``.
    """
    groups = []
    for name, keep in nodule_groups(matches.nodules):
        part = matches.only(keep)
        curve = froc_curve(part)
        resampled = resampled_sensitivity(part, rates, bootstraps, seed, patients)
        groups.append(
            GroupSensitivity(
                group=name,
                n_nodules=int(keep.sum()),
                n_marked=int((part.nodule_detection >= 0).sum()),
                rates=rates,
                sensitivity=tuple(read_off(curve.false_per_scan, curve.sensitivity, rates).tolist()),
                sensitivity_interval=tuple(interval(column, 0.95) for column in resampled.T),
            )
        )
    return tuple(groups)


def nodule_groups(nodules: Nodules) -> Iterator[tuple[str, Bool[np.ndarray, " n"]]]:
    """All nodules, those of each size and those of each type; groups without nodules are left out."""
    yield "all nodules", np.ones(len(nodules), bool)
    for low, high in pairwise(BORDERS_MM):
        keep = (nodules.diameter_mm >= low) & (nodules.diameter_mm < high)
        if keep.any():
            if low == 0:
                yield f"below {high:g} mm", keep
            else:
                yield f"{low:g} mm and above" if high == float("inf") else f"{low:g} to {high:g} mm", keep
    for kind in sorted(set(nodules.type) - {""}):
        yield kind, np.array([kind == of for of in nodules.type], bool)

"""Is one detector better than another on the same scans? A paired bootstrap, overall and by size and type.

Both systems are judged on the same resamples of the scans, so that what is hard about a scan cancels. Must not know
files or how detections were made.
"""

from dataclasses import dataclass

import numpy as np

from carina.errors import InputError
from carina.evaluate.froc import LUNA_RATES, Interval, interval, resampled_sensitivity
from carina.evaluate.froc import average_sensitivity as average
from carina.evaluate.groups import nodule_groups
from carina.evaluate.match import Matches


@dataclass(frozen=True)
class Difference:
    """Two systems on one group of nodules.

    Attributes:
        group: which nodules, in words.
        n_nodules: how many.
        first: average sensitivity of the first system over the rates.
        second: that of the second.
        difference: ``second - first``.
        interval: of the difference, percentiles over paired resamples.
        p_value: two-sided: twice the fraction of resamples on the other side of 0, at least 2 / (bootstraps + 1).
    """

    group: str
    n_nodules: int
    first: float
    second: float
    difference: float
    interval: Interval
    p_value: float

    @property
    def verdict(self) -> str:
        """``second``, ``first``, or ``undecided`` where the interval holds 0."""
        low, high = self.interval
        return "second" if low > 0 else "first" if high < 0 else "undecided"


def compare(
    first: Matches,
    second: Matches,
    *,
    rates: tuple[float, ...] = LUNA_RATES,
    bootstraps: int = 1000,
    confidence: float = 0.95,
    seed: int = 0,
) -> list[Difference]:
    """Compare two systems on all nodules, then by size, then by type where the truth names types.

    In a group, sensitivity counts only its nodules; false positives are those on the whole scans.

    Args:
        first: matches of the first system.
        second: matches of the second, on the same scans and nodules in the same order.
        rates: false positives per scan over which sensitivity is averaged.
        bootstraps: resamples of the scans.
        confidence: probability that the intervals are meant to cover.
        seed: of the resamples.

    Raises:
        InputError: the two were not matched against the same scans and nodules, or there are none.
    """
    same_nodules = first.nodules.series_uid == second.nodules.series_uid and np.array_equal(
        first.nodules.center_lps, second.nodules.center_lps
    )
    if first.scans != second.scans or not same_nodules:
        raise InputError("the two systems were not judged on the same scans and nodules; name the scans (--series)")
    if not len(first.nodules):
        raise InputError("the scans to evaluate hold no nodule, so that there is nothing to compare")
    differences = []
    for name, keep in nodule_groups(first.nodules):
        a, b = first.only(keep), second.only(keep)
        gain = (
            resampled_sensitivity(b, rates, bootstraps, seed) - resampled_sensitivity(a, rates, bootstraps, seed)
        ).mean(axis=1)
        usable = gain[np.isfinite(gain)]
        other_side = min((usable <= 0).sum(), (usable >= 0).sum())
        score_a, score_b = average(a, rates), average(b, rates)
        differences.append(
            Difference(
                group=name,
                n_nodules=int(keep.sum()),
                first=score_a,
                second=score_b,
                difference=score_b - score_a,
                interval=interval(gain, confidence),
                p_value=min(1.0, 2.0 * (1 + int(other_side)) / (1 + len(usable))),
            )
        )
    return differences

"""Which detection hits which nodule: LUNA16's rules, from positions in millimetres.

A detection hits a nodule when it lies closer to the centre than the nodule's radius. The highest score among the
hits counts for the nodule; its other hits are neither right nor wrong. What hits an excluded finding is left out.
The rest are false positives. Must not know rates, curves or where the rows came from.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum

import numpy as np
from jaxtyping import Bool, Float64, Int64

from carina.errors import InputError
from carina.evaluate.tables import NO_NODULES, Detections, Nodules

UNKNOWN_DIAMETER_MM = 10.0
"""Diameter that LUNA16 assumes for findings whose diameter is unknown (written -1)."""

LUNA_MARKS_PER_SCAN = 100
"""LUNA16's evaluation keeps this many of the most probable marks of a scan."""

_PAIRS_AT_ONCE = 2_000_000


class Outcome(IntEnum):
    """What became of a detection."""

    FALSE_POSITIVE = 0
    HIT = 1
    DUPLICATE = 2
    IGNORED = 3
    UNUSED = 4


@dataclass(frozen=True, eq=False)
class Matches:
    """Detections held against the truth, in the form that every curve needs.

    Attributes:
        scans: the scans that count, with and without nodules.
        nodules: the nodules in these scans.
        nodule_scan: index into ``scans`` for each nodule.
        nodule_score: score of the best detection of each nodule, -inf where it was missed.
        nodule_detection: row of that detection in the detections, -1 where it was missed.
        false_scan: index into ``scans`` for each false positive.
        false_score: score of each false positive.
        outcome: an ``Outcome`` for each detection; ``UNUSED`` outside ``scans`` or beyond the marks per scan.
    """

    scans: tuple[str, ...]
    nodules: Nodules
    nodule_scan: Int64[np.ndarray, " nodules"]
    nodule_score: Float64[np.ndarray, " nodules"]
    nodule_detection: Int64[np.ndarray, " nodules"]
    false_scan: Int64[np.ndarray, " false"]
    false_score: Float64[np.ndarray, " false"]
    outcome: Int64[np.ndarray, " detections"]

    def only(self, keep: Bool[np.ndarray, " nodules"]) -> "Matches":
        """The same matches judged on some of the nodules; the false positives stay as they are."""
        return Matches(
            self.scans,
            self.nodules.where(keep),
            self.nodule_scan[keep],
            self.nodule_score[keep],
            self.nodule_detection[keep],
            self.false_scan,
            self.false_score,
            self.outcome,
        )


def match(
    detections: Detections,
    nodules: Nodules,
    *,
    excluded: Nodules = NO_NODULES,
    scans: Sequence[str] | None = None,
    marks_per_scan: int | None = LUNA_MARKS_PER_SCAN,
) -> Matches:
    """Hold detections against the truth.

    Args:
        detections: scored marks.
        nodules: what must be found.
        excluded: findings that count neither way, such as those that few readers marked.
        scans: the scans that count; default: every scan that any of the three tables names.
        marks_per_scan: keep marks whose score is above the next one in rank; None keeps all.

    Raises:
        InputError: no scans, or a nodule whose diameter is 0.
    """
    if scans is None:
        named = {*nodules.series_uid, *excluded.series_uid, *detections.scans}
        scans = sorted(named)
    index = {uid: i for i, uid in enumerate(scans)}
    if not index or len(index) < len(scans):
        raise InputError("there are no scans to evaluate" if not index else "the list of scans names one twice")
    nodules = nodules.where(np.array([uid in index for uid in nodules.series_uid], bool))
    excluded = excluded.where(np.array([uid in index for uid in excluded.series_uid], bool))
    if (nodules.diameter_mm == 0).any():
        raise InputError("a nodule of diameter 0 mm can never be hit; remove it or write -1 for unknown")

    scan = np.array([index.get(uid, -1) for uid in detections.series_uid], np.int64)
    if marks_per_scan is not None:
        scan[~_best_of_scan(scan, detections.score, marks_per_scan)] = -1
    order = np.argsort(scan, kind="stable")
    order = order[scan[order] >= 0]
    starts = np.searchsorted(scan[order], np.arange(len(index) + 1))

    outcome = np.where(scan < 0, Outcome.UNUSED, Outcome.FALSE_POSITIVE).astype(np.int64)
    _, ignored = _hits(detections, order, starts, excluded, index)
    outcome[ignored] = Outcome.IGNORED
    nodule, hit = _hits(detections, order, starts, nodules, index)
    outcome[hit] = Outcome.DUPLICATE

    # Hits by nodule, the best last, so that the assignment below keeps the best; ties go to the first row.
    by_score = np.lexsort((-hit, detections.score[hit], nodule))
    best = np.full(len(nodules), -1, np.int64)
    best[nodule[by_score]] = hit[by_score]
    outcome[best[best >= 0]] = Outcome.HIT

    false = np.flatnonzero(outcome == Outcome.FALSE_POSITIVE)
    score = np.full(len(nodules), -np.inf)
    score[best >= 0] = detections.score[best[best >= 0]]
    return Matches(
        scans=tuple(scans),
        nodules=nodules,
        nodule_scan=np.array([index[uid] for uid in nodules.series_uid], np.int64),
        nodule_score=score,
        nodule_detection=best,
        false_scan=scan[false],
        false_score=detections.score[false],
        outcome=outcome,
    )


def _best_of_scan(
    scan: Int64[np.ndarray, " n"], score: Float64[np.ndarray, " n"], count: int
) -> Bool[np.ndarray, " n"]:
    """Marks of scans with more than ``count`` marks are kept when they score above the mark ranked ``count + 1``."""
    keep = np.ones(len(scan), bool)
    order = np.lexsort((-score, scan))
    first = np.flatnonzero(np.diff(scan[order], prepend=-2))
    sizes = np.diff(np.append(first, len(scan)))
    for start, size in zip(first[sizes > count], sizes[sizes > count], strict=True):
        rows = order[start : start + size]
        keep[rows] = score[rows] > score[rows[count]]
    return keep


def _hits(
    detections: Detections,
    order: Int64[np.ndarray, " used"],
    starts: Int64[np.ndarray, " ends"],
    marks: Nodules,
    index: dict[str, int],
) -> tuple[Int64[np.ndarray, " hits"], Int64[np.ndarray, " hits"]]:
    """All pairs (row of ``marks``, row of ``detections``) of one scan that lie within the mark's radius.

    Pairs are formed in blocks of bounded size, whatever the number of detections per scan.
    """
    scan = np.array([index[uid] for uid in marks.series_uid], np.int64)
    counts = starts[scan + 1] - starts[scan]
    diameter = np.where(marks.diameter_mm < 0, UNKNOWN_DIAMETER_MM, marks.diameter_mm)
    squared_radius = (diameter / 2.0) ** 2
    block = (np.cumsum(counts) - counts) // _PAIRS_AT_ONCE
    pairs: list[tuple[Int64[np.ndarray, " h"], Int64[np.ndarray, " h"]]] = []
    for rows in np.split(np.arange(len(marks)), np.flatnonzero(np.diff(block)) + 1):
        mark = np.repeat(rows, counts[rows])
        before = np.cumsum(counts[rows]) - counts[rows]
        detection = order[np.arange(len(mark)) + np.repeat(starts[scan[rows]] - before, counts[rows])]
        distance = np.zeros(len(mark))
        for axis in (2, 1, 0):  # each axis alone rules most pairs out, which is cheaper than all three for all pairs
            distance += (marks.center_lps[mark, axis] - detections.center_lps[detection, axis]) ** 2
            near = distance < squared_radius[mark]
            mark, detection, distance = mark[near], detection[near], distance[near]
        pairs.append((mark, detection))
    return np.concatenate([mark for mark, _ in pairs]), np.concatenate([hit for _, hit in pairs])

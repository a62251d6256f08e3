"""Small random cohorts for the tests of matching and FROC: on a coarse grid, so that ties and touching radii occur."""

import numpy as np
from hypothesis import strategies as st

from carina.evaluate.tables import Detections, Nodules

SCANS = ("1.1", "1.2", "1.3", "1.4")
_grid = st.integers(0, 8).map(float)
_position = st.tuples(_grid, st.sampled_from([0.0, 3.0]), st.just(0.0))
_scan = st.sampled_from(SCANS[:3])  # the fourth scan never holds anything
_diameter = st.sampled_from([-1.0, 2.0, 4.0, 6.0])
_score = st.sampled_from([0.1, 0.25, 0.5, 0.9])
_distinct_score = st.floats(0, 1)

detection_rows = st.lists(st.tuples(_scan, _position, _score | _distinct_score), max_size=14)
mark_rows = st.lists(st.tuples(_scan, _position, _diameter), max_size=6)
nodule_rows = st.lists(st.tuples(_scan, _position, _diameter), min_size=1, max_size=6)


def detections(rows):
    uids = tuple(row[0] for row in rows)
    center_lps = np.array([row[1] for row in rows], np.float64).reshape(-1, 3)
    return Detections(uids, center_lps, np.array([row[2] for row in rows], np.float64), frozenset(uids))


def nodules(rows, types=None):
    return Nodules(
        tuple(row[0] for row in rows),
        np.array([row[1] for row in rows], np.float64).reshape(-1, 3),
        np.array([row[2] for row in rows], np.float64),
        tuple(types or [""] * len(rows)),
    )

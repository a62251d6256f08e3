"""Sensitivity by size and type, and the failures that a gallery shows."""

import numpy as np
import pytest

from carina.evaluate.gallery import failures
from carina.evaluate.groups import sensitivity_by_group
from carina.evaluate.match import match
from froc_cohorts import detections, nodules


def cohort():
    rows = [(f"1.{i}", (0.0, 0.0, 0.0), 5.0 if i % 2 else 16.0) for i in range(20)]
    return nodules(rows, ["solid", "ground-glass"] * 10)


def found():
    """Every large nodule at 0.9, the small ones of five scans at 0.3, and a false positive of 0.5 in every scan."""
    rows = [(f"1.{i}", (0.0, 0.0, 0.0), 0.9) for i in range(0, 20, 2)]
    rows += [(f"1.{i}", (0.0, 0.0, 0.0), 0.3) for i in range(1, 10, 2)]
    return detections(rows + [(f"1.{i}", (60.0, 0.0, 0.0), 0.5 + i / 1000) for i in range(20)])


def test_groups_share_the_thresholds_of_all_scans():
    groups = {g.group: g for g in sensitivity_by_group(match(found(), cohort()), rates=(0.5, 2.0))}
    assert groups["all nodules"].sensitivity == pytest.approx((0.5, 0.75))
    assert groups["13 mm and above"].sensitivity == (1.0, 1.0)
    assert groups["below 6 mm"].sensitivity == pytest.approx((0.0, 0.5))
    assert groups["below 6 mm"].n_marked == 5
    assert groups["solid"].n_nodules == groups["ground-glass"].n_nodules == 10


def test_intervals_hold_the_figure_and_have_no_width_where_all_scans_agree():
    groups = {g.group: g for g in sensitivity_by_group(match(found(), cohort()), rates=(2.0,))}
    low, high = groups["below 6 mm"].sensitivity_interval[0]
    assert low < 0.5 < high
    assert groups["13 mm and above"].sensitivity_interval[0] == (1.0, 1.0)


def test_the_gallery_shows_the_largest_misses_and_the_surest_mistakes_first():
    seen = found().where(np.array(found().score) < 0.8)
    missed, false = failures(match(seen, cohort()), seen, 3)
    assert [one.caption for one in missed] == ["solid 16.0 mm"] * 3
    assert [one.series_uid for one in false] == ["1.19", "1.18", "1.17"]

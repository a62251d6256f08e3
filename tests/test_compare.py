"""Two detectors on the same resamples of the scans."""

import numpy as np
import pytest
from hypothesis import given, settings

from carina.errors import InputError
from carina.evaluate.compare import compare
from carina.evaluate.froc import froc
from carina.evaluate.groups import nodule_groups
from carina.evaluate.match import match
from froc_cohorts import detection_rows, detections, nodule_rows, nodules


def system(hit_rate, n=60, seed=0):
    """Detections that hit the one nodule of each of n scans with this probability, with a false positive each."""
    lucky = np.random.default_rng(seed).random(n) < hit_rate
    rows = [(f"1.{i}", (0.0, 0.0, 0.0), 0.9) for i in range(n) if lucky[i]]
    return detections(rows + [(f"1.{i}", (50.0, 0.0, 0.0), 0.5) for i in range(n)])


def cohort(n=60):
    return nodules([(f"1.{i}", (0.0, 0.0, 0.0), 5.0 if i % 2 else 10.0) for i in range(n)], ["solid", ""] * (n // 2))


def test_a_clearly_better_system_is_called_better():
    first, second = (match(system(rate), cohort()) for rate in (0.2, 0.9))
    overall = compare(first, second)[0]
    assert overall.verdict == "second"
    assert overall.interval[0] > 0.4
    assert overall.p_value < 0.01


def test_the_same_system_twice_is_undecided_with_an_interval_of_zero_width():
    matches = match(system(0.5), cohort())
    overall = compare(matches, matches)[0]
    assert overall.verdict == "undecided"
    assert overall.interval == (0, 0)
    assert overall.p_value == 1


def test_pairing_narrows_the_interval_of_systems_that_fail_on_the_same_scans():
    first = match(system(0.5), cohort())
    better = system(0.5)
    missed = np.flatnonzero(first.nodule_detection < 0)[:4]
    extra = [(f"1.{i}", (0.0, 0.0, 0.0), 0.9) for i in missed]
    rows = list(zip(better.series_uid, map(tuple, better.center_lps), better.score, strict=True)) + extra
    second = match(detections(rows), cohort())
    low, high = compare(first, second)[0].interval
    one_low, one_high = froc(first).average_interval
    assert high - low < 0.6 * (one_high - one_low)


def test_swapping_the_systems_changes_the_sign():
    first, second = (match(system(rate), cohort()) for rate in (0.4, 0.6))
    there, back = compare(first, second)[0], compare(second, first)[0]
    assert there.difference == pytest.approx(-back.difference)
    np.testing.assert_allclose(there.interval, [-back.interval[1], -back.interval[0]])
    assert there.p_value == back.p_value


@settings(max_examples=25)
@given(detection_rows, detection_rows, nodule_rows)
def test_the_difference_is_that_of_the_two_scores(found, other, truth):
    scans = ["1.1", "1.2", "1.3"]
    first, second = (match(detections(rows), nodules(truth), scans=scans) for rows in (found, other))
    overall = compare(first, second, bootstraps=20)[0]
    assert overall.first == pytest.approx(froc(first, bootstraps=0).average)
    assert overall.second == pytest.approx(froc(second, bootstraps=0).average)


def test_groups_of_size_hold_every_nodule_once():
    truth = nodules([("1.1", (0.0, 0.0, 0.0), d) for d in (3.0, 6.0, 8.9, 9.0, 12.9, 13.0, 40.0)])
    groups = dict(nodule_groups(truth))
    assert {name: int(keep.sum()) for name, keep in groups.items()} == {
        "all nodules": 7,
        "below 6 mm": 1,
        "6 to 9 mm": 2,
        "9 to 13 mm": 2,
        "13 mm and above": 2,
    }


def test_a_gain_in_one_group_shows_there_only():
    truth = cohort()
    large = [(f"1.{i}", (0.0, 0.0, 0.0), 0.9) for i in range(0, 60, 2)]
    first = match(detections(large), truth)
    second = match(detections(large + [(f"1.{i}", (0.0, 0.0, 0.0), 0.9) for i in range(1, 60, 2)]), truth)
    by_group = {d.group: d for d in compare(first, second)}
    assert by_group["below 6 mm"].difference == 1
    assert by_group["9 to 13 mm"].difference == 0
    assert by_group["solid"].n_nodules == 30


def test_systems_on_different_scans_are_refused():
    truth = nodules([("1.1", (0.0, 0.0, 0.0), 6.0)])
    one, other = (match(detections([]), truth, scans=scans) for scans in (["1.1"], ["1.1", "1.2"]))
    with pytest.raises(InputError, match="same scans"):
        compare(one, other)


def test_no_nodules_are_an_error():
    nothing = match(detections([]), nodules([]), scans=["1.1"])
    with pytest.raises(InputError, match="no nodule"):
        compare(nothing, nothing)

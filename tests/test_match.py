"""Which detection hits which nodule, against plain loops."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import reference_froc as reference
from carina.errors import InputError
from carina.evaluate.match import Outcome, match
from froc_cohorts import SCANS, detection_rows, detections, mark_rows, nodule_rows, nodules


@given(detection_rows, nodule_rows, mark_rows, st.sampled_from([None, 1, 3, 100]))
def test_agrees_with_loops_over_everything(found, truth, excluded, marks_per_scan):
    matches = match(
        detections(found),
        nodules(truth),
        excluded=nodules(excluded),
        scans=SCANS,
        marks_per_scan=marks_per_scan,
    )
    best, false = reference.judge(found, truth, excluded, SCANS, marks_per_scan)
    assert [None if s == -np.inf else s for s in matches.nodule_score.tolist()] == best
    assert sorted(matches.false_score.tolist()) == sorted(false)


@given(detection_rows, nodule_rows, mark_rows)
def test_every_detection_has_one_outcome_and_the_counts_add_up(found, truth, excluded):
    matches = match(detections(found), nodules(truth), excluded=nodules(excluded), scans=SCANS[:2])
    counts = np.bincount(matches.outcome, minlength=5)
    assert counts.sum() == len(found)
    assert counts[Outcome.FALSE_POSITIVE] == len(matches.false_score)
    assert counts[Outcome.HIT] == len(set(matches.nodule_detection.tolist()) - {-1})
    assert counts[Outcome.UNUSED] == sum(row[0] not in SCANS[:2] for row in found)


@given(detection_rows, nodule_rows, st.randoms())
def test_the_order_of_rows_does_not_matter(found, truth, random):
    shuffled = random.sample(found, len(found))
    one = match(detections(found), nodules(truth), scans=SCANS)
    other = match(detections(shuffled), nodules(truth), scans=SCANS)
    assert one.nodule_score.tolist() == other.nodule_score.tolist()
    assert sorted(one.false_score.tolist()) == sorted(other.false_score.tolist())


def test_a_detection_exactly_on_the_radius_is_no_hit():
    truth = nodules([("1.1", (0.0, 0.0, 0.0), 6.0)])
    on = match(detections([("1.1", (0.0, 0.0, 3.0), 0.5)]), truth)
    inside = match(detections([("1.1", (0.0, 0.0, np.nextafter(3.0, 0.0)), 0.5)]), truth)
    assert on.outcome.tolist() == [Outcome.FALSE_POSITIVE]
    assert inside.outcome.tolist() == [Outcome.HIT]


def test_the_best_hit_counts_and_further_hits_count_neither_way():
    rows = [("1.1", (0.0, 0.0, 1.0), 0.3), ("1.1", (0.0, 0.0, 0.0), 0.8), ("1.1", (1.0, 0.0, 0.0), 0.8)]
    matches = match(detections(rows), nodules([("1.1", (0.0, 0.0, 0.0), 6.0)]))
    assert matches.nodule_score.tolist() == [0.8]
    assert matches.outcome.tolist() == [Outcome.DUPLICATE, Outcome.HIT, Outcome.DUPLICATE]
    assert len(matches.false_score) == 0


def test_one_detection_may_hit_two_nodules():
    truth = nodules([("1.1", (0.0, 0.0, 0.0), 6.0), ("1.1", (4.0, 0.0, 0.0), 6.0)])
    matches = match(detections([("1.1", (2.0, 0.0, 0.0), 0.7)]), truth)
    assert matches.nodule_score.tolist() == [0.7, 0.7]


def test_a_finding_of_unknown_diameter_counts_as_10_mm():
    excluded = nodules([("1.1", (0.0, 0.0, 0.0), -1.0)])
    truth = nodules([("1.1", (99.0, 0.0, 0.0), 6.0)])
    rows = [("1.1", (4.9, 0.0, 0.0), 0.5), ("1.1", (5.0, 0.0, 0.0), 0.5)]
    matches = match(detections(rows), truth, excluded=excluded)
    assert matches.outcome.tolist() == [Outcome.IGNORED, Outcome.FALSE_POSITIVE]


def test_a_hit_on_a_nodule_counts_even_inside_an_excluded_finding():
    mark = [("1.1", (0.0, 0.0, 0.0), 6.0)]
    matches = match(detections([("1.1", (0.0, 0.0, 0.0), 0.5)]), nodules(mark), excluded=nodules(mark))
    assert matches.outcome.tolist() == [Outcome.HIT]


def test_a_nodule_of_another_scan_is_not_hit():
    matches = match(detections([("1.2", (0.0, 0.0, 0.0), 0.5)]), nodules([("1.1", (0.0, 0.0, 0.0), 6.0)]))
    assert matches.scans == ("1.1", "1.2")
    assert matches.nodule_detection.tolist() == [-1]


def test_only_the_most_probable_marks_of_a_scan_are_kept():
    rows = [("1.1", (float(i), 0.0, 0.0), score) for i, score in enumerate([0.9, 0.2, 0.8, 0.2, 0.1])]
    matches = match(detections(rows), nodules([("1.2", (0.0, 0.0, 0.0), 6.0)]), marks_per_scan=2)
    assert (matches.outcome == Outcome.UNUSED).tolist() == [False, True, False, True, True]


def test_many_detections_per_scan_are_matched_in_blocks(monkeypatch):
    generator = np.random.default_rng(0)
    found = [
        ("1.1", tuple(p), float(s))
        for p, s in zip(generator.uniform(0, 30, (80, 3)), generator.random(80), strict=True)
    ]
    truth = nodules([("1.1", tuple(p), 9.0) for p in generator.uniform(0, 30, (20, 3))])
    whole = match(detections(found), truth)
    monkeypatch.setattr("carina.evaluate.match._PAIRS_AT_ONCE", 100)
    assert match(detections(found), truth).outcome.tolist() == whole.outcome.tolist()
    assert Outcome.DUPLICATE in whole.outcome


def test_scans_named_twice_are_refused():
    with pytest.raises(InputError, match="twice"):
        match(detections([]), nodules([]), scans=["1.1", "1.1"])


def test_no_scans_are_refused():
    with pytest.raises(InputError, match="no scans"):
        match(detections([]), nodules([]))


def test_a_nodule_of_diameter_0_is_refused():
    with pytest.raises(InputError, match="0 mm"):
        match(detections([]), nodules([("1.1", (0.0, 0.0, 0.0), 0.0)]))

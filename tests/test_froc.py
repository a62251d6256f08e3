"""FROC by LUNA16's rules, against loops over every threshold and published detections (M38)."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import reference_froc as reference
from carina.errors import InputError
from carina.evaluate.froc import LUNA_RATES, average_sensitivity, froc, froc_curve, resampled_sensitivity
from carina.evaluate.match import match
from carina.evaluate.tables import read_detections, read_nodules, read_series
from froc_cohorts import SCANS, detection_rows, detections, mark_rows, nodule_rows, nodules


@given(detection_rows, nodule_rows, mark_rows)
def test_sensitivity_agrees_with_loops_over_every_threshold(found, truth, excluded):
    result = froc(match(detections(found), nodules(truth), excluded=nodules(excluded), scans=SCANS), bootstraps=0)
    expected = reference.sensitivities(found, truth, excluded, SCANS)
    np.testing.assert_allclose(result.sensitivity, expected, atol=1e-12)
    assert result.average == pytest.approx(np.mean(expected))


@given(detection_rows, nodule_rows, mark_rows)
def test_the_curve_holds_every_operating_point(found, truth, excluded):
    curve = froc_curve(match(detections(found), nodules(truth), excluded=nodules(excluded), scans=SCANS))
    best, false = reference.judge(found, truth, excluded, SCANS)
    expected = np.array(reference.operating_points(best, false, len(SCANS)))
    np.testing.assert_allclose(curve.false_per_scan, expected[:, 0])
    np.testing.assert_allclose(curve.sensitivity, expected[:, 1])
    np.testing.assert_array_equal(curve.threshold, expected[:, 2])


@given(detection_rows, nodule_rows)
def test_the_curve_never_falls(found, truth):
    curve = froc_curve(match(detections(found), nodules(truth), scans=SCANS))
    assert (np.diff(curve.false_per_scan) >= 0).all()
    assert (np.diff(curve.sensitivity) >= 0).all()
    assert (np.diff(curve.threshold) < 0).all()


@given(detection_rows, nodule_rows, st.sampled_from([1e-3, 1.0, 1e6]))
def test_only_the_order_of_scores_matters(found, truth, factor):
    scaled = [(uid, position, factor * np.exp(score)) for uid, position, score in found]
    one = froc(match(detections(found), nodules(truth), scans=SCANS), bootstraps=0)
    # Distinct scores may become equal by rounding; those cohorts say nothing.
    if len({row[2] for row in scaled}) == len({row[2] for row in found}):
        other = froc(match(detections(scaled), nodules(truth), scans=SCANS), bootstraps=0)
        assert one.sensitivity == other.sensitivity


@given(detection_rows, nodule_rows, st.integers(0, 2**32 - 1), st.sampled_from([LUNA_RATES, (0.25,), (0.5, 1.0)]))
def test_resamples_agree_with_cohorts_of_copied_scans(found, truth, seed, rates):
    matches = match(detections(found), nodules(truth), scans=SCANS)
    result = resampled_sensitivity(matches, rates, 2, seed)
    generator = np.random.default_rng(seed)
    for row in result:
        drawn = [SCANS[i] for i in generator.integers(len(SCANS), size=len(SCANS))]
        copies = [str(k) for k in range(len(drawn))]
        copied_truth = reference.repeat_scans(truth, drawn)
        if copied_truth:
            copied = reference.repeat_scans(found, drawn)
            expected = reference.sensitivities(copied, copied_truth, [], copies, rates)
            np.testing.assert_allclose(row, expected, atol=1e-12)
        else:
            assert np.isnan(row).all()


@given(detection_rows, nodule_rows, st.integers(0, 2**32 - 1), st.sampled_from([LUNA_RATES, (0.25,), (0.5, 1.0)]))
def test_resamples_of_patients_bring_all_their_scans_along(found, truth, seed, rates):
    matches = match(detections(found), nodules(truth), scans=SCANS)
    result = resampled_sensitivity(matches, rates, 2, seed, patients={"1.2": "a", "1.4": "a"})
    generator = np.random.default_rng(seed)
    for row in result:
        of_patient = (["1.1"], ["1.2", "1.4"], ["1.3"])
        drawn = [uid for i in generator.integers(3, size=3) for uid in of_patient[i]]
        copies = [str(k) for k in range(len(drawn))]
        copied_truth = reference.repeat_scans(truth, drawn)
        if copied_truth:
            copied = reference.repeat_scans(found, drawn)
            expected = reference.sensitivities(copied, copied_truth, [], copies, rates)
            np.testing.assert_allclose(row, expected, atol=1e-12)
        else:
            assert np.isnan(row).all()


def test_resamples_judged_on_the_head_of_the_curve_lose_nothing():
    generator = np.random.default_rng(5)
    scans = [f"1.{i}" for i in range(12)]
    truth = [(uid, (0.0, 20.0 * i, 0.0), 6.0) for uid in scans for i in range(3)]
    found = [(uid, position, float(generator.random())) for uid, position, _ in truth]
    found += [(scans[i], (50.0, 0.0, 0.0), float(generator.random())) for i in generator.integers(12, size=24)]
    rates = (0.125, 0.25, 0.5)
    result = resampled_sensitivity(match(detections(found), nodules(truth), scans=scans), rates, 200, seed=0)
    generator = np.random.default_rng(0)
    for row in result:
        drawn = [scans[i] for i in generator.integers(12, size=12)]
        copies = [str(k) for k in range(12)]
        copied = [reference.repeat_scans(rows, drawn) for rows in (found, truth)]
        np.testing.assert_allclose(row, reference.sensitivities(*copied, [], copies, rates), atol=1e-12)


def test_the_lowest_score_counts():
    rows = [("1.1", (50.0, 0.0, 0.0), 0.9), ("1.1", (0.0, 0.0, 0.0), 0.1)]
    result = froc(match(detections(rows), nodules([("1.1", (0.0, 0.0, 0.0), 6.0)])), bootstraps=0)
    assert result.sensitivity == (0, 0, 0, 1, 1, 1, 1)
    assert result.curve.threshold.tolist() == [np.inf, 0.9, 0.1]


def test_equal_scores_form_one_operating_point():
    rows = [("1.1", (0.0, 0.0, 0.0), 0.5), ("1.1", (50.0, 0.0, 0.0), 0.5)]
    result = froc(match(detections(rows), nodules([("1.1", (0.0, 0.0, 0.0), 6.0)])), bootstraps=0)
    assert result.curve.false_per_scan.tolist() == [0.0, 1.0]
    assert result.sensitivity == (0.125, 0.25, 0.5, 1.0, 1.0, 1.0, 1.0)


def test_scans_without_detections_and_without_nodules_lower_the_rate_only():
    rows = [("1.1", (0.0, 0.0, 0.0), 0.4), ("1.1", (50.0, 0.0, 0.0), 0.5)]
    truth = nodules([("1.1", (0.0, 0.0, 0.0), 6.0)])
    alone = froc(match(detections(rows), truth, scans=["1.1"]), bootstraps=0)
    among_four = froc(match(detections(rows), truth, scans=SCANS), bootstraps=0)
    assert alone.curve.false_per_scan.tolist() == [0.0, 1.0, 1.0]
    assert among_four.curve.false_per_scan.tolist() == [0.0, 0.25, 0.25]
    assert among_four.n_scans == 4


def test_a_system_without_false_positives_keeps_its_sensitivity():
    truth = nodules([("1.1", (0.0, 0.0, 0.0), 6.0), ("1.1", (90.0, 0.0, 0.0), 6.0)])
    result = froc(match(detections([("1.1", (0.0, 0.0, 0.0), 0.4)]), truth), bootstraps=0)
    assert result.sensitivity == (0.5,) * 7


def test_a_system_without_detections_finds_nothing():
    result = froc(match(detections([]), nodules([("1.1", (0.0, 0.0, 0.0), 6.0)])))
    assert result.average == 0
    assert result.average_interval == (0, 0)


def test_no_nodules_are_an_error():
    with pytest.raises(InputError, match="no nodule"):
        froc(match(detections([("1.1", (0.0, 0.0, 0.0), 0.5)]), nodules([])))


def test_resamples_without_nodules_are_left_out_of_the_interval():
    matches = match(detections([]), nodules([("1.1", (0.0, 0.0, 0.0), 6.0)]), scans=SCANS)
    result = froc(matches, bootstraps=200)
    drawn_at_all = 1 - (3 / 4) ** 4
    assert result.bootstraps == pytest.approx(200 * drawn_at_all, abs=30)


def test_the_threshold_lets_in_no_more_false_positives_than_the_rate():
    rows = [("1.1", (float(20 * i), 0.0, 0.0), 1 - i / 20) for i in range(12)]
    result = froc(match(detections(rows), nodules([("1.1", (0.0, 0.0, 0.0), 6.0)])), bootstraps=0)
    let_in = [sum(score >= t for _, _, score in rows[1:]) for t in result.threshold]
    assert let_in == [0, 0, 0, 1, 2, 4, 8]


def test_the_interval_narrows_with_the_square_root_of_the_cohort():
    def width(n):
        generator = np.random.default_rng(n)
        truth = nodules([(f"1.{i}", (0.0, 0.0, 0.0), 6.0) for i in range(n)])
        found = [(f"1.{i}", (0.0, 0.0, 0.0), 0.5) for i in range(n) if generator.random() < 0.5]
        scans = [f"1.{i}" for i in range(n)]
        low, high = froc(match(detections(found), truth, scans=scans), seed=1).average_interval
        return high - low

    assert width(50) / width(800) == pytest.approx(4.0, rel=0.2)


@pytest.mark.data
def test_deeplung_on_luna16_gives_the_published_score(data_dir):
    folder = data_dir / "annotations" / "luna16"
    matches = match(
        read_detections(folder / "deeplung_detections.csv"),
        read_nodules(folder / "annotations.csv"),
        excluded=read_nodules(folder / "annotations_excluded.csv"),
        scans=read_series(folder / "seriesuids.csv"),
    )
    result = froc(matches)
    assert [round(s, 3) for s in result.sensitivity] == [0.692, 0.769, 0.824, 0.865, 0.893, 0.917, 0.933]
    assert round(result.average, 5) == 0.84197
    low, high = result.average_interval
    assert low == pytest.approx(0.812, abs=0.004)
    assert high == pytest.approx(0.868, abs=0.004)
    assert average_sensitivity(matches) == result.average
    assert (result.n_scans, result.n_nodules) == (888, 1186)

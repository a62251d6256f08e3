"""ROC, precision-recall and reliability, and the figures of a confusion table (M34)."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from carina.errors import InputError
from carina.evaluate.confusion import confusion
from carina.evaluate.curves import (
    auc_interval,
    clustered_auc_interval,
    corners,
    precision_recall,
    reliability,
    roc,
    wilson_interval,
)
from carina.learn.ranking import auc

_scores = st.sampled_from([0.0, 0.25, 0.5, 1.0]) | st.floats(0, 1)


@st.composite
def cases(draw):
    """Truth with both classes, and scores with ties."""
    truth = [True, False, *draw(st.lists(st.booleans(), max_size=20))]
    scores = draw(st.lists(_scores, min_size=len(truth), max_size=len(truth)))
    return np.array(truth), np.array(scores, np.float64)


@given(cases())
def test_auc_is_the_fraction_of_pairs_in_the_right_order(case):
    truth, score = case
    pairs = [(p > n) + 0.5 * (p == n) for p in score[truth] for n in score[~truth]]
    assert auc(truth, score) == pytest.approx(np.mean(pairs))


@given(cases())
def test_auc_is_the_area_under_the_curve(case):
    curve = roc(*case)
    assert np.trapezoid(curve.true_positive_rate, curve.false_positive_rate) == pytest.approx(curve.auc)


@given(cases())
def test_the_auc_interval_holds_the_auc_and_lies_within_0_and_1(case):
    curve = roc(*case)
    low, high = curve.auc_interval
    assert 0 <= low <= curve.auc <= high <= 1


@given(cases())
def test_turning_the_scores_around_turns_the_auc_and_its_interval_around(case):
    truth, score = case
    assert auc(truth, -score) == pytest.approx(1 - auc(truth, score))
    low, high = auc_interval(truth, score)
    np.testing.assert_allclose(auc_interval(truth, -score), [1 - high, 1 - low], atol=1e-12)


def test_delongs_variance_agrees_with_its_definition():
    generator = np.random.default_rng(3)
    truth = np.arange(50) < 20
    score = generator.integers(0, 12, 50) + 4.0 * truth
    wins = np.array([[(p > n) + 0.5 * (p == n) for n in score[~truth]] for p in score[truth]])
    deviation = np.sqrt(wins.mean(1).var(ddof=1) / 20 + wins.mean(0).var(ddof=1) / 30)
    area = wins.mean()
    half = 1.959963985 * deviation / (area * (1 - area))
    low, high = auc_interval(truth, score)
    assert np.log(high / (1 - high)) - np.log(low / (1 - low)) == pytest.approx(2 * half)


def test_the_auc_interval_covers_the_true_area_about_19_times_in_20():
    generator = np.random.default_rng(0)
    truth = np.arange(120) < 40
    true_area = 0.7602  # of two normal distributions one deviation apart: Phi(1 / sqrt(2))
    covered = 0
    for _ in range(400):
        low, high = auc_interval(truth, generator.normal(size=120) + truth)
        covered += low <= true_area <= high
    assert 0.925 <= covered / 400 <= 0.975


def test_perfect_separation_of_few_cases_claims_no_certainty():
    truth = np.array([True, True, False, False, False])
    low, high = auc_interval(truth, np.array([0.9, 0.8, 0.1, 0.2, 0.3]))
    assert high == 1
    assert low == pytest.approx(np.sqrt(0.025))


def test_groups_of_equal_cases_widen_the_interval():
    generator = np.random.default_rng(0)
    truth, score = np.arange(60) % 3 == 0, generator.normal(size=60)
    score[truth] += 1
    alone = clustered_auc_interval(truth, score, np.arange(60))
    copied = clustered_auc_interval(np.tile(truth, 4), np.tile(score, 4), np.tile(np.arange(60), 4))
    independent = clustered_auc_interval(np.tile(truth, 4), np.tile(score, 4), np.arange(240))
    assert copied[1] - copied[0] == pytest.approx(alone[1] - alone[0], rel=0.01)
    assert independent[1] - independent[0] < 0.65 * (copied[1] - copied[0])


def test_one_class_alone_has_no_curve():
    with pytest.raises(InputError, match="both classes"):
        roc(np.array([True, True]), np.array([0.1, 0.2]))


def test_a_score_that_is_not_finite_is_refused():
    with pytest.raises(InputError, match="not finite"):
        precision_recall(np.array([True, False]), np.array([0.1, np.nan]))


@given(cases())
def test_precision_and_recall_are_those_of_every_threshold(case):
    truth, score = case
    curve = precision_recall(truth, score)
    for recall, precision, threshold in zip(curve.recall, curve.precision, np.unique(score)[::-1], strict=True):
        called = score >= threshold
        assert precision == pytest.approx((called & truth).sum() / called.sum())
        assert recall == pytest.approx((called & truth).sum() / truth.sum())


def test_average_precision_of_a_known_order():
    curve = precision_recall(np.array([True, False, True, False]), np.array([0.9, 0.8, 0.7, 0.1]))
    assert curve.average_precision == pytest.approx((1 + 2 / 3) / 2)


def test_calibration_error_of_known_bins():
    truth = np.array([True, False, False, False, True, True])
    probability = np.array([0.3, 0.3, 0.3, 0.3, 0.8, 1.0])
    figures = reliability(truth, probability)
    assert figures.count.tolist() == [4, 1, 1]
    assert figures.fraction.tolist() == [0.25, 1, 1]
    assert figures.expected_error == pytest.approx((4 * 0.05 + 0.2 + 0.0) / 6)
    assert figures.brier == pytest.approx((0.49 + 3 * 0.09 + 0.04) / 6)
    assert figures.log_loss == pytest.approx(-(np.log(0.3) + 3 * np.log(0.7) + np.log(0.8)) / 6)


def test_probabilities_that_come_true_are_calibrated():
    generator = np.random.default_rng(0)
    probability = generator.random(20_000)
    honest = reliability(generator.random(20_000) < probability, probability)
    boastful = reliability(generator.random(20_000) < 0.5 + (probability - 0.5) / 3, probability)
    assert honest.expected_error < 0.02
    assert boastful.expected_error > 0.1
    inside = [
        low <= p <= high for (low, high), p in zip(honest.fraction_interval, honest.mean_probability, strict=True)
    ]
    assert sum(inside) >= 8


def test_a_probability_above_1_is_refused():
    with pytest.raises(InputError, match=r"\[0, 1\]"):
        reliability(np.array([True]), np.array([1.5]))


def test_wilsons_interval_of_the_textbook():
    np.testing.assert_allclose(wilson_interval(8, 10), (0.4902, 0.9433), atol=1e-4)
    assert wilson_interval(0, 0) == (0, 1)


def test_confusion_counts_and_what_is_read_from_them():
    table = confusion(np.array([0, 0, 0, 1, 1]), np.array([0, 0, 1, 1, 1]), ("no", "yes"))
    assert table.counts.tolist() == [[2, 1], [0, 2]]
    assert table.accuracy == 0.8
    assert table.recall("no") == pytest.approx(2 / 3)
    assert table.precision("yes") == pytest.approx(2 / 3)
    assert table.f1("yes") == pytest.approx(0.8)


def test_precision_of_a_class_that_is_never_called_does_not_exist():
    table = confusion(np.array([0, 1]), np.array([0, 0]), ("no", "yes"))
    assert np.isnan(table.precision("yes"))
    assert table.f1("yes") == 0


@given(st.lists(st.booleans(), min_size=1, max_size=40))
def test_corners_draw_the_same_staircase(rises):
    x = np.append(0.0, np.cumsum([not r for r in rises])).astype(np.float64)
    y = np.append(0.0, np.cumsum(rises)).astype(np.float64)
    kept = corners(x, y)
    turns = sum(a != b for a, b in itertools.pairwise(rises))
    assert len(kept) == turns + 2
    # Along x + y, which grows by 1 with each step, both coordinates are functions.
    np.testing.assert_allclose(np.interp(x + y, (x + y)[kept], x[kept]), x)

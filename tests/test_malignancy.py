"""The rule of size: fitted out of fold, compared with a network, and what its card says."""

import json
from importlib.resources import as_file, files

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from carina.data.lidc import read_patients
from carina.data.split import every_nth
from carina.errors import InputError, WeightsError
from carina.evaluate.diameter_rule import fit_diameter_rule, held_out
from carina.evaluate.malignancy import MalignancyTable, compare_with_size, size_baseline
from carina.evaluate.tables import Detections, read_series
from carina.io.luna import Malignancy, read_malignancy
from carina.models.malignancy import DiameterRule

TEST_SCAN = "1.3.6.1.4.1.14519.5.2.1.6279.6001.179049373636438705059720603192"


def drawn_table(n, intercept=-8.0, slope=4.0, seed=0):
    """Nodules, two per scan, whose malignancy follows a rule of the logarithm of the diameter."""
    generator = np.random.default_rng(seed)
    diameter_mm = np.exp(generator.uniform(np.log(3), np.log(30), n))
    p = 1 / (1 + np.exp(-(intercept + slope * np.log(diameter_mm))))
    return MalignancyTable(
        tuple(f"1.{i // 2}" for i in range(n)),
        np.stack([np.arange(n) * 100.0, np.zeros(n), np.zeros(n)], axis=1),
        diameter_mm,
        generator.random(n) < p,
    )


RULE = fit_diameter_rule(drawn_table(200))


@pytest.fixture(scope="module")
def luna(data_dir):
    return data_dir / "annotations" / "luna16"


@pytest.mark.data
def test_the_diameter_alone_ranks_the_textbooks_split_as_published(luna):
    table = MalignancyTable.of(read_malignancy(luna / "annotations_with_malignancy.csv"))
    split = every_nth(sorted(read_series(luna / "seriesuids.csv")), 10)[1]
    baseline = size_baseline(table, split)
    assert (baseline.n_scans, baseline.n_nodules, baseline.n_malignant) == (89, 154, 52)
    assert round(baseline.roc.auc, 4) == 0.9014
    np.testing.assert_allclose(baseline.roc.auc_interval, (0.840, 0.941), atol=0.002)


@pytest.mark.data
def test_the_shipped_rule_is_the_fit_on_luna16_without_the_test_scan(luna, lidc_sqlite):
    with as_file(files("carina") / "weights" / "malignancy.json") as path:
        shipped = DiameterRule.load(path)
    table = MalignancyTable.of(read_malignancy(luna / "annotations_with_malignancy.csv"))
    fitted = fit_diameter_rule(table, exclude_series=[TEST_SCAN], patients=read_patients(lidc_sqlite))
    assert TEST_SCAN not in shipped.evidence.series_uids
    assert (shipped.intercept, shipped.slope) == pytest.approx((fitted.intercept, fitted.slope), rel=1e-6)
    assert shipped.evidence.n == len(table) - 1
    assert shipped.evidence.auc == pytest.approx(fitted.evidence.auc)
    assert shipped.evidence.auc_interval == pytest.approx(fitted.evidence.auc_interval, abs=1e-6)
    assert shipped.evidence.method == fitted.evidence.method


@given(st.floats(0.5, 100), st.floats(0.5, 100))
def test_the_rule_grows_with_size_and_stays_a_probability(a, b):
    small, large = sorted((a, b))
    assert 0 <= RULE.p_malignant(small) <= RULE.p_malignant(large) <= 1


def test_the_fit_finds_the_rule_that_made_the_table():
    rule = fit_diameter_rule(drawn_table(4_000))
    assert rule.scale == "log"
    assert rule.intercept == pytest.approx(-8, rel=0.1)
    assert rule.slope == pytest.approx(4, rel=0.1)


def test_the_fit_is_the_maximum_of_the_likelihood():
    table = drawn_table(300)
    rule = fit_diameter_rule(table, scale="linear")

    def log_likelihood(intercept, slope):
        log_odds = intercept + slope * table.diameter_mm
        return np.sum(table.malignant * log_odds - np.logaddexp(0, log_odds))

    best = log_likelihood(rule.intercept, rule.slope)
    for step in (0.02, -0.02):
        assert log_likelihood(rule.intercept + step, rule.slope) < best
        assert log_likelihood(rule.intercept, rule.slope * (1 + step)) < best


def test_excluded_series_take_no_part():
    table = drawn_table(200)
    rule = fit_diameter_rule(table, exclude_series=["1.0", "1.1"])
    assert rule.evidence.n == 196
    assert rule.evidence.excluded_series == ("1.0", "1.1")
    assert not {"1.0", "1.1"} & set(rule.evidence.series_uids)
    assert rule.intercept != RULE.intercept


def test_no_fold_sees_its_own_patients():
    table = drawn_table(400)
    one = dict.fromkeys(table.series_uid[:40], "the same patient")
    before = held_out(table, "log", patients=one).probability
    # Turn the outcomes of that patient around: predictions for the patient must not change.
    turned = table.malignant.copy()
    turned[:40] = ~turned[:40]
    changed = MalignancyTable(table.series_uid, table.center_lps, table.diameter_mm, turned)
    after = held_out(changed, "log", patients=one).probability
    np.testing.assert_array_equal(before[:40], after[:40])
    assert (before[40:] != after[40:]).any()


def test_the_card_says_what_was_dealt_into_folds():
    table = drawn_table(200)
    pairs = {uid: f"P{i // 4}" for i, uid in enumerate(table.series_uid)}
    assert "cross-validation over series, interval by bootstrap over series" in RULE.evidence.method
    by_patient = fit_diameter_rule(table, patients=pairs).evidence
    assert "cross-validation over patients, interval by bootstrap over patients" in by_patient.method


def test_a_perfectly_separated_table_gives_a_finite_rule():
    diameter_mm = np.linspace(3, 30, 40)
    table = MalignancyTable(tuple(f"1.{i}" for i in range(40)), np.zeros((40, 3)), diameter_mm, diameter_mm > 15)
    rule = fit_diameter_rule(table)
    assert rule.p_malignant(3) < 0.01
    assert rule.p_malignant(30) > 0.99


def test_malignancy_that_falls_with_size_is_refused():
    table = drawn_table(200)
    turned = MalignancyTable(table.series_uid, table.center_lps, table.diameter_mm, ~table.malignant)
    with pytest.raises(InputError, match="does not grow"):
        fit_diameter_rule(turned)


def test_too_few_patients_are_refused():
    with pytest.raises(InputError, match="folds"):
        fit_diameter_rule(drawn_table(10))


def test_a_rule_survives_saving_and_loading(tmp_path):
    RULE.save(tmp_path / "rule.json")
    assert DiameterRule.load(tmp_path / "rule.json") == RULE
    assert [path.name for path in tmp_path.iterdir()] == ["rule.json"]


def test_the_card_says_that_it_is_no_network(tmp_path):
    RULE.save(tmp_path / "rule.json")
    card = json.loads((tmp_path / "rule.json").read_text())
    assert card["kind"] == "diameter-rule"
    assert "not a network" in card["summary"]


@pytest.mark.parametrize("text", ["", "{}", '{"kind": "network"}', "[1]"])
def test_what_is_no_card_is_refused(tmp_path, text):
    path = tmp_path / "rule.json"
    path.write_text(text)
    with pytest.raises(WeightsError, match="not the card"):
        DiameterRule.load(path)


def test_a_card_that_is_missing_is_named(tmp_path):
    with pytest.raises(WeightsError, match=r"missing\.json"):
        DiameterRule.load(tmp_path / "missing.json")


def test_a_card_whose_rule_falls_with_size_is_refused(tmp_path):
    path = tmp_path / "rule.json"
    RULE.save(path)
    card = json.loads(path.read_text())
    path.write_text(json.dumps({**card, "slope": -1.0}))
    with pytest.raises(WeightsError, match="grows with size"):
        DiameterRule.load(path)


@pytest.mark.parametrize("diameter_mm", [0.0, -1.0, float("nan"), float("inf")])
def test_a_diameter_that_is_none_has_no_probability(diameter_mm):
    with pytest.raises(ValueError, match="positive number"):
        RULE.p_malignant(diameter_mm)


def detections_of(table):
    return Detections(table.series_uid, table.center_lps, np.ones(len(table)), frozenset(table.series_uid))


def test_a_network_that_knows_the_outcome_gains_over_the_diameter():
    table = drawn_table(300)
    noise = np.random.default_rng(0).normal(scale=0.3, size=300)
    answer = 1 / (1 + np.exp(-(2.0 * table.malignant - 1 + noise)))
    result = compare_with_size(table, sorted(set(table.series_uid)), detections_of(table), answer)
    assert result.gain == pytest.approx(result.network.auc - result.size.auc)
    assert result.gain_interval[0] > 0
    assert result.n_hit == 300


def test_a_network_that_repeats_the_diameter_gains_nothing():
    table = drawn_table(300)
    answer = table.diameter_mm / 100
    result = compare_with_size(table, sorted(set(table.series_uid)), detections_of(table), answer)
    assert result.gain == 0
    assert result.gain_interval == (0, 0)


def test_nodules_that_nothing_hit_are_counted_and_left_out():
    table = drawn_table(300)
    whole = detections_of(table)
    half = Detections(whole.series_uid[::2], whole.center_lps[::2], whole.score[::2], whole.scans)
    result = compare_with_size(table, sorted(set(table.series_uid)), half, table.diameter_mm[::2] / 100)
    assert (result.n_hit, result.n_nodules, result.network.n) == (150, 300, 150)


def test_an_outcome_that_is_neither_true_nor_false_is_refused(tmp_path):
    path = tmp_path / "table.csv"
    path.write_text("seriesuid,coordX,coordY,coordZ,diameter_mm,mal_bool\n1.1,0,0,0,5,maybe\n")
    with pytest.raises(InputError, match="line 2: mal_bool"):
        read_malignancy(path)


def test_a_nodule_without_a_diameter_is_refused_by_its_place():
    with pytest.raises(InputError, match=r"1\.1: the nodule at \(1\.0, 2\.0, 3\.0\) mm has a diameter of 0 mm"):
        MalignancyTable.of([Malignancy("1.1", (1.0, 2.0, 3.0), 0.0, True, ())])

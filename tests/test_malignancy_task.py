"""M37: fine-tuning to malignancy: what is frozen stays, outcomes follow the stated rule, the ruler stands beside."""

import csv
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import expit

import carina
from carina.ct.crops import cut_crops
from carina.ct.lungs import LungMask
from carina.ct.preprocess import PreparedScan, Preprocessing
from carina.data.made_up_malignancy import FLIPPED, FROM_MM, RULE, label_cohort, rule_says
from carina.data.store import FORMAT, Manifest, Store, write_manifest
from carina.errors import InputError, TrainingError, UsageError
from carina.findings import Finding
from carina.geometry import Geometry
from carina.hu import AIR, normalise
from carina.io.luna import Annotation, read_malignancy, write_annotations
from carina.learn.ranking import auc
from carina.models.build import build
from carina.models.card import Card, load_model, save_model
from carina.pipeline.rate import load_malignancy, rate
from carina.tasks.malignancy import (
    LARGEST_LOG_ODDS,
    RATED,
    MalignancySettings,
    every_rated,
    train_malignancy,
)
from small_scans import SHAPE, SPACING, write_scan

SMALL = MalignancySettings(
    batch=4,
    crops_per_epoch=8,
    validation_share=0.34,
    freeze_depth=2,
    fit=replace(MalignancySettings().fit, epochs=1, lr=0.01, warmup=0.0),
)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """Every scan holds a malignant nodule and a benign one; a third has no known outcome."""
    folder = tmp_path_factory.mktemp("store")
    scans = []
    for number in range(6):
        scan = write_scan(folder, number, nodules=3)
        outcomes = (1.0, 0.0, None)
        nodules = tuple(replace(n, malignancy=m) for n, m in zip(scan.nodules, outcomes, strict=True))
        scans.append(replace(scan, nodules=nodules, origin="phantom"))
    write_manifest(folder, Manifest(FORMAT, Preprocessing(), tuple(scans), {}))
    return Store(folder)


@pytest.fixture(scope="module")
def nodule_weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("weights") / "nodule"
    torch.manual_seed(0)
    spec = {"kind": "nodule", "first_filters": 2, "crop_zyx": [32, 48, 48]}
    network = build(spec)
    network.get_buffer("input_norm.running_mean").fill_(0.25)
    save_model(path, network, Card("nodule", "nodule", spec))
    return path


@pytest.fixture(scope="module")
def run(store: Store, nodule_weights: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Card]:
    folder = tmp_path_factory.mktemp("malignancy")
    return folder, train_malignancy(store, folder, replace(SMALL, init_from=nodule_weights))[1]


def parts(path: Path) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    """Frozen tensors (with running statistics) and those that learn, of ``freeze_depth`` 2."""
    state = load_model(path)[0].state_dict()
    frozen = {name: tensor for name, tensor in state.items() if name.startswith(("input_norm", "blocks.0", "blocks.1"))}
    return frozen, {name: tensor for name, tensor in state.items() if name not in frozen}


def test_frozen_blocks_stay_bit_identical_with_their_running_statistics(
    run: tuple[Path, Card], nodule_weights: Path
) -> None:
    before, after = parts(nodule_weights)[0], parts(run[0] / "model")[0]
    assert "input_norm.running_mean" in before
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_the_other_blocks_and_the_head_learn(run: tuple[Path, Card], nodule_weights: Path) -> None:
    before, after = parts(nodule_weights)[1], parts(run[0] / "model")[1]
    assert not any(torch.equal(before[name], after[name]) for name in before)


def test_what_the_diameter_answers_stands_beside_the_network(run: tuple[Path, Card], store: Store) -> None:
    folder, card = run
    with (folder / RATED).open() as file:
        rows = list(csv.DictReader(file))
    truth = np.array([row["mal_bool"] == "True" for row in rows])
    diameter, answer = (np.array([float(row[name]) for row in rows]) for name in ("diameter_mm", "p_malignant"))
    assert card.metrics["auc_of_diameter"] == pytest.approx(auc(truth, diameter))
    # The logistic calibration turns the ranking round where the network ranks worse than chance.
    ranked = -answer if card.calibration.classification < 0 else answer
    gain = auc(truth, ranked) - auc(truth, diameter)
    assert card.metrics["auc_gain_over_diameter"] == pytest.approx(gain)
    assert len(read_malignancy(folder / RATED)) == len(rows)


def test_the_card_says_that_the_outcomes_are_made_up(run: tuple[Path, Card]) -> None:
    assert RULE in run[1].summary
    assert RULE in run[1].limits


def test_the_pipeline_asks_the_network_where_the_folder_of_weights_holds_one(
    run: tuple[Path, Card], tmp_path: Path
) -> None:
    shipped = Path(carina.__file__).parent / "weights"
    rule, none = load_malignancy(shipped, shipped, torch.device("cpu"), "torch")
    for ending in (".safetensors", ".json"):
        shutil.copy(run[0] / f"model{ending}", tmp_path / f"malignancy{ending}")
    same, rater = load_malignancy(tmp_path, shipped, torch.device("cpu"), "torch")
    assert none is None
    assert same == rule
    assert rater is not None
    assert rater.card == run[1]
    hu = np.random.default_rng(0).integers(-1000, 400, (40, 60, 60)).astype(np.int16)
    geometry = Geometry.from_axes(hu.shape, spacing_zyx_mm=SPACING, origin_lps=(-30, -20, 7))
    lung = np.ones(hu.shape, bool)
    scan = PreparedScan(hu, lung, geometry, LungMask(lung, geometry, 3.0))
    centers = np.array([[20, 30, 25], [20, 30, 35]])
    places = [(float(x), float(y), float(z)) for x, y, z in geometry.to_lps(centers)]
    findings = [Finding(k, place, place, 6.0, 99.0, 0.0, 0.9, 0.5, 20) for k, place in enumerate(places)]
    rated = rate(findings, scan, rater)
    crops = cut_crops(hu, centers, (32, 48, 48), AIR).astype(np.float32)
    logits = rater(normalise(crops, (-1000.0, 400.0))[:, None])
    fit = run[1].calibration
    log_odds = np.clip(logits[:, 1] - logits[:, 0], -LARGEST_LOG_ODDS, LARGEST_LOG_ODDS)
    expected = expit(fit.intercept + fit.classification * log_odds)
    np.testing.assert_allclose([f.p_malignant for f in rated], expected, rtol=1e-3)
    assert [f.id for f in rated] == [0, 1]


def test_nodules_without_an_outcome_take_no_part(store: Store) -> None:
    rated = every_rated(store.scans)
    assert len(rated) == 2 * len(store.scans)
    assert rated.target.tolist() == [1, 0] * len(store.scans)
    assert (rated.center_zyx < SHAPE).all()


def test_frozen_blocks_need_weights_to_start_from(store: Store, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="need weights to start from"):
        train_malignancy(store, tmp_path, SMALL)


def test_more_blocks_than_there_are_cannot_be_frozen(store: Store, tmp_path: Path, nodule_weights: Path) -> None:
    with pytest.raises(UsageError, match="freeze_depth is 5, expected 0 to 4"):
        train_malignancy(store, tmp_path, replace(SMALL, freeze_depth=5, init_from=nodule_weights))


def test_a_segmentation_network_is_no_start(store: Store, tmp_path: Path) -> None:
    spec = {"kind": "unet", "in_channels": 3, "depth": 2, "first_filters": 2}
    save_model(tmp_path / "other", build(spec), Card("s", "segmentation", spec))
    with pytest.raises(UsageError, match="expected a nodule network"):
        train_malignancy(store, tmp_path / "run", replace(SMALL, init_from=tmp_path / "other"))


def test_held_out_nodules_of_one_outcome_are_refused(tmp_path: Path, nodule_weights: Path) -> None:
    scans = [write_scan(tmp_path, number, nodules=1) for number in range(6)]
    benign = [replace(s, nodules=tuple(replace(n, malignancy=0.0) for n in s.nodules)) for s in scans]
    write_manifest(tmp_path, Manifest(FORMAT, Preprocessing(), tuple(benign), {}))
    with pytest.raises(TrainingError, match="both classes are needed"):
        train_malignancy(Store(tmp_path), tmp_path / "run", replace(SMALL, init_from=nodule_weights))


def nodule(number: int, kind: str, diameter_mm: float) -> Annotation:
    return Annotation(f"1.2.{number}", (0.0, 0.0, 0.0), diameter_mm, 1.0, kind, 1)


@pytest.mark.parametrize("kind", FROM_MM)
def test_outcomes_follow_the_rule_but_for_the_stated_share(kind: str) -> None:
    for diameter_mm in (FROM_MM[kind] - 0.5, FROM_MM[kind] + 0.5):
        said = np.mean([rule_says(nodule(k, kind, diameter_mm)) for k in range(2000)])
        assert abs(said - (diameter_mm >= FROM_MM[kind])) == pytest.approx(FLIPPED, abs=0.02)


@given(st.integers(0, 10**6), st.floats(3, 30))
def test_the_rule_depends_on_the_nodule_alone(number: int, diameter_mm: float) -> None:
    assert rule_says(nodule(number, "solid", diameter_mm)) == rule_says(nodule(number, "solid", diameter_mm))


def test_a_ruler_cannot_answer_the_rule_in_full() -> None:
    rng = np.random.default_rng(0)
    kinds = rng.choice(["solid", "part-solid", "ground-glass", "calcified"], 3000, p=(0.64, 0.13, 0.15, 0.08))
    diameters = np.exp(rng.uniform(np.log(4), np.log(30), 3000))
    outcomes = [rule_says(nodule(k, kinds[k], diameters[k])) for k in range(3000)]
    assert 0.7 < auc(np.array(outcomes), diameters) < 0.9


def test_the_table_of_a_cohort_says_that_its_outcomes_are_made_up(tmp_path: Path) -> None:
    write_annotations(tmp_path / "annotations.csv", [nodule(k, "part-solid", 8.0) for k in range(5)])
    label_cohort(tmp_path)
    with (tmp_path / "annotations_with_malignancy.csv").open() as file:
        assert {row["mal_source"] for row in csv.DictReader(file)} == {RULE}


def test_the_rule_needs_the_type_of_a_nodule(tmp_path: Path) -> None:
    write_annotations(tmp_path / "annotations.csv", [Annotation("1.2", (0.0, 0.0, 0.0), 5.0)])
    with pytest.raises(InputError, match="has no type"):
        label_cohort(tmp_path)

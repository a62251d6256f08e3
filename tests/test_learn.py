"""Losses, metrics, calibration, checkpoints and logs of the training loop."""

import json
import math
import platform
import resource
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import carina
from carina.errors import TrainingError
from carina.learn.batches import move
from carina.learn.calibrate import expected_calibration_error, fit_logistic, fit_temperature
from carina.learn.checkpoint import read_checkpoint, write_checkpoint
from carina.learn.log import RunLog, describe
from carina.learn.losses import dice_loss, marking_loss, missed_dice_loss
from carina.learn.metrics import BinaryMetrics, probability_edges
from carina.learn.processes import join_processes
from carina.learn.provenance import command_line, hardware, source_revision

seeds = st.integers(0, 2**31 - 1)


def mask(seed: int = 0, share: float = 0.1) -> torch.Tensor:
    return (torch.rand(3, 1, 8, 8, generator=torch.Generator().manual_seed(seed)) < share).float()


def test_dice_loss_of_the_truth_itself_is_zero() -> None:
    truth = mask()
    torch.testing.assert_close(dice_loss(truth, truth, torch.ones_like(truth)), torch.zeros(3))


def test_dice_loss_of_half_an_overlap() -> None:
    truth, answer = torch.zeros(1, 1, 1, 40), torch.zeros(1, 1, 1, 40)
    truth[..., :20], answer[..., 10:30] = 1, 1
    # 2 * 10 + 1 over 40 + 1: the one keeps empty masks finite.
    assert dice_loss(answer, truth, torch.ones_like(truth)).item() == pytest.approx(1 - 21 / 41)


@pytest.mark.parametrize("loss", [missed_dice_loss, marking_loss])
@settings(max_examples=20, deadline=None)
@given(seed=seeds)
def test_voxels_without_weight_change_no_mask_loss(loss, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    truth, weight = mask(seed), (torch.rand(3, 1, 8, 8, generator=generator) > 0.3).float()
    logits = torch.randn(3, 1, 8, 8, generator=generator)
    other = torch.where(weight > 0, logits, 5 * torch.randn(3, 1, 8, 8, generator=generator))
    torch.testing.assert_close(loss(other, truth, weight), loss(logits, truth, weight))


@pytest.mark.parametrize("loss", [missed_dice_loss, marking_loss])
def test_mask_losses_are_finite_without_any_positive_voxel(loss) -> None:
    logits = torch.randn(3, 1, 8, 8, requires_grad=True)
    value = loss(logits, torch.zeros(3, 1, 8, 8), torch.ones(3, 1, 8, 8))
    value.backward()
    assert value.isfinite()
    assert logits.grad.isfinite().all()


def test_a_missed_voxel_costs_more_than_a_false_one() -> None:
    truth = torch.zeros(1, 1, 8, 8)
    truth[..., :4] = 1
    right = torch.where(truth > 0, 8.0, -8.0)
    missed, wrong = right.clone(), right.clone()
    missed[..., 3], wrong[..., 4] = -8, 8
    weight = torch.ones_like(truth)
    assert missed_dice_loss(missed, truth, weight) > 2 * missed_dice_loss(wrong, truth, weight)


def test_without_a_nodule_the_marking_loss_is_dice_and_the_weighted_mean_of_the_negatives() -> None:
    logits = torch.full((1, 1, 10, 10), -6.0)
    logits[0, 0, 0, 0] = 3.0
    truth, weight = torch.zeros(1, 1, 10, 10), torch.ones(1, 1, 10, 10)
    mean = (math.log(1 + math.exp(3)) + 99 * math.log(1 + math.exp(-6))) / 100
    marked = torch.sigmoid(logits).sum().item()
    dice = 1 - 1 / (marked + 1)
    assert marking_loss(logits, truth, weight, negatives=5.0).item() == pytest.approx(dice + 5 * mean, rel=1e-5)


def counted(log_odds: np.ndarray, truth: np.ndarray) -> BinaryMetrics:
    metrics = BinaryMetrics()
    metrics.update((torch.from_numpy(log_odds), torch.from_numpy(truth)))
    return metrics


@settings(max_examples=30, deadline=None)
@given(seed=seeds)
def test_binary_metrics_agree_with_counting_every_pair(seed: int) -> None:
    rng = np.random.default_rng(seed)
    truth = rng.random(60) < 0.4
    truth[:2] = [True, False]
    # Centres of the histogram's bins, with ties.
    log_odds = (rng.integers(-40, 40, 60) * 8 + 0.5) * 0.025 / 2
    found = counted(log_odds, truth).compute()
    positive, negative = log_odds[truth][:, None], log_odds[~truth][None]
    assert found["auc"] == pytest.approx(np.mean((positive > negative) + 0.5 * (positive == negative)))
    called = log_odds > 0
    assert found["recall"] == pytest.approx(called[truth].mean())
    assert found["specificity"] == pytest.approx((~called)[~truth].mean())
    assert found["accuracy"] == pytest.approx((called == truth).mean())
    if called.any():
        assert found["precision"] == pytest.approx(truth[called].mean())


@settings(max_examples=20, deadline=None)
@given(seed=seeds, cut=st.integers(1, 59))
def test_states_of_two_parts_add_up_to_the_whole(seed: int, cut: int) -> None:
    rng = np.random.default_rng(seed)
    log_odds, truth = rng.normal(0, 6, 60), rng.random(60) < 0.5
    parts = counted(log_odds[:cut], truth[:cut]).state + counted(log_odds[cut:], truth[cut:]).state
    assert torch.equal(parts, counted(log_odds, truth).state)


def test_metrics_of_nothing_are_not_a_number() -> None:
    assert all(math.isnan(value) for value in BinaryMetrics().compute().values())


def test_extreme_log_odds_fall_into_the_outer_bins() -> None:
    state = counted(np.array([-1e9, 1e9]), np.array([False, True])).state
    assert (state[0, -1], state[1, 0]) == (1, 1)


def test_the_bins_of_probability_are_split_at_one_half() -> None:
    assert 0.5 in probability_edges()


def test_temperature_is_found_again() -> None:
    rng = np.random.default_rng(0)
    log_odds = rng.normal(0, 2, 20_000)
    truth = rng.random(20_000) < 1 / (1 + np.exp(-log_odds))
    assert fit_temperature(2.5 * log_odds, truth) == pytest.approx(2.5, rel=0.05)


def test_logistic_regression_finds_its_coefficients_again() -> None:
    rng = np.random.default_rng(0)
    features = rng.normal(0, 1, (40_000, 2))
    truth = rng.random(40_000) < 1 / (1 + np.exp(-(-1 + features @ [0.5, 1.5])))
    intercept, weights = fit_logistic(features, truth, penalty=0)
    assert intercept == pytest.approx(-1, abs=0.05)
    np.testing.assert_allclose(weights, [0.5, 1.5], atol=0.06)


def test_calibration_with_one_class_only_is_refused() -> None:
    with pytest.raises(TrainingError, match="0 positives of 3"):
        fit_temperature(np.zeros(3), np.zeros(3, bool))


def test_calibration_error_of_promises_that_come_true_half_as_often() -> None:
    probability = np.full(100, 0.8)
    truth = np.arange(100) < 40
    assert expected_calibration_error(probability, truth) == pytest.approx(0.4)


def test_a_checkpoint_that_would_run_code_is_refused(tmp_path: Path) -> None:
    torch.save({"evil": Path("x")}, tmp_path / "c.pt")
    with pytest.raises(TrainingError, match="not a readable checkpoint"):
        read_checkpoint(tmp_path / "c.pt")


def test_a_checkpoint_leaves_no_other_file_behind(tmp_path: Path) -> None:
    write_checkpoint(tmp_path / "c.pt", {"a": torch.ones(2)})
    write_checkpoint(tmp_path / "c.pt", {"a": torch.zeros(2)})
    assert [path.name for path in tmp_path.iterdir()] == ["c.pt"]
    assert read_checkpoint(tmp_path / "c.pt")["a"].tolist() == [0, 0]


def test_not_a_number_becomes_null_in_the_log(tmp_path: Path) -> None:
    record = {"epoch": 0, "step": 1, "lr": 0.1, "seconds": 1.0, "best": True, "val_auc": math.nan}
    with RunLog(tmp_path, {"lr": 0.1}, []) as log:
        log.epoch(record)
    lines = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert lines[1]["val_auc"] is None


def test_tensorboard_gets_scalars_curves_histograms_pictures_and_settings(tmp_path: Path) -> None:
    with RunLog(tmp_path, {}, []) as log:
        log.epoch({"epoch": 0, "step": 1, "lr": 0.1, "seconds": 1.0, "best": True, "val_auc": 0.7})
        metrics = counted(np.array([-2.0, 1.0, 3.0, 0.5]), np.array([False, True, True, False]))
        metrics.draw(log, "val", 0)
        log.picture("marked/val", 0, np.zeros((8, 8, 3)))
        log.final({"lr": 0.1, "device": "cpu", "ema": None}, {"val_auc": 0.7})
    events = EventAccumulator(str(tmp_path)).Reload()
    tags = events.Tags()
    assert {"auc/val", "best/val_auc"} <= set(tags["scalars"])
    assert set(tags["histograms"]) == {"probability/val_positives", "probability/val_negatives"}
    assert set(tags["images"]) == {"roc/val", "marked/val"}
    assert "precision_recall/val" in tags["tensors"]
    assert events.Scalars("auc/val")[0].value == pytest.approx(0.7)


def test_a_log_without_a_folder_writes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with RunLog(None, {}, []) as log:
        log.epoch({"epoch": 0, "step": 1, "lr": 0.1, "seconds": 1.0, "best": True})
        log.picture("x", 0, np.zeros((8, 8, 3)))
    assert list(tmp_path.iterdir()) == []


def test_an_epoch_is_described_in_one_line() -> None:
    record = {"epoch": 3, "step": 8, "lr": 0.001, "seconds": 61.2, "best": True, "val_auc": 0.91234}
    assert describe(record) == "epoch 3, 61 s: lr 0.001, val_auc 0.9123  (best)"


def test_batches_of_any_form_are_moved() -> None:
    batch = {"x": torch.zeros(2), "pair": (torch.ones(1), [torch.ones(3)]), "name": "a"}
    moved = move(batch, torch.device("meta"))
    assert moved["x"].device.type == moved["pair"][1][0].device.type == "meta"
    assert moved["name"] == "a"


def test_one_process_adds_up_nothing() -> None:
    with join_processes("cpu") as alone:
        assert (alone.rank, alone.count) == (0, 1)
        assert alone.add_up(torch.ones(2)).tolist() == [1, 1]
        assert alone.largest(3.5) == 3.5


PAGE_FAULTS = """
import resource, sys, torch
from carina.learn.memory import keep_freed_memory
assert "keep" not in sys.argv or keep_freed_memory()
for _ in range(6):
    torch.ones(20_000_000)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc takes the hint")
def test_kept_memory_is_not_mapped_anew_for_every_large_tensor() -> None:
    faults = [
        int(subprocess.run([sys.executable, "-c", PAGE_FAULTS, *more], capture_output=True, check=True).stdout)
        for more in ([], ["keep"])
    ]
    assert faults[1] < faults[0] - 4 * 20_000_000 * 4 / resource.getpagesize()


@pytest.mark.skipif(shutil.which("git") is None, reason="git is not installed")
def test_a_repository_around_an_installed_package_is_not_its_revision(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "site-packages" / "carina" / "__init__.py"
    package.parent.mkdir(parents=True)
    package.touch()
    monkeypatch.setattr(carina, "__file__", str(package))
    as_somebody = ["git", "-c", "user.name=x", "-c", "user.email=x@x"]
    for words in (["init"], ["commit", "--allow-empty", "-m", "theirs"]):
        subprocess.run([*as_somebody, *words], cwd=tmp_path, check=True, capture_output=True)
    assert source_revision() == carina.__version__
    for words in (["add", package], ["commit", "-m", "ours"]):
        subprocess.run([*as_somebody, *words], cwd=tmp_path, check=True, capture_output=True)
    assert source_revision().startswith(f"{carina.__version__} (")


def test_provenance_is_in_words() -> None:
    assert source_revision().startswith(carina.__version__)
    assert "cpu" in hardware("cpu")
    assert not command_line().startswith("/")

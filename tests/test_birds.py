"""Small pictures: the networks' sizes, the equalities behind the losses, and a training from folder to table."""

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn
from torch.nn import functional

from carina.cli import main
from carina.data.pictures import Pictures, channel_statistics
from carina.errors import InputError, UsageError, WeightsError
from carina.learn import Batches, FitSettings, fit
from carina.learn.checkpoint import read_checkpoint
from carina.models.birds import VARIANTS, PictureNet, picture_network
from carina.models.build import build
from carina.tasks.birds import (
    Birds,
    BirdsSettings,
    PictureBatch,
    load_birds,
    mirror_and_shift,
    penalty,
    settings_of,
    train_birds,
    training_batches,
)
from carina.tasks.birds_data import read_birds
from carina.tasks.birds_table import interval

HALF = [0.5, 0.5, 0.5]
QUICK = FitSettings(epochs=2, optimizer="sgd", lr=0.02, momentum=0.9)


def count(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def coloured(n: int, seed: int = 0) -> Pictures:
    """Noise that is bluish in class 0 and greenish in class 1."""
    generator = np.random.default_rng(seed)
    images = generator.integers(0, 200, (n, 32, 32, 3), np.uint8)
    labels = np.arange(n) % 2
    images[np.arange(n), :, :, 2 - labels] += 55
    return Pictures(torch.from_numpy(images).permute(0, 3, 1, 2), torch.from_numpy(labels), ("airplane", "bird"))


def write(pictures: Pictures, folder: Path) -> None:
    for index, (image, label) in enumerate(zip(pictures.images, pictures.labels.tolist(), strict=True)):
        path = folder / pictures.classes[label] / f"{index:04d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image.permute(1, 2, 0).numpy()).save(path)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("pictures")
    write(coloured(240), root / "train")
    write(coloured(40, seed=1), root / "test")
    return root


@pytest.mark.parametrize(
    ("variant", "parameters"),
    [("mlp", 1_574_402), ("cnn", 18_090), ("l2", 18_090), ("dropout", 18_090), ("wide", 38_386)],
)
def test_networks_have_the_parameters_they_must(variant: str, parameters: int) -> None:
    assert count(picture_network(variant, HALF, HALF)) == parameters


@pytest.mark.parametrize("variant", VARIANTS)
def test_every_network_answers_and_learns(variant: str) -> None:
    network = build({"kind": "picture", "variant": variant, "mean": HALF, "deviation": HALF})
    pictures = coloured(8)
    logits = network(pictures.images)
    assert logits.shape == (8, 2)
    functional.cross_entropy(logits, pictures.labels).backward()
    assert all(p.grad is not None and bool(p.grad.abs().sum() > 0) for p in network.parameters())


def test_an_unknown_variant_is_refused() -> None:
    with pytest.raises(UsageError, match="no model 'huge'"):
        settings_of("huge")


def test_log_softmax_with_nll_is_cross_entropy() -> None:
    logits = torch.randn(64, 2, generator=torch.Generator().manual_seed(0), requires_grad=True)
    labels = torch.arange(64) % 2
    apart = nn.NLLLoss()(nn.LogSoftmax(dim=1)(logits), labels)
    together = nn.CrossEntropyLoss()(logits, labels)
    torch.testing.assert_close(apart, together)
    torch.testing.assert_close(torch.autograd.grad(apart, logits), torch.autograd.grad(together, logits))


@pytest.mark.parametrize(("name", "size"), [("penalty_l1", torch.abs), ("penalty_l2", torch.square)])
def test_the_loss_while_training_holds_the_penalty_that_is_set(name: str, size) -> None:
    network, pictures = picture_network("cnn", HALF, HALF).train(), coloured(8)
    batch = PictureBatch(pictures.images, pictures.labels)
    with_penalty, without = (Birds(BirdsSettings(**{name: weight})).loss(network, batch)[0] for weight in (0.01, 0.0))
    expected = 0.01 * sum(size(p).sum() for p in network.parameters())
    torch.testing.assert_close(with_penalty - without, expected, rtol=1e-4, atol=1e-5)


def learned(loss_penalty: float, weight_decay: float) -> nn.Module:
    torch.manual_seed(0)
    network = picture_network("cnn", HALF, HALF)
    rule = replace(QUICK, epochs=1, momentum=0.0, weight_decay=weight_decay)
    settings = BirdsSettings(penalty_l2=loss_penalty, batch=8, fit=rule)
    fit(Birds(settings), network, training_batches(coloured(64), settings), settings=rule)
    return network


def test_an_l2_penalty_is_the_optimizers_weight_decay_of_twice_its_weight() -> None:
    penalised, decayed, plain = learned(0.001, 0.0), learned(0.0, 0.002), learned(0.0, 0.0)
    for one, other in zip(penalised.parameters(), decayed.parameters(), strict=True):
        torch.testing.assert_close(one.detach(), other.detach(), rtol=1e-4, atol=1e-6)
    apart = [
        float((a - b).detach().abs().max()) for a, b in zip(penalised.parameters(), plain.parameters(), strict=True)
    ]
    assert max(apart) > 1e-5


def test_penalties_are_sums_over_all_parameters() -> None:
    layer = nn.Linear(2, 1)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([[3.0, -4.0]]))
        layer.bias.fill_(-1.0)
    assert float(penalty(layer, l1=0.001).detach()) == pytest.approx(0.008)
    assert float(penalty(layer, l2=0.001).detach()) == pytest.approx(0.026)


def test_an_l1_penalty_pulls_every_weight_by_the_same_amount() -> None:
    layer = nn.Linear(3, 2)
    penalty(layer, l1=0.001).backward()
    assert layer.weight.grad is not None
    torch.testing.assert_close(layer.weight.grad, 0.001 * layer.weight.detach().sign())


def test_the_penalty_is_no_part_of_the_validation_loss() -> None:
    network, batch = picture_network("cnn", HALF, HALF), PictureBatch(coloured(8).images, coloured(8).labels)
    with_penalty, without = Birds(BirdsSettings(penalty_l2=0.1)), Birds(BirdsSettings())
    assert with_penalty.loss(network.train(), batch)[0].item() > without.loss(network, batch)[0].item()
    assert with_penalty.loss(network.eval(), batch)[0].item() == without.loss(network, batch)[0].item()


def test_dropout_leaves_out_while_training_only() -> None:
    network = PictureNet(**VARIANTS["dropout"])
    assert {m.p for m in network.modules() if isinstance(m, nn.Dropout2d)} == {0.4}
    x = torch.randn(4, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    assert not torch.equal(network.train()(x), network(x))
    assert torch.equal(network.eval()(x), network(x))


def test_dropout_keeps_the_mean_and_drops_the_share_it_names() -> None:
    torch.manual_seed(0)
    left = nn.Dropout(0.4)(torch.ones(100_000))
    assert float((left == 0).float().mean()) == pytest.approx(0.4, abs=0.01)
    assert float(left.mean()) == pytest.approx(1.0, abs=0.01)
    assert left.unique().tolist() == pytest.approx([0.0, 1 / 0.6])


def test_running_statistics_move_while_training_and_stand_still_in_evaluation() -> None:
    network = PictureNet(**VARIANTS["batchnorm"])
    x = torch.randn(16, 3, 32, 32, generator=torch.Generator().manual_seed(0)) + 2
    before = {name: value.clone() for name, value in network.named_buffers()}
    network.eval()(x)
    assert all(torch.equal(value, before[name]) for name, value in network.named_buffers())
    network.train()(x)
    assert not any(torch.equal(value, before[name]) for name, value in network.named_buffers())


def test_in_evaluation_a_picture_is_answered_the_same_alone_and_in_a_batch() -> None:
    network = PictureNet(**VARIANTS["batchnorm"]).eval()
    x = torch.randn(4, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(network(x)[:1], network(x[:1]))


def test_a_residual_network_without_its_convolutions_passes_on_what_it_gets() -> None:
    network = PictureNet(**VARIANTS["residual"])
    for block in network.blocks:
        nn.init.zeros_(block.conv.weight)  # type: ignore[union-attr, arg-type]
        nn.init.zeros_(block.conv.bias)  # type: ignore[union-attr, arg-type]
    x = torch.randn(2, 8, 8, 8)
    assert torch.equal(nn.Sequential(*network.blocks)(x), x)


def test_pictures_are_standardised_by_the_statistics_of_the_training_data() -> None:
    pictures = coloured(32)
    mean, deviation = channel_statistics(pictures.images)
    first = picture_network("cnn", mean.tolist(), deviation.tolist())[0]
    seen = first(pictures.images)
    torch.testing.assert_close(seen.mean((0, 2, 3)), torch.zeros(3), atol=1e-4, rtol=0)
    torch.testing.assert_close(seen.std((0, 2, 3), correction=0), torch.ones(3), atol=1e-4, rtol=0)


def test_augmentation_mirrors_half_and_shifts_up_to_four_pixels() -> None:
    columns = torch.arange(32, dtype=torch.uint8).expand(400, 3, 32, 32)
    moved = mirror_and_shift(columns, torch.Generator().manual_seed(0))
    middle = moved[:, 0, 16, 12:20].int()
    falling = middle[:, 0] > middle[:, -1]
    assert 0.4 < float(falling.float().mean()) < 0.6
    shifts = (middle[~falling] - torch.arange(12, 20))[:, 0]
    assert set(shifts.tolist()) == set(range(-4, 5))


def test_batches_depend_on_seed_epoch_and_index_only() -> None:
    settings = replace(settings_of("combined"), batch=8)
    pictures = coloured(64)
    first, again = training_batches(pictures, settings), training_batches(pictures, settings)
    wanted = first.make(1, 3)
    again.make(0, 0)
    assert torch.equal(again.make(1, 3).images, wanted.images)
    assert not torch.equal(first.make(2, 3).images, wanted.images)


def test_an_epoch_sees_every_picture_once() -> None:
    pictures = coloured(64)
    batches = training_batches(pictures, replace(settings_of("cnn"), batch=16))
    seen = torch.cat([batches.make(0, index).images for index in range(batches.count)])
    assert torch.equal(seen.flatten(1).unique(dim=0), pictures.images.flatten(1).unique(dim=0))


def test_one_batch_is_overfitted() -> None:
    torch.manual_seed(0)
    noise = torch.randint(0, 256, (16, 3, 32, 32), dtype=torch.uint8)
    batch = PictureBatch(noise, torch.arange(16) % 2)
    network = picture_network("cnn", HALF, HALF)
    rule = FitSettings(epochs=10, optimizer="adam", lr=3e-3)
    result = fit(Birds(BirdsSettings()), network, Batches(8, lambda epoch, index: batch), settings=rule)
    assert result.metrics["train_accuracy"] == 1.0


def test_the_test_pictures_choose_nothing() -> None:
    settings = BirdsSettings(batch=32, fit=QUICK)
    test = coloured(20, seed=1)
    swapped = Pictures(test.images, 1 - test.labels, test.classes)
    one, right = train_birds(coloured(160), test, settings)
    other, wrong = train_birds(coloured(160), swapped, settings)
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), other.parameters(), strict=True))
    assert right.best_epoch == wrong.best_epoch
    assert right.test_accuracy == pytest.approx(1 - wrong.test_accuracy)


def test_the_time_of_a_resumed_training_is_that_of_all_its_epochs(tmp_path: Path) -> None:
    settings = BirdsSettings(batch=8, fit=replace(QUICK, epochs=6))
    begun = replace(settings, fit=replace(QUICK, epochs=5))
    learned, test = coloured(320), coloured(20, seed=1)
    train_birds(learned, test, begun, tmp_path)
    _, resumed = train_birds(learned, test, settings, tmp_path, resume=True)
    _, whole = train_birds(learned, test, settings)
    assert 0.5 < resumed.cpu_seconds / whole.cpu_seconds < 2
    _, nothing_left = train_birds(learned, test, settings, tmp_path, resume=True)
    assert math.isnan(nothing_left.cpu_seconds)


def test_the_interval_holds_the_mean_and_shrinks_with_more_pictures() -> None:
    right = np.random.default_rng(0).random((3, 2000)) < 0.9
    low, high = interval(right)
    assert low < right.mean() < high
    few = interval(right[:, :200])
    assert high - low < few[1] - few[0]


def test_from_a_folder_to_the_table_and_to_a_photo(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = ["train", "birds", "--data", str(folder), "-o", str(tmp_path / "runs"), "--epochs", "2", "-q"]
    with pytest.raises(SystemExit) as ended:
        main([*run, "--model", "cnn", "--seeds", "2"])
    assert ended.value.code == 0
    assert "| cnn | 18,090 |" in capsys.readouterr().out
    table = json.loads((tmp_path / "runs" / "birds.json").read_text())
    row = table["rows"][0]
    assert len(row["runs"]) == 2
    assert row["low"] <= row["test"] <= row["high"]
    assert (tmp_path / "runs" / "birds.md").read_text().startswith("| model |")
    wrong = (tmp_path / "runs" / "wrong.html").read_text()
    assert wrong.count("<img") == sum(1 for part in wrong.split("<figcaption>")[1:] if "is: " in part)

    # Resumed, nothing is trained again and the table stays.
    with pytest.raises(SystemExit):
        main([*run, "--model", "cnn", "--seeds", "2", "--resume"])
    assert json.loads((tmp_path / "runs" / "birds.json").read_text())["rows"] == table["rows"]
    capsys.readouterr()

    photo = next((folder / "test" / "bird").iterdir())
    with pytest.raises(SystemExit):
        main(["predict-image", str(photo), "--weights", str(tmp_path / "runs" / "cnn" / "seed-0"), "--json"])
    answer = json.loads(capsys.readouterr().out)[0]
    assert answer["answer"] in ("airplane", "bird")
    assert sum(answer["p"].values()) == pytest.approx(1)


def test_penalties_of_the_command_line_train_and_a_run_with_others_does_not_go_on(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = ["train", "birds", "--data", str(folder), "-o", str(tmp_path), "--model", "l2", "--epochs", "1", "-q"]
    with pytest.raises(SystemExit) as ended:
        main([*run, "--penalty-l1", "0.01"])
    assert ended.value.code == 0
    config = read_checkpoint(tmp_path / "l2" / "seed-0" / "checkpoint.pt")["config"]
    assert (config["penalty_l1"], config["penalty_l2"]) == (0.01, 0.001)
    with pytest.raises(SystemExit) as ended:
        main([*run, "--resume", "--penalty-l2", "0"])
    assert ended.value.code == 2
    assert "penalty_l1 0.01 -> 0.0, penalty_l2 0.001 -> 0.0" in capsys.readouterr().err


def test_a_penalty_below_zero_is_refused() -> None:
    with pytest.raises(UsageError, match="penalty_l1 is -1; expected at least 0"):
        BirdsSettings(penalty_l1=-1.0)


@pytest.mark.parametrize("nothing", [["--seeds", "0"], ["--epochs", "0"]])
def test_no_seeds_and_no_epochs_are_refused(
    folder: Path, tmp_path: Path, nothing: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["train", "birds", "--data", str(folder), "-o", str(tmp_path), *nothing])
    assert ended.value.code == 2
    assert "both start at 1" in capsys.readouterr().err


def test_a_folder_without_a_run_gives_no_answer(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="no checkpoint at"):
        load_birds(tmp_path)


def test_what_holds_neither_folders_nor_cifar_10_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="neither train/ and test/"):
        read_birds(tmp_path)

"""The laws of the training loop, on networks small enough to train in a blink."""

import json
import math
import os
import subprocess
import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from carina.errors import TrainingError, UsageError
from carina.learn import Batches, FitResult, FitSettings, fit
from carina.learn.batches import generator_of
from carina.learn.checkpoint import read_checkpoint
from carina.learn.metrics import LossOnly
from carina.learn.optimise import resolved_precision
from carina.learn.schedule import learning_rate_factor

Pair = tuple[Tensor, Tensor]


class Regression:
    """Mean squared error."""

    monitor = "loss"
    higher_is_better = False

    def loss(self, model: nn.Module, batch: Pair) -> tuple[Tensor, None]:
        x, y = batch
        return nn.functional.mse_loss(model(x), y), None

    def metrics(self) -> LossOnly:
        return LossOnly()


def noise(epoch: int, index: int, n: int = 4) -> Pair:
    x = torch.randn(n, 3, generator=torch.Generator().manual_seed(1000 * epoch + index), dtype=torch.float64)
    return x, (x**2).sum(1, keepdim=True)


BATCHES = Batches(8, noise)
VALIDATION = Batches(2, lambda epoch, index: noise(99, index))
SETTINGS = FitSettings(epochs=4, lr=0.02, schedule="cosine", warmup=0.1, optimizer="adamw", weight_decay=0.01)


def network(seed: int = 0, *, dropout: float = 0.0, norm: bool = False) -> nn.Sequential:
    torch.manual_seed(seed)
    middle = nn.BatchNorm1d(8) if norm else nn.Identity()
    return nn.Sequential(nn.Linear(3, 8), middle, nn.Tanh(), nn.Dropout(dropout), nn.Linear(8, 1)).double()


def weights(model: nn.Module) -> Tensor:
    return torch.cat([p.detach().flatten() for p in model.state_dict().values()])


def train(settings: FitSettings = SETTINGS, run_dir: Path | None = None, **more: object) -> tuple[Tensor, FitResult]:
    model = network(dropout=0.2, norm=True)
    result = fit(Regression(), model, BATCHES, VALIDATION, settings=settings, run_dir=run_dir, **more)  # type: ignore[arg-type]
    return weights(model), result


def test_the_same_seed_gives_the_same_weights() -> None:
    assert torch.equal(train()[0], train()[0])


def test_another_seed_gives_other_weights() -> None:
    assert not torch.equal(train()[0], train(replace(SETTINGS, seed=1))[0])


class Killed(Exception):  # noqa: N818
    """Stands for a process that dies between two batches."""


def dies_in(epoch: int) -> Batches[Pair]:
    def make(now: int, index: int) -> Pair:
        if (now, index) == (epoch, 3):
            raise Killed
        return noise(now, index)

    return Batches(8, make)


@pytest.mark.parametrize("changes", [{}, {"ema": 0.9, "accumulate": 2}, {"optimizer": "sgd", "momentum": 0.9}])
def test_an_interrupted_run_that_is_resumed_equals_one_that_was_not(tmp_path: Path, changes: dict[str, object]) -> None:
    settings = replace(SETTINGS, **changes)  # type: ignore[arg-type]
    expected, result = train(settings)
    with pytest.raises(Killed):
        fit(Regression(), network(dropout=0.2, norm=True), dies_in(2), VALIDATION, settings=settings, run_dir=tmp_path)
    weights_after, resumed = train(settings, tmp_path, resume=True)
    assert torch.equal(weights_after, expected)
    assert [r["val_loss"] for r in resumed.history] == [r["val_loss"] for r in result.history]


def test_the_log_of_a_resumed_run_holds_every_epoch_once(tmp_path: Path) -> None:
    with pytest.raises(Killed):
        fit(Regression(), network(), dies_in(2), settings=SETTINGS, run_dir=tmp_path)
    fit(Regression(), network(), BATCHES, settings=SETTINGS, run_dir=tmp_path, resume=True)
    lines = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert [line["epoch"] for line in lines if "epoch" in line] == [0, 1, 2, 3]
    assert lines[0]["settings"]["lr"] == SETTINGS.lr
    assert "train_loss" in lines[-1]["final"]


def test_the_log_tells_samples_per_second_and_the_share_of_time_spent_waiting(tmp_path: Path) -> None:
    def slow(epoch: int, index: int) -> Pair:
        time.sleep(0.02)
        return noise(epoch, index)

    result = fit(Regression(), network(), Batches(8, slow), settings=replace(SETTINGS, epochs=1), run_dir=tmp_path)
    record = result.history[0]
    assert 0 < record["throughput"] <= 4 / 0.02
    assert 0.3 < record["idle"] <= 1


def test_resuming_with_other_settings_is_refused_by_name(tmp_path: Path) -> None:
    train(SETTINGS, tmp_path)
    with pytest.raises(UsageError, match=r"lr 0\.02 -> 0\.5"):
        train(replace(SETTINGS, lr=0.5), tmp_path, resume=True)


def test_resuming_with_another_configuration_or_monitor_is_refused_by_name(tmp_path: Path) -> None:
    class Other(Regression):
        monitor = "auc"
        higher_is_better = True

    begun = {"batch": 8, "split": "patient", "name": "first"}
    train(SETTINGS, tmp_path, config=begun)
    with pytest.raises(UsageError, match=r"batch 8 -> 16, split patient -> None$"):
        train(SETTINGS, tmp_path, resume=True, config={"batch": 16, "name": "second"})
    with pytest.raises(UsageError, match=r"monitor loss -> auc, higher_is_better False -> True"):
        fit(Other(), network(), BATCHES, settings=SETTINGS, run_dir=tmp_path, resume=True, config=begun)


def test_a_longer_time_another_name_and_what_an_old_checkpoint_does_not_know_are_no_other_run(tmp_path: Path) -> None:
    train(replace(SETTINGS, minutes=0.001), tmp_path, config={"name": "first"})
    longer = replace(SETTINGS, minutes=60.0)
    assert train(longer, tmp_path, resume=True, config={"name": "second", "new": 1})[1].epochs == 4


def test_a_finished_run_is_not_overwritten(tmp_path: Path) -> None:
    train(SETTINGS, tmp_path)
    with pytest.raises(UsageError, match="holds a run already"):
        train(SETTINGS, tmp_path)


def test_a_finished_run_can_be_extended(tmp_path: Path) -> None:
    train(SETTINGS, tmp_path)
    assert train(replace(SETTINGS, epochs=6), tmp_path, resume=True)[1].epochs == 6


def test_a_damaged_checkpoint_is_an_error(tmp_path: Path) -> None:
    train(SETTINGS, tmp_path)
    (tmp_path / "checkpoint.pt").write_bytes(b"PK broken")
    with pytest.raises(TrainingError, match="not a readable checkpoint"):
        train(SETTINGS, tmp_path, resume=True)


def test_checkpoints_load_weights_only_and_hold_the_configuration(tmp_path: Path) -> None:
    train(SETTINGS, tmp_path, config={"data": "made up"})
    state = read_checkpoint(tmp_path / "checkpoint.pt")
    assert state["config"] == {"data": "made up"}
    assert state["settings"]["schedule"] == "cosine"


@pytest.mark.parametrize("parts", [2, 4])
def test_micro_batches_equal_one_batch(parts: int) -> None:
    def whole(epoch: int, index: int) -> Pair:
        made = [noise(epoch, parts * index + k) for k in range(parts)]
        return torch.cat([x for x, _ in made]), torch.cat([y for _, y in made])

    one, many = network(), network()
    fit(Regression(), one, Batches(8 // parts, whole), settings=SETTINGS)
    fit(Regression(), many, BATCHES, settings=replace(SETTINGS, accumulate=parts))
    torch.testing.assert_close(weights(many), weights(one), rtol=1e-10, atol=1e-12)


def test_with_batch_norm_micro_batches_are_normalised_one_by_one() -> None:
    def whole(epoch: int, index: int) -> Pair:
        made = [noise(epoch, 2 * index + k) for k in range(2)]
        return torch.cat([x for x, _ in made]), torch.cat([y for _, y in made])

    one, many = network(norm=True), network(norm=True)
    fit(Regression(), one, Batches(4, whole), settings=SETTINGS)
    fit(Regression(), many, BATCHES, settings=replace(SETTINGS, accumulate=2))
    assert (parameters(one) - parameters(many)).abs().max() > 1e-3


def parameters(model: nn.Module) -> Tensor:
    return torch.cat([p.detach().flatten() for p in model.parameters()])


def running(model: nn.Module) -> Tensor:
    """Means and variances of batch norm."""
    return torch.cat([b.flatten() for b in model.buffers() if b.is_floating_point()])


@pytest.mark.slow
def test_two_processes_equal_one(tmp_path: Path) -> None:
    processes = 2
    settings = replace(SETTINGS, accumulate=processes, clip_norm=1.0, ema=0.9)
    model, normed = network(), network(norm=True)
    result = fit(Regression(), model, BATCHES, VALIDATION, settings=settings)
    fit(Regression(), normed, BATCHES, settings=settings)
    program = tmp_path / "program.py"
    program.write_text(
        "import torch\n"
        "from test_engine import *\n"
        "from carina.learn.processes import join_processes\n"
        f"folder = Path({str(tmp_path)!r})\n"
        "model, normed = network(), network(norm=True)\n"
        f"settings = replace(SETTINGS, accumulate={processes}, clip_norm=1.0, ema=0.9)\n"
        "with join_processes('cpu'):\n"
        "    result = fit(Regression(), model, BATCHES, VALIDATION, settings=settings, run_dir=folder)\n"
        "    fit(Regression(), normed, BATCHES, settings=settings)\n"
        "saved = [weights(model), result.best, parameters(normed), running(normed)]\n"
        "torch.save(saved, folder / f'weights{os.environ[\"RANK\"]}')\n"
    )
    subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes), program],
        check=True,
        timeout=120,
        capture_output=True,
        env={
            **os.environ,
            "PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), *sys.path]),
            "OMP_NUM_THREADS": "1",
        },
    )
    for rank in range(processes):
        other, best, learned, statistics = torch.load(tmp_path / f"weights{rank}", weights_only=True)
        torch.testing.assert_close(other, weights(model), rtol=1e-10, atol=1e-12)
        assert best == pytest.approx(result.best, rel=1e-10)
        # Each micro-batch is normalised by itself either way; what is kept for evaluation has seen half of them.
        torch.testing.assert_close(learned, parameters(normed), rtol=1e-8, atol=1e-10)
        assert not torch.allclose(statistics, running(normed), rtol=1e-4)
        assert torch.equal(statistics, torch.load(tmp_path / "weights0", weights_only=True)[-1])


def test_of_two_processes_the_first_prepares_and_the_other_finds_it_done(tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text(
        "import os, time\n"
        "from pathlib import Path\n"
        "from carina.learn.processes import join_processes\n"
        f"folder = Path({str(tmp_path)!r})\n"
        "def work(*, first):\n"
        "    if first:\n"
        "        time.sleep(1)\n"
        "        (folder / 'made').write_text(os.environ['RANK'])\n"
        "    return (folder / 'made').read_text()\n"
        "with join_processes('cpu') as processes:\n"
        "    (folder / f'found{processes.rank}').write_text(processes.first_then_all(work))\n"
    )
    subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", program],
        check=True,
        timeout=120,
        capture_output=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert [(tmp_path / f"found{rank}").read_text() for rank in range(2)] == ["0", "0"]


def test_one_batch_is_overfitted() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 64), nn.Tanh(), nn.Linear(64, 1)).double()
    batch = noise(0, 0)
    settings = FitSettings(epochs=300, lr=0.01, optimizer="adam")
    result = fit(Regression(), model, Batches(1, lambda epoch, index: batch), settings=settings)
    assert result.best < 1e-3


def test_plain_gradient_descent_on_a_line_needs_nothing_but_the_loop() -> None:
    x = torch.linspace(-1, 1, 11).unsqueeze(1)
    model = nn.Linear(1, 1)
    settings = FitSettings(epochs=200, lr=0.3, optimizer="sgd")
    fit(Regression(), model, Batches(1, lambda epoch, index: (x, 3 * x - 2)), settings=settings)
    assert model.weight.item() == pytest.approx(3, abs=1e-3)
    assert model.bias.item() == pytest.approx(-2, abs=1e-3)


@dataclass
class Named:
    """A batch that knows where it comes from."""

    x: Tensor
    y: Tensor
    series_uids: tuple[str, ...] = ("1.2.3", "1.2.3", "4.5")

    def to(self, device: torch.device) -> "Named":
        return replace(self, x=self.x.to(device), y=self.y.to(device))


class NamedRegression(Regression):
    def loss(self, model: nn.Module, batch: Named) -> tuple[Tensor, None]:  # type: ignore[override]
        return super().loss(model, (batch.x, batch.y))


def test_a_loss_that_is_not_finite_stops_and_names_the_batch() -> None:
    def make(epoch: int, index: int) -> Named:
        x, y = noise(epoch, index)
        return Named(x * (float("nan") if (epoch, index) == (1, 5) else 1.0), y)

    with pytest.raises(TrainingError, match=r"loss is nan in epoch 1, batch 5 \(series 1\.2\.3, 4\.5\)"):
        fit(NamedRegression(), network(), Batches(8, make), settings=SETTINGS)


def test_divergence_is_reported_with_the_learning_rate() -> None:
    x = torch.linspace(-10, 10, 11).unsqueeze(1)
    settings = FitSettings(epochs=500, lr=1.0, optimizer="sgd")
    with pytest.raises(TrainingError, match=r"diverged.*lower the learning rate \(now 1\)"):
        fit(Regression(), nn.Linear(1, 1), Batches(1, lambda epoch, index: (x, 3 * x)), settings=settings)


class Steep(nn.Module):
    """A finite loss with an infinite gradient."""

    def __init__(self) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.zeros(1))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.w.abs().sqrt()


@pytest.mark.parametrize("clip_norm", [None, 1.0])
def test_a_gradient_that_is_not_finite_stops(clip_norm: float | None) -> None:
    settings = FitSettings(epochs=1, clip_norm=clip_norm)
    pair = (torch.ones(2, 1), torch.ones(2, 1))
    with pytest.raises(TrainingError, match="gradient"):
        fit(Regression(), Steep(), Batches(1, lambda epoch, index: pair), settings=settings)


def test_a_validation_loss_that_is_not_finite_stops_and_names_the_batch() -> None:
    def make(epoch: int, index: int) -> Pair:
        x, y = noise(epoch, index)
        return x * (math.nan if index == 1 else 1.0), y

    with pytest.raises(TrainingError, match="validation loss is nan in epoch 0, batch 1"):
        fit(Regression(), network(), BATCHES, Batches(2, make), settings=SETTINGS)


def test_a_monitor_that_is_not_finite_is_never_better_than_one_that_is() -> None:
    class Scored(LossOnly):
        values = iter([math.nan, 0.5, math.inf, 0.4])

        def compute(self) -> dict[str, float]:
            return {"score": next(self.values)}

    class Scoring(Regression):
        monitor = "score"
        higher_is_better = True

        def metrics(self) -> Scored:
            return Scored()

    result = fit(Scoring(), network(), BATCHES, settings=SETTINGS)
    assert (result.best_epoch, result.best) == (1, 0.5)


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_mixed_precision_ends_close_to_full_precision(precision: str) -> None:
    def make(epoch: int, index: int) -> Pair:
        x, y = noise(epoch, index, 32)
        return x.float(), y.float()

    losses = []
    for chosen in ("fp32", precision):
        model = network().float()
        settings = replace(SETTINGS, epochs=10, precision=chosen)
        losses.append(fit(Regression(), model, Batches(8, make), settings=settings).best)
    assert losses[1] == pytest.approx(losses[0], rel=0.1)


@pytest.mark.parametrize(("able", "meant"), [({"avx512_bf16": True}, "bf16"), ({"avx2": True}, "fp32")])
def test_precision_auto_follows_the_processor(
    able: dict[str, bool], meant: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: able)
    assert resolved_precision(torch.device("cpu"), "auto") == meant
    pair = (torch.ones(2, 3), torch.ones(2, 1))
    settings = replace(SETTINGS, epochs=1, precision="auto")
    fit(Regression(), network().float(), Batches(1, lambda e, i: pair), settings=settings, run_dir=tmp_path)
    assert f'"precision": "{meant}"' in (tmp_path / "log.jsonl").read_text()


def test_training_stops_after_epochs_without_a_better_monitor() -> None:
    x = torch.ones(4, 3, dtype=torch.float64)
    pair = (x, x[:, :1])
    result = fit(
        Regression(), network(), Batches(1, lambda e, i: pair), settings=FitSettings(epochs=50, lr=0.0, patience=3)
    )
    assert (result.epochs, result.best_epoch) == (4, 0)


def test_the_model_ends_with_the_weights_of_the_best_epoch() -> None:
    sizes = {0: 1.0, 1: 0.1, 2: 5.0}

    class Scripted(Regression):
        def loss(self, model: nn.Module, batch: Pair) -> tuple[Tensor, None]:
            loss, _ = super().loss(model, batch)
            return loss * 0 + sizes[int(batch[0][0, 0])] + loss - loss.detach(), None

    model = nn.Linear(1, 1)
    before: list[Tensor] = []

    def make(epoch: int, index: int) -> Pair:
        before.append(model.weight.detach().clone())
        return torch.full((1, 1), float(epoch)), torch.ones(1, 1)

    result = fit(Scripted(), model, Batches(1, make), settings=FitSettings(epochs=3, lr=0.1))
    assert result.best_epoch == 1
    assert torch.equal(model.weight, before[2])


def test_a_time_budget_ends_training_and_its_schedule() -> None:
    settings = FitSettings(epochs=10**6, minutes=0.01, schedule="cosine", lr=0.01)
    model = network()
    result = fit(Regression(), model, BATCHES, settings=settings)
    assert 0.5 < result.seconds < 5
    assert result.history[-1]["lr"] < 0.001


def test_frozen_parts_stay_bit_identical_with_their_statistics() -> None:
    model = network(norm=True, dropout=0.1)
    model[:2].requires_grad_(False)
    before = weights(model[:2])
    fit(Regression(), model, BATCHES, settings=SETTINGS)
    assert torch.equal(weights(model[:2]), before)


def test_a_model_without_trainable_parameters_is_refused() -> None:
    with pytest.raises(UsageError, match="nothing to train"):
        fit(Regression(), network().requires_grad_(False), BATCHES, settings=SETTINGS)


def test_the_moving_average_is_what_is_kept() -> None:
    model = nn.Linear(3, 1).double()
    seen: list[Tensor] = []

    def make(epoch: int, index: int) -> Pair:
        seen.append(weights(model))
        return noise(epoch, index)

    # One batch more than the average is taken over shows the weights after the last step.
    fit(Regression(), model, Batches(6, make), settings=FitSettings(epochs=1, lr=0.1, optimizer="sgd"))
    expected = seen[0]
    for steps, after in enumerate(seen[1:], start=1):
        expected = torch.lerp(expected, after, 1 - min(0.3, (1 + steps) / (10 + steps)))
    averaged = nn.Linear(3, 1).double()
    averaged.load_state_dict({"weight": seen[0][:3].view(1, 3), "bias": seen[0][3:]})
    settings = FitSettings(epochs=1, lr=0.1, optimizer="sgd", ema=0.3)
    fit(Regression(), averaged, Batches(5, noise), settings=settings)
    torch.testing.assert_close(weights(averaged), expected)


@pytest.mark.parametrize("prefetch", [1, 3])
def test_batches_made_ahead_train_the_same(prefetch: int) -> None:
    assert torch.equal(train(replace(SETTINGS, prefetch=prefetch))[0], train()[0])


def test_an_error_while_making_a_batch_ahead_reaches_the_caller() -> None:
    with pytest.raises(Killed):
        fit(Regression(), network(), dies_in(1), settings=replace(SETTINGS, prefetch=2))


def test_an_unknown_monitor_is_refused() -> None:
    class Odd(Regression):
        monitor = "charm"

    with pytest.raises(UsageError, match="'train_charm' is none of"):
        fit(Odd(), network(), BATCHES, settings=SETTINGS)


def test_too_few_batches_for_one_step_are_refused() -> None:
    with pytest.raises(UsageError, match="do not fill one step of 16"):
        fit(Regression(), network(), BATCHES, settings=replace(SETTINGS, accumulate=16))


@pytest.mark.parametrize(
    "wrong",
    [
        {"epochs": 0},
        {"minutes": 0.0},
        {"prefetch": -1},
        {"accumulate": 0},
        {"seed": -1},
        {"seed": 2**63},
        {"patience": 0},
        {"lr": -1.0},
        {"lr": math.nan},
        {"lr": math.inf},
        {"momentum": 1.0},
        {"weight_decay": -0.1},
        {"warmup": 1.0},
        {"clip_norm": -1.0},
        {"clip_norm": 0.0},
        {"ema": 1.5},
    ],
)
def test_settings_that_train_nothing_are_refused_by_name(wrong: dict[str, float]) -> None:
    with pytest.raises(UsageError, match=f"{next(iter(wrong))} is .*; expected"):
        FitSettings(**wrong)  # type: ignore[arg-type]


def test_a_large_seed_trains() -> None:
    assert train(replace(SETTINGS, epochs=1, seed=2**63 - 1))[1].epochs == 1


def test_the_randomness_of_a_batch_is_pinned_and_any_seed_has_one() -> None:
    assert generator_of(3, 2, 1).initial_seed() == (3 * 1_000_003 + 2) * 100_003 + 1
    assert generator_of(1234567890, 0, 0).initial_seed() != generator_of(1234567890, 1, 0).initial_seed()


def test_channels_last_changes_the_layout_and_not_the_answer() -> None:
    def make(epoch: int, index: int) -> Pair:
        x = torch.randn(2, 3, 4, 4, generator=torch.Generator().manual_seed(index))
        return x, x.sum(1, keepdim=True)

    ends = []
    for channels_last in (False, True):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, 1, 1))
        fit(Regression(), model, Batches(4, make), settings=FitSettings(epochs=2, channels_last=channels_last))
        ends.append(model)
    assert ends[1][0].weight.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(ends[1](make(0, 9)[0]), ends[0](make(0, 9)[0]), rtol=1e-4, atol=1e-5)


SCHEDULES: list[tuple[str, float, list[tuple[float, float]]]] = [
    ("constant", 0.0, [(0.0, 1.0), (1.0, 1.0)]),
    ("constant", 0.2, [(0.0, 0.01), (0.2, 1.0), (0.7, 1.0)]),
    ("cosine", 0.0, [(0.0, 1.0), (0.5, 0.5), (1.0, 0.0)]),
    ("cosine", 0.5, [(0.0, 0.01), (0.5, 1.0), (0.75, 0.5), (1.0, 0.0)]),
    ("one-cycle", 0.0, [(0.0, 0.04), (0.3, 1.0), (1.0, 1e-4)]),
]


@pytest.mark.parametrize(("name", "warmup", "points"), SCHEDULES)
def test_schedules_pass_through_their_points(name: str, warmup: float, points: list[tuple[float, float]]) -> None:
    for done, expected in points:
        assert learning_rate_factor(name, warmup, done) == pytest.approx(expected)  # type: ignore[arg-type]

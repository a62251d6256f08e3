"""The thermometer: the same end point from every gradient, and divergence called by its name."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from carina.cli import main
from carina.errors import TrainingError, UsageError
from carina.learn import Batches, FitSettings, fit
from carina.models.build import build
from carina.tasks.thermometer import (
    CELSIUS,
    UNKNOWN,
    Method,
    Readings,
    Thermometer,
    ThermometerSettings,
    analytic_gradient,
    numeric_gradient,
    split_readings,
    train_thermometer,
)

X = 0.1 * torch.tensor(UNKNOWN)[:, None]
Y = torch.tensor(CELSIUS)[:, None]


@pytest.mark.parametrize("method", ["numeric", "analytic", "autograd", "sgd"])
def test_five_thousand_epochs_end_where_they_must(method: Method) -> None:
    solution = train_thermometer(ThermometerSettings(method))
    line = solution.line()
    assert line is not None
    assert (round(line[0], 4), round(line[1], 4)) == (5.3671, -17.3012)
    assert round(solution.loss, 4) == 2.9276


def test_adam_ends_at_the_same_loss_without_scaling() -> None:
    solution = train_thermometer(ThermometerSettings("adam", scale=1.0))
    assert round(solution.loss, 4) == 2.9276


def test_the_loop_written_out_ends_where_fit_does() -> None:
    """Zero the gradient, go back from the loss, move without tracking: what fit does in every step."""
    params = torch.tensor([1.0, 0.0], requires_grad=True)
    for _ in range(300):
        if params.grad is not None:
            params.grad.zero_()
        loss = ((params[0] * X + params[1] - Y) ** 2).mean()
        loss.backward()
        with torch.no_grad():
            params -= 1e-2 * params.grad
    line = train_thermometer(ThermometerSettings("autograd", epochs=300)).line()
    assert line == pytest.approx(params.tolist(), rel=1e-5)


def test_gradients_that_are_not_zeroed_add_up() -> None:
    w = torch.tensor(2.0, requires_grad=True)
    for times in (1, 2, 3):
        (w * w).backward()
        assert w.grad is not None
        assert w.grad.item() == times * 4.0


@given(st.floats(-20, 20), st.floats(-30, 30))
@settings(max_examples=30, deadline=None)
def test_gradients_by_differences_on_paper_and_by_autograd_agree(w: float, b: float) -> None:
    # The loss is a parabola in each number, for which differences are exact.
    x, y = X.double(), Y.double()
    at = torch.tensor([w, b], dtype=torch.float64, requires_grad=True)
    ((at[0] * x + at[1] - y) ** 2).mean().backward()
    assert at.grad is not None
    for gradient in (numeric_gradient, analytic_gradient):
        found = torch.stack(gradient(at[0].detach(), at[1].detach(), x, y))
        torch.testing.assert_close(found, at.grad, rtol=1e-7, atol=1e-7)


@pytest.mark.parametrize("method", ["numeric", "analytic", "autograd", "sgd", "linear"])
def test_unscaled_readings_diverge_and_the_message_says_what_to_do(method: Method) -> None:
    with pytest.raises(TrainingError, match=r"diverged at epoch \d+, lower the rate or scale the input"):
        train_thermometer(ThermometerSettings(method, scale=1.0))


def test_a_rate_that_diverges_slowly_is_no_result() -> None:
    with pytest.raises(TrainingError, match="diverged at epoch"):
        # Just above 2 / (largest eigenvalue of the Hessian) = 0.03298.
        train_thermometer(ThermometerSettings("sgd", lr=0.0332))


def test_divergence_on_the_command_line_is_exit_code_1(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["train", "thermometer", "--scale", "1"])
    assert ended.value.code == 1
    said = capsys.readouterr()
    assert "diverged at epoch 1, lower the rate or scale the input" in said.err
    assert "nan" not in said.out


def test_a_fifth_is_held_out_from_layers_shuffled_and_apart() -> None:
    train, val = split_readings(11, 0.2, seed=0)
    assert (len(train), len(val)) == (9, 2)
    assert sorted([*train.tolist(), *val.tolist()]) == list(range(11))
    assert split_readings(11, 0.2, seed=1)[1].tolist() != val.tolist()


def test_a_split_that_leaves_nothing_is_refused() -> None:
    with pytest.raises(UsageError, match="cannot be held out"):
        split_readings(11, 0.99, seed=0)


def test_held_out_readings_are_measured_and_not_learned_from() -> None:
    solution = train_thermometer(ThermometerSettings("linear", epochs=200))
    assert len(solution.held_out) == 2
    assert solution.val_loss == pytest.approx(solution.result.metrics["val_loss"])
    kept = [i for i in range(11) if i not in solution.held_out]
    left = torch.nn.functional.mse_loss(solution.celsius(torch.tensor(UNKNOWN)[kept]), torch.tensor(CELSIUS)[kept])
    assert solution.loss == pytest.approx(float(left), rel=1e-4)


def test_readings_held_out_are_seen_in_evaluation_and_without_gradients() -> None:  # M11
    layer, seen = build({"kind": "linear"}), set()
    layer.register_forward_hook(lambda module, _, heights: seen.add((module.training, heights.requires_grad)))
    learned, held_out = Batches(3, lambda *_: Readings(X[:9], Y[:9])), Batches(1, lambda *_: Readings(X[9:], Y[9:]))
    fit(Thermometer(), layer, learned, held_out, settings=FitSettings(epochs=2, optimizer="sgd", lr=1e-2))
    assert seen == {(True, True), (False, False)}


@pytest.mark.parametrize("nothing", [{"epochs": 0}, {"method": "network", "hidden": 0}])
def test_no_epochs_and_no_units_are_refused(nothing: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match="both start at 1"):
        train_thermometer(ThermometerSettings(**nothing))


def test_a_negative_rate_is_wrong_usage(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        main(["train", "thermometer", "--epochs", "2", "--lr", "-1"])
    assert end.value.code == 2
    assert "lr is -1; expected a number from 0" in capsys.readouterr().err


def test_a_linear_layer_is_the_line() -> None:
    layer = train_thermometer(ThermometerSettings("linear", held_out=0.0))
    assert layer.line() == pytest.approx((5.3671, -17.3012), abs=2e-4)


@pytest.mark.parametrize(("hidden", "count"), [(8, 25), (13, 40)])
def test_the_network_names_its_parameters(hidden: int, count: int) -> None:
    network = build({"kind": "small", "hidden": hidden})
    assert {name: tuple(p.shape) for name, p in network.named_parameters()} == {
        "hidden_linear.weight": (hidden, 1),
        "hidden_linear.bias": (hidden,),
        "output_linear.weight": (1, hidden),
        "output_linear.bias": (1,),
    }
    assert sum(p.numel() for p in network.parameters()) == count


def test_the_network_learns() -> None:
    solution = train_thermometer(ThermometerSettings("network", epochs=1000, lr=1e-3))
    assert solution.result.history[-1]["train_loss"] < solution.result.history[0]["train_loss"] / 3


def test_the_command_writes_the_plot_and_the_log(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["train", "thermometer", "--method", "network", "--epochs", "200", "-o", str(tmp_path / "run")])
    assert ended.value.code == 0
    assert "hidden_linear.weight [8, 1]" in capsys.readouterr().out
    svg = (tmp_path / "run" / "fit.svg").read_text()
    assert svg.rstrip().endswith("</svg>")
    records = [json.loads(line) for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    assert records[0]["settings"]["thermometer"] == "network"
    assert [r["epoch"] for r in records if "epoch" in r] == [0, 1]


def test_a_line_is_printed_with_its_numbers(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["train", "thermometer", "--method", "sgd"])
    assert "Celsius = 5.3671 * (0.1 * reading) -17.3012\nloss 2.9276" in capsys.readouterr().out

"""Runs are put in order by what they answered on held-out crops, and a difference within chance decides nothing."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch

from carina.cli import main
from carina.cli.runs import short_names
from carina.errors import InputError, UsageError
from carina.evaluate.present_runs import present_runs
from carina.evaluate.runs import compare_runs, differing_settings, read_run, weighted_metrics
from carina.learn.metrics import BinaryMetrics
from carina.learn.ranking import auc
from carina.tasks.held_out import HeldOut

SERIES = tuple(f"1.2.{k // 10}" for k in range(300))
TRUTH = np.arange(300) % 3 == 0


def answers(noise: float, seed: int = 0) -> HeldOut:
    """Of a classifier of 300 crops of 30 scans."""
    log_odds = np.where(TRUTH, 1.0, -1.0) + np.random.default_rng(seed).normal(0, noise, 300)
    return HeldOut.classified(SERIES, TRUTH, 1 / (1 + np.exp(-log_odds)))


def write_run(folder: Path, held_out: HeldOut | None = None, *, monitor: str = "auc", **settings: object) -> Path:
    folder.mkdir(parents=True)
    record = {"epoch": 0, "step": 1, "lr": 0.1, "val_auc": 0.5, "val_loss": 0.7, "seconds": 30.0, "best": True}
    later = {**record, "epoch": 1, "val_auc": 0.4, "seconds": 60.0, "best": False}
    lines = [{"settings": {"monitor": monitor, **settings}}, record, later, {"final": {"val_auc": 0.5}}]
    (folder / "log.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    if held_out is not None:
        held_out.write(folder)
    return folder


def test_the_better_run_is_named_when_the_difference_is_beyond_chance(tmp_path: Path) -> None:
    good = read_run(write_run(tmp_path / "good", answers(0.5)))
    bad = read_run(write_run(tmp_path / "bad", answers(4.0)))
    result = compare_runs([bad, good], bootstraps=200)
    assert [s.name for s in result.standings] == ["good", "bad"]
    (gap,) = result.gaps
    assert gap.paired
    assert gap.interval[0] > 0
    assert gap.interval[0] < gap.difference < gap.interval[1]
    assert gap.verdict == "better"


def test_a_difference_within_chance_is_undecided(tmp_path: Path) -> None:
    runs = [read_run(write_run(tmp_path / str(k), answers(1.5, seed=k))) for k in (3, 4)]
    (gap,) = compare_runs(runs, bootstraps=300).gaps
    assert gap.interval[0] <= 0 < gap.interval[1]
    assert gap.verdict == "undecided"


def test_the_interval_of_a_pair_is_narrower_than_that_of_strangers(tmp_path: Path) -> None:
    first, second = answers(1.0), answers(1.0)
    second.values[:5, 1] *= 0.9
    stranger = HeldOut(tuple(f"9.{uid}" for uid in SERIES), second.columns, second.values)
    runs = [read_run(write_run(tmp_path / n, h)) for n, h in (("a", first), ("b", second), ("c", stranger))]
    paired = compare_runs(runs[:2], bootstraps=200).gaps[0]
    apart = compare_runs([runs[0], runs[2]], bootstraps=200).gaps[0]
    assert paired.paired
    assert not apart.paired
    assert paired.interval[1] - paired.interval[0] < 0.5 * (apart.interval[1] - apart.interval[0])


def test_smaller_losses_win_and_gains_stay_positive(tmp_path: Path) -> None:
    good = read_run(write_run(tmp_path / "good", answers(0.5), monitor="loss"))
    bad = read_run(write_run(tmp_path / "bad", answers(4.0), monitor="loss"))
    result = compare_runs([bad, good], bootstraps=50)
    assert not result.higher_is_better
    assert result.standings[0].name == "good"
    assert result.gaps[0].difference > 0


def test_metrics_of_answers_are_those_of_training() -> None:
    held_out = answers(1.5)
    p = held_out.values[:, 1]
    found = weighted_metrics(held_out, np.ones(300, np.int64))
    counted = BinaryMetrics()
    counted.count(torch.from_numpy(np.log(p / (1 - p))), torch.from_numpy(TRUTH))
    for name, value in counted.compute().items():
        assert found[name] == pytest.approx(value, abs=2e-3), name
    assert found["auc"] == pytest.approx(auc(TRUTH, p), abs=1e-12)


def test_counting_a_crop_twice_is_having_it_twice() -> None:
    held_out = answers(1.5)
    times = np.random.default_rng(1).integers(0, 3, 300)
    rows = np.repeat(np.arange(300), times)
    twice = HeldOut(tuple(SERIES[k] for k in rows), held_out.columns, held_out.values[rows])
    expected = weighted_metrics(twice, np.ones(len(rows), np.int64))
    assert weighted_metrics(held_out, times) == pytest.approx(expected)


def test_metrics_of_marked_crops() -> None:
    counts = np.array([[30, 40, 60], [0, 10, 20], [0, 8, 0], [0, 7, 0]])
    found = weighted_metrics(HeldOut.marked(("1.2",) * 4, counts), np.ones(4, np.int64))
    assert found == pytest.approx(
        {"dice": 60 / 145, "recall": 30 / 80, "precision": 30 / 65, "touched": 0.5, "false_crops": 0.5}
    )


def test_answers_are_read_back_as_written(tmp_path: Path) -> None:
    for held_out in (answers(1.0), HeldOut.marked(("1.2", "1.3"), np.array([[1, 2, 3], [4, 5, 6]]))):
        held_out.write(tmp_path)
        again = HeldOut.read(tmp_path)
        assert again.same_crops(held_out)
        np.testing.assert_allclose(again.values, held_out.values, rtol=1e-8)
    assert [path.name for path in tmp_path.iterdir()] == ["held_out.csv"]


def test_answers_to_other_questions_are_no_pair() -> None:
    held_out = answers(1.0)
    other_truth = HeldOut.classified(SERIES, ~TRUTH, held_out.values[:, 1])
    assert not held_out.same_crops(other_truth)
    assert held_out.same_crops(answers(3.0))


def test_without_answers_nothing_is_decided(tmp_path: Path) -> None:
    runs = [read_run(write_run(tmp_path / name)) for name in ("a", "b")]
    result = compare_runs(runs, bootstraps=10)
    assert math.isnan(result.gaps[0].interval[0])
    assert result.gaps[0].verdict == "undecided"
    assert "nothing is decided" in present_runs(result).to_text()


def test_settings_that_differ_are_listed_by_their_path(tmp_path: Path) -> None:
    first = read_run(write_run(tmp_path / "a", augment={"flip": True}, balanced=True, name="x", lr=0.1))
    second = read_run(write_run(tmp_path / "b", augment=None, balanced=False, name="y", lr=0.1))
    table = differing_settings([first, second])
    assert table == {"augment": ("", "null"), "augment.flip": ("true", ""), "balanced": ("true", "false")}


def test_runs_with_other_monitors_need_a_metric(tmp_path: Path) -> None:
    runs = [read_run(write_run(tmp_path / name, monitor=name)) for name in ("auc", "loss")]
    with pytest.raises(UsageError, match="--by"):
        compare_runs(runs)
    assert compare_runs(runs, metric="auc", bootstraps=5).metric == "auc"
    with pytest.raises(UsageError, match="it has auc, loss"):
        compare_runs(runs, metric="dice")


def test_what_is_no_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="not the folder of a run"):
        read_run(tmp_path)
    (tmp_path / "log.jsonl").write_text('{"settings": {}}\n')
    with pytest.raises(InputError, match="no epoch yet"):
        read_run(tmp_path)
    (tmp_path / "log.jsonl").write_text("{")
    with pytest.raises(InputError, match="cannot read"):
        read_run(tmp_path)
    write_run(tmp_path / "r")
    (tmp_path / "r" / "held_out.csv").write_text("a,b\n")
    with pytest.raises(InputError, match="not those of a table"):
        read_run(tmp_path / "r")


def test_a_run_in_progress_says_so(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "r")
    log = folder / "log.jsonl"
    log.write_text("".join(line + "\n" for line in log.read_text().splitlines()[:-1]))
    run = read_run(folder)
    assert not run.finished
    assert (run.best_epoch, run.epochs, run.seconds) == (0, 2, 60.0)


def test_names_are_the_shortest_that_tell_runs_apart() -> None:
    assert short_names((Path("/x/a"), Path("/x/b"))) == ["a", "b"]
    assert short_names((Path("/x/a/nodule"), Path("/x/b/nodule"))) == ["a/nodule", "b/nodule"]


def test_command_compares_lists_and_writes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    runs = [str(write_run(tmp_path / name, answers(noise))) for name, noise in (("a", 0.5), ("b", 4.0))]
    with pytest.raises(SystemExit) as end:
        main(["runs", "compare", *runs, "--bootstraps", "100", "-o", str(tmp_path / "out")])
    assert end.value.code == 0
    assert "a is better" in capsys.readouterr().out
    assert json.loads((tmp_path / "out" / "summary.json").read_text())["result"]["gaps"][0]["paired"]
    assert (tmp_path / "out" / "index.html").read_text().count("<polyline") == 2  # a course for each run
    with pytest.raises(SystemExit) as end:
        main(["runs", "list", str(tmp_path)])
    assert end.value.code == 0
    assert capsys.readouterr().out.count("auc 0.5000") == 2
    with pytest.raises(SystemExit) as end:
        main(["runs", "compare"])
    assert end.value.code == 2

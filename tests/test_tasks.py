"""M29, M31: CT experiments run from a prepared store to weights that load, and learn what is there to be learned."""

import os
import re
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from carina.cli import main
from carina.ct.preprocess import Preprocessing
from carina.data.augment import AugmentSettings
from carina.data.store import FORMAT, Manifest, Store, write_manifest
from carina.errors import TrainingError, UsageError
from carina.io.luna import IGNORE
from carina.learn import Batches, FitResult, FitSettings, fit
from carina.models.build import build
from carina.models.card import Card, DataSource, load_model, save_card
from carina.tasks.held_out import HeldOut
from carina.tasks.marking import SLICES, MarkingBatch, SegmentationSettings, segmentation_batches, voxel_weights
from carina.tasks.nodule import (
    Candidates,
    NoduleSettings,
    answers,
    candidate_batches,
    held_out_batches,
    read_mined,
    train_nodule,
)
from carina.tasks.runs import split_scans
from carina.tasks.segmentation import Segmentation, train_segmentation
from small_scans import SMALL, SPACING, write_scan


@pytest.fixture(scope="session")
def segmentation_run(store: Store, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, FitResult, Card]:
    folder = tmp_path_factory.mktemp("segmentation")
    return folder, *train_segmentation(store, folder, SMALL)


def test_segmentation_goes_from_a_store_to_weights_that_load(
    store: Store, segmentation_run: tuple[Path, FitResult, Card]
) -> None:
    folder, result, card = segmentation_run
    module, loaded = load_model(folder / "model")
    assert loaded == card
    assert loaded.metrics.items() <= result.metrics.items()
    assert module(torch.zeros(1, SLICES, 16, 16)).shape == (1, 1, 16, 16)
    training, _ = split_scans(store, SMALL)
    assert card.training.series_uids == tuple(sorted(scan.series_uid for scan in training))
    assert sum(source.scans for source in card.training.data) == len(training)


def test_tensorboard_shows_what_the_segmentation_marked(segmentation_run: tuple[Path, FitResult, Card]) -> None:
    """M36."""
    tags = EventAccumulator(str(segmentation_run[0])).Reload().Tags()
    assert {"dice/val", "recall/val", "touched/val", "loss/train"} <= set(tags["scalars"])
    assert "marked/val" in tags["images"]


def test_less_loss_and_fewer_crops_marked_wrongly_are_better() -> None:
    better = {name: task(replace(SMALL, monitor=name)).higher_is_better for name in ("dice", "loss", "false_crops")}
    assert better == {"dice": True, "loss": False, "false_crops": False}


@pytest.mark.parametrize("monitor", ["dice", "recall"])
def test_the_best_epoch_of_a_segmentation_is_chosen_by_the_named_metric(
    store: Store, tmp_path: Path, monitor: str
) -> None:
    settings = replace(SMALL, monitor=monitor, crops_per_epoch=2, fit=replace(SMALL.fit, epochs=3, schedule="constant"))
    result, _ = train_segmentation(store, tmp_path, settings)
    assert result.best == max(record[f"val_{monitor}"] for record in result.history)


def test_small_nodules_weigh_more_and_what_is_to_be_ignored_nothing(store: Store) -> None:
    scan = store.scans[1]
    weights = voxel_weights(scan, -0.6)
    first, second = sorted(scan.nodules, key=lambda nodule: nodule.volume_mm3)
    assert weights[first.label] > weights[second.label]
    assert (weights[0], weights[IGNORE]) == (1, 0)
    assert weights.max() <= 6


def batches(
    store: Store, settings: SegmentationSettings, augment: AugmentSettings | None, seed: int = 0
) -> Batches[MarkingBatch]:
    return segmentation_batches(store.scans, settings, SPACING, crops=8, seed=seed, augment=augment)


def task(settings: SegmentationSettings = SMALL) -> Segmentation:
    return Segmentation(settings, (-1000.0, 400.0), SPACING)


def test_a_stack_holds_the_neighbours_of_the_slice_that_is_marked(store: Store) -> None:
    batch = batches(store, SMALL, None).make(0, 0)
    slabs, truth, *_ = task().stacks(batch)
    hu = (batch.crops.hu.float().clamp(-1000, 400) + 1000) / 700 - 1
    depth = SMALL.crop_zyx[0]
    for crop in range(2):
        for k in range(depth):
            torch.testing.assert_close(slabs[crop * depth + k], hu[crop, 0, k : k + SLICES])
            label = batch.crops.label[crop, 0, k + SLICES // 2]
            assert torch.equal(truth[crop * depth + k, 0] > 0, (label > 0) & (label < IGNORE))


def test_stacks_are_laid_out_channels_last(store: Store) -> None:
    slabs = task().stacks(batches(store, SMALL, None).make(0, 0))[0]
    assert slabs.is_contiguous(memory_format=torch.channels_last)


def test_ignored_voxels_weigh_nothing_and_those_far_from_the_lungs_little(store: Store) -> None:
    settings = replace(SMALL, mix=(0.0, 0.0, 1.0), crop_zyx=(32, 64, 64))
    batch = batches(store, settings, None).make(0, 0)
    _, truth, weight, _ = task(settings).stacks(batch)
    label = batch.crops.label[:, 0, 3:35].flatten(0, 1)
    assert (weight[:, 0][label == IGNORE] == 0).all()
    inside_scan = (label != IGNORE) & (truth[:, 0] == 0)
    lung = batch.crops.lung[:, 0, 3:35].flatten(0, 1)
    assert (weight[:, 0][inside_scan & (lung == 1)] == 1).all()
    assert set(weight[:, 0][inside_scan & (lung == 0)].tolist()) <= {1.0, np.float32(0.05)}


def test_batches_depend_on_seed_epoch_and_index_only(store: Store) -> None:
    augment = AugmentSettings()
    again = [task().stacks(batches(store, SMALL, augment).make(1, 2))[0] for _ in range(2)]
    assert torch.equal(again[0], again[1])
    assert not torch.equal(task().stacks(batches(store, SMALL, augment).make(2, 2))[0], again[0])
    assert not torch.equal(task().stacks(batches(store, SMALL, augment, seed=1).make(1, 2))[0], again[0])


@pytest.mark.parametrize("loss", ["marking", "missed-dice"])
def test_one_batch_of_crops_is_overfitted(store: Store, loss: str) -> None:
    settings = replace(SMALL, mix=(1.0, 0.0, 0.0), loss=loss)
    batch = batches(store, settings, None).make(0, 0)
    torch.manual_seed(0)
    model = build({"kind": "unet", "depth": 2, "first_filters": 4})
    chosen = FitSettings(epochs=100, lr=0.02)
    result = fit(task(settings), model, Batches(1, lambda epoch, index: batch), settings=chosen)
    assert result.best > 0.9


def test_a_resumed_segmentation_ends_with_the_same_weights(store: Store, tmp_path: Path) -> None:
    first = replace(SMALL, fit=replace(SMALL.fit, epochs=1, schedule="constant"))
    both = replace(first, fit=replace(first.fit, epochs=2))
    train_segmentation(store, tmp_path / "parts", first)
    _, resumed = train_segmentation(store, tmp_path / "parts", both, resume=True)
    _, whole = train_segmentation(store, tmp_path / "other", both)
    assert resumed.sha256 == whole.sha256


def test_a_run_goes_on_with_its_own_scans_only(store: Store, tmp_path: Path) -> None:
    first = replace(SMALL, fit=replace(SMALL.fit, epochs=1))
    train_segmentation(store, tmp_path / "run", first)
    with pytest.raises(UsageError, match=r"split patient -> tenth, training_series . with digest .* -> 7 with digest"):
        train_segmentation(store, tmp_path / "run", replace(first, split="tenth"), resume=True)
    write_manifest(tmp_path, Manifest(FORMAT, Preprocessing(), tuple(store.scans[:-1]), {}))
    with pytest.raises(UsageError, match=r"other settings: \w+_series . with digest"):
        train_segmentation(Store(tmp_path), tmp_path / "run", first, resume=True)


def test_validation_measures_every_crop_though_they_do_not_fill_a_batch(store: Store, tmp_path: Path) -> None:
    train_segmentation(store, tmp_path, replace(SMALL, validation_crops=1, fit=replace(SMALL.fit, epochs=1)))
    assert len(HeldOut.read(tmp_path).series_uid) == 1


def test_training_without_any_nodule_is_refused(tmp_path: Path) -> None:
    scans = tuple(write_scan(tmp_path, k, nodules=0) for k in range(3))
    write_manifest(tmp_path, Manifest(FORMAT, Preprocessing(), scans, {}))
    with pytest.raises(TrainingError, match="none of the 3 training scans holds a nodule"):
        train_segmentation(Store(tmp_path), tmp_path / "run", replace(SMALL, split="none"))


def test_every_tenth_series_can_be_held_out(store: Store) -> None:
    training, validation = split_scans(store, replace(SMALL, split="tenth"))
    assert [scan.series_uid for scan in validation] == ["1.2.0"]
    assert len(training) == 7


def test_of_few_patients_the_one_is_held_out_whom_a_larger_share_would_hold_out(
    store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    training, validation = split_scans(store, replace(SMALL, validation_share=1e-6))
    assert "one is held out" in caplog.text
    assert (len(training), len(validation)) == (7, 1)
    assert validation[0].key in {scan.key for scan in split_scans(store, SMALL)[1]}


def test_the_scans_of_one_patient_all_train_and_it_is_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    scans = tuple(replace(write_scan(tmp_path, k), patient_id="patient0") for k in range(2))
    write_manifest(tmp_path, Manifest(FORMAT, Preprocessing(), scans, {}))
    training, validation = split_scans(Store(tmp_path), replace(SMALL, validation_share=1e-6))
    assert (len(training), len(validation)) == (2, 0)
    assert "nothing is held out" in caplog.text


def test_a_subset_of_luna16_can_be_held_out(store: Store) -> None:
    training, validation = split_scans(store, replace(SMALL, split="subset3"))
    assert [scan.subset for scan in validation] == [3]
    assert len(training) == 7


def test_an_unknown_split_is_refused(store: Store) -> None:
    with pytest.raises(UsageError, match="split 'random'"):
        split_scans(store, replace(SMALL, split="random"))


def test_training_starts_from_the_weights_that_it_is_given(store: Store, tmp_path: Path) -> None:
    train_segmentation(store, tmp_path / "first", SMALL)
    still = replace(SMALL, init_from=tmp_path / "first" / "model", fit=FitSettings(epochs=1, lr=0.0, optimizer="sgd"))
    train_segmentation(store, tmp_path / "second", still)
    first, second = (load_model(tmp_path / name / "model")[0] for name in ("first", "second"))
    for before, after in zip(first.parameters(), second.parameters(), strict=True):
        assert torch.equal(before, after)


def test_a_card_lists_what_the_first_weights_saw_too(store: Store, tmp_path: Path) -> None:
    _, first = train_segmentation(store, tmp_path / "first", SMALL)
    seen = first.training.series_uids
    earlier = replace(
        first.training,
        command="carina train segmentation --data elsewhere",
        seconds=100.0,
        data=(DataSource("elsewhere", "CC BY", 1), *first.training.data),
        series_uids=("9.9", *seen),
    )
    save_card(tmp_path / "first" / "model", replace(first, training=earlier))
    _, second = train_segmentation(store, tmp_path / "second", replace(SMALL, init_from=tmp_path / "first" / "model"))
    assert set(second.training.series_uids) == {"9.9", *seen}
    assert second.training.command.startswith("carina train segmentation --data elsewhere && ")
    assert second.training.seconds > 100.0
    assert second.training.epochs == 2 * first.training.epochs
    # The scans of both runs are the same and count once.
    assert set(second.training.data) == set(earlier.data)


def test_held_out_scans_that_the_first_weights_learned_from_are_said(
    store: Store, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    train_segmentation(store, tmp_path / "first", replace(SMALL, split="none", monitor="loss"))
    assert "already" not in caplog.text
    _, card = train_segmentation(store, tmp_path / "second", replace(SMALL, init_from=tmp_path / "first" / "model"))
    held_out = len(split_scans(store, SMALL)[1])
    assert card.measured_on.endswith(
        f"{held_out} held-out scans, {held_out} of which trained the weights it began with"
    )
    assert f"{held_out} of {held_out} held-out scans trained the weights" in caplog.text


def test_weights_of_another_network_are_no_start(store: Store, tmp_path: Path) -> None:
    train_segmentation(store, tmp_path / "first", SMALL)
    with pytest.raises(UsageError, match="another network"):
        train_segmentation(
            store, tmp_path / "second", replace(SMALL, filters=2, init_from=tmp_path / "first" / "model")
        )


TINY = NoduleSettings(
    batch=4,
    crops_per_epoch=16,
    validation_crops=8,
    first_filters=2,
    flips=2,
    validation_share=0.34,
    fit=replace(NoduleSettings().fit, epochs=2),
)


@pytest.fixture(scope="session")
def nodule_run(store: Store, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, FitResult, Card]:
    folder = tmp_path_factory.mktemp("nodule")
    return folder, *train_nodule(store, folder, TINY)


def test_nodule_goes_from_a_store_to_weights_that_load(nodule_run: tuple[Path, FitResult, Card]) -> None:
    folder, result, card = nodule_run
    module, loaded = load_model(folder / "model")
    assert loaded == card
    assert card.flips == 2
    assert module(torch.zeros(1, 1, 32, 48, 48)).shape == (1, 2)
    assert card.metrics["val_auc"] == result.best


def test_tensorboard_shows_figures_curves_and_the_most_mistaken_crops(
    nodule_run: tuple[Path, FitResult, Card],
) -> None:
    """M36."""
    tags = EventAccumulator(str(nodule_run[0])).Reload().Tags()
    assert {"auc/val", "loss/train", "throughput", "best/val_auc"} <= set(tags["scalars"])
    assert {"roc/val", "mistaken/val"} <= set(tags["images"])
    assert {"probability/val_positives", "probability/val_negatives"} <= set(tags["histograms"])
    assert "precision_recall/val" in tags["tensors"]
    assert (nodule_run[0] / "log.jsonl").is_file()


@pytest.mark.parametrize(("monitor", "choose"), [("loss", min), ("auc", max), ("f1", max)])
def test_the_best_epoch_is_chosen_by_the_named_metric(store: Store, tmp_path: Path, monitor: str, choose) -> None:
    result, _ = train_nodule(store, tmp_path, replace(TINY, monitor=monitor, fit=replace(TINY.fit, epochs=3)))
    assert result.best == choose(record[f"val_{monitor}"] for record in result.history)


def test_calibration_never_makes_the_held_out_answers_less_likely(
    store: Store, nodule_run: tuple[Path, FitResult, Card]
) -> None:
    module, card = load_model(nodule_run[0] / "model")
    _, validation = split_scans(store, TINY)
    candidates = Candidates(TINY, (-1000.0, 400.0), SPACING, (32, 48, 48))
    held_out = held_out_batches(validation, TINY, (32, 48, 48))
    found, truth = answers(candidates, module, held_out, torch.device("cpu"))
    entropy = [
        np.mean(np.logaddexp(0, scale * found) - truth * scale * found)
        for scale in (1.0, card.calibration.classification)
    ]
    assert entropy[1] <= entropy[0] + 1e-6


def test_held_out_candidates_of_one_class_are_refused_before_training(store: Store, tmp_path: Path) -> None:
    # The tenth that is held out is the one scan without nodules.
    with pytest.raises(TrainingError, match=r"0 of \d+ held-out candidates are nodules; .* --split"):
        train_nodule(store, tmp_path / "run", replace(TINY, split="tenth"))
    assert not (tmp_path / "run").exists()


def test_the_error_of_the_calibration_on_its_own_candidates_is_named_so(
    nodule_run: tuple[Path, FitResult, Card],
) -> None:
    named = {name for name in nodule_run[2].metrics if name.startswith("ece_")}
    assert named == {"ece_raw", "ece_calibrated_in_sample"}


def test_a_batch_of_candidates_is_balanced(store: Store) -> None:
    made = candidate_batches(store.scans, TINY, (32, 48, 48), {})
    targets = torch.cat([made.make(0, index).crops.target for index in range(made.count)])
    assert targets.float().mean() == 0.5


def test_one_batch_of_candidates_is_overfitted(store: Store) -> None:
    settings = replace(TINY, augment=None, smoothing=0.0)
    batch = candidate_batches(store.scans, settings, (32, 48, 48), {}).make(0, 0)
    torch.manual_seed(1)
    model = build({"kind": "nodule", "first_filters": 2})
    experiment = Candidates(settings, (-1000.0, 400.0), SPACING, (32, 48, 48))
    result = fit(experiment, model, Batches(1, lambda e, i: batch), settings=FitSettings(epochs=30, lr=0.01))
    assert result.history[-1]["train_loss"] < 0.1


def test_mined_candidates_are_parted_by_class(store: Store, tmp_path: Path) -> None:
    scan = store.scans[3]
    center = scan.geometry.to_lps([20, 30, 40])
    other = scan.geometry.to_lps([21, 33, 45])
    rows = [(scan.series_uid, *center, 0), (scan.series_uid, *other, 1), ("9.9", *center, 0)]
    text = "seriesuid,coordX,coordY,coordZ,class\n" + "".join(",".join(map(str, row)) + "\n" for row in rows)
    (tmp_path / "mined.csv").write_text(text)
    found = read_mined(tmp_path / "mined.csv", store.scans)
    assert list(found) == [scan.key]
    np.testing.assert_allclose(found[scan.key].wrong, [[20, 30, 40]], atol=1e-6)
    np.testing.assert_allclose(found[scan.key].right, [[21, 33, 45]], atol=1e-6)
    ignoring = write_scan(tmp_path, 3, nodules=2)
    label = np.load(tmp_path / ignoring.key / "label.npy", mmap_mode="r+")
    label[20, 30, 40] = IGNORE
    label.flush()
    scan = replace(ignoring, folder=str(tmp_path / ignoring.key))
    assert read_mined(tmp_path / "mined.csv", [scan])[scan.key].wrong.shape == (0, 3)


def test_train_from_the_command_line(store: Store, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = tmp_path / "run"
    arguments = f"train segmentation --data {store.folder} -o {run} --epochs 1 --batch 2 --crops-per-epoch 2 "
    with pytest.raises(SystemExit) as ended:
        main([*arguments.split(), "--filters", "2", "--licence", "made up=CC0", "--quiet", "--device", "cpu"])
    assert ended.value.code == 0
    assert "model.safetensors" in capsys.readouterr().out
    _, card = load_model(run / "model")
    assert card.training.data[0].licence == "CC0"
    assert (card.training.epochs, card.spec["first_filters"]) == (1, 2)


@pytest.mark.parametrize("option", ["--batch 0", "--validation-crops 0", "--minutes 0", "--epochs 0", "--seed -1"])
def test_numbers_that_train_nothing_are_usage_errors(
    option: str, store: Store, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["train", "nodule", "--data", str(store.folder), "-o", str(tmp_path), *option.split()]
    with pytest.raises(SystemExit) as ended:
        main([*words, "--quiet", "--device", "cpu"])
    assert ended.value.code == 2
    assert "; expected" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("device", "message"), [("foo", "unknown device 'foo'"), ("cuda", "device 'cuda' is not present")]
)
def test_a_device_that_is_not_there_is_a_usage_error(
    device: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(SystemExit) as ended:
        main(["train", "nodule", "--data", str(tmp_path), "-o", str(tmp_path), "--device", device])
    assert ended.value.code == 2
    assert message in capsys.readouterr().err


def test_train_over_another_run_is_a_usage_error(
    store: Store, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "checkpoint.pt").write_bytes(b"")
    with pytest.raises(SystemExit) as ended:
        main(["train", "nodule", "--data", str(store.folder), "-o", str(tmp_path), "--quiet", "--device", "cpu"])
    assert ended.value.code == 2
    assert "holds a run already" in capsys.readouterr().err


@pytest.mark.slow
def test_a_killed_training_goes_on_and_ends_with_the_same_weights(store: Store, tmp_path: Path) -> None:
    def command(run: Path) -> list[str]:
        options = "--epochs 4 --batch 2 --crops-per-epoch 2 --filters 2 --device cpu --quiet --resume"
        words = ["train", "segmentation", "--data", str(store.folder), "-o", str(run), *options.split()]
        return [sys.executable, "-c", "from carina.cli import main; main()", *words]

    with subprocess.Popen(command(tmp_path / "killed")) as process:
        deadline = time.monotonic() + 120
        while not (tmp_path / "killed" / "checkpoint.pt").exists() and time.monotonic() < deadline:
            time.sleep(0.01)
        process.kill()
    assert not (tmp_path / "killed" / "model.json").exists()
    for run in ("killed", "whole"):
        subprocess.run(command(tmp_path / run), check=True, timeout=300)
    assert load_model(tmp_path / "killed" / "model")[1].sha256 == load_model(tmp_path / "whole" / "model")[1].sha256


@pytest.mark.slow
def test_the_command_learns_the_same_in_two_processes(store: Store, tmp_path: Path) -> None:
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    options = "--epochs 2 --batch 2 --crops-per-epoch 8 --accumulate 2 --filters 2 --split none --device cpu --quiet"
    for run, start in (("one", []), ("two", torchrun)):
        words = ["-m", "carina", "train", "segmentation", "--data", str(store.folder), "-o", str(tmp_path / run)]
        subprocess.run([sys.executable, *start, *words, *options.split()], check=True, timeout=300)
    one, two = (dict(load_model(tmp_path / run / "model")[0].named_parameters()) for run in ("one", "two"))
    for name, parameter in one.items():
        torch.testing.assert_close(two[name], parameter, rtol=1e-4, atol=1e-5)


@pytest.mark.slow
def test_of_two_processes_the_first_alone_writes_and_both_hold_its_network(store: Store, tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text(
        "from test_tasks import *\n"
        f"folder, rank = Path({str(tmp_path)!r}), os.environ['RANK']\n"
        "settings = replace(TINY, fit=replace(TINY.fit, epochs=1, accumulate=2))\n"
        f"_, card = train_nodule(Store(Path({str(store.folder)!r})), folder / rank, settings)\n"
        "(folder / f'answered{rank}').write_text(str(card.metrics['ece_raw']))\n"
    )
    subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", program],
        check=True,
        timeout=300,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), *sys.path])},
    )
    assert {"held_out.csv", "model.safetensors", "model.json"} <= {path.name for path in (tmp_path / "0").iterdir()}
    assert not (tmp_path / "1").exists()
    assert (tmp_path / "answered0").read_text() == (tmp_path / "answered1").read_text()


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_demo_train_in_small_goes_from_nothing_to_its_table_and_on_from_where_it_was(tmp_path: Path) -> None:
    """Every command of the tutorial once. It stands here, with many tests, so that it does not run last and alone."""
    page = tmp_path / "page.md"
    page.write_text("before\n<!-- table -->\nold\n<!-- end of table -->\nafter\n")
    command = [sys.executable, "-m", "benchmarks.train_from_nothing", "--size", "tiny", "--jobs", "1"]
    command += ["-o", str(tmp_path / "run"), "--page", str(page)]
    first = subprocess.run(command, cwd=Path(__file__).parents[1], capture_output=True, text=True, check=False)
    assert first.returncode == 0, first.stderr[-3000:]
    text = page.read_text()
    assert text.startswith("before\n<!-- table -->")
    assert text.endswith("<!-- end of table -->\nafter\n")
    assert "old" not in text
    for variant in ("balanced, augmented", "not balanced", "not augmented", "neither"):
        assert re.search(rf"\| {variant} \| [01]\.\d{{3}} ", text), variant
    assert re.search(r"FROC average \| [01]\.\d{3} ", text)
    again = subprocess.run(command, cwd=Path(__file__).parents[1], capture_output=True, text=True, check=False)
    assert again.returncode == 0, again.stderr[-3000:]
    made_again = re.findall(r"^carina (\w+)", again.stdout, re.MULTILINE)
    assert made_again == ["runs"], "only the comparison of runs is made anew"

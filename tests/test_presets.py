"""Presets hold differences only, refuse what they do not know by its path, and give way to the command line."""

import json
import tomllib
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

import pytest

from carina.cli import main, parse
from carina.cli.train_scans import Segmentation
from carina.data.augment import AugmentSettings
from carina.errors import UsageError
from carina.learn.checkpoint import read_checkpoint
from carina.tasks.marking import SegmentationSettings
from carina.tasks.preset import Preset, load_preset, shipped_presets


@pytest.mark.parametrize("name", shipped_presets())
def test_a_shipped_preset_holds_nothing_but_differences(name: str) -> None:
    def check(given: dict[str, Any], defaults: Any, where: str) -> None:
        for key, value in given.items():
            now = getattr(defaults, key)
            if is_dataclass(now):
                check(value, now, f"{where}.{key}")
            else:
                assert (tuple(value) if isinstance(value, list) else value) != now, f"{where}.{key} is the default"

    check(tomllib.loads(shipped_presets()[name]), Preset(), name)
    assert load_preset(name).summary


def test_laptop_and_gpu_are_shipped() -> None:
    assert {"laptop", "gpu"} <= set(shipped_presets())
    assert load_preset("gpu").segmentation.network == "unet3d"
    load_preset("gpu").segmentation.spec()


def test_what_a_preset_does_not_name_stays_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text("[segmentation.fit]\nlr = 1\n")
    expected, found = SegmentationSettings(), load_preset(str(path)).segmentation
    assert found.fit.lr == 1.0
    assert isinstance(found.fit.lr, float)
    for field in fields(expected):
        if field.name != "fit":
            assert getattr(found, field.name) == getattr(expected, field.name)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[segmentation.fit]\nlearning_rate = 1", r"mine\.toml: segmentation\.fit\.learning_rate is no setting"),
        ("[segmentaton]\nbatch = 1", r"mine\.toml: segmentaton is no setting"),
        ("[nodule.augment]\nshare = 0.5", r"nodule\.augment\.share is no setting"),
        ("[nodule]\nbatch = 'many'", r"nodule\.batch is 'many': Expected `int`, got `str`"),
        ("[segmentation]\ncrop_zyx = [1, 2]", r"segmentation\.crop_zyx is \[1, 2\]"),
        ("[segmentation]\nnetwork = 'resnet'", r"segmentation\.network is 'resnet'"),
        ("[segmentation]\nloss = 'nonsense'", r"segmentation\.loss is 'nonsense'"),
        ("[segmentation]\nfit = 3", r"segmentation\.fit is 3"),
        ("[segmentation", "is not TOML"),
    ],
)
def test_what_a_preset_names_wrongly_is_refused_with_its_path(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(text)
    with pytest.raises(UsageError, match=message):
        load_preset(str(path))


def test_false_leaves_out_what_may_be_left_out(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text("[nodule]\naugment = false\n[segmentation.augment]\nflip = false\n[malignancy.fit]\nema = false")
    preset = load_preset(str(path))
    assert preset.nodule.augment is None
    assert preset.malignancy.fit.ema is None
    assert isinstance(preset.segmentation.augment, AugmentSettings)


def test_an_unknown_preset_is_refused_by_name() -> None:
    with pytest.raises(UsageError, match=r"no preset 'huge'; choose gpu, laptop"):
        load_preset("huge")


def test_the_command_line_goes_before_the_preset() -> None:
    words = ["train", "segmentation", "--data", "x", "-o", "y", "--preset", "gpu", "--lr", "0.5", "--network", "unet"]
    command = parse(words).task  # type: ignore[attr-defined]
    assert isinstance(command, Segmentation)
    preset = load_preset("gpu").segmentation
    settled = command._settled(preset, network=command.network)
    assert (settled.fit.lr, settled.network) == (0.5, "unet")
    assert (settled.batch, settled.fit.precision) == (preset.batch, preset.fit.precision)


def test_the_resolved_configuration_lies_in_run_and_checkpoint(store: Any, tmp_path: Path) -> None:
    path, run = tmp_path / "mine.toml", tmp_path / "run"
    path.write_text(
        "[segmentation]\nfilters = 2\nbatch = 2\ncrops_per_epoch = 8\n[segmentation.fit]\nepochs = 1\nlr = 0.25\n"
    )
    words = f"train segmentation --data {store.folder} -o {run} --preset {path} --crops-per-epoch 2 -q --device cpu"
    with pytest.raises(SystemExit) as ended:
        main(words.split())
    assert ended.value.code == 0
    logged = json.loads((run / "log.jsonl").read_text().splitlines()[0])["settings"]
    checkpoint = read_checkpoint(run / "checkpoint.pt")
    kept = {**checkpoint["settings"], **checkpoint["config"]}
    for settings in (logged, kept):
        values = [settings[name] for name in ("filters", "batch", "crops_per_epoch", "lr", "size_power")]
        assert values == [2, 2, 2, 0.25, SegmentationSettings().size_power]

"""Networks of torchvision, filled with random weights: what is asserted is the way, not the answer."""

from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from carina.cli import main
from carina.data.pictures import open_photo
from carina.errors import UsageError, WeightsError
from carina.models.pretrained import (
    classify,
    import_torchvision,
    list_architectures,
    load_pretrained,
    segment,
)

pytestmark = pytest.mark.skipif(find_spec("torchvision") is None, reason="torchvision (extra vision) is not installed")

SMALL, SEGMENTS = "mobilenet_v3_small", "lraspp_mobilenet_v3_large"
WITH_BACKBONE = (SEGMENTS, "fcn_resnet50")


@pytest.fixture(scope="module")
def photo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("photo") / "noise.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (70, 90, 3), np.uint8)).save(path)
    return path


def random_weights(name: str, folder: Path) -> Path:
    models = import_torchvision().models
    torch.manual_seed(0)
    options = {"weights_backbone": None} if name in WITH_BACKBONE else {}
    torch.save(models.get_model(name, weights=None, **options).state_dict(), folder / f"{name}.pth")
    return folder / f"{name}.pth"


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return random_weights(SMALL, tmp_path_factory.mktemp("weights"))


def test_the_list_names_function_class_and_file() -> None:
    found = {one.name: one for one in list_architectures()}
    assert found["resnet101"].class_name == "ResNet"
    assert found["resnet101"].parameters == 44_549_160
    assert found["resnet101"].file.startswith("resnet101-")
    assert found["fcn_resnet50"].kind == "segmentation"
    assert len(found) > 80


def test_a_classifier_gives_five_of_a_thousand_classes(small: Path, photo: Path) -> None:
    pretrained = load_pretrained(SMALL, small)
    answers = classify(pretrained, open_photo(photo))
    assert len(answers) == 5
    assert [p for _, p in answers] == sorted((p for _, p in answers), reverse=True)
    assert {name for name, _ in answers} <= set(pretrained.categories)
    assert len(pretrained.categories) == 1000


def test_resnet101_answers_a_photo_and_fcn_resnet50_marks_it(tmp_path: Path, photo: Path) -> None:
    """The two that the mission names."""
    image = open_photo(photo)
    answers = classify(load_pretrained("resnet101", random_weights("resnet101", tmp_path)), image)
    assert len(answers) == 5
    p = segment(load_pretrained("fcn_resnet50", random_weights("fcn_resnet50", tmp_path)), image)
    assert p.shape == (21, image.height, image.width)
    torch.testing.assert_close(p.sum(0), torch.ones(p.shape[1:]))


def test_the_network_is_in_evaluation_mode_and_repeats_itself(small: Path, photo: Path) -> None:
    pretrained = load_pretrained(SMALL, small)
    assert not any(module.training for module in pretrained.network.modules())
    assert classify(pretrained, open_photo(photo)) == classify(pretrained, open_photo(photo))


@pytest.mark.parametrize("training", [False, True])
def test_running_statistics_move_in_training_mode_only(small: Path, photo: Path, training: bool) -> None:
    pretrained = load_pretrained(SMALL, small)
    seen = torch.stack([pretrained.transform(open_photo(photo))] * 2)
    before = {name: value.clone() for name, value in pretrained.network.named_buffers()}
    pretrained.network.train(training)(seen)
    changed = [name for name, value in pretrained.network.named_buffers() if not torch.equal(value, before[name])]
    assert bool(changed) is training


def test_a_segmentation_network_gives_a_class_per_pixel(
    tmp_path: Path, photo: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    weights = random_weights(SEGMENTS, tmp_path)
    p = segment(load_pretrained(SEGMENTS, weights), open_photo(photo))
    with Image.open(photo) as opened:
        assert p.shape == (21, opened.height, opened.width)
    torch.testing.assert_close(p.sum(0), torch.ones(p.shape[1:]))
    output = tmp_path / "classes.png"
    arguments = ["run", str(photo), "--model", SEGMENTS, "--weights", str(weights), "-o", str(output)]
    with pytest.raises(SystemExit) as ended:
        main(["pretrained", *arguments])
    assert ended.value.code == 0
    shares = [float(line.split("%")[0]) for line in capsys.readouterr().out.splitlines() if "%" in line]
    assert sum(shares) == pytest.approx(100, abs=1)
    with Image.open(output) as written:
        assert written.size == (p.shape[2], p.shape[1])


def test_a_classifier_has_no_pixels_to_write(small: Path, photo: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["pretrained", "run", str(photo), "--model", SMALL, "--weights", str(small), "-o", "classes.png"])
    assert ended.value.code == 2
    assert "networks that segment" in capsys.readouterr().err


def test_the_command_prints_the_answer(small: Path, photo: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["pretrained", "run", str(photo), "--model", SMALL, "--weights", str(small)])
    assert ended.value.code == 0
    assert len(capsys.readouterr().out.splitlines()) == 5


def test_without_weights_the_error_names_the_file_it_looked_for(
    tmp_path: Path, photo: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    with pytest.raises(SystemExit) as ended:
        main(["pretrained", "run", str(photo), "--offline"])
    assert ended.value.code == 1
    said = capsys.readouterr().err
    assert str(tmp_path / "hub" / "checkpoints" / "resnet101-") in said
    assert "--weights" in said


def test_a_network_that_cannot_be_reached_is_a_clear_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:9")
    with pytest.raises(WeightsError, match=r"no weights at .*mobilenet_v3_small-.*could not be fetched"):
        load_pretrained(SMALL)
    assert not list(tmp_path.rglob("*.pth"))


def test_weights_of_another_network_are_refused(small: Path) -> None:
    with pytest.raises(WeightsError, match=r"does not hold the weights of resnet18 \(Missing key"):
        load_pretrained("resnet18", small)


def test_a_file_that_holds_no_weights_is_refused(tmp_path: Path) -> None:
    (tmp_path / "w.pth").write_bytes(b"no weights")
    with pytest.raises(WeightsError, match="not a readable file"):
        load_pretrained(SMALL, tmp_path / "w.pth")


def test_an_unknown_network_is_a_usage_error() -> None:
    with pytest.raises(UsageError, match="resnet1001"):
        load_pretrained("resnet1001")

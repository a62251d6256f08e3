"""One command goes from scans to a folder of weights that detects, and goes on where it was stopped."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from ball_chest import GRID, MIDDLE, chest
from carina.cli import main
from carina.data.cohort import write_scan
from carina.io.luna import Annotation, read_candidates
from carina.io.uid import made_uid
from carina.models.card import load_card
from carina.pipeline import Detector
from carina.volume import Source

PRESET = """
summary = "as small as can be"
[cohort]
mined_scans = 2
[segmentation]
filters = 4
batch = 4
crop_zyx = [4, 32, 32]
crops_per_epoch = 160
split = "none"
monitor = "loss"
augment = false
[segmentation.fit]
epochs = 2
lr = 0.01
[nodule]
first_filters = 2
batch = 4
crops_per_epoch = 16
split = "none"
monitor = "loss"
[nodule.fit]
epochs = 1
[malignancy]
batch = 4
crops_per_epoch = 8
split = "none"
monitor = "loss"
[malignancy.fit]
epochs = 1
"""


NO_NODULE = ((-55.0, 0.0, -45.0), 6.0)
"""A ball that the truth does not list, so that the calibration has false candidates whatever the training came to."""


def write_cohort(folder: Path, scans: int, *unlisted: tuple[tuple[float, float, float], float]) -> None:
    """Chests with two balls each as nodules; the made-up rule calls the larger ones malignant."""
    rng = np.random.default_rng(len(folder.name))
    position = GRID.to_lps(np.stack(np.indices(GRID.shape_zyx), -1)) - MIDDLE
    for number in range(scans):
        uid = made_uid("chest", folder.name, number)
        balls = [((side + rng.uniform(-8, 8), *rng.uniform(-15, 15, 2)), r) for side, r in ((-55, 4.0), (55, 7.0))]
        volume = chest(*balls, *unlisted, hu=60.0)
        mask, rows = np.zeros(GRID.shape_zyx, np.uint8), []
        for label, (center, radius) in enumerate(balls, 1):
            mask[np.linalg.norm(position - center, axis=-1) < radius] = label
            x, y, z = MIDDLE + center
            volume_mm3 = 4 / 3 * np.pi * radius**3
            rows.append(Annotation(uid, (float(x), float(y), float(z)), 2 * radius, volume_mm3, "solid", label))
        negatives = MIDDLE + np.array([[-40.0, 40.0, 30.0], [60.0, -40.0, -30.0]])
        volume = replace(volume, source=Source(series_uid=uid))
        write_scan(folder, volume, mask, rows, negatives, patient_id=uid, origin="phantom")


@pytest.mark.slow
def test_from_scans_to_weights_and_on_from_where_it_was(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    work = tmp_path / "work"
    write_cohort(work / "train", 4)
    write_cohort(work / "held-out", 3, NO_NODULE)
    (tmp_path / "small.toml").write_text(PRESET)
    words = ["recipe", "-o", str(work), "--preset", str(tmp_path / "small.toml"), "--malignancy", "--jobs", "1", "-q"]
    for _ in range(2):
        with pytest.raises(SystemExit) as ended:
            main([*words, "--device", "cpu"])
        assert ended.value.code == 0, capsys.readouterr().err
    weights = work / "weights"
    detector = Detector.load(weights, device="cpu")
    card = load_card(weights / "nodule")
    assert set(card.operating_points) == {"high", "balanced", "specific"}
    assert "3 held-out phantoms" in card.measured_on
    assert card.training.seconds == load_card(work / "nodule" / "model").training.seconds
    assert detector.segmenter.card.spec["first_filters"] == 4
    mined = {candidate.series_uid for candidate in read_candidates(work / "mined.csv")}
    assert mined
    assert mined <= {path.stem for path in work.glob("train/subset*/*.mhd")}
    assert load_card(work / "malignancy" / "model").task == "malignancy"
    assert not (weights / "malignancy.safetensors").exists()


def test_a_device_that_is_not_there_is_refused_before_anything_is_made(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["recipe", "-o", str(tmp_path / "work"), "--device", "foo", "--jobs", "1"])
    assert ended.value.code == 2
    assert "unknown device 'foo'" in capsys.readouterr().err
    assert not (tmp_path / "work").exists()

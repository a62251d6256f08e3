"""M31: the second stage: which crops the network is given, and how both stages become one probability."""

from pathlib import Path

import numpy as np
import pytest
import torch

from carina.ct.lungs import LungMask
from carina.ct.preprocess import PreparedScan
from carina.geometry import Geometry, Vector3
from carina.hu import AIR, normalise
from carina.models.card import Calibration, load_model
from carina.pipeline.classify import classify
from carina.pipeline.runtime import Network
from small_models import random_network

HU = np.random.default_rng(0).integers(-1100, 500, (40, 60, 64)).astype(np.int16)
GRID = Geometry.from_axes(HU.shape, spacing_zyx_mm=(1.5, 1, 1), origin_lps=(-20, 30, 7))
NO_LUNGS = np.zeros(HU.shape, bool)
SCAN = PreparedScan(HU, NO_LUNGS, GRID, LungMask(NO_LUNGS, GRID, 0.0))


def places(centers_zyx: list[tuple[float, float, float]]) -> list[Vector3]:
    return [tuple(map(float, position)) for position in GRID.to_lps(centers_zyx)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("nodule")


@pytest.fixture(scope="module")
def network(folder: Path) -> Network:
    return random_network(folder, "nodule", kind="nodule", first_filters=1)


def expected(folder: Path, centers: list[tuple[int, int, int]]) -> list[float]:
    """One crop at a time, cut from a scan that is padded with air."""
    module, card = load_model(folder / "nodule")
    padded = np.pad(HU.astype(np.float32), 48, constant_values=AIR)
    answers = []
    for z, y, x in centers:
        crop = padded[z + 32 : z + 64, y + 24 : y + 72, x + 24 : x + 72]
        with torch.inference_mode():
            logits = module(torch.from_numpy(normalise(crop, card.preprocessing.clip_hu))[None, None])
        answers.append(float(torch.softmax(logits.double(), 1)[0, 1]))
    return answers


CENTERS = [(20, 30, 32), (0, 0, 0), (39, 59, 63), (3, 57, 20), (20, 31, 32)]


@pytest.mark.parametrize("batch", [1, 2, 4, 16])
def test_every_candidate_gets_the_answer_for_the_crop_around_it(network, folder, batch):
    found = classify(SCAN, places(CENTERS), network, batch=batch)
    np.testing.assert_allclose(found, expected(folder, CENTERS), atol=1e-6)
    assert len(set(found.round(9))) == len(CENTERS)


def test_the_voxel_nearest_to_the_centre_is_the_middle_of_the_crop(network):
    near, same = classify(SCAN, places([(19.6, 30.4, 31.51), (20, 30, 32)]), network)
    assert near == pytest.approx(same, abs=1e-9)


def test_flips_average_the_log_odds_of_mirrored_crops(network, folder):
    module, card = load_model(folder / "nodule")
    crop = torch.from_numpy(normalise(HU[4:36, 6:54, 8:56].astype(np.float32), card.preprocessing.clip_hu))[None, None]
    with torch.inference_mode():
        each = [module(crop.flip(axes))[0].double() for axes in ([], [4], [3], [2], [3, 4], [2, 4], [2, 3], [2, 3, 4])]
    log_odds = [float(answer[1] - answer[0]) for answer in each]
    assert np.ptp(log_odds) > 1e-4
    for flips in (1, 4, 8):
        (found,) = classify(SCAN, places([(20, 30, 32)]), network, flips=flips)
        assert found == pytest.approx(1 / (1 + np.exp(-np.mean(log_odds[:flips]))), abs=1e-6)


@pytest.mark.parametrize("batch", [1, 16])
def test_only_what_the_first_look_leaves_open_is_looked_at_again(network, batch):
    one = classify(SCAN, places(CENTERS), network, batch=batch)
    eight = classify(SCAN, places(CENTERS), network, flips=8, batch=batch)
    assert np.abs(one - eight).min() > 1e-6
    cut = float(np.median(one))
    found = classify(SCAN, places(CENTERS), network, flips=8, again_above=cut, batch=batch)
    np.testing.assert_allclose(found, np.where(one >= cut, eight, one), atol=1e-6)
    assert 0 < (one >= cut).sum() < len(CENTERS)


def test_answers_are_probabilities(network):
    found = classify(SCAN, places(CENTERS), network)
    assert np.all((found > 0) & (found < 1))


def test_no_candidates_give_no_answers(network):
    assert classify(SCAN, [], network).shape == (0,)


def test_progress_rises_to_one(network):
    seen: list[float] = []
    classify(SCAN, places(CENTERS), network, batch=2, progress=seen.append)
    assert seen == [0.4, 0.8, 1.0]
    seen.clear()
    classify(SCAN, places(CENTERS), network, flips=4, batch=2, progress=seen.append)
    assert seen == [0.2, 0.4, 0.5, 0.7, 0.9, 1.0]


def join(first: list[float], second: list[float], **calibration: float) -> np.ndarray:
    return Calibration("test", **calibration).probability(np.array(first), np.array(second))


def test_without_calibration_the_second_stage_decides():
    second = [0.1, 0.5, 0.93]
    np.testing.assert_allclose(join([0.9, 0.2, 0.5], second), second)


def test_the_stages_are_joined_by_their_log_odds():
    found = join([0.8], [0.3], intercept=-1.0, segmentation=0.5, classification=2.0)
    odds = np.exp(-1.0) * (0.8 / 0.2) ** 0.5 * (0.3 / 0.7) ** 2
    assert found[0] == pytest.approx(odds / (1 + odds))


def test_a_stage_that_is_certain_does_not_silence_the_other():
    low, high = join([1.0, 1.0], [0.0, 1.0], segmentation=1.0)
    assert 0 < low < high < 1
    assert low == pytest.approx(0.5)

"""M21, M31, M35, M37: Carina has none of the faults that the textbook solution is known for, one test each."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from carina.ct.crops import cut_crops
from carina.ct.lungs import LungMask
from carina.ct.preprocess import PreparedScan, Preprocessing
from carina.ct.resample import analysis_grid, resample
from carina.data.augment import AugmentSettings, apply, draw
from carina.evaluate.froc import froc
from carina.evaluate.match import match
from carina.findings import Finding
from carina.geometry import Geometry
from carina.hu import AIR
from carina.learn.optimise import training_mode
from carina.models.nodule import NoduleNet
from carina.pipeline.classify import classify
from carina.pipeline.diagnose import diagnose
from carina.pipeline.group import group
from carina.tasks.malignancy import freeze
from carina.volume import Volume
from froc_cohorts import detections, nodules
from small_models import random_network

SPACING = (1.5, 1.0, 1.0)


def finding(number: int, p_nodule: float, p_malignant: float) -> Finding:
    return Finding(number, (0.0, 0.0, 0.0), (0.0, 0.0, 0.0), 8.0, 268.0, -50.0, p_nodule, p_malignant, 0)


def ball(geometry: Geometry, center_lps: tuple[float, float, float], radius_mm: float) -> Volume:
    position = geometry.to_lps(np.stack(np.indices(geometry.shape_zyx), -1))
    distance = np.linalg.norm(position - center_lps, axis=-1)
    return Volume(np.where(distance < radius_mm, 0, -900).astype(np.int16), geometry)


def test_shift_moves_a_crop_and_needs_no_gpu():
    crops = torch.zeros(4, 1, 16, 24, 24)
    crops[:, :, 8, 12, 12] = 1000
    settings = replace(AugmentSettings.off(), shift_mm=6.0, chance=1.0)
    moved, _ = apply(crops, None, draw(torch.Generator().manual_seed(0), 4, settings), spacing_zyx_mm=SPACING)
    assert moved.device.type == "cpu"
    brightest = moved.flatten(1).argmax(1)
    assert (brightest != crops.flatten(1).argmax(1)).all()
    assert len(brightest.unique()) > 1


def test_without_candidates_nothing_is_classified(tmp_path):
    network = random_network(tmp_path, "nodule", kind="nodule", first_filters=1)
    grid = Geometry.from_axes((40, 60, 60), spacing_zyx_mm=SPACING)
    lungs = np.ones(grid.shape_zyx, bool)
    scan = PreparedScan(np.zeros(grid.shape_zyx, np.int16), lungs, grid, LungMask(lungs, grid, 5.0))
    found, _ = group(np.zeros(grid.shape_zyx, np.float32), lungs, grid, threshold=0.5, min_volume_mm3=0)
    assert found == []
    assert classify(scan, [candidate.center_lps for candidate in found], network).shape == (0,)


def test_the_patient_has_an_answer_and_the_finding_that_drove_it():
    answer = diagnose([finding(1, 0.9, 0.2), finding(2, 0.8, 0.5), finding(3, 0.3, 0.9)])
    assert answer.finding_id == 2
    assert answer.p_malignant == pytest.approx(0.4)


def test_being_a_nodule_is_not_being_malignant():
    sure, harmless = finding(1, 1.0, 0.1), finding(2, 0.6, 0.9)
    assert diagnose([sure, harmless]).finding_id == harmless.id
    assert diagnose([sure]).p_malignant == pytest.approx(0.1)


def test_a_nodule_fills_the_same_part_of_its_crop_whatever_the_voxels_of_the_scan():
    center, counts = (3.0, -4.0, 10.0), []
    for spacing in [(1.25, 0.6, 0.6), (2.5, 0.9, 0.9), (5.0, 0.75, 0.75)]:
        shape = tuple(round(120 / step) for step in spacing)
        volume = ball(Geometry.from_axes(shape, spacing_zyx_mm=spacing, origin_lps=(-60, -60, -50)), center, 9.0)
        preprocessing = Preprocessing()
        grid = analysis_grid(volume.geometry, preprocessing.spacing_zyx_mm)
        middle = np.rint(grid.to_zyx(center)).astype(np.int64)
        (crop,) = cut_crops(resample(volume, grid), middle[None], preprocessing.crop_zyx, AIR)
        counts.append(int((crop > -450).sum()))
    expected = 4 / 3 * np.pi * 9.0**3 / np.prod(SPACING)
    np.testing.assert_allclose(counts, expected, rtol=0.15)  # in voxels of the scans they differ six-fold


def test_the_smallest_region_is_kept_and_only_a_stated_volume_removes_it():
    grid = Geometry.from_axes((9, 9, 9), spacing_zyx_mm=SPACING)
    probability = np.zeros(grid.shape_zyx, np.float32)
    probability[4, 4, 4] = 0.9
    everywhere = np.ones(grid.shape_zyx, bool)
    assert len(group(probability, everywhere, grid, threshold=0.5, min_volume_mm3=1.5)[0]) == 1
    assert group(probability, everywhere, grid, threshold=0.5, min_volume_mm3=1.6)[0] == []


@pytest.mark.parametrize("corner", [(0, 0, 0), (39, 59, 63)])
def test_a_crop_at_the_border_is_padded_with_air_and_not_shifted(corner):
    scan = np.zeros((40, 60, 64), np.int16)
    scan[corner] = 700
    shape = Preprocessing().crop_zyx
    (crop,) = cut_crops(scan, np.array([corner]), shape, AIR)
    assert crop[tuple(side // 2 for side in shape)] == 700
    beyond = tuple(0 if place == 0 else -1 for place in corner)
    assert crop[beyond] == AIR


def test_a_point_of_a_turned_scan_keeps_its_voxel():
    axes = Rotation.from_euler("ZYX", [30, 20, 10], degrees=True).as_matrix()
    turned = Geometry.from_axes((20, 30, 40), spacing_zyx_mm=(2.5, 0.7, 0.8), origin_lps=(5, -60, 300), axes=axes)
    step = axes @ np.diag(turned.spacing_zyx_mm)
    by_hand = np.array([5, -60, 300]) + step @ (3, 17, 29)
    np.testing.assert_allclose(turned.to_lps((3, 17, 29)), by_hand)
    np.testing.assert_allclose(turned.to_zyx(by_hand), (3, 17, 29))


def test_running_statistics_of_frozen_blocks_do_not_drift():
    network = NoduleNet(first_filters=1)
    before = network.input_norm.running_mean.clone()
    freeze(network, 2)
    training_mode(network)
    network(torch.full((2, 1, 32, 48, 48), 5.0))
    assert torch.equal(network.input_norm.running_mean, before)
    freeze(free := NoduleNet(first_filters=1), 0)
    training_mode(free)
    free(torch.full((2, 1, 32, 48, 48), 5.0))
    assert not torch.equal(free.input_norm.running_mean, before)


@pytest.mark.parametrize("claim", ["2,16,16,16", "1,16,16,17", "1000000,16,16,16"])
def test_a_server_does_not_trust_the_shape_that_a_client_claims(claim):
    pytest.importorskip("sanic")
    from carina.serve.crops import parse_crops
    from carina.serve.problems import ProblemError

    body = bytes(2 * 16**3)
    assert parse_crops(body, {"dtype": "int16", "shape": "1,16,16,16"}, (16, 16, 16), 8).hu.shape == (1, 16, 16, 16)
    with pytest.raises(ProblemError):
        parse_crops(body, {"dtype": "int16", "shape": claim}, (16, 16, 16), 8)


def test_every_sensitivity_has_a_confidence_interval():
    truth = nodules([(uid, (0.0, 0.0, 0.0), 6.0) for uid in ("1.1", "1.2", "1.3", "1.4")])
    found = detections([("1.1", (0.0, 0.0, 0.0), 0.9), ("1.3", (1.0, 0.0, 0.0), 0.8), ("1.2", (8.0, 0.0, 0.0), 0.5)])
    result = froc(match(found, truth, scans=("1.1", "1.2", "1.3", "1.4")), bootstraps=200)
    low, high = result.average_interval
    assert 0 <= low < result.average < high <= 1
    assert len(result.sensitivity_interval) == len(result.rates)

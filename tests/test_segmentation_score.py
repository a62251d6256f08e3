"""Masks scored by voxel and by nodule, against plain loops."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from carina.errors import InputError
from carina.evaluate.segmentation import Overlap, overlap_of_scan, score_masks, summarise_overlap
from carina.geometry import Geometry
from carina.io import write_image

masks = hnp.arrays(np.uint8, (3, 4, 5), elements=st.sampled_from([0, 0, 1, 2, 255]))
predictions = hnp.arrays(np.uint8, (3, 4, 5), elements=st.sampled_from([0, 0, 1, 9]))


@given(predictions, masks)
def test_counts_are_those_of_the_judged_voxels(prediction, truth):
    judged = truth != 255
    scan = overlap_of_scan(prediction, truth).scan
    assert scan.both == ((prediction > 0) & (truth > 0) & judged).sum()
    assert scan.only_prediction == ((prediction > 0) & (truth == 0)).sum()
    assert scan.only_truth == ((prediction == 0) & (truth > 0) & judged).sum()


@given(masks)
def test_a_mask_agrees_with_itself(truth):
    result = overlap_of_scan(np.where(truth == 255, 0, truth), truth)
    assert result.scan.dice == 1
    assert all(overlap.recall == 1 for _, overlap in result.nodules)


def test_a_nodule_is_compared_with_the_regions_that_touch_it():
    truth = np.zeros((1, 1, 12), np.uint8)
    truth[..., 1:4] = 5
    prediction = np.zeros_like(truth)
    prediction[..., 3:6] = 1  # touches with one voxel of three
    prediction[..., 9:12] = 1  # lies elsewhere
    result = overlap_of_scan(prediction, truth)
    assert result.nodules == ((5, Overlap(both=1, only_prediction=2, only_truth=2)),)
    assert result.scan == Overlap(both=1, only_prediction=5, only_truth=2)


def test_regions_that_touch_at_a_corner_are_one():
    truth = np.zeros((2, 2, 2), np.uint8)
    truth[0, 0, 0] = 1
    prediction = np.zeros_like(truth)
    prediction[0, 0, 0] = prediction[1, 1, 1] = 1
    assert overlap_of_scan(prediction, truth).nodules[0][1].only_prediction == 1


def test_two_empty_masks_agree_and_have_no_precision():
    empty = np.zeros((2, 2, 2), np.uint8)
    scan = overlap_of_scan(empty, empty).scan
    assert scan.dice == 1
    assert np.isnan(scan.precision)
    assert np.isnan(scan.recall)


def test_a_missed_nodule_counts_with_dice_0_in_the_mean():
    truth = np.zeros((1, 1, 9), np.uint8)
    truth[..., 1], truth[..., 7] = 1, 2
    prediction = (truth == 1).astype(np.uint8)
    score = summarise_overlap([overlap_of_scan(prediction, truth)])
    assert score.mean_nodule_dice == 0.5
    assert (score.touched, score.n_nodules) == (1, 2)


def test_a_scan_without_a_prediction_is_an_error(tmp_path):
    geometry = Geometry.from_axes((2, 2, 2))
    for name in ("1.1", "1.2"):
        write_image(np.ones((2, 2, 2), np.uint8), geometry, tmp_path / "truth" / f"{name}.mha")
    write_image(np.ones((2, 2, 2), np.uint8), geometry, tmp_path / "found" / "1.1.nii.gz")
    with pytest.raises(InputError, match=r"1 of 2 scans, such as 1\.2"):
        score_masks(tmp_path / "found", tmp_path / "truth")


def test_masks_of_any_format_and_spelling_go_by_their_name(tmp_path):
    geometry = Geometry.from_axes((2, 2, 2))
    write_image(np.ones((2, 2, 2), np.uint8), geometry, tmp_path / "truth" / "SCAN.nii.gz")
    (tmp_path / "truth" / "SCAN.nii.gz").rename(tmp_path / "truth" / "SCAN.NII.GZ")
    write_image(np.ones((2, 2, 2), np.uint8), geometry, tmp_path / "found" / "SCAN" / "mask.mha")
    assert [scan.name for scan in score_masks(tmp_path / "found", tmp_path / "truth").scans] == ["SCAN"]


def test_masks_on_different_grids_are_refused(tmp_path):
    one = np.ones((2, 2, 2), np.uint8)
    write_image(one, Geometry.from_axes((2, 2, 2)), tmp_path / "truth" / "1.1.mha")
    write_image(one, Geometry.from_axes((2, 2, 2), origin_lps=(5.0, 0.0, 0.0)), tmp_path / "found" / "1.1.mha")
    with pytest.raises(InputError, match="different grids"):
        score_masks(tmp_path / "found", tmp_path / "truth")


def test_folders_without_masks_are_refused(tmp_path):
    with pytest.raises(InputError, match="no masks"):
        score_masks(tmp_path, tmp_path)

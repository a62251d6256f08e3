"""What a segmentation marked: figures of a batch that is counted by hand, and the picture of it."""

import math

import numpy as np
import pytest
import torch

from carina.tasks.marked import SIZES, Marked, MarkingMetrics, crop_overlaps, overlay

MARKED, LEFT = 2.0, -2.0
"""Logits of what is marked and what is not."""


def made(crops: int) -> Marked:
    """Crops of 2 slices of 4 x 4 voxels with nothing in them and nothing marked."""
    shape = (2 * crops, 1, 4, 4)
    return Marked(
        logits=torch.full(shape, LEFT),
        truth=torch.zeros(shape),
        weight=torch.ones(shape),
        size=torch.zeros(shape, dtype=torch.uint8),
        middle=torch.zeros(2 * crops, 4, 4),
        crops=crops,
    )


def batch() -> Marked:
    """Four crops: a nodule found in part, a nodule missed, 8 voxels marked wrongly, 7 voxels marked wrongly."""
    marked = made(4)
    # Crop 0, both slices: a nodule below 6 mm of 4 + 1 voxels, of which 3 are marked, and one voxel too many.
    marked.truth[0, 0, 0], marked.size[0, 0, 0] = 1, 1
    marked.truth[1, 0, 0, 0], marked.size[1, 0, 0, 0] = 1, 1
    marked.logits[0, 0, 0, :2] = MARKED
    marked.logits[1, 0, 0, 0] = MARKED
    marked.logits[1, 0, 3, 3] = MARKED
    # Crop 1: a nodule of 9 to 13 mm of 2 voxels is missed; what is marked beside it and on a third one is unknown.
    marked.truth[2, 0, 0, :3], marked.size[2, 0, 0, :3] = 1, 3
    marked.weight[2, 0, 0, 2] = 0
    marked.logits[2, 0, 0, 2] = MARKED
    marked.weight[3] = 0
    marked.logits[3] = MARKED
    # Crops 2 and 3 hold none.
    marked.logits[4, 0, :2] = MARKED
    marked.logits[6, 0, 0] = MARKED
    marked.logits[7, 0, 0, :3] = MARKED
    return marked


def test_the_figures_of_a_batch_are_those_counted_by_hand() -> None:
    metrics = MarkingMetrics()
    metrics.update(batch())
    found = metrics.compute()
    # 7 true voxels, 3 + 1 + 8 + 7 = 19 marked ones, 3 of both.
    assert found["recall"] == pytest.approx(3 / 7)
    assert found["precision"] == pytest.approx(3 / 19)
    assert found["dice"] == pytest.approx(2 * 3 / (7 + 19))
    assert found["touched"] == 1 / 2
    assert found["false_crops"] == 1 / 2
    by_size = [found[f"touched_{name}"] for name in SIZES]
    assert by_size[::2] == [1.0, 0.0]
    assert all(map(math.isnan, by_size[1::2]))


def test_a_second_batch_adds_up() -> None:
    once, twice = MarkingMetrics(), MarkingMetrics()
    empty = made(2)
    empty.logits[0] = MARKED
    for metrics in (once, twice):
        metrics.update(batch())
    twice.update(empty)
    assert twice.compute()["precision"] == pytest.approx(3 / (19 + 16))
    assert twice.compute()["false_crops"] == 2 / 4
    assert twice.compute()["recall"] == once.compute()["recall"]


def test_state_that_is_added_up_elsewhere_is_taken_back() -> None:
    one, other = MarkingMetrics(), MarkingMetrics()
    one.update(batch())
    other.state = 2 * one.state
    assert torch.equal(other.state, 2 * one.state)
    assert other.compute() == pytest.approx(one.compute(), nan_ok=True)


def test_overlaps_are_counted_by_crop() -> None:
    """Both, marked, true."""
    assert crop_overlaps(batch()).tolist() == [[3, 4, 5], [0, 0, 2], [0, 8, 0], [0, 7, 0]]


def test_the_picture_is_of_the_slice_with_most_nodule_truth_in_green_and_answer_in_red() -> None:
    marked = made(1)
    marked.middle[1] = -0.6  # a grey of 0.2
    marked.truth[0, 0, 0, 0] = 1
    marked.truth[1, 0, 0, :2] = 1
    marked.logits[:] = -40
    marked.logits[1, 0, 0, 1:3] = 40
    picture = overlay(marked)
    assert picture.shape == (4, 4, 3)
    expected = [[0.2, 0.7, 0.2], [0.7, 0.7, 0.2], [0.7, 0.2, 0.2], [0.2, 0.2, 0.2]]
    np.testing.assert_allclose(picture[0], expected, atol=1e-6)

"""Segmentation slice by slice: what the network is given, and that a smaller view does not change its answer."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from carina.hu import normalise
from carina.models.card import load_model
from carina.pipeline.runtime import Network
from carina.pipeline.segment import segment
from small_models import random_network


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("unet")


@pytest.fixture(scope="module")
def network(folder: Path) -> Network:
    return random_network(folder, "segmentation", kind="unet", in_channels=5, depth=3, first_filters=2)


def scan(*shape: int, seed: int = 0) -> np.ndarray:
    noise = ndimage.gaussian_filter(np.random.default_rng(seed).normal(size=shape), 1.5)
    return (noise * 2500 - 400).clip(-1200, 900).astype(np.int16)


def one_by_one(hu: np.ndarray, folder: Path) -> np.ndarray:
    """The plain way: each slice with two neighbours on each side, padded to a multiple of four."""
    module, card = load_model(folder / "segmentation")
    depth, height, width = hu.shape
    padded = np.pad(hu, ((2, 2), (0, -height % 4), (0, -width % 4)), mode="edge").astype(np.float32)
    scaled = torch.from_numpy(normalise(padded, card.preprocessing.clip_hu))
    with torch.inference_mode():
        slices = [torch.sigmoid(module(scaled[None, k : k + 5]))[0, 0].numpy() for k in range(depth)]
    return np.stack(slices)[:, :height, :width]


def in_double_precision(network: Network, folder: Path) -> Network:
    """The same network without rounding, so that a view one voxel too small shows."""
    module = load_model(folder / "segmentation")[0].double()

    def compute(batch: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
            return module(torch.from_numpy(batch).double()).float().numpy()

    return replace(network, compute=compute)


@pytest.mark.parametrize("shape", [(9, 24, 32), (1, 24, 32), (7, 21, 30), (5, 3, 5)])
@pytest.mark.parametrize("batch", [1, 4])
def test_each_slice_is_seen_with_its_neighbours_in_order(network, folder, shape, batch):
    hu = scan(*shape)
    np.testing.assert_allclose(segment(hu, network, batch=batch), one_by_one(hu, folder), atol=1e-5)


def test_the_answer_is_a_probability(network):
    p = segment(scan(6, 20, 20), network)
    assert p.dtype == np.float32
    assert p.min() >= 0
    assert p.max() <= 1
    assert p.std() > 0


@settings(max_examples=12, deadline=None)
@given(st.integers(0, 10_000), st.integers(90, 150), st.integers(90, 150))
def test_a_mask_saves_work_and_changes_nothing_within_it(network, folder, seed, height, width):
    rng = np.random.default_rng(seed)
    hu, inside = scan(7, height, width, seed=seed), np.zeros((7, height, width), bool)
    for _ in range(rng.integers(1, 3)):
        first = rng.integers(0, inside.shape)
        inside[tuple(slice(a, a + rng.integers(1, n // 3 + 2)) for a, n in zip(first, inside.shape, strict=True))] = 1
    exact = in_double_precision(network, folder)
    whole, part = segment(hu, exact, batch=3), segment(hu, exact, inside=inside, batch=3)
    near = ndimage.binary_dilation(inside, np.ones((3, 3, 3)))
    np.testing.assert_allclose(part[near], whole[near], atol=2e-7)


@pytest.mark.parametrize("depth", [1, 2, 4])
def test_the_view_grows_with_the_depth_of_the_network(tmp_path, depth):
    network = random_network(tmp_path, "segmentation", kind="unet", in_channels=3, depth=depth, first_filters=2)
    hu, inside = scan(3, 40, 208), np.zeros((3, 40, 208), bool)
    inside[1, 17:22, 101] = True
    exact = in_double_precision(network, tmp_path)
    whole, part = segment(hu, exact), segment(hu, exact, inside=inside)
    np.testing.assert_allclose(part[inside], whole[inside], atol=2e-7)
    assert (part != 0).mean() < 1 or depth == 4


def test_slices_far_from_the_mask_are_left_out(network):
    inside = np.zeros((12, 16, 16), bool)
    inside[10] = True
    p = segment(scan(12, 16, 16), network, inside=inside, batch=2)
    assert not p[:8].any()
    assert p[8:].all()


def test_an_empty_mask_gives_zeros(network):
    assert not segment(scan(5, 16, 16), network, inside=np.zeros((5, 16, 16), bool)).any()


def test_with_all_flips_a_mirrored_scan_gives_the_mirrored_answer(network):
    hu = scan(6, 16, 24)
    expected = segment(hu, network, flips=8)
    for axis in range(3):
        found = segment(np.flip(hu, axis), network, flips=8)
        np.testing.assert_allclose(np.flip(found, axis), expected, atol=1e-5)


def test_flips_average_the_answers_to_mirrored_scans(network):
    hu = scan(6, 16, 24)
    mirrored = np.flip(segment(np.flip(hu, 2), network), 2)
    np.testing.assert_allclose(segment(hu, network, flips=2), (segment(hu, network) + mirrored) / 2, atol=1e-6)


def test_progress_rises_to_one(network):
    seen: list[float] = []
    segment(scan(6, 16, 16), network, flips=2, batch=4, progress=seen.append)
    assert seen == sorted(seen)
    assert seen[-1] == 1
    assert len(seen) == 4

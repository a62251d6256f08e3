"""The 3-D U-Net has its size, travels, learns, and marks a scan block by block as it would in one piece."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from carina.data.store import Store
from carina.errors import UsageError
from carina.learn import Batches, FitSettings, fit
from carina.models.build import build
from carina.models.card import Card, load_model, save_model
from carina.models.unet3d import TILE_MARGIN, TILE_ZYX, UNet3d
from carina.pipeline.runtime import Network
from carina.pipeline.segment import segment
from carina.tasks.marking import segmentation_batches
from carina.tasks.segmentation import Segmentation, train_segmentation
from small_scans import SMALL, SPACING

TINY = {"kind": "unet3d", "depth": 2, "first_filters": 2}
BLOCKS = replace(SMALL, network="unet3d", crop_zyx=(8, 32, 32), filters=2)


def test_it_has_1401971_parameters() -> None:
    assert sum(p.numel() for p in UNet3d().parameters()) == 1_401_971


@settings(max_examples=4, deadline=None)
@given(sides=st.tuples(st.integers(1, 2), st.integers(1, 2), st.integers(1, 3)))
def test_it_gives_one_logit_per_voxel(sides: tuple[int, int, int]) -> None:
    shape = tuple(8 * side for side in sides)
    assert UNet3d(first_filters=2).eval()(torch.zeros(2, 1, *shape)).shape == (2, 1, *shape)


@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")
def test_it_can_be_scripted() -> None:
    network, x = UNet3d(first_filters=2).eval(), torch.randn(1, 1, 8, 16, 8)
    torch.testing.assert_close(torch.jit.script(network)(x), network(x))


def test_it_can_be_exported_for_any_batch() -> None:
    network = UNet3d(first_filters=2).eval()
    example = (torch.randn(2, 1, 8, 16, 8),)
    exported = torch.export.export(network, example, dynamic_shapes=({0: torch.export.Dim("batch")},))
    x = torch.randn(3, 1, 8, 16, 8)
    torch.testing.assert_close(exported.module()(x), network(x))


def test_it_goes_from_a_store_to_weights_that_load(store: Store, tmp_path: Path) -> None:
    _, card = train_segmentation(store, tmp_path, replace(BLOCKS, fit=replace(BLOCKS.fit, epochs=1)))
    assert card.spec == {"kind": "unet3d", "depth": 4, "first_filters": 2}
    assert load_model(tmp_path / "model")[0](torch.zeros(1, 1, 8, 8, 8)).shape == (1, 1, 8, 8, 8)


def test_one_batch_of_blocks_is_overfitted(store: Store) -> None:
    chosen = replace(BLOCKS, mix=(1.0, 0.0, 0.0))
    batch = segmentation_batches(store.scans, chosen, SPACING, crops=2, seed=0, augment=None).make(0, 0)
    torch.manual_seed(0)
    result = fit(
        Segmentation(chosen, (-1000.0, 400.0), SPACING),
        build({"kind": "unet3d", "depth": 3, "first_filters": 4}),
        Batches(1, lambda epoch, index: batch),
        settings=FitSettings(epochs=60, lr=0.02),
    )
    assert result.best > 0.9


def test_crops_that_cannot_be_halved_are_refused(store: Store, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="takes multiples of 8"):
        train_segmentation(store, tmp_path, replace(BLOCKS, crop_zyx=(12, 32, 32)))


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Network:
    """Random weights and random running statistics: every voxel's answer differs."""
    torch.manual_seed(0)
    module = build(TINY).train()
    module(torch.randn(2, 1, 16, 16, 16))
    path = tmp_path_factory.mktemp("weights") / "segmentation"
    save_model(path, module, Card("tiny", "segmentation", TINY))
    return Network.load(path, torch.device("cpu"), "torch")


def test_blocks_answer_as_the_network_does_on_the_whole(network: Network) -> None:
    inner = [side - 2 * TILE_MARGIN for side in TILE_ZYX]
    rng = np.random.default_rng(0)
    hu = rng.integers(-1000, 400, (inner[0] + 8, inner[1] + 4, 20)).astype(np.int16)
    # The borders of the scan are repeated beyond them; the whole is therefore looked at with such a border too.
    around = np.pad(hu, TILE_MARGIN, mode="edge")
    whole = 1 / (1 + np.exp(-network(((around + 1000) / 700 - 1).astype(np.float32)[None, None])[0, 0]))
    inside = tuple(slice(TILE_MARGIN, -TILE_MARGIN) for _ in range(3))
    np.testing.assert_allclose(segment(hu, network), whole[inside], atol=1e-5)


def test_blocks_without_anything_wanted_are_left_out(network: Network) -> None:
    hu = np.zeros((TILE_ZYX[0], 16, 16), np.int16)
    wanted = np.zeros(hu.shape, bool)
    wanted[0, 5, 5] = True
    answer = segment(hu, network, inside=wanted)
    first = TILE_ZYX[0] - 2 * TILE_MARGIN
    assert (answer[:first] > 0).all()
    assert (answer[first:] == 0).all()

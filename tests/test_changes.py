"""Changes of a CT that a robustness table is made of: each does what its name says, and truth moves along."""

import numpy as np
import pytest

from carina.data.changes import CHANGES, add_noise, mirror, reorder_axes, reverse_stack, sharpen, soften, thicken, turn
from carina.geometry import Geometry
from carina.volume import Volume

GRID = Geometry.from_axes((12, 40, 40), spacing_zyx_mm=(2.5, 0.8, 0.8), origin_lps=(-30.0, -20.0, 100.0))
BALL = np.array((-12.0, -2.0, 115.0))


@pytest.fixture(scope="module")
def volume() -> Volume:
    places = GRID.to_lps(np.stack(np.indices(GRID.shape_zyx), -1))
    inside = np.linalg.norm(places - BALL, axis=-1) < 5
    noise = np.random.default_rng(0).normal(0, 10, GRID.shape_zyx)
    return Volume((np.where(inside, 40, -850) + noise).astype(np.int16), GRID)


def center_of_ball(volume: Volume) -> np.ndarray:
    return volume.geometry.to_lps(np.argwhere(volume.hu > -400)).mean(axis=0)


@pytest.mark.parametrize("name", CHANGES)
def test_every_change_says_where_the_ball_has_gone(volume: Volume, name: str) -> None:
    changed = CHANGES[name](volume)
    assert np.linalg.norm(center_of_ball(changed.volume) - changed.place(center_of_ball(volume))) < 0.8


@pytest.mark.parametrize("change", [reverse_stack, reorder_axes])
def test_another_order_of_voxels_moves_nothing_in_the_patient(volume: Volume, change) -> None:
    changed = change(volume)
    np.testing.assert_allclose(center_of_ball(changed.volume), center_of_ball(volume), atol=1e-6)
    np.testing.assert_array_equal(changed.moved, np.eye(4))


def test_mirrored_twice_is_the_same_voxels(volume: Volume) -> None:
    np.testing.assert_array_equal(mirror(mirror(volume).volume).volume.hu, volume.hu)


def test_a_full_turn_in_four_steps_comes_back(volume: Volume) -> None:
    turned = volume
    for _ in range(4):
        turned = turn(turned, 90).volume
    np.testing.assert_allclose(turned.hu, volume.hu, atol=2)


def test_thick_slices_keep_the_mean_and_the_place(volume: Volume) -> None:
    thick = thicken(volume, 5.0).volume
    assert thick.geometry.spacing_zyx_mm[0] == pytest.approx(5.0)
    assert thick.hu.mean() == pytest.approx(volume.hu.mean(), abs=1)
    assert thick.geometry.origin_lps[2] == pytest.approx(101.25)


def test_kernels_and_noise_change_the_grain_as_they_say(volume: Volume) -> None:
    corner = (slice(None), slice(0, 12), slice(0, 8))
    grain = {f.__name__: f(volume).volume.hu[corner].std() for f in (soften, sharpen, add_noise)}
    before = volume.hu[corner].std()
    assert grain["soften"] < 0.7 * before
    assert grain["sharpen"] > 1.3 * before
    assert grain["add_noise"] == pytest.approx(np.hypot(before, 40), rel=0.1)

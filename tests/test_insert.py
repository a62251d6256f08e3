"""Nodules in any CT: volume and mask as stated, what lies beyond untouched, the scan's noise kept."""

from functools import lru_cache

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from carina.data import distractors
from carina.data.blend import Canvas, Tissue
from carina.data.distractors import add_distractors
from carina.data.insert import Inserted, draw_diameter, insert_nodule, insert_nodules
from carina.data.shapes import load_shapes
from carina.errors import InputError
from carina.geometry import Geometry
from carina.io.luna import IGNORE
from carina.volume import Volume

ATLAS = load_shapes().split("train")
SHAPE = (44, 110, 110)
SPACING = (2.0, 0.8, 0.8)
NOISE_HU = 30.0


@lru_cache(maxsize=1)
def chest() -> tuple[Volume, np.ndarray]:
    """A block of noisy lung in a wall of soft tissue, with one straight vessel."""
    rng = np.random.default_rng(0)
    lung = np.zeros(SHAPE, bool)
    lung[4:-4, 10:-10, 10:-10] = True
    hu = np.where(lung, -860.0, 30.0)
    hu[:, 30:35, 80:85] = 40
    hu += rng.normal(0, NOISE_HU, SHAPE)
    geometry = Geometry.from_axes(SHAPE, spacing_zyx_mm=SPACING, origin_lps=(-40, 30, -500))
    return Volume(np.rint(hu).astype(np.int16), geometry), lung


def canvas(seed: int = 0, ignore: np.ndarray | None = None) -> Canvas:
    volume, lung = chest()
    return Canvas(volume, lung, ignore, np.random.default_rng(seed))


def insert(seed: int, diameter_mm: float, kind: str = "solid", center: tuple[float, ...] = (24, 60, 50)):
    target = canvas(seed)
    rng = np.random.default_rng(seed)
    return target, insert_nodule(target, ATLAS, np.array(center, float), diameter_mm, kind, 1, "free", rng)


@given(st.integers(0, 10_000), st.floats(5, 26))
@settings(max_examples=25, deadline=None)
def test_stated_volume_and_place_are_those_of_the_mask(seed: int, diameter_mm: float):
    target, nodule = insert(seed, diameter_mm)
    assert isinstance(nodule, Inserted)
    mask = target.label == 1
    volume = mask.sum() * np.prod(SPACING)
    assert nodule.volume_mm3 == pytest.approx(volume)
    assert nodule.diameter_mm == pytest.approx((6 * volume / np.pi) ** (1 / 3))
    assert nodule.center_zyx == pytest.approx(np.argwhere(mask).mean(axis=0))
    assert nodule.center_lps == pytest.approx(target.geometry.to_lps(nodule.center_zyx))
    # Random scales of 0.85 to 1.18 along each axis and rough surfaces move the volume, not its order.
    assert 0.6 < nodule.diameter_mm / diameter_mm < 1.4


def test_mask_volume_matches_the_body_within_partial_volume():
    target = canvas()
    center = np.array([24.3, 60.2, 50.7])
    grid = target.fine_grid(center, np.full(3, -6.0), np.full(3, 6.0), 0.4)
    assert grid is not None
    sphere = (6.0 - np.linalg.norm(grid.offset_mm, axis=-1)).astype(np.float32)
    blended = target.blend(grid, sphere, Tissue(40.0, 0.2))
    assert blended.whole_mm3 == pytest.approx(np.pi / 6 * 12**3, rel=0.02)
    assert blended.mask.sum() * np.prod(SPACING) == pytest.approx(blended.whole_mm3, rel=0.04)


def test_voxels_away_from_the_body_are_untouched_bit_for_bit():
    target, nodule = insert(3, 10.0)
    assert isinstance(nodule, Inserted)
    before = chest()[0].hu
    away = ndimage.distance_transform_edt(target.label == 0, sampling=SPACING) > 14
    np.testing.assert_array_equal(target.hu[away], before[away])
    assert (target.hu != before).any()


def test_input_volume_is_not_changed():
    before = chest()[0].hu.copy()
    insert(4, 12.0)
    np.testing.assert_array_equal(chest()[0].hu, before)


@given(st.integers(0, 10_000))
@settings(max_examples=15, deadline=None)
def test_noise_inside_the_body_is_the_scans_own(seed: int):
    target = canvas(seed)
    grid = target.fine_grid(np.array([24.0, 60.0, 50.0]), np.full(3, -9.0), np.full(3, 9.0), 0.8)
    assert grid is not None
    sphere = (9.0 - np.linalg.norm(grid.offset_mm, axis=-1)).astype(np.float32)
    blended = target.blend(grid, sphere, Tissue(20.0, 0.2))
    core = ndimage.distance_transform_edt(blended.mask, sampling=SPACING) > 4
    before = target.hu[blended.box][core].astype(float)
    after = blended.hu[core].astype(float)
    assert after.mean() == pytest.approx(20, abs=15)
    assert after.std() == pytest.approx(NOISE_HU, rel=0.2)
    assert np.corrcoef(before, after)[0, 1] > 0.85


def test_vessel_stays_visible_in_ground_glass():
    through_vessel = (24.0, 32.0, 82.0)
    vessel = (slice(20, 28), slice(31, 34), slice(81, 84))
    glass, nodule = insert(12, 16.0, "ground-glass", through_vessel)
    assert isinstance(nodule, Inserted)
    before = chest()[0].hu[vessel].mean()
    assert glass.hu[vessel].mean() == pytest.approx(before, abs=60)
    assert before - np.median(glass.hu[glass.label == 1]) > 300


def test_body_flattens_against_the_wall():
    target, nodule = insert(5, 16.0, "solid", (24.0, 14.0, 60.0))
    assert isinstance(nodule, Inserted)
    _, lung = chest()
    assert not (target.label[:, :7] > 0).any()
    wall = ~ndimage.binary_dilation(lung, iterations=4)
    assert np.abs(target.hu[wall].astype(int) - chest()[0].hu[wall]).max() < 30


def test_body_mostly_outside_the_lung_is_ignored_not_listed():
    target, outcome = insert(6, 14.0, "solid", (24.0, 5.0, 60.0))
    assert outcome == "ignored"
    assert set(np.unique(target.label)) == {0, IGNORE}


def test_invisible_body_is_ignored_not_listed():
    """Ground glass within a dense lung does not show."""
    volume, lung = chest()
    dense = Volume(np.where(lung, np.int16(-500), volume.hu), volume.geometry)
    target = Canvas(dense, lung, None, np.random.default_rng(0))
    outcome = insert_nodule(
        target, ATLAS, np.array([24.0, 60, 50]), 10.0, "ground-glass", 1, "free", np.random.default_rng(2)
    )
    assert outcome == "ignored"
    assert (target.label == IGNORE).any()
    assert not (target.label == 1).any()


def test_place_next_to_something_labelled_is_occupied_and_stays():
    ignore = np.zeros(SHAPE, bool)
    ignore[22:26, 58:62, 48:52] = True
    target = canvas(ignore=ignore)
    before = target.hu.copy()
    center = np.array([24.0, 60.0, 50.0])
    outcome = insert_nodule(target, ATLAS, center, 8.0, "solid", 1, "free", np.random.default_rng(0))
    assert outcome == "occupied"
    np.testing.assert_array_equal(target.hu, before)
    np.testing.assert_array_equal(target.label == IGNORE, ignore)


@given(st.integers(0, 10_000))
@settings(max_examples=5, deadline=None)
def test_list_and_labels_agree_and_nodules_keep_apart(seed: int):
    target = canvas(seed)
    nodules = insert_nodules(target, ATLAS, 5, np.random.default_rng(seed))
    assert [n.label for n in nodules] == list(range(1, len(nodules) + 1))
    assert set(np.unique(target.label)) - {0, IGNORE} == {n.label for n in nodules}
    for nodule in nodules:
        mask = target.label == nodule.label
        assert ndimage.label(mask, np.ones((3, 3, 3)))[1] == 1
        touching = target.label[ndimage.binary_dilation(mask)]
        assert set(np.unique(touching)) <= {0, IGNORE, nodule.label}
        brighter = target.hu[mask].astype(int) - chest()[0].hu[mask]
        assert brighter.mean() > 60


def test_same_seed_gives_the_same_voxels():
    results = []
    for _ in range(2):
        target = canvas(9)
        rng = np.random.default_rng(9)
        marks = add_distractors(target, 4, rng)
        nodules = insert_nodules(target, ATLAS, 4, rng)
        results.append((target.hu, target.label, marks, nodules))
    np.testing.assert_array_equal(results[0][0], results[1][0])
    np.testing.assert_array_equal(results[0][1], results[1][1])
    np.testing.assert_array_equal(results[0][2], results[1][2])
    assert results[0][3] == results[1][3]


def test_distractors_label_nothing_and_their_marks_show():
    target = canvas(2)
    marks = add_distractors(target, 30, np.random.default_rng(2))
    assert not target.label.any()
    assert len(marks) > 10
    changed = target.hu.astype(int) - chest()[0].hu
    for mark in marks:
        z, y, x = np.rint(mark).astype(int)
        assert changed[z - 1 : z + 2, y - 1 : y + 2, x - 1 : x + 2].max() > 60


def test_an_infiltrate_is_larger_than_nodules_and_hazy(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(distractors, "KINDS", {"infiltrate": 1.0})
    monkeypatch.setattr(distractors, "LEAST_INSIDE", 0.0)  # the block of lung is hardly larger
    target = canvas()
    assert len(add_distractors(target, 6, np.random.default_rng(4)))
    changed = target.hu.astype(int) - chest()[0].hu > 60
    assert changed.sum() * target.geometry.voxel_volume_mm3 > 4 / 3 * np.pi * 10**3
    assert not target.label.any()
    assert np.median(target.hu[changed]) < 0


def test_what_the_lung_cuts_off_is_not_drawn(monkeypatch: pytest.MonkeyPatch):
    """A stump of a vessel at the pleura cannot be told from a nodule: as a negative it would teach the wrong thing."""
    volume, lung = chest()
    corner = np.zeros_like(lung)
    corner[20:24, 50:60, 50:60] = True  # 8 mm to each side
    volume = Volume(np.where(corner, volume.hu, 30).astype(np.int16), volume.geometry)
    target = Canvas(volume, corner, None, np.random.default_rng(0))
    monkeypatch.setattr(distractors, "KINDS", {"tube": 1.0})
    assert not len(add_distractors(target, 20, np.random.default_rng(1)))
    np.testing.assert_array_equal(target.hu, volume.hu)


def test_distractors_leave_labelled_places_alone():
    ignore = np.zeros(SHAPE, bool)
    ignore[10:40, 20:100, 20:100] = True
    target = canvas(ignore=ignore)
    add_distractors(target, 40, np.random.default_rng(3))
    np.testing.assert_array_equal(target.hu[ignore], chest()[0].hu[ignore])


def test_sizes_cover_the_range():
    rng = np.random.default_rng(0)
    sizes = np.array([draw_diameter(ATLAS, rng) for _ in range(4000)])
    assert sizes.min() >= 3.2
    masses = sizes[sizes > 32]
    assert 80 < masses.max() <= 90
    assert 0.04 < len(masses) / len(sizes) < 0.07
    for low, high in ((3, 6), (6, 9), (9, 13), (13, 30)):
        assert ((sizes >= low) & (sizes < high)).mean() > 0.1


def test_mask_of_another_shape_is_refused():
    volume, _ = chest()
    with pytest.raises(InputError, match="does not fit"):
        Canvas(volume, np.ones((2, 2, 2), bool), None, np.random.default_rng(0))


def test_empty_lung_is_refused():
    volume, lung = chest()
    with pytest.raises(InputError, match="empty"):
        Canvas(volume, np.zeros_like(lung), None, np.random.default_rng(0))

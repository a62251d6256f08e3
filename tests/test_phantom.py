"""The chest phantom: anatomy, exact truth, the same from the same seed."""

import numpy as np
import pytest
from scipy import ndimage

from carina.data.phantom import Phantom, make_phantom, phantom_uid
from carina.data.phantom_anatomy import grow_anatomy
from carina.data.phantom_nodules import draw_diameter, draw_nodule
from carina.data.phantom_place import render
from carina.data.phantom_scanner import Detector, draw_protocol
from carina.data.phantom_trees import Tubes, bend, draw_tubes, grow_tree
from carina.errors import UsageError
from carina.io.uid import is_uid

SEEDS = (1, 3)


@pytest.fixture(scope="module")
def phantoms() -> list[Phantom]:
    return [make_phantom(s, nodules=5, pixel_mm=1.6, slice_thickness_mm=2.0) for s in SEEDS]


def test_two_plausible_lungs(phantoms: list[Phantom]) -> None:
    for phantom in phantoms:
        labels, n = ndimage.label(phantom.lungs)
        litres = np.sort(np.bincount(labels.ravel())[1:] * phantom.volume.geometry.voxel_volume_mm3 / 1e6)
        assert n == 2
        assert litres[0] > 0.8
        assert 2 < litres.sum() < 8
        z = np.flatnonzero(phantom.lungs.any(axis=(1, 2)))
        assert len(z) * phantom.volume.geometry.spacing_zyx_mm[0] > 150
        assert z[0] > 0
        assert z[-1] < len(phantom.lungs) - 1


def test_tissues_have_their_hu(phantoms: list[Phantom]) -> None:
    for phantom in phantoms:
        hu, lungs = phantom.volume.hu, phantom.lungs
        assert -880 < hu[lungs].mean() < -760
        body = ndimage.binary_fill_holes((hu > -300)[len(hu) // 2])
        assert body is not None
        wall = hu[len(hu) // 2][body & ~ndimage.binary_dilation(lungs[len(hu) // 2], iterations=2)]
        for low, high in ((-160, -60), (0, 100), (250, 3000)):  # fat, muscle, bone
            assert ((wall > low) & (wall < high)).mean() > 0.02


def test_trachea_is_air_down_to_the_carina(phantoms: list[Phantom]) -> None:
    for phantom in phantoms:
        top = phantom.volume.hu[-1]
        middle = top.shape[1] // 2
        assert (top[middle - 60 : middle + 30, middle - 15 : middle + 15] < -900).sum() > 40


def test_mask_has_the_stated_volume_and_centre(phantoms: list[Phantom]) -> None:
    large = [(phantom, nodule) for phantom in phantoms for nodule in phantom.nodules if nodule.diameter_mm > 6]
    assert len(large) >= 5
    for phantom, nodule in large:
        geometry = phantom.volume.geometry
        mask = phantom.label == nodule.label
        assert mask.sum() * geometry.voxel_volume_mm3 == pytest.approx(nodule.volume_mm3, rel=0.3)
        centre = geometry.to_lps(np.argwhere(mask).mean(0))
        assert np.linalg.norm(centre - nodule.center_lps) < 1.0


def test_the_diameter_is_that_of_a_ball_of_the_same_volume(phantoms: list[Phantom]) -> None:
    for nodule in (nodule for phantom in phantoms for nodule in phantom.nodules):
        assert nodule.diameter_mm == pytest.approx((6 * nodule.volume_mm3 / np.pi) ** (1 / 3))


def test_nodules_lie_in_the_lungs_and_are_denser_than_them(phantoms: list[Phantom]) -> None:
    for phantom in phantoms:
        around = ndimage.binary_dilation(phantom.label > 0, iterations=6) & (phantom.label == 0) & phantom.lungs
        for nodule in phantom.nodules:
            mask = phantom.label == nodule.label
            assert phantom.lungs[mask].mean() >= 0.9
            assert phantom.volume.hu[mask].mean() > phantom.volume.hu[around].mean() + 60


def test_slice_thickness_does_not_change_the_truth() -> None:
    thin = make_phantom(7, nodules=2, pixel_mm=2.0, slice_thickness_mm=1.0)
    assert make_phantom(7, nodules=2, pixel_mm=2.0, slice_thickness_mm=1.0).volume.hu.tobytes() == (
        thin.volume.hu.tobytes()
    )
    thick = make_phantom(7, nodules=2, pixel_mm=2.0, slice_thickness_mm=4.0)
    assert thick.volume.geometry.spacing_zyx_mm[0] == pytest.approx(4.0)
    for one, other in zip(thin.nodules, thick.nodules, strict=True):
        assert one.volume_mm3 == pytest.approx(other.volume_mm3, rel=0.03)


def test_negatives_keep_away_from_nodules_and_lie_in_or_on_the_lungs(phantoms: list[Phantom]) -> None:
    for phantom in phantoms:
        assert len(phantom.negatives) > 20
        for nodule in phantom.nodules:
            away = np.linalg.norm(phantom.negatives - nodule.center_lps, axis=1)
            assert away.min() > nodule.diameter_mm / 2 + 5
        near = ndimage.binary_dilation(phantom.lungs, iterations=4)
        index = np.round(phantom.volume.geometry.to_zyx(phantom.negatives)).astype(int)
        assert near[tuple(index.T)].mean() > 0.95


def test_negatives_sit_on_something_dense(phantoms: list[Phantom]) -> None:
    for phantom in phantoms:
        index = np.round(phantom.volume.geometry.to_zyx(phantom.negatives)).astype(int)
        dense = ndimage.maximum_filter(phantom.volume.hu, 5)[tuple(index.T)]
        assert np.median(dense) > -500


def test_no_nodules_when_asked_for_none() -> None:
    empty = make_phantom(11, nodules=0, pixel_mm=2.0, slice_thickness_mm=5.0)
    assert empty.nodules == ()
    assert not empty.label.any()


def test_more_nodules_than_fit_are_refused() -> None:
    with pytest.raises(UsageError, match="0 to 100"):
        make_phantom(1, nodules=101)
    with pytest.raises(UsageError, match="0 to 100"):
        make_phantom(1, nodules=-1)


def test_uid_is_valid_and_follows_from_the_seed() -> None:
    uids = {phantom_uid(seed) for seed in range(300)}
    assert len(uids) == 300
    assert all(is_uid(uid) for uid in uids)
    assert phantom_uid(5) == "2.25.41697887116278214958266888952717869406"


def test_a_tree_reaches_every_tip_and_never_widens() -> None:
    rng = np.random.default_rng(0)
    tips = rng.uniform(0, 80, (400, 3))
    tree = grow_tree(
        rng,
        tips,
        np.zeros(400, int),
        np.zeros((1, 3)),
        np.array([[1.0, 0.0, 0.0]]),
        root_radius_mm=6.0,
        exponent=0.38,
        tip_radius_mm=0.3,
    )
    ends = {tuple(np.round(p, 6)) for p in tree.end}
    assert all(tuple(np.round(p, 6)) in ends for p in tips)
    child = tree.parent >= 0
    assert (tree.radius_mm[child] <= tree.radius_mm[tree.parent[child]] + 1e-9).all()
    assert np.allclose(tree.start[child], tree.end[tree.parent[child]])
    tubes = bend(tree)
    assert np.isin(np.round(tree.end[:, 0], 5), np.round(tubes.b[:, 0], 5)).all()


@pytest.mark.parametrize("radius", [0.3, 1.0, 4.0])
def test_drawn_tubes_hold_their_volume(radius: float) -> None:
    coverage = np.zeros((60, 50, 40), np.uint8)
    points = np.array([[10.0, 12.3, 12.1], [45.0, 30.2, 25.7]])
    tube = Tubes(points[:1], points[1:], np.array([radius]), np.array([radius]), np.zeros(1, int))
    draw_tubes(coverage, tube, (1.0, 0.8, 0.8), (0.0, 0.0, 0.0))
    length = np.linalg.norm(points[1] - points[0])
    exact = np.pi * radius**2 * length + 4 / 3 * np.pi * radius**3
    assert coverage.sum() / 255 * 0.64 == pytest.approx(exact, rel=0.1)


def test_tubes_beyond_the_grid_are_cut_off() -> None:
    coverage = np.zeros((8, 8, 8), np.uint8)
    tube = Tubes(np.array([[-9.0, 4, 4]]), np.array([[20.0, 4, 4]]), np.ones(1), np.ones(1), np.zeros(1, int))
    draw_tubes(coverage, tube, (1.0, 1.0, 1.0), (0.0, 0.0, 0.0))
    assert (coverage[:, 4, 4] > 220).all()
    assert coverage[:, 0, 0].max() == 0


def test_noise_has_the_strength_of_the_protocol_and_the_grain_of_the_kernel() -> None:
    rng = np.random.default_rng(0)
    grain = {}
    for kernel in ("soft", "sharp"):
        protocol = draw_protocol(rng, 120, 100, pixel_mm=0.8, slice_thickness_mm=1.0, kernel=kernel)
        plane = np.zeros((protocol.matrix, protocol.matrix), np.float32)
        noise = Detector(protocol, np.ones_like(plane)).expose(rng, plane)
        assert noise.std() == pytest.approx(protocol.noise_hu, rel=0.1)
        grain[kernel] = np.mean(noise[:, 1:] * noise[:, :-1]) / noise.var()
    assert grain["sharp"] < grain["soft"] - 0.1


def test_diameters_are_three_to_thirty_mm_and_all_types_are_drawn() -> None:
    rng = np.random.default_rng(0)
    diameters = [draw_diameter(rng) for _ in range(2000)]
    assert min(diameters) >= 3
    assert max(diameters) <= 30
    assert np.mean(np.array(diameters) < 10) > 0.5
    drawn = [draw_nodule(rng, 12.0) for _ in range(200)]
    assert {n.type for n in drawn} == {"solid", "part-solid", "ground-glass", "calcified"}
    assert {n.form for n in drawn} == {"round", "lobulated", "spiculated"}


def test_a_shape_has_the_volume_it_was_drawn_for() -> None:
    rng = np.random.default_rng(1)
    anatomy = grow_anatomy(rng)
    protocol = draw_protocol(
        rng, anatomy.frame.body_half_width, anatomy.frame.top, pixel_mm=0.9, slice_thickness_mm=1.0, kernel="soft"
    )
    deepest = np.unravel_index(anatomy.lung.argmax(), anatomy.lung.shape)
    centre = np.array(deepest) * 2.5 + anatomy.origin_zyx_mm
    for diameter in (3.2, 7.0, 24.0):
        for _ in range(3):
            lesion = draw_nodule(rng, diameter)
            placed = render(lesion, "free", centre, anatomy, protocol)
            assert placed is not None
            extra = 1.25 if lesion.form == "spiculated" else 1.06
            assert diameter * 0.94 < placed.diameter_mm < diameter * extra

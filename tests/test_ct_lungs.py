"""The lung mask on simple bodies with known lungs, and on real chests."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage
from scipy.spatial.transform import Rotation

from carina.ct.lungs import LungMask, find_lungs
from carina.ct.preprocess import Preprocessing, prepare_scan
from carina.errors import NoLungsError
from carina.geometry import Geometry
from carina.io import read_ct, read_image
from carina.volume import Volume

LUNG_CENTERS = np.array([(-75.0, 0.0, 0.0), (75.0, 0.0, 0.0)])
GRID = Geometry.from_axes((100, 84, 108), spacing_zyx_mm=(3.0,) * 3, origin_lps=(-160.5, -124.5, -148.5))


def positions(geometry: Geometry) -> np.ndarray:
    return geometry.to_lps(np.stack(np.indices(geometry.shape_zyx), -1))


def ellipsoid(position, center, radii) -> np.ndarray:
    return (((position - center) / radii) ** 2).sum(-1) < 1


def in_lungs(position, radii=(55.0, 80.0, 120.0)) -> np.ndarray:
    return ellipsoid(position, LUNG_CENTERS[0], radii) | ellipsoid(position, LUNG_CENTERS[1], radii)


def chest(geometry: Geometry = GRID, *, radii=(55.0, 80.0, 120.0), lungs=True, seed=0, **extra) -> Volume:
    """A body of water, 300 x 220 mm, two ellipsoid lungs with texture, and ``extra`` ellipsoids (center, radii, HU)."""
    position = positions(geometry)
    rng = np.random.default_rng(seed)
    hu = np.full(geometry.shape_zyx, -1000.0)
    hu[((position[..., :2] / (150, 110)) ** 2).sum(-1) < 1] = 20
    if lungs:
        hu[in_lungs(position, radii)] = -850
    for center, size, value in extra.values():
        hu[ellipsoid(position, center, size)] = value
    hu += rng.normal(0, 25, geometry.shape_zyx)
    return Volume(np.rint(hu).clip(-1024, 3000).astype(np.int16), geometry)


def dice(first, second) -> float:
    return 2 * (first & second).sum() / (first.sum() + second.sum())


def test_both_lungs_are_found_with_their_volume():
    scan = chest()
    lungs = find_lungs(scan)
    truth = in_lungs(positions(GRID))
    assert dice(lungs.on(GRID), truth) > 0.98
    assert lungs.litres == pytest.approx(truth.sum() * GRID.voxel_volume_mm3 / 1e6, rel=0.03)


@pytest.mark.parametrize("angles", [(90, 0, 0), (0, 90, 90), (15, 10, -20)])
def test_the_orientation_of_the_scan_does_not_matter(angles):
    axes = Rotation.from_euler("zyx", angles, degrees=True).as_matrix()
    n = 106
    oblique = Geometry.from_axes(
        (n,) * 3, spacing_zyx_mm=(3.0,) * 3, axes=axes, origin_lps=axes @ np.full(3, -(n - 1) * 1.5)
    )
    assert dice(find_lungs(chest(oblique)).on(GRID), find_lungs(chest()).on(GRID)) > 0.98


@pytest.mark.parametrize("thickness_mm", [5.0, 8.0])
def test_thick_slices_are_enough(thickness_mm):
    n = int(300 / thickness_mm)
    thick = Geometry.from_axes((n, 150, 190), spacing_zyx_mm=(thickness_mm, 1.7, 1.7), origin_lps=(-161, -124, -149))
    assert dice(find_lungs(chest(thick)).on(GRID), in_lungs(positions(GRID))) > 0.95


@pytest.mark.parametrize("center", [(-127.0, 0.0, 0.0), (-75.0, 78.0, 10.0), (75.0, 0.0, -118.0), (85.0, 10.0, 20.0)])
def test_a_nodule_on_the_pleura_or_inside_belongs_to_the_lungs(center):
    """A ball of 18 mm whose middle lies on the surface of the lung (the last: inside), in the mask candidates see."""
    mask = find_lungs(chest(nodule=(center, (9.0,) * 3, 40))).on(GRID, dilate_mm=3.0)
    position = positions(GRID)
    inner = ellipsoid(position, center, (9.0,) * 3) & in_lungs(position)
    assert mask[inner].mean() > 0.97


def test_the_trachea_is_left_out():
    trachea = ((0.0, 0.0, 100.0), (9.0, 9.0, 90.0), -1000)
    link = ((-30.0, 0.0, 20.0), (30.0, 7.0, 7.0), -1000)  # a main bronchus joins it to the right lung
    mask = find_lungs(chest(trachea=trachea, link=link)).on(GRID)
    upper = ellipsoid(positions(GRID), trachea[0], trachea[1]) & (positions(GRID)[..., 2] > 50)
    assert mask[upper].mean() < 0.02
    assert dice(mask, in_lungs(positions(GRID))) > 0.97


def test_gas_in_the_stomach_is_left_out():
    lungs = find_lungs(chest(stomach=((0.0, -40.0, -60.0), (28.0,) * 3, -1000)))
    assert dice(lungs.on(GRID), in_lungs(positions(GRID))) > 0.97


@pytest.mark.parametrize("cut", [(slice(None), slice(None), slice(12, 96)), (slice(None), slice(12, 72), slice(None))])
def test_a_view_that_cuts_the_outline_of_the_body_still_shows_its_lungs(cut):
    whole = chest()
    part = Volume(whole.hu[cut].copy(), GRID.crop([s.start or 0 for s in cut], whole.hu[cut].shape))
    assert max(part.hu[50, :, 0].max(), part.hu[50, 0].max()) > -100
    assert dice(find_lungs(part).on(part.geometry), in_lungs(positions(part.geometry))) > 0.97


def test_small_lungs_are_accepted():
    radii = (45.0, 60.0, 65.0)
    litres = 2 * 4 / 3 * np.pi * np.prod(radii) / 1e6
    assert find_lungs(chest(radii=radii)).litres == pytest.approx(litres, rel=0.05)


def constant(value: int, geometry: Geometry = GRID) -> Volume:
    return Volume(np.full(geometry.shape_zyx, value, np.int16), geometry)


def bowel() -> Volume:
    rng = np.random.default_rng(5)
    places = rng.uniform((-80, -60, -120), (80, 60, 120), (25, 3))
    return chest(lungs=False, **{f"loop{i}": (p, (35.0, 25.0, 25.0), -1000) for i, p in enumerate(places)})


def noisy() -> Volume:
    hu = np.random.default_rng(0).normal(-400, 600, GRID.shape_zyx).clip(-1024, 3000)
    return Volume(hu.astype(np.int16), GRID)


def bases() -> Volume:
    whole = chest()
    return Volume(whole.hu[:46].copy(), GRID.crop((0, 0, 0), (46, 84, 108)))


@pytest.mark.parametrize(
    ("scan", "reason"),
    [
        (lambda: constant(-1000), "not even a body"),
        (lambda: constant(0), "largest of 0 pieces of air"),
        (lambda: chest(lungs=False), "largest of 0 pieces of air"),
        (lambda: chest(lungs=False, hole=((0.0, 0.0, 0.0), (70.0, 70.0, 100.0), -1000)), "gas, not lung"),
        (bowel, "gas, not lung"),
        (noisy, "no lungs found"),
        (bases, "runs out of the view towards the head"),
        (lambda: chest(radii=(35.0, 40.0, 60.0)), "l over a height of"),
        (
            lambda: constant(0, Geometry.from_axes((20, 512, 512), spacing_zyx_mm=(3.0, 70.0, 70.0))),
            "check the spacing",
        ),
    ],
    ids=["air", "water", "body", "cavity", "bowel", "noise", "bases", "too-small", "spacing"],
)
def test_a_scan_without_lungs_is_refused_with_what_was_seen(scan, reason):
    with pytest.raises(NoLungsError, match=f"no lungs found.*{reason}" if reason != "no lungs found" else reason):
        find_lungs(scan())


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 1000), st.integers(1, 110).map(lambda n: n / 10))
def test_a_dilated_mask_holds_what_lies_within_the_distance(seed, dilate_mm):
    geometry = Geometry.from_axes((12, 14, 16), spacing_zyx_mm=(2.0,) * 3)
    mask = np.random.default_rng(seed).random(geometry.shape_zyx) > 0.995
    mask[5, 6, 7] = True
    grown = LungMask(mask, geometry, 1.0).on(geometry, dilate_mm)
    np.testing.assert_array_equal(grown, ndimage.distance_transform_edt(~mask, 2.0) <= dilate_mm + 1.0)


def test_a_dilated_mask_reaches_beyond_the_grid_it_was_found_on():
    geometry = Geometry.from_axes((4, 4, 4), spacing_zyx_mm=(2.0,) * 3)
    wide = Geometry.from_axes((20, 20, 20), origin_lps=(-6, -6, -6))
    grown = LungMask(np.ones((4, 4, 4), bool), geometry, 1.0).on(wide, 3.0)
    assert np.flatnonzero(grown[:, 10, 10]).tolist() == list(range(2, 17))  # from -4 to +10 mm


def test_the_box_holds_the_lungs_and_the_margin_but_stays_in_the_scan():
    scan = chest()
    lungs = find_lungs(scan)
    box = lungs.box((1.5, 1.0, 1.0), margin_mm=24.0)
    position = positions(lungs.geometry)[lungs.mask]
    low, high = box.bounds_lps()
    scan_low, scan_high = lungs.geometry.bounds_lps()
    np.testing.assert_allclose(low, np.maximum(position.min(0) - 24, scan_low))
    assert (high > np.minimum(position.max(0) + 24, scan_high - np.array((1, 1, 1.5))) - 1e-2).all()
    assert (high < scan_high + 1e-6).all()
    assert box.spacing_zyx_mm == pytest.approx((1.5, 1.0, 1.0))


def test_a_prepared_scan_is_the_lung_box_of_the_scan():
    scan = chest()
    prepared = prepare_scan(scan)
    assert prepared.hu.shape == prepared.lung.shape == prepared.geometry.shape_zyx
    assert prepared.geometry.spacing_zyx_mm == pytest.approx(Preprocessing().spacing_zyx_mm)
    assert prepared.lung.sum() * 1.5e-6 == pytest.approx(prepared.litres, rel=0.02)
    assert prepared.hu[prepared.lung].mean() == pytest.approx(-850, abs=15)
    coarse = prepare_scan(scan, Preprocessing(spacing_zyx_mm=(3.0, 3.0, 3.0), margin_mm=0.0))
    assert coarse.hu.size < prepared.hu.size / 18 * 1.1


CHESTS = {
    "lidc-idri-0001": (3.4, 4.2),
    "cptac-c3n-00247": (4.1, 5.1),
    "lung-pet-ct-dx-a0001-sharp": (5.1, 6.1),
    "lung-pet-ct-dx-a0001-soft": (5.1, 6.1),
    "lung-pet-ct-dx-a0002-sharp": (2.3, 3.1),
    "lung-pet-ct-dx-a0002-soft": (2.3, 3.1),
}


@pytest.mark.data
@pytest.mark.parametrize("name", CHESTS)
def test_every_full_chest_has_two_lungs(data_dir, name):
    lungs = find_lungs(read_ct(data_dir / "ct" / name))
    low, high = CHESTS[name]
    assert low < lungs.litres < high
    labels, _ = ndimage.label(ndimage.binary_erosion(lungs.mask, iterations=3))
    parts = np.sort(np.bincount(labels.ravel())[1:])[::-1] * 8e-6
    half = np.flatnonzero(lungs.mask.any((0, 1))).mean().astype(int)
    right, left = lungs.mask[:, :, :half].sum(), lungs.mask[:, :, half:].sum()
    assert parts[0] > 0.5
    assert 0.6 < right / left < 1.7


@pytest.mark.data
def test_the_mask_agrees_with_the_label_map_of_the_chest_imaging_platform(data_dir):
    folder = data_dir / "ct" / "cip-64"
    truth, geometry = read_image(folder / "wholeLung-64.nrrd")
    assert dice(find_lungs(read_ct(folder / "ct-64.nrrd")).on(geometry), truth > 0) > 0.97


@pytest.mark.data
@pytest.mark.parametrize(
    ("name", "center_lps", "radius_mm", "share"),
    [
        ("lidc-idri-0001", (56.208, 86.343, -115.868), 11.7, 0.99),
        ("cptac-c3n-00247", (-82.2, -190.7, -194.5), 11.0, 0.85),
    ],
)
def test_a_tumour_lies_in_the_mask(data_dir, name, center_lps, radius_mm, share):
    lungs = find_lungs(read_ct(data_dir / "ct" / name))
    inside = np.linalg.norm(positions(lungs.geometry) - center_lps, axis=-1) < radius_mm
    assert lungs.mask[inside].mean() > share


@pytest.mark.data
def test_a_part_of_a_chest_is_refused(data_dir):
    with pytest.raises(NoLungsError, match="no lungs found"):
        find_lungs(read_ct(data_dir / "ct" / "totalsegmentator-small" / "example_ct_sm.nii.gz"))

"""Resampling against laws and naive references."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage
from scipy.spatial.transform import Rotation

from carina.ct.resample import analysis_grid, resample, resample_mask
from carina.geometry import Geometry
from carina.volume import Volume

spacings = st.tuples(*[st.floats(0.5, 4.0)] * 3)
rotations = st.tuples(*[st.floats(-180, 180)] * 3).map(
    lambda a: Rotation.from_euler("zyx", a, degrees=True).as_matrix()
)
orders = st.permutations(range(3))
signs = st.tuples(*[st.sampled_from([1, -1])] * 3)


def linear_field(geometry: Geometry, gradient=(1.5, -2.25, 3.0)) -> Volume:
    """HU that grow linearly in patient mm; steep enough that rounding to whole HU hardly matters."""
    index = np.stack(np.indices(geometry.shape_zyx), -1)
    return Volume(np.rint(geometry.to_lps(index) @ np.array(gradient)).astype(np.int16), geometry)


def turned(volume: Volume, order, flips) -> Volume:
    """The same scan stored with other axes: permuted, then reversed where the flip is -1."""
    geometry, hu = volume.geometry, volume.hu.transpose(order)
    affine = np.array(geometry.affine)
    affine[:3, :3] = affine[:3, list(order)]
    for axis, sign in enumerate(flips):
        if sign < 0:
            hu = np.flip(hu, axis)
            affine[:3, 3] += affine[:3, axis] * (hu.shape[axis] - 1)
            affine[:3, axis] *= -1
    return Volume(np.ascontiguousarray(hu), Geometry(hu.shape, affine))


def noise(shape, seed=0, **kwargs) -> Volume:
    hu = np.random.default_rng(seed).integers(-1000, 1000, shape).astype(np.int16)
    return Volume(hu, Geometry.from_axes(shape, **kwargs))


@settings(max_examples=40, deadline=None)
@given(rotations, spacings, spacings)
def test_a_linear_field_is_reproduced_under_any_rotation(axes, spacing, wanted):
    geometry = Geometry.from_axes((14, 17, 12), spacing_zyx_mm=spacing, origin_lps=(20, -30, 5), axes=axes)
    target = analysis_grid(geometry, wanted)
    out = resample(linear_field(geometry), target, fill=-2000)
    position = target.to_lps(np.stack(np.indices(target.shape_zyx), -1))
    index = geometry.to_zyx(position)
    last = np.array(geometry.shape_zyx) - 1
    inside = ((index >= 0) & (index <= last)).all(-1)
    truth = position @ (1.5, -2.25, 3.0)
    assert np.abs(out - truth)[inside].max(initial=0) <= 1.01
    outside = ((index < -0.51) | (index > last + 0.51)).any(-1)
    assert (out[outside] == -2000).all()


@settings(max_examples=60, deadline=None)
@given(orders, signs)
def test_how_the_axes_are_stored_changes_nothing(order, flips):
    scan = noise((9, 11, 13), spacing_zyx_mm=(2.5, 0.7, 0.9), origin_lps=(-3.3, 7.7, 100.1))
    other = turned(scan, order, flips)
    grid, other_grid = (analysis_grid(v.geometry, (1.5, 1.0, 1.0)) for v in (scan, other))
    assert grid.same_as(other_grid, 1e-6)
    np.testing.assert_allclose(resample(other, grid), resample(scan, grid), atol=1)


@settings(max_examples=25, deadline=None)
@given(orders, signs, spacings, st.floats(0, 30))
def test_both_paths_agree_with_plain_interpolation(order, flips, spacing, degrees):
    scan = turned(noise((7, 8, 9), spacing_zyx_mm=spacing), order, flips)
    tilted = Rotation.from_euler("x", degrees, degrees=True).as_matrix()[:, ::-1]
    target = Geometry.from_axes((5, 6, 7), spacing_zyx_mm=(1.1, 0.9, 1.3), origin_lps=(1, 2, 1), axes=tilted)
    index = scan.geometry.to_zyx(target.to_lps(np.stack(np.indices(target.shape_zyx), -1)))
    reference = ndimage.map_coordinates(scan.hu.astype(float), np.moveaxis(index, -1, 0), order=1, mode="nearest")
    beyond = np.maximum(-index, index - (np.array(scan.hu.shape) - 1)).max(-1)
    out = resample(scan, target, fill=-3000)
    sure = np.abs(beyond - 0.5) > 2e-3
    np.testing.assert_allclose(out[sure], np.where(beyond > 0.5, -3000, reference)[sure], atol=3)


def test_a_turned_scan_and_its_straight_twin_agree_where_both_have_data():
    straight = Geometry.from_axes((40, 40, 40), origin_lps=(-20, -20, -20))
    axes = Rotation.from_euler("zyx", [20, -10, 35], degrees=True).as_matrix()
    oblique = Geometry.from_axes((60, 60, 60), spacing_zyx_mm=(0.8,) * 3, origin_lps=axes @ [-24, -24, -24], axes=axes)

    def blob(geometry):
        position = geometry.to_lps(np.stack(np.indices(geometry.shape_zyx), -1))
        hu = 1000 * np.exp(-(((position - (3, -2, 4)) / 8) ** 2).sum(-1)) - 900
        return Volume(np.rint(hu).astype(np.int16), geometry)

    target = Geometry.from_axes((12, 12, 12), origin_lps=(-6, -6, -6))
    difference = resample(blob(straight), target) - resample(blob(oblique), target)
    assert np.abs(difference).max() <= 12  # linear interpolation of a curved field; its range is 1000


def test_the_same_grid_gives_the_same_voxels():
    scan = noise((5, 6, 7), spacing_zyx_mm=(2.0, 0.7, 0.7), origin_lps=(1.7, -3.1, 2.2))
    np.testing.assert_array_equal(resample(scan, scan.geometry), scan.hu)


def test_a_part_of_the_grid_gives_that_part_of_the_result():
    scan = noise((20, 30, 25), spacing_zyx_mm=(2.5, 0.8, 0.8))
    whole = analysis_grid(scan.geometry, (1.5, 1.0, 1.0))
    part = whole.crop((3, 4, 5), (10, 9, 8))
    np.testing.assert_array_equal(resample(scan, part), resample(scan, whole)[3:13, 4:13, 5:13])


def test_a_grid_far_away_is_all_fill():
    scan = noise((5, 5, 5))
    for axes in (None, Rotation.from_euler("x", 30, degrees=True).as_matrix()):
        target = Geometry.from_axes((3, 4, 5), origin_lps=(500, 0, 0), axes=axes)
        assert (resample(scan, target, fill=-1024) == -1024).all()


@given(rotations, spacings, spacings)
def test_the_analysis_grid_covers_the_scan_along_the_axes_of_the_patient(axes, spacing, wanted):
    geometry = Geometry.from_axes((4, 5, 6), spacing_zyx_mm=spacing, origin_lps=(9, 8, 7), axes=axes)
    grid = analysis_grid(geometry, wanted)
    low, high = geometry.bounds_lps()
    grid_low, grid_high = grid.bounds_lps()
    np.testing.assert_allclose(grid.axes, np.eye(3)[:, ::-1], atol=1e-12)
    np.testing.assert_allclose(grid.spacing_zyx_mm, wanted)
    assert (grid_low <= low + 1e-9).all()
    assert (grid_high > high - np.array(wanted)[::-1]).all()
    assert (grid_high < high + np.array(wanted)[::-1]).all()


@given(spacings, spacings, st.tuples(*[st.integers(1, 40)] * 3))
def test_no_plane_of_the_analysis_grid_lies_beyond_the_scan(spacing, wanted, shape):
    scan = Volume(np.full(shape, 42, np.int16), Geometry.from_axes(shape, spacing_zyx_mm=spacing))
    assert (resample(scan, analysis_grid(scan.geometry, wanted)) == 42).all()


def test_one_slice_and_one_voxel_are_enough():
    scan = Volume(np.full((1, 1, 1), 42, np.int16), Geometry.from_axes((1, 1, 1)))
    assert resample(scan, analysis_grid(scan.geometry, (1.5, 1.0, 1.0))).tolist() == [[[42]]]


@pytest.mark.parametrize("degrees", [0, 25])
def test_a_mask_keeps_its_volume(degrees):
    axes = Rotation.from_euler("zyx", [degrees, degrees / 2, 0], degrees=True).as_matrix()[:, ::-1]
    source = Geometry.from_axes((40, 40, 40), origin_lps=(-20, -20, -20))
    target = Geometry.from_axes(
        (44, 60, 60), spacing_zyx_mm=(1.5, 1, 1), origin_lps=axes @ [-30.3, -30.2, -30.4], axes=axes
    )
    ball = np.linalg.norm(source.to_lps(np.stack(np.indices(source.shape_zyx), -1)), axis=-1) < 12
    out = resample_mask(ball, source, target)
    assert out.sum() * target.voxel_volume_mm3 == pytest.approx(ball.sum(), rel=0.03)

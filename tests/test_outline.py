"""Outlines in the geometry of the input: at the right place in any orientation."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from carina.geometry import Geometry
from carina.pipeline.group import group
from carina.pipeline.outline import paint

GRID = Geometry.from_axes((40, 60, 60), spacing_zyx_mm=(1.5, 1.0, 1.0), origin_lps=(-30, 10, -200))
POSITION = GRID.to_lps(np.stack(np.indices(GRID.shape_zyx), -1))


def balls(*balls: tuple[tuple[float, float, float], float]) -> np.ndarray:
    """Probability 0.5 at the surface of every ball (centre in mm, radius)."""
    maps = [1 / (1 + np.exp(2 * (np.linalg.norm(POSITION - center, axis=-1) - radius))) for center, radius in balls]
    return np.max(maps, axis=0).astype(np.float32)


def painted(probability: np.ndarray, target: Geometry) -> tuple[np.ndarray, list]:
    everywhere = np.ones(GRID.shape_zyx, bool)
    found, regions = group(probability, everywhere, GRID, threshold=0.5, min_volume_mm3=1.0)
    return paint(found, regions, probability, GRID, target), found


def around(center: np.ndarray, axes: np.ndarray, spacing: tuple[float, float, float]) -> Geometry:
    shape = tuple(int(np.ceil(44 / step)) for step in spacing)
    origin = center - axes @ (np.array(spacing) * (np.array(shape) - 1) / 2)
    return Geometry.from_axes(shape, spacing_zyx_mm=spacing, origin_lps=origin, axes=axes)


@settings(max_examples=12, deadline=None)
@given(
    st.tuples(*[st.floats(-180, 180)] * 3),
    st.booleans(),
    st.tuples(*[st.floats(0.6, 2.0)] * 3),
    st.tuples(*[st.floats(-3, 3)] * 3),
    st.floats(4.0, 9.0),
)
def test_a_ball_is_painted_where_it_lies(angles, mirrored, spacing, shift, radius):
    center = np.array([0.0, 40.0, -170.0]) + shift
    axes = Rotation.from_euler("zyx", angles, degrees=True).as_matrix() @ np.diag([1, 1, -1 if mirrored else 1])
    target = around(np.array([0.0, 40.0, -170.0]), axes, spacing)
    mask, _ = painted(balls((tuple(center), radius)), target)
    found = target.to_lps(np.argwhere(mask == 1).mean(axis=0))
    assert np.linalg.norm(found - center) < max(spacing)
    volume = np.count_nonzero(mask) * target.voxel_volume_mm3
    assert volume == pytest.approx(4 / 3 * np.pi * radius**3, rel=0.2)


def test_the_value_is_the_place_in_the_list():
    probability = balls(((0.0, 25.0, -170.0), 5.0), ((0.0, 55.0, -170.0), 7.0))
    mask, found = painted(probability, GRID)
    for value, candidate in enumerate(found, start=1):
        z, y, x = np.rint(candidate.center_zyx).astype(int)
        assert mask[z, y, x] == value


def test_on_its_own_grid_the_mask_is_the_region_itself():
    probability = balls(((2.0, 41.0, -171.0), 6.0))
    mask, _ = painted(probability, GRID)
    np.testing.assert_array_equal(mask == 1, probability > 0.5)


def test_each_finding_is_cut_where_it_was_found():
    sure, unsure = balls(((0.0, 25.0, -170.0), 6.0)), 0.6 * balls(((0.0, 55.0, -170.0), 6.0))
    probability = np.maximum(sure, unsure)
    everywhere = np.ones(GRID.shape_zyx, bool)
    found, regions = group(probability, everywhere, GRID, threshold=0.8, lower_thresholds=(0.3,), min_volume_mm3=1.0)
    mask = paint(found, regions, probability, GRID, GRID)
    np.testing.assert_array_equal(mask == 1, sure > 0.8)
    np.testing.assert_array_equal(mask == 2, unsure > np.float32(0.3))


def test_a_region_beyond_the_target_leaves_no_trace():
    target = Geometry.from_axes((10, 10, 10), origin_lps=(300, 300, 300))
    mask, found = painted(balls(((0.0, 40.0, -170.0), 5.0)), target)
    assert found
    assert not mask.any()


def test_a_region_cut_by_the_edge_of_the_target_is_painted_as_far_as_it_reaches():
    target = GRID.crop((20, 30, 0), (20, 30, 60))
    mask, _ = painted(balls(((0.0, 40.0, -170.0), 6.0)), target)
    whole, _ = painted(balls(((0.0, 40.0, -170.0), 6.0)), GRID)
    np.testing.assert_array_equal(mask, whole[20:, 30:])


def test_no_candidates_give_an_empty_mask():
    assert not painted(np.zeros(GRID.shape_zyx, np.float32), GRID)[0].any()

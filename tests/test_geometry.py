"""M24: patient millimetres and array indices, exact under any rotation."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.spatial.transform import Rotation

from carina.errors import GeometryError
from carina.geometry import Geometry

spacings = st.tuples(*[st.floats(0.3, 8.0)] * 3)
points = arrays(float, (5, 3), elements=st.floats(-400, 400))


@st.composite
def geometries(draw: st.DrawFn) -> Geometry:
    axes = Rotation.from_rotvec(draw(arrays(float, 3, elements=st.floats(-3, 3)))).as_matrix()
    return Geometry.from_axes(
        draw(st.tuples(*[st.integers(1, 60)] * 3)),
        spacing_zyx_mm=draw(spacings),
        origin_lps=draw(arrays(float, 3, elements=st.floats(-500, 500))),
        axes=axes * draw(st.sampled_from([1, -1])),
    )


@given(geometries(), points)
def test_index_to_patient_and_back(geometry: Geometry, index: np.ndarray) -> None:
    assert np.allclose(geometry.to_zyx(geometry.to_lps(index)), index, atol=1e-6)


@given(geometries())
def test_one_step_is_one_spacing(geometry: Geometry) -> None:
    steps = np.linalg.norm(geometry.to_lps(np.eye(3)) - geometry.to_lps(np.zeros(3)), axis=1)
    assert np.allclose(steps, geometry.spacing_zyx_mm)


@given(geometries(), arrays(float, 3, elements=st.floats(-20, 20)))
def test_a_crop_keeps_every_voxel_where_it_was(geometry: Geometry, start: np.ndarray) -> None:
    crop = geometry.crop(start, (4, 5, 6))
    assert np.allclose(crop.to_lps((1, 2, 3)), geometry.to_lps(np.add(start, (1, 2, 3))))


@given(geometries())
def test_bounds_hold_every_corner(geometry: Geometry) -> None:
    low, high = geometry.bounds_lps()
    last = geometry.to_lps(np.subtract(geometry.shape_zyx, 1))
    assert np.all(last >= low - 1e-6)
    assert np.all(last <= high + 1e-6)


def test_the_default_is_an_axial_stack_from_feet_to_head() -> None:
    geometry = Geometry.from_axes((4, 5, 6), spacing_zyx_mm=(2, 1, 0.5), origin_lps=(10, 20, 30))
    assert np.allclose(geometry.to_lps((1, 2, 3)), (10 + 1.5, 20 + 2, 30 + 2))


def test_contains_ends_half_a_voxel_outside_the_last_centre() -> None:
    geometry = Geometry.from_axes((4, 4, 4))
    assert geometry.contains((3.49, 0, 0))
    assert not geometry.contains((3.51, 0, 0))


def test_same_as_sees_a_shift_of_a_tenth_of_a_millimetre() -> None:
    geometry = Geometry.from_axes((4, 4, 4))
    assert geometry.same_as(Geometry.from_axes((4, 4, 4), origin_lps=(0.005, 0, 0)))
    assert not geometry.same_as(Geometry.from_axes((4, 4, 4), origin_lps=(0.1, 0, 0)))
    assert not geometry.same_as(Geometry.from_axes((4, 4, 5)))


def sheared() -> np.ndarray:
    affine = np.eye(4)
    affine[0, 1] = 0.3
    return affine


@pytest.mark.parametrize(
    ("shape", "affine", "words"),
    [
        ((4, 4, 4), sheared(), "gantry tilt"),
        ((4, 4, 4), np.diag([1.0, 0.0, 1.0, 1.0]), "not positive"),
        ((4, 4, 4), np.full((4, 4), np.nan), "not finite"),
        ((0, 4, 4), np.eye(4), "no voxels"),
    ],
)
def test_impossible_positions_are_refused(shape: tuple[int, int, int], affine: np.ndarray, words: str) -> None:
    with pytest.raises(GeometryError, match=words):
        Geometry(shape, affine)

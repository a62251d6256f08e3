"""Pictures show the patient, not the array: the same whatever the stack's orientation."""

import io
from itertools import permutations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from scipy.spatial.transform import Rotation

from carina import hu
from carina.errors import InputError
from carina.geometry import Geometry
from carina.report.outline import outline, svg_path
from carina.report.pictures import AXIAL, CORONAL, PLANES, SAGITTAL, projections, views
from carina.volume import Volume

CENTER = (12.0, -20.0, 45.0)
PEAKS = {"left": (10.0, 0.0, 0.0), "posterior": (0.0, 10.0, 0.0), "head": (0.0, 0.0, 10.0)}


def patient(positions_lps: np.ndarray) -> np.ndarray:
    """HU of a made-up patient: linear in space, so that linear interpolation is exact on any grid."""
    offset = positions_lps - CENTER
    return -600 + offset @ np.array([11.0, 7.0, -5.0])


def scanned(geometry: Geometry) -> Volume:
    index = np.moveaxis(np.indices(geometry.shape_zyx), 0, -1)
    return Volume(np.round(patient(geometry.to_lps(index))).astype(np.int16), geometry)


def stack(axes: np.ndarray, spacing_zyx_mm: tuple[float, float, float] = (1.5, 1.0, 1.0)) -> Geometry:
    """A grid of 60 mm around the centre with the given array axes."""
    shape = tuple(int(60 / s) for s in spacing_zyx_mm)
    middle = (np.array(shape) - 1) / 2 * spacing_zyx_mm
    return Geometry.from_axes(
        shape, spacing_zyx_mm=spacing_zyx_mm, origin_lps=np.asarray(CENTER) - axes @ middle, axes=axes
    )


def signed_permutations() -> list[np.ndarray]:
    return [
        np.eye(3)[:, order] * signs
        for order in permutations(range(3))
        for signs in np.array(np.meshgrid([1, -1], [1, -1], [1, -1])).reshape(3, 8).T
    ]


@pytest.mark.parametrize("axes", signed_permutations())
def test_every_stack_orientation_gives_the_same_pictures(axes: np.ndarray) -> None:
    reference = views(scanned(stack(np.eye(3)[:, ::-1])), CENTER, field_mm=30.0, pixels=40)
    for expected, got in zip(reference, views(scanned(stack(axes)), CENTER, field_mm=30.0, pixels=40), strict=True):
        assert np.abs(expected.hu - got.hu).max() <= 1.01  # both grids hold whole HU
        assert expected.corner_lps == got.corner_lps


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**31), spacing=st.tuples(*[st.floats(0.6, 3.0)] * 3))
def test_an_oblique_stack_gives_the_pictures_of_the_patient(seed: int, spacing: tuple[float, float, float]) -> None:
    axes = Rotation.random(random_state=seed).as_matrix()
    for view in views(scanned(stack(axes, spacing)), CENTER, field_mm=24.0, pixels=17):
        steps = (np.arange(17) - 8) * 24 / 17
        positions = (
            np.asarray(CENTER)
            + steps[:, None, None] * np.asarray(view.plane.down_lps)
            + steps[None, :, None] * np.asarray(view.plane.right_lps)
        )
        assert np.abs(view.hu - patient(positions)).max() <= 0.6


@pytest.mark.parametrize(
    ("plane", "direction", "corner_of_picture"),
    [
        (AXIAL, "left", "right"),
        (AXIAL, "posterior", "bottom"),
        (CORONAL, "left", "right"),
        (CORONAL, "head", "top"),
        (SAGITTAL, "posterior", "right"),
        (SAGITTAL, "head", "top"),
    ],
)
def test_directions_are_those_of_radiology(plane, direction, corner_of_picture) -> None:
    geometry = stack(np.eye(3)[:, ::-1])
    array = np.full(geometry.shape_zyx, hu.AIR, np.int16)
    array[tuple(np.round(geometry.to_zyx(np.add(CENTER, PEAKS[direction]))).astype(int))] = 1000
    view = views(Volume(array, geometry), CENTER, field_mm=40.0, pixels=81)[PLANES.index(plane)]
    row, column = np.unravel_index(view.hu.argmax(), view.hu.shape)
    side = {"right": column > 55, "bottom": row > 55, "top": row < 25}[corner_of_picture]
    assert side
    initials = dict(zip(("left", "right", "top", "bottom"), plane.letters, strict=True))
    assert initials[corner_of_picture] == {"left": "L", "posterior": "P", "head": "H"}[direction]


def test_a_picture_knows_where_a_position_falls() -> None:
    volume = scanned(stack(np.eye(3)[:, ::-1]))
    picture = views(volume, CENTER, field_mm=40.0, pixels=80)[0].picture(hu.LUNG_WINDOW)
    assert picture.to_pixel(CENTER) == pytest.approx((40, 40))
    assert picture.to_pixel((CENTER[0] + 5, CENTER[1] - 10, 99.0)) == pytest.approx((50, 20))


def test_the_window_spreads_its_hu_from_black_to_white_and_the_png_keeps_it() -> None:
    volume = Volume(np.full((20, 20, 20), -600, np.int16), Geometry.from_axes((20, 20, 20)))
    picture = views(volume, (10.0, 10.0, 10.0), field_mm=5.0, pixels=4)[0].picture(hu.LUNG_WINDOW)
    assert np.asarray(Image.open(io.BytesIO(picture.png()))).tolist() == [[128] * 4] * 4
    assert views(volume, (10.0, 10.0, 10.0), field_mm=5.0, pixels=4)[0].picture((-500, 0)).grey.max() == 0


def test_outside_the_ct_is_air_and_a_point_far_outside_is_refused() -> None:
    volume = Volume(np.zeros((20, 20, 20), np.int16), Geometry.from_axes((20, 20, 20)))
    view = views(volume, (0.0, 10.0, 10.0), field_mm=10.0, pixels=10)[0]
    assert (view.hu[:, :4] == hu.AIR).all()
    assert (view.hu[:, 5:] == 0).all()
    with pytest.raises(InputError, match="the CT lies elsewhere"):
        views(volume, (500.0, 0.0, 0.0), field_mm=10.0, pixels=10)


@pytest.mark.parametrize("spacing", [(1.0, 1.0, 1.0), (2.5, 0.7, 0.7)])
def test_the_outline_encloses_the_area_of_the_region(spacing) -> None:
    geometry = stack(Rotation.from_euler("xyz", [20, 30, 40], degrees=True).as_matrix(), spacing)
    volume = scanned(geometry)
    distance = np.linalg.norm(geometry.to_lps(np.moveaxis(np.indices(geometry.shape_zyx), 0, -1)) - CENTER, axis=-1)
    region = np.where(distance <= 10, 7, 0).astype(np.int32)
    for view in views(volume, CENTER, field_mm=40.0, pixels=160, region=region, region_value=7):
        (x0, y0), (x1, y1) = np.moveaxis(outline(view.inside) - 79.5, 0, -1).transpose(0, 1, 2)
        # Every segment seen from the middle of the (star-shaped) region spans a triangle.
        area = np.abs(x0 * y1 - x1 * y0).sum() / 2 * view.pixel_mm**2
        assert area == pytest.approx(np.pi * 100, rel=0.06)
        assert not outline(np.zeros_like(view.inside)).size


@given(st.integers(0, 2**32 - 1))
def test_an_outline_that_stays_inside_the_picture_is_closed(seed: int) -> None:
    mask = np.zeros((12, 12))
    mask[1:-1, 1:-1] = np.random.default_rng(seed).uniform(0, 1, (10, 10))
    ends, counts = np.unique(outline(mask).reshape(-1, 2).round(9), axis=0, return_counts=True)
    assert (counts % 2 == 0).all()
    assert len(ends) > 0


def test_an_outline_becomes_a_path_in_pixels() -> None:
    assert svg_path(np.array([[[0.0, 1.0], [2.5, 3.0]]])) == "M0.5 1.5L3.0 3.5"


@pytest.mark.parametrize("axes", [np.eye(3)[:, ::-1], np.eye(3)[:, [1, 2, 0]] * [-1, 1, -1]])
def test_projections_show_a_dense_ball_where_it_lies(axes: np.ndarray) -> None:
    geometry = stack(axes, (1.5, 1.5, 1.5))
    ball_lps = (CENTER[0] + 14, CENTER[1] + 6, CENTER[2] - 9)
    positions = geometry.to_lps(np.moveaxis(np.indices(geometry.shape_zyx), 0, -1))
    array = np.where(np.linalg.norm(positions - ball_lps, axis=-1) < 7, 200, -900).astype(np.int16)
    for picture in projections(Volume(array, geometry)):
        rows, columns = np.nonzero(picture.grey > 200)
        x, y = picture.to_pixel(ball_lps)
        assert (columns.mean() + 0.5, rows.mean() + 0.5) == pytest.approx((x, y), abs=0.6)

"""Sizes of bodies whose size is known."""

import importlib.util
import re
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from carina.ct.measure import measure
from carina.errors import InputError
from carina.geometry import Geometry
from carina.volume import Volume

AIR_HU, TISSUE_HU = -850, 30


def ellipsoid(
    axes_zyx_mm: tuple[float, float, float],
    spacing_zyx_mm: tuple[float, float, float] = (1.0, 0.7, 0.7),
    *,
    shift: tuple[float, float, float] = (0.1, 0.3, -0.2),
    blur_mm: float = 0.6,
    noise_hu: float = 0.0,
    turn: float = 0.0,
    tissue_hu: int = TISSUE_HU,
) -> tuple[Volume, np.ndarray]:
    """A blurred ellipsoid with partial volume, turned by ``turn`` in the axial plane, and the voxels it half fills."""
    spacing = np.asarray(spacing_zyx_mm)
    shape = np.ceil((max(axes_zyx_mm) + 16) / spacing).astype(int)
    fine = np.ceil(spacing / 0.3).astype(int)
    lines = [
        ((np.arange(n * k) + 0.5) / k - 0.5 - (n - 1) / 2 - c) * mm
        for n, k, c, mm in zip(shape, fine, shift, spacing, strict=True)
    ]
    z, y, x = np.ix_(*lines)
    a, b = np.cos(turn) * y - np.sin(turn) * x, np.sin(turn) * y + np.cos(turn) * x
    radii = np.asarray(axes_zyx_mm) / 2
    inside = ((z / radii[0]) ** 2 + (a / radii[1]) ** 2 + (b / radii[2]) ** 2 <= 1).astype(np.float32)
    parts = [m for n, k in zip(shape, fine, strict=True) for m in (n, k)]
    share = inside.reshape(parts).mean(axis=(1, 3, 5))
    seen = ndimage.gaussian_filter(share, (0, blur_mm / spacing[1], blur_mm / spacing[2]))
    hu = AIR_HU + (tissue_hu - AIR_HU) * seen + np.random.default_rng(0).normal(0, noise_hu, share.shape)
    geometry = Geometry.from_axes(tuple(shape.tolist()), spacing_zyx_mm=spacing)
    return Volume(np.rint(hu).astype(np.int16), geometry), (share >= 0.5).astype(np.uint8)


@settings(max_examples=10, deadline=None)
@given(
    diameter_mm=st.floats(6, 20),
    spacing=st.tuples(st.floats(0.6, 1.3), st.floats(0.5, 0.9), st.floats(0.5, 0.9)),
    shift=st.tuples(*[st.floats(-0.5, 0.5)] * 3),
)
def test_a_ball_in_thin_slices_has_its_diameter_and_volume(
    diameter_mm: float, spacing: tuple[float, float, float], shift: tuple[float, float, float]
) -> None:
    volume, labels = ellipsoid((diameter_mm,) * 3, spacing, shift=shift)
    size = measure(volume, labels)[1]
    assert size.volume_mm3 == pytest.approx(np.pi / 6 * diameter_mm**3, rel=0.04)
    assert size.long_axis_mm == pytest.approx(diameter_mm, abs=0.6)
    assert size.short_axis_mm == pytest.approx(diameter_mm, abs=0.6)
    assert size.mean_axis_mm == (size.long_axis_mm + size.short_axis_mm) / 2
    assert size.solid_volume_mm3 == pytest.approx(size.volume_mm3, rel=0.03)


@pytest.mark.parametrize("turn", [0.0, 0.4, 1.1, 2.5])
def test_the_axes_of_an_ellipse_are_its_own_however_it_is_turned(turn: float) -> None:
    volume, labels = ellipsoid((10.0, 8.0, 16.0), turn=turn)
    size = measure(volume, labels)[1]
    assert size.long_axis_mm == pytest.approx(16, abs=0.5)
    assert size.short_axis_mm == pytest.approx(8, abs=0.5)
    ends = np.asarray(size.long_axis_lps)
    along = (ends[1] - ends[0])[:2] / size.long_axis_mm
    assert abs(along @ (np.cos(turn), np.sin(turn))) > 0.99
    across = np.diff(size.short_axis_lps, axis=0)[0][:2] / size.short_axis_mm
    assert abs(along @ across) < 1e-6


@settings(max_examples=10, deadline=None)
@given(
    angle=st.floats(0, 6.2),
    turned=st.sampled_from([(0, 1, 2), (1, 0, 2), (2, 1, 0)]),
    origin=st.tuples(*[st.floats(-300, 300)] * 3),
)
def test_axes_lie_on_an_axial_slice_through_the_nodule_in_any_stack(
    angle: float, turned: tuple[int, int, int], origin: tuple[float, float, float]
) -> None:
    volume, labels = ellipsoid((10.0, 8.0, 16.0), (1.0, 0.8, 0.7), turn=angle)
    affine = np.array(volume.geometry.affine)
    affine[:3, 3] = origin
    affine[:, :3] = affine[:, list(turned)]
    hu, labels = volume.hu.transpose(turned), labels.transpose(turned)
    moved = Volume(np.ascontiguousarray(hu), Geometry(hu.shape, affine))
    expected, size = measure(volume, labels.transpose(np.argsort(turned)))[1], measure(moved, labels)[1]
    ends = np.array([*size.long_axis_lps, *size.short_axis_lps])
    assert np.ptp(ends[:, 2]) < 1e-6
    center = moved.geometry.to_lps(np.argwhere(labels).mean(axis=0))
    assert np.linalg.norm(ends.mean(axis=0) - center) < 1.0
    assert size.long_axis_mm == pytest.approx(expected.long_axis_mm, abs=0.3)
    assert size.volume_mm3 == pytest.approx(expected.volume_mm3, rel=1e-3)


@pytest.mark.parametrize("change", [ndimage.binary_erosion, ndimage.binary_dilation])
def test_the_volume_hardly_depends_on_how_tightly_the_outline_was_drawn(change: object) -> None:
    volume, labels = ellipsoid((10.0, 10.0, 10.0))
    drawn = change(labels).astype(np.uint8)
    true_mm3 = np.pi / 6 * 1000
    counted_mm3 = drawn.sum() * volume.geometry.voxel_volume_mm3
    assert abs(counted_mm3 / true_mm3 - 1) > 0.25
    assert measure(volume, drawn)[1].volume_mm3 == pytest.approx(true_mm3, rel=0.05)


def test_the_volume_hardly_depends_on_noise() -> None:
    quiet, noisy = (measure(*ellipsoid((9.0, 9.0, 9.0), noise_hu=hu))[1] for hu in (0.0, 40.0))
    assert noisy.volume_mm3 == pytest.approx(quiet.volume_mm3, rel=0.05)
    assert noisy.long_axis_mm == pytest.approx(quiet.long_axis_mm, abs=0.4)


def with_tissue(volume: Volume, where: np.ndarray) -> Volume:
    hu = np.array(volume.hu)
    hu[where] = TISSUE_HU
    return Volume(hu, volume.geometry)


def test_a_wall_or_vessel_at_the_nodule_does_not_count() -> None:
    volume, labels = ellipsoid((10.0, 10.0, 10.0))
    alone = measure(volume, labels)[1]
    column = int(np.argwhere(labels)[:, 2].max()) + 1
    wall = np.zeros(labels.shape, bool)
    wall[:, :, column:] = True
    beside = measure(with_tissue(volume, wall), labels)[1]
    assert beside.volume_mm3 == pytest.approx(alone.volume_mm3, rel=0.06)
    z, y, _ = np.rint(np.argwhere(labels).mean(axis=0)).astype(int)
    vessel = np.zeros(labels.shape, bool)
    vessel[z - 1 : z + 2, y - 1 : y + 2, column:] = True
    assert measure(with_tissue(volume, vessel), labels)[1].volume_mm3 == pytest.approx(alone.volume_mm3, rel=0.03)


def test_a_neighbouring_nodule_does_not_count() -> None:
    volume, labels = ellipsoid((12.0, 12.0, 12.0))
    middle = round(np.argwhere(labels)[:, 2].mean())
    halves = labels.copy()
    halves[:, :, middle:] *= 2
    parts = measure(volume, halves)
    assert set(parts) == {1, 2}
    whole = measure(volume, labels)[1].volume_mm3
    assert parts[1].volume_mm3 + parts[2].volume_mm3 == pytest.approx(whole, rel=0.03)


def test_the_solid_part_of_a_part_solid_nodule_is_its_core() -> None:
    outer, labels = ellipsoid((16.0, 16.0, 16.0), tissue_hu=-600)
    inner, _ = ellipsoid((8.0, 8.0, 8.0), tissue_hu=150)
    pad = [(a - b) // 2 for a, b in zip(outer.hu.shape, inner.hu.shape, strict=True)]
    where = tuple(slice(p, p + n) for p, n in zip(pad, inner.hu.shape, strict=True))
    hu = np.array(outer.hu)
    hu[where] += ((inner.hu - AIR_HU) * 0.64).astype(np.int16)  # shares of the core, 640 HU denser than its shell
    size = measure(Volume(hu, outer.geometry), labels)[1]
    assert size.solid_volume_mm3 == pytest.approx(np.pi / 6 * 8**3, rel=0.15)
    assert size.volume_mm3 == pytest.approx(np.pi / 6 * 16**3, rel=0.06)


def test_ground_glass_has_no_solid_part() -> None:
    volume, labels = ellipsoid((12.0, 12.0, 12.0), tissue_hu=-600, noise_hu=20)
    size = measure(volume, labels)[1]
    assert size.solid_volume_mm3 == 0
    assert size.volume_mm3 == pytest.approx(np.pi / 6 * 12**3, rel=0.08)


def test_what_does_not_differ_from_its_surroundings_is_as_large_as_its_outline() -> None:
    volume, labels = ellipsoid((10.0, 10.0, 10.0), tissue_hu=AIR_HU + 20)
    size = measure(volume, labels)[1]
    assert size.volume_mm3 == pytest.approx(labels.sum() * volume.geometry.voxel_volume_mm3)


def test_a_single_voxel_and_a_line_at_the_edge_of_the_scan_are_measured() -> None:
    volume, labels = ellipsoid((10.0, 10.0, 10.0))
    labels[:] = 0
    labels[0, 0, 0] = 1
    labels[-1, -1, 3:7] = 2
    sizes = measure(volume, labels)
    assert 0 < sizes[1].long_axis_mm < 3
    assert sizes[2].long_axis_mm == pytest.approx(4 * 0.7, abs=0.5)
    assert sizes[2].short_axis_mm <= sizes[2].long_axis_mm


def test_labels_without_voxels_are_left_out_and_a_map_of_another_grid_is_refused() -> None:
    volume, labels = ellipsoid((10.0, 10.0, 10.0))
    assert set(measure(volume, labels * 3)) == {3}
    assert measure(volume, labels * 0) == {}
    with pytest.raises(InputError, match="shape"):
        measure(volume, labels[1:])


def test_the_published_errors_are_those_that_the_benchmark_measures() -> None:
    root = Path(__file__).parents[1]
    found = importlib.util.spec_from_file_location("measurements", root / "benchmarks" / "measurements.py")
    assert found is not None
    assert found.loader is not None
    benchmark = importlib.util.module_from_spec(found)
    found.loader.exec_module(benchmark)
    page = (root / "docs" / "reference" / "measurements.md").read_text("utf-8").splitlines()
    made = list(benchmark.ball_rows(12, 30.0, (8,), (10,)))[2:]
    assert [line[: line.index("HU")] for line in made] == [f"| 8 mm | {mm} mm | 10 " for mm in ("1", "2.5", "5")]
    for line in made:
        (published,) = [one for one in page if one.startswith(line[: line.index("HU")])]
        ours, theirs = ([float(n) for n in re.findall(r"[+-]?[\d.]+", one)][3:] for one in (line, published))
        assert ours[:4] == pytest.approx(theirs[:4], abs=0.011)  # mm, of two digits
        assert ours[4:] == pytest.approx(theirs[4:], abs=1.01)  # whole percent

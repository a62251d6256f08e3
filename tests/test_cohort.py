"""Synthetic cohorts: the LUNA16 layout, whole scans or none, the same from the same seed."""

from pathlib import Path

import numpy as np
import pytest

from carina.cli.phantom import Phantom, empty_scans, scan_seeds
from carina.data.cohort import (
    CohortScan,
    append_rows,
    recover,
    subset_of,
    write_images,
    write_scan,
)
from carina.errors import InputError, UsageError
from carina.geometry import Geometry
from carina.io import LunaCohort, read_ct, read_image
from carina.io.luna import Annotation, ScanRow
from carina.io.uid import is_uid, made_uid
from carina.volume import Source, Volume

GEOMETRY = Geometry.from_axes((20, 12, 10), spacing_zyx_mm=(2.5, 0.8, 0.8), origin_lps=(-31.5, 12.25, -200.0))


def add(root: Path, number: int, *, dicom: bool = False) -> Path:
    rng = np.random.default_rng(number)
    uid = f"2.25.{number}"
    hu = rng.integers(-1000, 400, GEOMETRY.shape_zyx, dtype=np.int16)
    mask = np.zeros(hu.shape, np.uint8)
    mask[5:8, 3:6, 3:6] = 1
    center = GEOMETRY.to_lps([6, 4, 4])
    nodule = Annotation(uid, (center[0], center[1], center[2]), 4.5, 47.7, "solid", 1)
    return write_scan(
        root,
        Volume(hu, GEOMETRY, Source(series_uid=uid)),
        mask,
        [nodule],
        GEOMETRY.to_lps(np.array([[1.0, 2, 3], [9, 9, 9]])),
        patient_id=f"patient-{number}",
        origin="phantom",
        dicom=dicom,
    )


def test_a_written_scan_is_read_back_the_same(tmp_path: Path) -> None:
    path = add(tmp_path, 7)
    cohort = LunaCohort(tmp_path)
    assert cohort.scans == {"2.25.7": path}
    volume = read_ct(path)
    rng = np.random.default_rng(7)
    assert np.array_equal(volume.hu, rng.integers(-1000, 400, GEOMETRY.shape_zyx, dtype=np.int16))
    assert volume.geometry.same_as(GEOMETRY)
    (nodule,) = cohort.annotations
    assert (nodule.type, nodule.label, nodule.volume_mm3) == ("solid", 1, 47.7)
    assert np.allclose(nodule.center_lps, GEOMETRY.to_lps([6, 4, 4]), atol=1e-5)
    assert [c.is_nodule for c in cohort.candidates] == [True, False, False]
    (row,) = cohort.scan_rows
    assert (row.patient_id, row.slice_thickness_mm, row.origin) == ("patient-7", 2.5, "phantom")
    mask_path = cohort.mask("2.25.7")
    assert mask_path is not None
    mask, geometry = read_image(mask_path)
    assert mask.sum() == 27
    assert geometry.same_as(GEOMETRY)


def test_scans_are_added_one_by_one_and_never_twice(tmp_path: Path) -> None:
    for number in (1, 2, 3):
        add(tmp_path, number)
    assert recover(tmp_path) == {"2.25.1", "2.25.2", "2.25.3"}
    assert len(LunaCohort(tmp_path).candidates) == 9
    with pytest.raises(InputError, match=r"2\.25\.2 is already there"):
        add(tmp_path, 2)
    assert len(LunaCohort(tmp_path).candidates) == 9


def test_a_scan_broken_off_is_taken_out_and_can_be_written_again(tmp_path: Path) -> None:
    add(tmp_path, 1)
    add(tmp_path, 2)
    scans = tmp_path / "scans.csv"
    lines = scans.read_text().splitlines(keepends=True)
    scans.write_text("".join(lines[:2]) + lines[2][:9])  # torn in the middle of the row of the second scan
    assert recover(tmp_path) == {"2.25.1"}
    assert {a.series_uid for a in LunaCohort(tmp_path).annotations} == {"2.25.1"}
    assert {c.series_uid for c in LunaCohort(tmp_path).candidates} == {"2.25.1"}
    add(tmp_path, 2)
    assert len(LunaCohort(tmp_path).annotations) == 2


def test_recover_of_nothing_is_nothing(tmp_path: Path) -> None:
    assert recover(tmp_path / "new") == set()


def test_no_draft_is_left_behind(tmp_path: Path) -> None:
    add(tmp_path, 1)
    assert not list(tmp_path.rglob(".*"))


def test_dicom_cohort_holds_series_beside_the_tables(tmp_path: Path) -> None:
    folder = add(tmp_path, 5, dicom=True)
    volume = read_ct(folder)
    assert volume.source.series_uid == "2.25.5"
    assert volume.geometry.same_as(GEOMETRY)
    assert LunaCohort(tmp_path).mask("2.25.5") is not None


def test_scans_of_one_patient_share_a_subset() -> None:
    assert subset_of("patient-1") == subset_of("patient-1")
    assert {subset_of(str(n)) for n in range(200)} == set(range(10))


def test_what_does_not_fit_is_refused(tmp_path: Path) -> None:
    volume = Volume(np.zeros(GEOMETRY.shape_zyx, np.int16), GEOMETRY, Source(series_uid="2.25.1"))
    none = np.zeros((0, 3))
    with pytest.raises(InputError, match="does not fit"):
        write_scan(tmp_path, volume, np.zeros((2, 2, 2), np.uint8), [], none, patient_id="p", origin="o")
    mask = np.zeros(GEOMETRY.shape_zyx, np.uint8)
    stranger = Annotation("2.25.9", (0.0, 0.0, 0.0), 5.0)
    with pytest.raises(InputError, match="another series"):
        write_scan(tmp_path, volume, mask, [stranger], none, patient_id="p", origin="o")
    with pytest.raises(InputError, match="needs a series UID"):
        write_scan(tmp_path, Volume(volume.hu, GEOMETRY), mask, [], none, patient_id="p", origin="o")
    assert not list(tmp_path.iterdir())


def test_phantom_command_makes_a_cohort_and_goes_on_with_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "cohort"
    coarse = {"nodules": 2, "slice_mm": 5.0, "pixel_mm": 3.0}
    assert Phantom(out, scans=1, seed=3, **coarse).run() == 0
    (first,) = LunaCohort(out).scans.values()
    written = first.stat().st_mtime_ns
    assert Phantom(out, scans=2, seed=3, **coarse).run() == 0
    assert "2 scans" in capsys.readouterr().out
    assert Phantom(out, scans=2, seed=3, malignancy_rule=True, quiet=True, **coarse).run() == 0
    assert capsys.readouterr() == ("", "")
    cohort = LunaCohort(out)
    assert len(cohort.scans) == 2
    assert first.stat().st_mtime_ns == written
    assert len(cohort.annotations) == 4
    assert len(cohort.candidates) > 30
    for uid in cohort.scans:
        mask_path = cohort.mask(uid)
        assert mask_path is not None
        assert read_image(mask_path)[0].max() <= 2


def test_phantoms_of_other_options_are_not_taken_for_those_asked_for(tmp_path: Path) -> None:
    out = tmp_path / "cohort"
    coarse = {"slice_mm": 5.0, "pixel_mm": 3.0, "quiet": True}
    assert Phantom(out, seed=3, nodules=0, **coarse).run() == 0
    other = "made with --nodules 0, no --dicom, not --nodules 2, --dicom; use another folder"
    with pytest.raises(UsageError, match=other):
        Phantom(out, seed=3, nodules=2, dicom=True, **coarse).run()
    assert Phantom(out, seed=4, nodules=2, **coarse).run() == 0, "other scans may be made otherwise"
    assert Phantom(out, seed=3, nodules=0, **coarse).run() == 0, "the refused call changed nothing"
    assert len(LunaCohort(out).scans) == 2
    (out / "seed-3.json").write_text("{")
    with pytest.raises(InputError, match=r"seed-3\.json is damaged"):
        Phantom(out, seed=3, nodules=0, **coarse).run()


def test_options_may_change_before_a_scan_is_made_with_them(tmp_path: Path) -> None:
    (tmp_path / "seed-3.json").write_text('{"nodules": 1}')
    assert Phantom(tmp_path, seed=3, nodules=0, slice_mm=5.0, pixel_mm=3.0, quiet=True).run() == 0


def test_a_longer_cohort_begins_with_the_shorter() -> None:
    assert scan_seeds(4, 20)[:5] == scan_seeds(4, 5)
    assert len(set(scan_seeds(4, 500)) | set(scan_seeds(5, 500))) == 1000


@pytest.mark.parametrize("share", [0.0, 0.2, 0.5, 1.0])
def test_share_of_empty_scans_is_kept_in_every_run(share: float) -> None:
    for n in (1, 7, 40):
        assert abs(sum(empty_scans(3, n, share)) - share * n) <= 1


@pytest.mark.parametrize("wrong", [{"scans": 0}, {"jobs": 0}, {"empty": 1.5}, {"nodules": -1}, {"slice_mm": 90.0}])
def test_wrong_numbers_are_refused(tmp_path: Path, wrong: dict[str, float]) -> None:
    with pytest.raises(UsageError):
        Phantom(tmp_path / "c", **wrong).run()  # type: ignore[arg-type]
    assert not (tmp_path / "c").exists()


def test_a_scan_counts_only_once_its_rows_are_there(tmp_path: Path) -> None:
    scan = CohortScan(ScanRow("2.25.1", "p", 2.5, "chest"), (), ((1.0, 2.0, 3.0),))
    volume = Volume(np.zeros(GEOMETRY.shape_zyx, np.int16), GEOMETRY, Source(series_uid="2.25.1"))
    path = write_images(tmp_path, volume, np.zeros(GEOMETRY.shape_zyx, np.uint8), scan)
    assert path.is_file()
    assert recover(tmp_path) == set()
    append_rows(tmp_path, scan)
    assert recover(tmp_path) == {"2.25.1"}
    assert [c.center_lps for c in LunaCohort(tmp_path).candidates] == [(1.0, 2.0, 3.0)]


def test_made_uid_follows_from_its_parts_alone() -> None:
    assert made_uid("a", 1) == made_uid("a", 1)
    assert is_uid(made_uid("a", 1))
    assert len({made_uid("a", n) for n in range(100)}) == 100

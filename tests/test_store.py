"""The prepared store: what is in it is true, and no way of dying leaves it half written."""

import json
import os
import signal
import subprocess
import sys
import time
import tracemalloc
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from scipy import ndimage

from carina.cli.prepare import Prepare
from carina.ct.preprocess import Preprocessing, prepare_scan
from carina.data.batches import cut_batch
from carina.data.cases import Tables, find_cases
from carina.data.prepare import key_of, prepare, remove_stale
from carina.data.sampling import CropList
from carina.data.store import MANIFEST, Scan, Store
from carina.data.truth import draw_truth, grow_nodule
from carina.errors import InputError, UsageError
from carina.geometry import Geometry
from carina.io import write_image
from carina.io.luna import (
    IGNORE,
    Annotation,
    Candidate,
    ScanRow,
    write_annotations,
    write_candidates,
    write_scans,
)
from carina.volume import Source, Volume
from io_samples import edit_all, small_series

GRID = Geometry.from_axes((76, 80, 118), spacing_zyx_mm=(2.5, 2.0, 2.0), origin_lps=(-117.0, -79.0, -900.0))
SETTINGS = Preprocessing(spacing_zyx_mm=(2.5, 2.0, 2.0))
UIDS = ("1.2.3.1", "1.2.3.2", "1.2.3.3")
NODULES = {
    "1.2.3.1": [((-55.0, 0.0, -800.0), 12.0), ((50.0, 10.0, -780.0), 9.0)],
    "1.2.3.2": [((-50.0, -20.0, -800.0), 10.0)],
    "1.2.3.3": [],
}


@cache
def positions() -> np.ndarray:
    return GRID.to_lps(np.moveaxis(np.indices(GRID.shape_zyx), 0, -1))


def distance_mm(center_lps: tuple[float, float, float]) -> np.ndarray:
    return np.linalg.norm(positions() - center_lps, axis=-1)


@cache
def chest(uid: str) -> tuple[np.ndarray, np.ndarray]:
    """A body with two lungs and the nodules of a series: HU and label map."""
    side, back, up = np.moveaxis(positions() - (0, 0, -805), -1, 0)
    hu = np.where((side / 112) ** 2 + (back / 75) ** 2 < 1, 40, -1000).astype(np.int16)
    for middle in (-52, 52):
        hu[((side - middle) / 42) ** 2 + (back / 58) ** 2 + (up / 82) ** 2 < 1] = -850
    label = np.zeros(GRID.shape_zyx, np.uint8)
    for k, (center, diameter) in enumerate(NODULES[uid], 1):
        label[distance_mm(center) <= diameter / 2] = k
    hu[label > 0] = 30
    noise = np.random.default_rng(int(uid[-1])).normal(0, 15, hu.shape)
    return (hu + noise).astype(np.int16), label


def write_cohort(root: Path, *, masks: bool = True) -> Path:
    for i, uid in enumerate(UIDS):
        hu, label = chest(uid)
        (root / f"subset{i}").mkdir(parents=True)
        write_image(hu, GRID, root / f"subset{i}" / f"{uid}.mhd")
        if masks:
            (root / "masks").mkdir(exist_ok=True)
            ignored = np.where(distance_mm((0.0, 40.0, -800.0)) < 8, IGNORE, label).astype(np.uint8)
            write_image(ignored, GRID, root / "masks" / f"{uid}.mha")
    rows = [
        Annotation(uid, center, diameter, None, "solid" if masks else None, k if masks else None)
        for uid in UIDS
        for k, (center, diameter) in enumerate(NODULES[uid], 1)
    ]
    write_annotations(root / "annotations.csv", rows)
    places = [(-60.0, 20.0, -780.0), (-55.0, 2.0, -800.0), (900.0, 0.0, 0.0)]
    write_candidates(
        root / "candidates.csv",
        [Candidate(uid, place, False) for uid in UIDS for place in places]
        + [Candidate(a.series_uid, a.center_lps, True) for a in rows],
    )
    write_scans(root / "scans.csv", [ScanRow(uid, f"patient-{i // 2}", 2.5, "test") for i, uid in enumerate(UIDS)])
    return root


@pytest.fixture(scope="module")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_cohort(tmp_path_factory.mktemp("data") / "cohort")


@pytest.fixture(scope="module")
def store(cohort: Path, tmp_path_factory: pytest.TempPathFactory) -> Store:
    return prepare([cohort], tmp_path_factory.mktemp("stores") / "store", preprocessing=SETTINGS)


def content(folder: Path) -> dict[str, bytes]:
    return {
        str(f.relative_to(folder)): f.read_bytes()
        for f in sorted(folder.rglob("*"))
        if f.is_file() and f.name != ".lock"
    }


def test_store_lists_every_scan_with_what_is_known(store):
    assert [s.series_uid for s in store.scans] == list(UIDS)
    assert [s.patient_id for s in store.scans] == ["patient-0", "patient-0", "patient-1"]
    assert [s.subset for s in store.scans] == [0, 1, 2]
    assert [len(s.nodules) for s in store.scans] == [2, 1, 0]
    assert {s.origin for s in store.scans} == {"test"}
    assert store.scans[0].nodules[0].type == "solid"
    assert store.failed == {}


def test_hu_is_what_inference_sees(store, cohort):
    from carina.io import read_ct

    prepared = prepare_scan(read_ct(cohort / "subset0" / f"{UIDS[0]}.mhd"), SETTINGS)
    scan = store.scans[0]
    assert np.array_equal(scan.hu(), prepared.hu)
    assert np.array_equal(scan.lung(), prepared.lung)
    assert scan.geometry.same_as(prepared.geometry, 1e-6)


def test_nodules_lie_at_their_place_in_millimetres(store):
    for scan in store.scans:
        for nodule, (center_lps, diameter_mm) in zip(scan.nodules, NODULES[scan.series_uid], strict=True):
            assert scan.geometry.to_lps(nodule.center_zyx) == pytest.approx(center_lps, abs=1e-3)
            drawn = np.argwhere(scan.label() == nodule.label)
            assert scan.geometry.to_lps(drawn.mean(axis=0)) == pytest.approx(center_lps, abs=0.7)
            assert nodule.diameter_mm == pytest.approx(diameter_mm)


def test_masks_keep_their_volume(store):
    for scan in store.scans:
        source = chest(scan.series_uid)[1]
        for nodule in scan.nodules:
            expected = (source == nodule.label).sum() * GRID.voxel_volume_mm3
            drawn = (scan.label() == nodule.label).sum() * scan.geometry.voxel_volume_mm3
            assert drawn == pytest.approx(expected, abs=scan.geometry.voxel_volume_mm3)
            assert nodule.volume_mm3 == pytest.approx(drawn)


def test_regions_to_ignore_stay_so(store):
    for scan in store.scans:
        place = np.argwhere(scan.label() == IGNORE)
        assert scan.geometry.to_lps(place.mean(axis=0)) == pytest.approx((0, 40, -800), abs=1)


def test_negatives_lie_in_the_box_and_on_no_nodule(store):
    centers = [scan.geometry.to_lps(scan.negatives) for scan in store.scans]
    assert [len(c) for c in centers] == [1, 2, 2]
    assert centers[0][0] == pytest.approx((-60, 20, -780), abs=1e-3)


def test_lung_points_lie_in_the_lungs(store):
    for scan in store.scans:
        assert len(scan.lung_points) > 1000
        assert scan.lung()[tuple(scan.lung_points.T.astype(int))].all()


def test_arrays_are_mapped_and_cannot_be_written(store):
    hu = store.scans[0].hu()
    assert isinstance(hu.base, np.memmap)
    with pytest.raises(ValueError, match="read-only"):
        hu[0, 0, 0] = 0


def test_scans_travel_to_other_processes_without_their_voxels(store):
    import pickle

    scan = store.scans[0]
    scan.hu()
    sent = pickle.dumps(scan)
    assert len(sent) < 10_000
    assert np.array_equal(pickle.loads(sent).hu(), scan.hu())


def test_again_touches_nothing_and_gives_the_same(store, cohort):
    before = {f: f.stat().st_mtime_ns for f in store.folder.rglob("*.npy")}
    again = prepare([cohort], store.folder, preprocessing=SETTINGS)
    assert {f: f.stat().st_mtime_ns for f in store.folder.rglob("*.npy")} == before
    assert again.scans == store.scans


def test_two_processes_give_the_bytes_of_one(store, cohort, tmp_path):
    prepare([cohort], tmp_path / "two", preprocessing=SETTINGS, jobs=2)
    assert content(tmp_path / "two") == content(store.folder)


def test_memory_does_not_grow_with_the_cohort(cohort, tmp_path):
    peaks = []
    for folders in ([cohort / "subset0"], [cohort / f"subset{i}" for i in range(3)]):
        tracemalloc.start()
        made = prepare(folders, tmp_path / str(len(folders)), preprocessing=SETTINGS)
        everywhere = CropList(np.arange(len(made)), np.full((len(made), 3), 20), *[np.zeros(len(made), np.int64)] * 3)
        cut_batch(made.scans, everywhere, (8, 8, 8))
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < 1.1 * peaks[0]


def test_cohort_may_be_moved(cohort, tmp_path):
    (tmp_path / "moved").symlink_to(cohort)
    here, there = (find_cases([folder])[0] for folder in (cohort, tmp_path / "moved"))
    settings = Preprocessing()
    assert [key_of(c, settings) for c in here] == [key_of(c, settings) for c in there]


def test_key_changes_with_everything_that_matters(cohort):
    (case, *_), _ = find_cases([cohort])
    keys = {
        key_of(case, Preprocessing()),
        key_of(case, Preprocessing(spacing_zyx_mm=(2.0, 2.0, 2.0))),
        key_of(case, Preprocessing(margin_mm=30.0)),
        key_of(replace(case, nodules=case.nodules[:1]), Preprocessing()),
        key_of(replace(case, negatives_lps=case.negatives_lps[:1]), Preprocessing()),
        key_of(replace(case, patient_id="other"), Preprocessing()),
        key_of(replace(case, mask=None), Preprocessing()),
        key_of(replace(case, path=cohort / "subset1" / f"{UIDS[1]}.mhd"), Preprocessing()),
    }
    assert len(keys) == 8
    assert key_of(case, Preprocessing(clip_hu=(-1200.0, 600.0))) in keys


COMMAND = (
    "import sys; from pathlib import Path; from carina.cli.prepare import Prepare;"
    "Prepare((Path(sys.argv[1]),), Path(sys.argv[2]), int(sys.argv[3]), spacing_mm=(2.5, 2.0, 2.0)).run()"
)


@pytest.mark.slow
@pytest.mark.parametrize("jobs", [1, 2])
def test_killed_while_writing_the_same_command_ends_with_the_same_bytes(store, cohort, tmp_path, jobs):
    folder = tmp_path / "killed"
    command = [sys.executable, "-c", COMMAND, str(cohort), str(folder), str(jobs)]
    process = subprocess.Popen(command, start_new_session=True)
    kill_while_writing(process, folder)
    for complete in (f for f in folder.iterdir() if f.is_dir() and not f.name.startswith(".")):
        assert Scan.from_folder(complete).hu().size > 0
    with pytest.raises(InputError, match="no finished prepared store"):
        Store(folder)
    subprocess.run(command, check=True)
    assert content(folder) == content(store.folder)


def kill_while_writing(process: subprocess.Popen, folder: Path) -> None:
    """Kill a process and its workers while a scan lies half written; stopped first, since they may just rename it."""
    while process.poll() is None:
        time.sleep(0.001)
        if list(folder.glob(".partial-*/hu.npy")):
            os.killpg(process.pid, signal.SIGSTOP)
            time.sleep(0.05)
            if list(folder.glob(".partial-*/hu.npy")):
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
                return
            os.killpg(process.pid, signal.SIGCONT)
    pytest.fail("the run ended before it could be killed")


@pytest.mark.slow
def test_workers_end_with_the_command_that_was_killed(store, cohort, tmp_path):
    folder = tmp_path / "killed"
    command = [sys.executable, "-c", COMMAND, str(cohort), str(folder), "2"]
    process = subprocess.Popen(command, start_new_session=True)
    while process.poll() is None and not list(folder.glob(".partial-*")):
        time.sleep(0.001)
    process.kill()
    assert process.wait() == -signal.SIGKILL, "the run ended before it could be killed"
    wait_for_group(process.pid)
    subprocess.run(command, check=True)
    assert content(folder) == content(store.folder)


def wait_for_group(process_group: int) -> None:
    """Workers end on their own when the command that started them was killed."""
    for _ in range(1000):
        try:
            os.killpg(process_group, 0)
        except ProcessLookupError:
            return
        time.sleep(0.01)
    os.killpg(process_group, signal.SIGKILL)
    pytest.fail("worker processes outlived the command")


def test_second_run_on_the_same_store_is_refused(store, cohort):
    import fcntl

    with (store.folder / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(InputError, match="another process is preparing"):
            prepare([cohort], store.folder, preprocessing=SETTINGS)


def test_a_scan_that_fails_is_reported_and_the_others_go_on(cohort, tmp_path, capsys):
    data = tmp_path / "data"
    data.mkdir()
    for name in (UIDS[0], UIDS[2]):
        for source in cohort.glob(f"subset*/{name}.*"):
            (data / source.name).symlink_to(source)
    write_image(np.full((30, 40, 40), -1000, np.int16), Geometry.from_axes((30, 40, 40)), data / "1.2.3.9.mhd")
    code = Prepare(data=(data,), output=tmp_path / "store", jobs=1, spacing_mm=(2.5, 2.0, 2.0)).run()
    assert code == 1
    store = Store(tmp_path / "store")
    assert [s.series_uid for s in store.scans] == [UIDS[0], UIDS[2]]
    assert list(store.failed) == ["1.2.3.9"]
    said = capsys.readouterr()
    assert "2 scans of" in said.out
    assert "1.2.3.9: no lungs" in said.out
    assert "prepare:" in said.err
    again = Prepare(data=(data,), output=tmp_path / "store", jobs=1, spacing_mm=(2.5, 2.0, 2.0), quiet=True)
    assert again.run() == 1
    said = capsys.readouterr()
    assert said.out.startswith("failed: 1.2.3.9: no lungs")
    assert said.out.count("\n") == 1
    assert "prepare:" not in said.err


def test_stale_scans_go_only_when_asked(cohort, tmp_path):
    coarse = Preprocessing(spacing_zyx_mm=(4.0, 4.0, 4.0))
    prepare([cohort], tmp_path, preprocessing=coarse)
    store = prepare([cohort], tmp_path, preprocessing=replace(coarse, margin_mm=10.0))
    assert len([f for f in tmp_path.iterdir() if f.is_dir()]) == 6
    assert remove_stale(store) == 3
    assert [s.hu().shape for s in Store(tmp_path).scans] == [s.shape_zyx for s in store.scans]


def test_same_series_twice_is_refused(cohort):
    with pytest.raises(InputError, match="lies there twice"):
        find_cases([cohort, cohort])


def test_empty_and_missing_folders_are_refused(tmp_path):
    with pytest.raises(InputError, match="no CT below"):
        find_cases([tmp_path])
    with pytest.raises(InputError, match="no such file or folder"):
        find_cases([tmp_path / "none"])


def test_command_without_data_or_with_senseless_numbers_is_a_usage_error(tmp_path):
    with pytest.raises(UsageError, match="no DATA"):
        Prepare(data=(), output=tmp_path).run()
    with pytest.raises(UsageError, match="must be positive"):
        Prepare(data=(tmp_path,), output=tmp_path, jobs=0).run()


def test_manifests_of_other_versions_and_damaged_ones_are_refused(store, tmp_path):
    manifest = json.loads((store.folder / MANIFEST).read_text())
    (tmp_path / MANIFEST).write_text(json.dumps({**manifest, "format": 99}))
    with pytest.raises(InputError, match="format 99"):
        Store(tmp_path)
    for damaged in (b"{", b'{"format": "\xff"}'):
        (tmp_path / MANIFEST).write_bytes(damaged)
        with pytest.raises(InputError, match="cannot read"):
            Store(tmp_path)


def test_damaged_files_of_a_scan_are_refused(tmp_path):
    (tmp_path / "scan.json").write_bytes(b'{"key": "\xff"}')
    with pytest.raises(InputError, match="holds no prepared scan"):
        Scan.from_folder(tmp_path)
    scan = Scan("key", "1.2", "p", "", None, 1.0, 4.0, (1, 1, 1), ((1.0,) * 4,) * 4, (), folder=str(tmp_path))
    (tmp_path / "hu.npy").touch()
    with pytest.raises(InputError, match=r"cannot read .*hu\.npy"):
        scan.hu()


def test_folder_of_images_with_a_table_elsewhere(cohort, tmp_path):
    folder = tmp_path / "images" / "deep"
    folder.mkdir(parents=True)
    hu, _ = chest(UIDS[0])
    write_image(hu, GRID, folder / f"{UIDS[0]}.nii.gz")
    (cases, refused) = find_cases([tmp_path / "images"], Tables(annotations=cohort / "annotations.csv"))
    assert [(c.series_uid, len(c.nodules), c.subset) for c in cases] == [(UIDS[0], 2, None)]
    assert refused == {}


def test_a_subset_alone_is_known_by_the_tables_beside_it(cohort):
    whole = {case.series_uid: case for case in find_cases([cohort])[0]}
    for given in (cohort / "subset1", cohort / "subset1" / f"{UIDS[1]}.mhd"):
        (case,) = find_cases([given])[0]
        assert (case.series_uid, case.subset, len(case.nodules)) == (UIDS[1], 1, len(whole[UIDS[1]].nodules))
        assert case.nodules == whole[UIDS[1]].nodules
        assert case.mask == whole[UIDS[1]].mask


def test_scans_may_go_by_the_names_of_their_files(tmp_path):
    hu, _ = chest(UIDS[0])
    write_image(hu, GRID, tmp_path / "case one.nii.gz")
    (tmp_path / "annotations.csv").write_text("seriesuid,coordX,coordY,coordZ,diameter_mm\ncase one,-55,0,-800,12\n")
    (scan,) = prepare([tmp_path], tmp_path / "store", preprocessing=SETTINGS).scans
    assert (scan.series_uid, scan.patient_id, len(scan.nodules)) == ("case one", "case one", 1)


def test_every_table_may_name_a_scan_by_its_file(tmp_path):
    (tmp_path / "SCAN.NII.GZ").touch()
    for name, columns in (
        ("annotations.csv", "diameter_mm"),
        ("annotations_excluded.csv", "diameter_mm"),
        ("annotations_with_malignancy.csv", "diameter_mm,mal_bool"),
        ("candidates.csv", "class"),
    ):
        more = ",".join("1" for _ in columns.split(","))
        (tmp_path / name).write_text(f"seriesuid,coordX,coordY,coordZ,{columns}\nSCAN,1,2,3,{more}\n")
    ((case,), _) = find_cases([tmp_path])
    assert (len(case.nodules), len(case.excluded), len(case.negatives_lps)) == (1, 1, 0)
    assert [row.malignant for row in case.malignancy] == [True]


def test_a_folder_of_several_patients_is_refused_without_naming_them(tmp_path):
    small_series(tmp_path / "a", uid="1.2.3.1")
    edit_all(small_series(tmp_path / "b", uid="1.2.3.2"), PatientID="another")
    for file in sorted((tmp_path / "b").iterdir()):
        file.rename(tmp_path / "a" / f"b-{file.name}")
    cases, refused = find_cases([tmp_path / "a"])
    assert cases == []
    assert refused == {str(tmp_path / "a"): "2 CT series that cannot be told apart, of several patients"}


def test_dicom_series_are_found_by_their_uid(tmp_path, cohort):
    from carina.io import write_dicom

    hu, _ = chest(UIDS[0])
    volume = Volume(hu, GRID, Source(series_uid=UIDS[0]))
    write_dicom(volume, tmp_path / "P1" / "study" / "series", patient_id="P1")
    write_dicom(Volume(hu[:8], GRID.crop((0, 0, 0), (8, *hu.shape[1:]))), tmp_path / "P1" / "study" / "scout")
    cases, refused = find_cases([tmp_path], Tables(annotations=cohort / "annotations.csv"))
    assert [(c.series_uid, c.path.name, len(c.nodules)) for c in cases] == [(UIDS[0], "series", 2)]
    assert list(refused) == [str(tmp_path / "P1" / "study" / "scout")]
    (scan,) = prepare([tmp_path / "P1"], tmp_path / "store", preprocessing=SETTINGS).scans
    assert (scan.series_uid, scan.patient_id) == (UIDS[0], "P1")


def test_without_masks_nodules_grow_to_what_they_are(tmp_path, store):
    root = write_cohort(tmp_path / "bare", masks=False)
    bare = prepare([root], tmp_path / "store", preprocessing=SETTINGS)
    for scan, masked in zip(bare.scans, store.scans, strict=True):
        for nodule in scan.nodules:
            grown, drawn = scan.label() == nodule.label, masked.label() == nodule.label
            assert 2 * (grown & drawn).sum() / (grown.sum() + drawn.sum()) > 0.75


def ground(background: int, inside: int, diameter_mm: float) -> tuple[np.ndarray, Geometry]:
    geometry = Geometry.from_axes((40, 60, 60), spacing_zyx_mm=(1.5, 1.0, 1.0))
    grid = np.indices((40, 60, 60)).reshape(3, -1).T
    r = np.linalg.norm((grid - [20, 30, 30]) * geometry.spacing_zyx_mm, axis=1).reshape(40, 60, 60)
    hu = np.where(r <= diameter_mm / 2, inside, background)
    return (ndimage.gaussian_filter(hu.astype(float), 0.5)).astype(np.int16), geometry


@pytest.mark.parametrize("inside", [40, -600])
def test_growing_serves_solid_and_ground_glass(inside):
    hu, geometry = ground(-860, inside, 10.0)
    box, mask = grow_nodule(hu, geometry, (20.0, 30.0, 30.0), 12.0)
    assert mask.sum() * 1.5 == pytest.approx(np.pi / 6 * 1000, rel=0.2)
    assert box[0].start <= 20 < box[0].stop


def test_growing_leaves_out_a_wall_beside_the_sphere():
    hu, geometry = ground(-860, 40, 10.0)
    hu[:, :, 36:] = 50
    _, mask = grow_nodule(hu, geometry, (20.0, 30.0, 30.0), 10.0)
    assert mask.shape[2] <= 11
    assert mask.sum() * 1.5 == pytest.approx(np.pi / 6 * 1000, rel=0.25)


def test_where_nothing_stands_out_the_sphere_is_taken():
    geometry = Geometry.from_axes((40, 60, 60), spacing_zyx_mm=(1.5, 1.0, 1.0))
    _, mask = grow_nodule(np.full((40, 60, 60), -850, np.int16), geometry, (20.0, 30.0, 30.0), 8.0)
    assert mask.sum() * 1.5 == pytest.approx(np.pi / 6 * 512, rel=0.1)


@pytest.mark.parametrize("diameter_mm", [1.0, 1.5, 1.9, 2.5])
def test_nodules_of_less_than_the_least_core_grow_wherever_they_lie(diameter_mm):
    hu, geometry = ground(-860, 40, diameter_mm)
    for shift in np.linspace(0, 1, 11):
        box, mask = grow_nodule(hu, geometry, (20.0 + shift, 30.0 - shift, 30.0 + shift / 2), diameter_mm)
        assert mask.shape == hu[box].shape
        assert mask.any()


@pytest.mark.parametrize("diameter_mm", [0.0, -1.0])
def test_an_annotated_nodule_without_a_diameter_is_refused_by_its_place(cohort, diameter_mm):
    (case, *_), _ = find_cases([cohort])
    prepared = prepare_scan(Volume(chest(UIDS[0])[0], GRID), SETTINGS)
    rows = (replace(case.nodules[0], diameter_mm=diameter_mm),)
    with pytest.raises(InputError, match=rf"nodule at \(.*\) mm has a diameter of {diameter_mm:g} mm"):
        draw_truth(replace(case, mask=None, nodules=rows), prepared, GRID)


def test_nodule_outside_of_the_lung_box_is_left_out_with_a_warning(cohort):
    (case, *_), _ = find_cases([cohort])
    far = Annotation(UIDS[0], (-55.0, 0.0, -2000.0), 5.0, None, "solid", 3)
    prepared = prepare_scan(Volume(chest(UIDS[0])[0], GRID), SETTINGS)
    truth = draw_truth(replace(case, nodules=(*case.nodules, far)), prepared, GRID)
    assert [n.label for n in truth.nodules] == [1, 2]
    assert any("lies outside of the box" in w for w in truth.warnings)


def test_what_reaches_into_the_box_from_outside_is_ignored_and_no_background(cohort):
    (case, *_), _ = find_cases([cohort])
    prepared = prepare_scan(Volume(chest(UIDS[0])[0], GRID), SETTINGS)
    middle = np.array(prepared.geometry.shape_zyx) // 2
    just_below = prepared.geometry.to_lps(np.array([-4.0, middle[1], middle[2]]))
    mass = Annotation(UIDS[0], tuple(just_below.tolist()), 30.0, None, "solid", None)
    truth = draw_truth(replace(case, mask=None, nodules=(mass,)), prepared, GRID)
    assert truth.nodules == []
    distance = np.linalg.norm(prepared.geometry.to_lps(np.argwhere(truth.label == IGNORE)) - just_below, axis=1)
    assert len(distance) > 100
    assert distance.max() <= 15.0
    excluded = draw_truth(replace(case, mask=None, nodules=(), excluded=(mass,)), prepared, GRID)
    np.testing.assert_array_equal(excluded.label, truth.label)


def test_a_nodule_between_the_points_of_the_grid_keeps_a_voxel(cohort, tmp_path):
    (case, *_), _ = find_cases([cohort])
    volume = Volume(chest(UIDS[0])[0], GRID)
    prepared = prepare_scan(volume, Preprocessing(spacing_zyx_mm=(6.0, 6.0, 6.0)))
    places = [(44 + k, 38 + 2 * k, 30 + 3 * k) for k in range(4)]
    mask = np.zeros(GRID.shape_zyx, np.uint8)
    for label, place in enumerate(places, 1):
        mask[place] = label
    write_image(mask, GRID, tmp_path / "tiny.mha")
    rows = tuple(
        Annotation(UIDS[0], tuple(GRID.to_lps(np.array(place, float)).tolist()), 2.7, None, "solid", label)
        for label, place in enumerate(places, 1)
    )
    truth = draw_truth(replace(case, mask=tmp_path / "tiny.mha", nodules=rows), prepared, GRID)
    for nodule, row in zip(truth.nodules, rows, strict=True):
        (voxel,) = np.argwhere(truth.label == nodule.label)
        assert np.abs(prepared.geometry.to_lps(voxel) - row.center_lps).max() <= 3.01


def test_label_in_no_annotation_is_ignored_with_a_warning(cohort):
    (case, *_), _ = find_cases([cohort])
    prepared = prepare_scan(Volume(chest(UIDS[0])[0], GRID), SETTINGS)
    truth = draw_truth(replace(case, nodules=case.nodules[:1]), prepared, GRID)
    assert set(np.unique(truth.label)) == {0, 1, IGNORE}
    assert truth.warnings == ["labels [2] of the mask are in no annotation and are ignored"]


def test_two_nodules_of_one_label_are_refused(cohort):
    (case, *_), _ = find_cases([cohort])
    prepared = prepare_scan(Volume(chest(UIDS[0])[0], GRID), SETTINGS)
    twice = tuple(replace(row, label=1) for row in case.nodules)
    with pytest.raises(InputError, match="expected a number of its own"):
        draw_truth(replace(case, nodules=twice), prepared, GRID)


def test_excluded_findings_are_ignored_and_are_no_negatives(cohort):
    (case, *_), _ = find_cases([cohort])
    prepared = prepare_scan(Volume(chest(UIDS[0])[0], GRID), SETTINGS)
    excluded = (Annotation(UIDS[0], (-60.0, 20.0, -780.0), 9.0), Annotation(UIDS[0], (40.0, 0.0, -790.0), -1.0))
    truth = draw_truth(replace(case, excluded=excluded), prepared, GRID)
    index = np.rint(prepared.geometry.to_zyx([e.center_lps for e in excluded])).astype(int)
    assert [truth.label[tuple(i)] for i in index] == [IGNORE, 0]
    assert len(truth.negatives) == 0


@pytest.mark.data
def test_lidc_dicom_with_outlines(lidc_0001, lidc_sqlite, tmp_path):
    store = prepare([lidc_0001], tmp_path, tables=Tables(lidc_sqlite=lidc_sqlite))
    (scan,) = store.scans
    (nodule,) = scan.nodules
    assert scan.patient_id == "LIDC-IDRI-0001"
    assert scan.geometry.to_lps(nodule.center_zyx) == pytest.approx((56.208, 86.343, -115.868), abs=1.0)
    assert nodule.diameter_mm == pytest.approx(23.35, rel=0.05)
    assert nodule.reader_malignancy == (5, 5, 5, 4)
    assert nodule.malignancy == 1.0

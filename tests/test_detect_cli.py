"""M21: ``carina detect`` as a person runs it: one or many inputs, every output, clear failures."""

import csv
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pydicom
import pytest

from carina.cli import main
from carina.cli.detect import _Ledger
from carina.data.phantom import make_phantom
from carina.findings import Report
from carina.geometry import Geometry
from carina.io import read_image, write_dicom, write_image
from io_samples import edit
from serve_samples import small_chest, write_weights
from small_models import save_known_models


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A coarse phantom in three formats, a CT without lungs, a letter, and networks that find bright spots."""
    folder = tmp_path_factory.mktemp("inputs")
    volume = make_phantom(3, nodules=2, pixel_mm=1.6, slice_thickness_mm=5.0).volume
    write_image(volume.hu, volume.geometry, folder / "chest.mhd")
    write_image(volume.hu, volume.geometry, folder / "other" / "chest.nii.gz")
    slices = write_dicom(volume, folder / "dicom", patient_id="P1")
    for number, path in enumerate(reversed(slices), start=101):  # as most scanners count: from the head down
        edit(path, InstanceNumber=number)
    water = np.zeros((40, 60, 60), np.int16)
    water[:, :5] = -1000
    write_image(water, Geometry.from_axes((40, 60, 60), spacing_zyx_mm=(5, 5, 5)), folder / "water.mhd")
    (folder / "letter.txt").write_text("Dear colleague")
    (folder / "weights").mkdir()
    save_known_models(folder / "weights", above_hu=-50.0)
    return folder


def detect(inputs: Path, *arguments: str | Path) -> int:
    """The exit code of ``carina detect`` with the networks in ``inputs / "weights"``."""
    with pytest.raises(SystemExit) as stop:
        main(["detect", "--weights", str(inputs / "weights"), "--runtime", "torch", *map(str, arguments)])
    return int(stop.value.code or 0)


def reports(folder: Path) -> list[Report]:
    return [Report.from_json(path.read_bytes()) for path in sorted(folder.glob("*/report.json"))]


def test_one_input_gives_one_folder_with_every_output(inputs: Path, tmp_path: Path) -> None:
    assert detect(inputs, "-i", inputs / "chest.mhd", "-o", tmp_path) == 0
    case = tmp_path / "chest"
    assert sorted(p.name for p in case.iterdir()) == ["findings.csv", "mask.nii.gz", "report.html", "report.json"]
    assert read_image(case / "mask.nii.gz")[1].same_as(read_image(inputs / "chest.mhd")[1])


def test_the_mask_in_the_file_shows_each_finding_at_its_place(tmp_path: Path) -> None:
    chest = small_chest()
    write_weights(tmp_path / "weights")
    write_image(chest.hu, chest.geometry, tmp_path / "chest.mhd")
    assert detect(tmp_path, "-i", tmp_path / "chest.mhd", "-o", tmp_path / "out", "--threshold", "0") == 0
    mask = read_image(tmp_path / "out" / "chest" / "mask.nii.gz")[0]
    (report,) = reports(tmp_path / "out")
    assert len(report.findings) == 2
    for finding in report.findings:
        assert mask[tuple(np.rint(finding.center_zyx).astype(int))] == finding.id


def test_only_the_formats_asked_for_are_written(inputs: Path, tmp_path: Path) -> None:
    assert detect(inputs, "-i", inputs / "chest.mhd", "-o", tmp_path, "--format", "json,csv") == 0
    assert sorted(p.name for p in (tmp_path / "chest").iterdir()) == ["findings.csv", "report.json"]


def test_findings_of_dicom_name_their_slice(inputs: Path, tmp_path: Path) -> None:
    assert detect(inputs, "-i", inputs / "dicom", "-o", tmp_path, "--threshold", "0", "--format", "json") == 0
    (report,) = reports(tmp_path)
    images = [pydicom.dcmread(path) for path in (inputs / "dicom").iterdir()]
    assert report.findings
    for finding in report.findings:
        nearest = min(images, key=lambda image: abs(image.ImagePositionPatient[2] - finding.center_lps[2]))
        assert finding.sop_instance_uid == nearest.SOPInstanceUID
        assert finding.instance_number == nearest.InstanceNumber
        assert finding.slice_index == round(finding.center_zyx[0])


def test_inputs_may_follow_one_another_or_be_named_one_by_one(
    inputs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert detect(inputs, "-i", "a", "b", "-i", "c", "-o", tmp_path) == 1
    assert [line.split(":")[1] for line in capsys.readouterr().err.splitlines()] == [" a", " b", " c"]
    assert detect(inputs, "-o", tmp_path) == 2


def test_a_failing_input_is_reported_and_the_others_go_on(
    inputs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = [inputs / "water.mhd", inputs / "letter.txt", inputs / "chest.mhd"]
    assert detect(inputs, "-i", *given, "-o", tmp_path, "--format", "json") == 1
    errors = capsys.readouterr().err
    assert "water.mhd" in errors
    assert "no lungs found" in errors
    assert "letter.txt" in errors
    assert len(reports(tmp_path)) == 1
    with (tmp_path / "summary.csv").open() as file:
        rows = {Path(row["input"]).name: row for row in csv.DictReader(file)}
    assert [rows[p.name]["status"] for p in given] == ["failed", "failed", "done"]
    assert "no lungs found" in rows["water.mhd"]["message"]


def test_a_result_that_cannot_be_written_is_reported_and_the_others_go_on(
    inputs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "chest").write_text("in the way")
    given = [inputs / "chest.mhd", inputs / "dicom"]
    assert detect(inputs, "-i", *given, "-o", tmp_path, "--format", "json") == 1
    assert str(tmp_path / "chest") in capsys.readouterr().err
    assert (tmp_path / "chest").read_text() == "in the way"
    assert len(reports(tmp_path)) == 1


def test_a_results_folder_that_cannot_be_made_is_exit_code_1(
    inputs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").touch()
    assert detect(inputs, "-i", inputs / "chest.mhd", "-o", tmp_path / "file" / "results") == 1
    assert "file" in capsys.readouterr().err


def test_two_inputs_of_one_name_get_two_folders(inputs: Path, tmp_path: Path) -> None:
    given = [inputs / "chest.mhd", inputs / "other" / "chest.nii.gz"]
    assert detect(inputs, "-i", *given, "-o", tmp_path, "--format", "json") == 0
    assert sorted(p.parent.name for p in tmp_path.glob("*/report.json")) == ["chest", "chest-2"]


def test_what_an_earlier_run_left_there_is_not_written_over(inputs: Path, tmp_path: Path) -> None:
    for given in ("chest.mhd", "other/chest.nii.gz", "chest.mhd"):
        assert detect(inputs, "-i", inputs / given, "-o", tmp_path, "--format", "json") == 0
    assert [Path(report.input.path).name for report in reports(tmp_path)] == ["chest.mhd", "chest.nii.gz"]
    with (tmp_path / "summary.csv").open() as file:
        assert sorted(row["case"] for row in csv.DictReader(file)) == ["chest", "chest-2"]


def test_an_input_whose_name_is_not_utf8_fails_and_the_others_go_on(
    inputs: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    latin = os.fsdecode(bytes(tmp_path) + b"/M\xfcller.nii")
    shutil.copy(inputs / "other" / "chest.nii.gz", latin)
    given = [latin, inputs / "chest.mhd"]
    assert detect(inputs, "-i", *given, "-o", tmp_path / "out", "--format", "json") == 1
    assert "not UTF-8" in capfd.readouterr().err
    assert len(reports(tmp_path / "out")) == 1
    assert detect(inputs, "-i", *given, "-o", tmp_path / "out", "--format", "json", "--resume") == 1


def test_resume_leaves_out_what_is_done(inputs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ("-i", inputs / "chest.mhd", "-o", tmp_path, "--format", "json")
    assert detect(inputs, *arguments) == 0
    before = (tmp_path / "chest" / "report.json").stat().st_mtime_ns
    assert detect(inputs, *arguments, "--resume") == 0
    assert "done before" in capsys.readouterr().out
    assert (tmp_path / "chest" / "report.json").stat().st_mtime_ns == before


def test_another_spelling_of_an_input_is_the_same_input(
    inputs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(inputs)
    for given in ("dicom", "dicom/", inputs / "dicom"):
        assert detect(inputs, "-i", given, "-o", tmp_path, "--format", "json") == 0
    assert len(reports(tmp_path)) == 1
    assert len((tmp_path / "summary.csv").read_text().splitlines()) == 2
    capsys.readouterr()
    assert detect(inputs, "-i", "./dicom", "-o", tmp_path, "--format", "json", "--resume") == 0
    assert "done before" in capsys.readouterr().out


def test_runs_into_one_folder_at_once_lose_no_row_and_share_no_case(inputs: Path, tmp_path: Path) -> None:
    given = [inputs / "chest.mhd", inputs / "other" / "chest.nii.gz"]
    arguments = ["-o", tmp_path, "--format", "json", "--weights", inputs / "weights", "-q"]
    running = [
        subprocess.Popen([sys.executable, "-m", "carina", "detect", "-i", *map(str, [one, *arguments])])
        for one in given
    ]
    assert [process.wait(300) for process in running] == [0, 0]
    assert sorted(p.parent.name for p in tmp_path.glob("*/report.json")) == ["chest", "chest-2"]
    with (tmp_path / "summary.csv").open() as file:
        assert sorted(row["input"] for row in csv.DictReader(file)) == sorted(map(str, given))


def test_rows_that_another_run_wrote_meanwhile_are_kept(tmp_path: Path) -> None:
    one, other = _Ledger(tmp_path), _Ledger(tmp_path)
    for ledger, name in ((one, "a"), (other, "b")):
        with ledger.alone():
            assert ledger.folder_for("chest", name) == {"a": "chest", "b": "chest-2"}[name]
            ledger.add({"input": name, "case": ledger.folder_for("chest", name), "status": "done"})
    with (tmp_path / "summary.csv").open() as file:
        assert [row["input"] for row in csv.DictReader(file)] == ["a", "b"]


def test_one_name_in_two_folders_is_two_inputs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    output = tmp_path / "out"
    output.mkdir()
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        monkeypatch.chdir(tmp_path / folder)
        ledger = _Ledger(output)
        assert not ledger.holds("ct.mhd")
        with ledger.alone():
            case = ledger.folder_for("ct", "ct.mhd")
            ledger.add({"input": "ct.mhd", "case": case, "status": "done"})
        assert ledger.holds("ct.mhd")
        assert case == {"a": "ct", "b": "ct-2"}[folder]


def test_a_case_is_done_though_nobody_reads_what_is_printed(inputs: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "carina", "detect", "--weights", str(inputs / "weights"), "--format", "json"]
    with subprocess.Popen(
        [*command, "-o", str(tmp_path), "-i", str(inputs / "chest.mhd")],
        env=os.environ | {"PYTHONUNBUFFERED": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        process.stdout.close()
        assert process.stderr.read() == ""
        assert process.wait(300) == 1
    with (tmp_path / "summary.csv").open() as file:
        assert [row["status"] for row in csv.DictReader(file)] == ["done"]


def test_a_summary_of_something_else_is_not_written_over(
    inputs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "summary.csv").write_text("name,price\nbread,3\n")
    assert detect(inputs, "-i", inputs / "chest.mhd", "-o", tmp_path) == 1
    assert "not written by carina detect" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["summary.csv"]


def test_json_prints_one_document_per_line_and_nothing_else(
    inputs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = [inputs / "chest.mhd", inputs / "other" / "chest.nii.gz"]
    assert detect(inputs, "-i", *given, "-o", tmp_path, "--format", "json", "--json") == 0
    lines = capsys.readouterr().out.splitlines()
    assert [json.loads(line)["case_id"] for line in lines] == ["chest", "chest"]


def test_quiet_prints_nothing(inputs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert detect(inputs, "-i", inputs / "chest.mhd", "-o", tmp_path, "--format", "json", "-q") == 0
    assert capsys.readouterr() == ("", "")


def test_a_high_threshold_gives_an_empty_report(inputs: Path, tmp_path: Path) -> None:
    assert detect(inputs, "-i", inputs / "chest.mhd", "-o", tmp_path, "--threshold", "1", "--format", "json,mask") == 0
    (report,) = reports(tmp_path)
    assert report.findings == ()
    assert report.patient.p_malignant is None
    assert not read_image(tmp_path / "chest" / "mask.nii.gz")[0].any()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--format", "pdf"], "pdf"),
        (["--format", ","], "names nothing to write"),
        (["--threshold", "1.5"], "not a probability"),
        (["--device", "toaster"], "unknown device"),
        (["--sensitivity", "high"], "no operating point"),
    ],
)
def test_wrong_usage_is_exit_code_2(
    inputs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], words: str
) -> None:
    assert detect(inputs, "-i", inputs / "chest.mhd", "-o", tmp_path, *arguments) == 2
    assert words in capsys.readouterr().err


def test_a_missing_input_is_exit_code_1(inputs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert detect(inputs, "-i", inputs / "nowhere", "-o", tmp_path) == 1
    assert "nowhere" in capsys.readouterr().err


def test_damaged_weights_are_refused(inputs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for path in (inputs / "weights").iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    damaged = tmp_path / "nodule.safetensors"
    damaged.write_bytes(damaged.read_bytes()[:-1] + b"\x00")
    with pytest.raises(SystemExit) as stop:
        main(["detect", "-i", str(inputs / "chest.mhd"), "-o", str(tmp_path / "out"), "--weights", str(tmp_path)])
    assert stop.value.code == 1
    assert "SHA-256" in capsys.readouterr().err

"""``carina info``: the table, the JSON and the exit codes."""

import json
import subprocess
import sys

import numpy as np
import pytest

from carina.cli import main
from carina.io import read_ct, write_image
from io_samples import edit_all, small_ct, small_series


def run(capsys, *arguments):
    with pytest.raises(SystemExit) as ended:
        main(["info", *map(str, arguments)])
    return ended.value.code, capsys.readouterr()


def test_table_shows_the_chosen_and_the_refused(tmp_path, capsys):
    small_series(tmp_path / "ct", uid="1.2.3.1", description="Thorax")
    edit_all(small_series(tmp_path / "mr", uid="1.2.3.2"), Modality="MR", SOPClassUID="1.2.840.10008.5.1.4.1.1.4")
    code, said = run(capsys, tmp_path)
    assert code == 0
    lines = said.out.splitlines()
    (chosen,) = [n for n, line in enumerate(lines) if line.startswith("* ") and "1.2.3.1" in line]
    assert "16 x 12 x 10" in lines[chosen]
    assert "2.5 x 0.7 x 0.8" in lines[chosen]
    assert "Thorax" in lines[chosen + 1]
    assert "the only CT series" in lines[chosen + 1]
    (refused,) = [n for n, line in enumerate(lines) if line.startswith("- ")]
    assert lines[refused + 1].strip() == "refused: not a CT (modality MR)"


def test_json_lists_every_series(tmp_path, capsys):
    small_series(tmp_path / "ct", uid="1.2.3.1")
    write_image(np.zeros((4, 5, 6), np.uint8), small_ct(shape=(4, 5, 6)).geometry, tmp_path / "mask.mha")
    code, said = run(capsys, tmp_path, "--json")
    infos = json.loads(said.out)
    assert code == 0
    assert [(i["format"], i["usable"], i["chosen"]) for i in infos] == [
        ("dicom", True, True), ("metaimage", False, False),
    ]  # fmt: skip
    assert infos[0]["spacing_zyx_mm"] == pytest.approx([2.5, 0.7, 0.8])


def test_nothing_readable_is_exit_code_1(tmp_path, capsys):
    small_series(tmp_path / "short", shape=(3, 8, 8))
    code, said = run(capsys, tmp_path)
    assert code == 1
    assert "refused: only 3 slices" in said.out


def test_of_two_patients_none_is_chosen_and_the_table_says_why(tmp_path, capsys):
    small_series(tmp_path / "a", uid="1.2.3.1")
    edit_all(small_series(tmp_path / "b", uid="1.2.3.2"), PatientID="another")
    code, said = run(capsys, tmp_path)
    assert code == 0
    assert not any(line.startswith("* ") and "1.2.3" in line for line in said.out.splitlines())
    assert "several patients" in said.out


def test_a_reader_that_has_seen_enough_is_no_error_worth_a_word(tmp_path):
    small_series(tmp_path)
    command = [sys.executable, "-m", "carina", "info", str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        process.stdout.close()
        assert process.stderr.read() == b""
    assert process.returncode == 1


def test_no_files_is_one_line_on_standard_error(tmp_path, capsys):
    code, said = run(capsys, tmp_path)
    assert (code, said.out) == (1, "")
    assert said.err.startswith("carina: ")
    assert said.err.count("\n") == 1


def test_no_path_is_usage(capsys):
    assert run(capsys)[0] == 2


def test_every_path_that_is_named_stands_for_itself(tmp_path, capsys):
    write_image(small_ct().hu, small_ct().geometry, tmp_path / "a.mha")
    write_image(small_ct().hu, small_ct().geometry, tmp_path / "b.nii.gz")
    small_series(tmp_path / "dicom")
    code, said = run(capsys, tmp_path / "a.mha", tmp_path / "b.nii.gz", tmp_path / "dicom")
    assert code == 0
    assert said.out.count("\n* ") == 4  # the legend, too
    assert "none is read by default" not in said.out


def test_slices_named_one_by_one_are_one_series(tmp_path, capsys):
    code, said = run(capsys, *small_series(tmp_path / "dicom"))
    assert code == 0
    assert said.out.count("\n* ") == 2


def test_links_to_folders_are_followed_and_circles_end(tmp_path, capsys):
    small_series(tmp_path / "elsewhere" / "scan")
    (tmp_path / "cohort").mkdir()
    (tmp_path / "cohort" / "patient").symlink_to(tmp_path / "elsewhere" / "scan")
    (tmp_path / "cohort" / "again").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere" / "round").symlink_to(tmp_path / "cohort")
    code, said = run(capsys, tmp_path / "cohort")
    assert code == 0
    assert said.out.count("\n* ") == 2
    assert read_ct(tmp_path / "cohort").hu.shape == small_ct().hu.shape

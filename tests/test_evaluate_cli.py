"""`carina evaluate`: what each protocol prints and writes, and what it refuses."""

import csv
import json
import re
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pytest

from carina.cli import main
from carina.data.lidc import read_patients
from carina.geometry import Geometry
from carina.io import write_image
from carina.models.malignancy import DiameterRule
from made_reports import report

POSITION = ["seriesuid", "coordX", "coordY", "coordZ"]


def table(path, header, rows):
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([header, *rows])
    return path


def run(capsys, *arguments):
    """Exit code, standard output and standard error of ``carina evaluate``."""
    with pytest.raises(SystemExit) as ended:
        main(["evaluate", *map(str, arguments)])
    out, err = capsys.readouterr()
    return ended.value.code, out, err


@pytest.fixture
def cohort(tmp_path):
    """Twenty scans of one nodule each; the detections find three of four, each with a false positive."""
    nodules = [(f"1.{i}", 10, -20, 30, 8, "solid" if i % 2 else "part-solid") for i in range(20)]
    found = [(f"1.{i}", 11, -20, 30, 0.9 - i / 100) for i in range(20) if i % 4]
    false = [(f"1.{i}", 90, -20, 30, 0.8 - i / 100) for i in range(20)]
    table(tmp_path / "annotations.csv", [*POSITION, "diameter_mm", "type"], nodules)
    table(tmp_path / "detections.csv", [*POSITION, "probability"], found + false)
    table(tmp_path / "few.csv", [*POSITION, "probability"], found[:5] + false)
    (tmp_path / "series.csv").write_text("\n".join(f"1.{i}" for i in range(20)))
    return tmp_path


def write_case(folder, one):
    folder.mkdir(parents=True)
    (folder / "report.json").write_text(one.to_json())
    rows = [(one.case_id, *f.center_lps, f.p_nodule, f.p_malignant) for f in one.findings]
    table(folder / "findings.csv", [*POSITION, "probability", "p_malignant"], rows)


class Page(HTMLParser):
    """Collects what a page refers to and which elements it has."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.links = [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.links += [value for name, value in attrs if name in ("src", "href", "xlink:href")]


def test_froc_prints_the_seven_rates_and_the_average(capsys, cohort):
    code, out, _ = run(capsys, "froc", cohort / "detections.csv", "--annotations", cohort / "annotations.csv")
    assert code == 0
    assert "20 scans, 20 nodules, 15 of them hit" in out
    rates = [line.split()[0] for line in out.splitlines() if re.match(r"[\d.]+ +[\d.]+ ", line)]
    assert rates == ["0.125", "0.25", "0.5", "1", "2", "4", "8"]
    assert re.search(r"average +0\.\d{5}", out)


def test_froc_as_json_is_one_document(capsys, cohort):
    _, out, _ = run(capsys, "froc", cohort / "detections.csv", "--annotations", cohort / "annotations.csv", "--json")
    result = json.loads(out)["result"]
    assert result["n_found"] == 15
    assert len(result["sensitivity"]) == 7
    assert result["curve"]["threshold"][0] is None  # infinity has no JSON form


def test_froc_writes_json_a_table_and_a_page_that_needs_nothing_else(capsys, cohort):
    arguments = ["froc", cohort / "detections.csv", "--annotations", cohort / "annotations.csv"]
    _, out, _ = run(capsys, *arguments, "-o", cohort / "out")
    assert sorted(path.name for path in (cohort / "out").iterdir()) == ["index.html", "summary.json", "summary.txt"]
    assert (cohort / "out" / "summary.txt").read_text().strip() in out
    page = Page((cohort / "out" / "index.html").read_text())
    assert page.links == []
    assert "script" not in page.tags
    assert {"svg", "polyline", "table"} <= set(page.tags)


def test_scans_of_the_list_count_even_if_no_table_names_them(capsys, cohort):
    (cohort / "more.csv").write_text("seriesuid\n" + "\n".join(f"1.{i}" for i in range(40)))
    arguments = ["froc", cohort / "detections.csv", "--annotations", cohort / "annotations.csv"]
    assert "40 scans" in run(capsys, *arguments, "--series", cohort / "more.csv")[1]


def test_detections_are_read_from_a_folder_of_reports(capsys, cohort):
    for i in range(20):
        found = [((10.0, -20.0, 30.0), 0.9, 0.5)] if i < 10 else []
        write_case(cohort / "detect" / f"case{i}", report(f"1.{i}", found))
    write_case(cohort / "detect" / "empty", report("1.99", []))
    _, out, _ = run(capsys, "froc", cohort / "detect", "--annotations", cohort / "annotations.csv")
    assert "21 scans, 20 nodules, 10 of them hit" in out


def test_a_series_found_in_twice_is_refused_with_both_files(capsys, cohort):
    for name in ("first", "again"):
        write_case(cohort / "detect" / name, report("1.5", [((10.0, -20.0, 30.0), 0.9, 0.5)]))
    code, _, err = run(capsys, "froc", cohort / "detect", "--annotations", cohort / "annotations.csv")
    assert code == 1
    again, first = (cohort / "detect" / name / "findings.csv" for name in ("again", "first"))
    assert f"series 1.5 has findings in {again} and in {first}" in err


def write_scans(cohort, *numbers):
    """Reports of some of the cohort's scans, each with its scan and a false finding; the nodule is missed."""
    for i in numbers:
        path = cohort / f"1.{i}.mha"
        geometry = Geometry.from_axes((20, 40, 40), spacing_zyx_mm=(5.0, 5.0, 5.0))
        write_image(np.full((20, 40, 40), -800, np.int16), geometry, path)
        one = report(f"1.{i}", [((90.0, 90.0, 20.0), 0.9, 0.5)])
        write_case(cohort / "detect" / f"case{i}", replace(one, input=replace(one.input, path=str(path))))


def test_the_gallery_is_of_the_scans_with_a_report(capsys, cohort):
    write_scans(cohort, 2, 3, 4)
    arguments = ["gallery", cohort / "detect", "--annotations", cohort / "annotations.csv", "-o", cohort / "page.html"]
    code, out, err = run(capsys, *arguments)
    assert code == 0, err
    assert "3 missed nodules, 3 false findings" in out
    assert "left out: 17 scans" in out
    assert (cohort / "page.html").read_text().count("<figure>") == 6


def test_the_gallery_refuses_a_list_with_scans_that_have_no_report(capsys, cohort):
    write_scans(cohort, 2)
    arguments = ["gallery", cohort / "detect", "--annotations", cohort / "annotations.csv", "-o", cohort / "page.html"]
    code, _, err = run(capsys, *arguments, "--series", cohort / "series.csv")
    assert code == 2
    assert "--series names 1.0, which has no report" in err


def test_compare_names_the_better_system_by_group(capsys, cohort):
    _, out, _ = run(
        capsys,
        "compare",
        cohort / "few.csv",
        cohort / "detections.csv",
        "--annotations",
        cohort / "annotations.csv",
        "--series",
        cohort / "series.csv",
    )
    assert re.search(r"all nodules +20 .* detections.csv is better", out)
    assert re.search(r"part-solid +10 ", out)


def written(folder):
    """The page of an evaluation, which left a table and JSON beside it and needs nothing else."""
    assert sorted(path.name for path in folder.iterdir()) == ["index.html", "summary.json", "summary.txt"]
    assert json.loads((folder / "summary.json").read_text())["result"]
    text = (folder / "index.html").read_text()
    page = Page(text)
    assert page.links == []
    assert "table" in page.tags
    return page.tags.count("polyline") + page.tags.count("circle")


def test_a_comparison_draws_both_curves(capsys, cohort):
    out = cohort / "out"
    run(
        capsys,
        *("compare", cohort / "few.csv", cohort / "detections.csv"),
        *("--annotations", cohort / "annotations.csv", "--bootstraps", 20, "-o", out),
    )
    assert written(out) == 2


def test_a_file_compared_with_itself_is_neither_better_nor_worse(capsys, cohort):
    detections = cohort / "detections.csv"
    found = ("--annotations", cohort / "annotations.csv", "--bootstraps", 20, "-o", cohort / "out")
    code, out, _ = run(capsys, "compare", detections, detections, *found)
    assert code == 0
    assert out.startswith(f"{detections} (again) against {detections}\n")
    assert re.search(r"all nodules +20 .* \+0\.0000 .* undecided", out)
    assert written(cohort / "out") == 2


def test_nodule_judges_a_table_of_classes(capsys, tmp_path):
    rows = [(1, 0.9), (1, 0.6), (1, 0.2), (0, 0.7), (0, 0.1), (0, 0.1)]
    path = table(tmp_path / "candidates.csv", ["class", "probability"], rows)
    _, out, _ = run(capsys, "nodule", path, "-o", tmp_path / "out")
    assert re.search(r"accuracy +0\.6667", out)
    assert re.search(r"not a nodule +0\.6667 +0\.6667 +0\.6667", out)
    assert len(re.findall('<svg viewBox="0 0 460', (tmp_path / "out" / "index.html").read_text())) == 3


def test_nodule_judges_detections_by_the_annotations(capsys, cohort):
    _, out, _ = run(capsys, "nodule", cohort / "detections.csv", "--annotations", cohort / "annotations.csv", "--json")
    assert json.loads(out)["result"]["confusion"]["counts"] == [[0, 20], [0, 15]]


def malignancy_table(path, lidc_sqlite=None, n=60):
    uids = sorted(read_patients(lidc_sqlite)) if lidc_sqlite else [f"1.{i}" for i in range(n)]
    rows = [(uids[i], 10, -20, 30, 4 + i / 2, (i + i % 7) > n // 2) for i in range(n)]
    return table(path, [*POSITION, "diameter_mm", "mal_bool"], rows)


def test_malignancy_fits_and_writes_the_rule(capsys, tmp_path):
    path = malignancy_table(tmp_path / "table.csv")
    card = tmp_path / "rule.json"
    code, out, _ = run(capsys, "malignancy", path, "--fit-rule", card, "--exclude-series", "1.3", "1.4")
    assert code == 0
    assert "AUC of the diameter" in out
    rule = DiameterRule.load(card)
    assert rule.evidence.excluded_series == ("1.3", "1.4")
    assert rule.evidence.n == 58


def test_malignancy_is_cross_validated_over_the_patients_of_lidc(capsys, tmp_path, lidc_sqlite):
    arguments = ["--fit-rule", tmp_path / "rule.json", "--lidc-sqlite", lidc_sqlite]
    code, _, err = run(capsys, "malignancy", malignancy_table(tmp_path / "table.csv", lidc_sqlite), *arguments)
    assert code == 0, err
    assert "cross-validation over patients" in DiameterRule.load(tmp_path / "rule.json").evidence.method


def test_malignancy_of_every_tenth_series(capsys, tmp_path):
    path = malignancy_table(tmp_path / "table.csv")
    _, out, _ = run(capsys, "malignancy", path, "--every-nth", 10)
    assert re.search(r"scans +6\n", out)


def test_malignancy_holds_a_network_against_the_diameter(capsys, tmp_path):
    path = malignancy_table(tmp_path / "table.csv")
    for i in range(60):
        write_case(tmp_path / "detect" / str(i), report(f"1.{i}", [((10.0, -20.0, 30.0), 0.9, i / 60)]))
    _, out, _ = run(capsys, "malignancy", path, "--predictions", tmp_path / "detect", "-o", tmp_path / "out")
    assert re.search(r"gain over the diameter +\+0\.0000", out)
    assert re.search(r"nodules hit by a detection +60 of 60", out)
    assert written(tmp_path / "out") > 3


def test_excluding_series_without_a_fit_is_a_usage_error(capsys, tmp_path):
    path = malignancy_table(tmp_path / "table.csv")
    code, _, err = run(capsys, "malignancy", path, "--exclude-series", "1.3")
    assert code == 2
    assert "--fit-rule" in err


def test_segmentation_pairs_masks_by_name(capsys, tmp_path):
    geometry = Geometry.from_axes((8, 8, 8))
    truth = np.zeros((8, 8, 8), np.uint8)
    truth[2:4, 2:4, 2:4] = 1
    prediction = np.zeros_like(truth)
    prediction[2:4, 2:4, 3:5] = 7
    write_image(truth, geometry, tmp_path / "truth" / "1.1.mha")
    write_image(prediction, geometry, tmp_path / "found" / "1.1" / "mask.nii.gz")
    _, out, _ = run(capsys, "segmentation", tmp_path / "found", tmp_path / "truth", "-o", tmp_path / "out")
    assert re.search(r"Dice, all voxels +0\.5000", out)
    assert re.search(r"nodules touched +1 of 1", out)
    assert written(tmp_path / "out") == 1


def test_pipeline_prints_the_table_of_fates(capsys, tmp_path):
    rows = [("1.1", 0, 0, 0, 8, True), ("1.1", 50, 0, 0, 8, False), ("1.2", 0, 0, 0, 8, True)]
    path = table(tmp_path / "table.csv", [*POSITION, "diameter_mm", "mal_bool"], rows)
    found = [((1.0, 0.0, 0.0), 0.9, 0.8), ((50.0, 0.0, 0.0), 0.2, 0.1), ((90.0, 0.0, 0.0), 0.6, 0.3)]
    write_case(tmp_path / "detect" / "a", report("1.1", found))
    write_case(tmp_path / "detect" / "b", report("1.2", []))
    write_case(tmp_path / "detect" / "c", report("1.3", []))
    found = ("--malignancy", path, "--threshold", "0.5", "-o", tmp_path / "out")
    code, out, _ = run(capsys, "pipeline", tmp_path / "detect", *found)
    assert code == 0
    assert re.search(r"truth +missed +filtered out +called benign +called malignant", out)
    assert re.search(r"not a nodule +0 +0 +1 +0", out)
    assert re.search(r"\nbenign +0 +1 +0 +0", out)
    assert re.search(r"malignant +1 +0 +0 +1", out)
    assert "Answer for the patient" in out
    assert written(tmp_path / "out") == 2


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "column seriesuid"),
        ("seriesuid,coordX,coordY,coordZ\n", "column probability is missing"),
        ("seriesuid,coordX,coordY,coordZ,probability\n1.1,1,2,x,0.5\n", "line 2: coordZ is 'x'"),
        ("seriesuid,coordX,coordY,coordZ,probability\n1.1,1,2,3,nan\n", "line 2: probability is 'nan'"),
        ("seriesuid,coordX,coordY,coordZ,probability\n1.1,1,2\n", "line 2: 3 values under 5"),
        ("seriesuid,coordX,coordY,coordZ,probability\n\n\n1.1,1,2,x,0.5\n", "line 4: coordZ is 'x'"),
        ("seriesuid,coordX,coordY,coordZ,probability\n\n\n1.1,1,2\n", "line 4: 3 values under 5"),
    ],
)
def test_a_table_that_cannot_be_read_is_said_in_one_line(capsys, cohort, text, said):
    path = cohort / "bad.csv"
    path.write_text(text)
    code, out, err = run(capsys, "froc", path, "--annotations", cohort / "annotations.csv")
    assert code == 1
    assert out == ""
    assert said in err
    assert err.count("\n") == 1


def test_a_missing_file_is_said_in_one_line(capsys, cohort):
    code, _, err = run(capsys, "froc", cohort / "none.csv", "--annotations", cohort / "annotations.csv")
    assert code == 1
    assert "none.csv" in err


def test_a_folder_without_findings_is_refused(capsys, cohort):
    (cohort / "empty").mkdir()
    code, _, err = run(capsys, "froc", cohort / "empty", "--annotations", cohort / "annotations.csv")
    assert code == 1
    assert "no findings.csv" in err


@pytest.mark.parametrize("flag", ["--bootstraps", "--marks-per-scan"])
def test_negative_counts_are_usage_errors(capsys, cohort, flag):
    code, _, err = run(
        capsys, "froc", cohort / "detections.csv", "--annotations", cohort / "annotations.csv", flag, "-1"
    )
    assert code == 2
    assert flag in err


@pytest.mark.parametrize(
    ("protocol", "option"),
    [
        ("nodule", "--threshold"),
        ("gallery", "--threshold"),
        ("pipeline", "--threshold"),
        ("pipeline", "--malignancy-threshold"),
    ],
)
@pytest.mark.parametrize("value", ["5", "-0.1", "nan"])
def test_a_threshold_that_is_no_probability_is_wrong_usage(capsys, cohort, protocol, option, value):
    needed = {
        "nodule": (cohort / "detections.csv",),
        "gallery": (cohort, "--annotations", cohort / "annotations.csv", "-o", cohort / "page.html"),
        "pipeline": (cohort, "--malignancy", cohort / "annotations.csv"),
    }
    code, _, err = run(capsys, protocol, *needed[protocol], option, value)
    assert code == 2
    assert "is not a probability" in err

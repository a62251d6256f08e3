"""The C++ programs (M43, M44): built against the installed PyTorch, and equal to Python on the same files."""

import json
import os
import shutil
import subprocess
from dataclasses import replace
from importlib.resources import as_file, files
from pathlib import Path

import numpy as np
import pytest
import torch

from carina.ct.preprocess import prepare_scan
from carina.data.phantom import make_phantom
from carina.export import Subject, export_model
from carina.export.constants import pipeline_constants, write_constants, write_regions
from carina.export.manifest import Manifest, write_manifest
from carina.findings import Report
from carina.geometry import Geometry
from carina.io import read_ct, write_image
from carina.models import save_model
from carina.models.malignancy import DiameterRule, RuleEvidence
from carina.pipeline import Detector, run_torch
from carina.pipeline.detector import NEAR_LUNG_MM
from carina.pipeline.runtime import Network
from carina.pipeline.segment import segment
from tiny_networks import tiny

ROOT = Path(__file__).parents[1]

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not (shutil.which("cmake") and shutil.which("g++")), reason="needs cmake and g++"),
]


@pytest.fixture(scope="session")
def programs(tmp_path_factory):
    """The folder of the built programs; ``CARINA_CPP_BUILD`` names one that is kept between sessions.

    They are built with LeakSanitizer, so that every test here fails with its exit code where one of them leaks.
    """
    kept = os.environ.get("CARINA_CPP_BUILD")
    folder = Path(kept) if kept else tmp_path_factory.mktemp("cpp")
    options = [f"-DCMAKE_PREFIX_PATH={torch.utils.cmake_prefix_path}", "-DCARINA_LEAKS=ON"]
    subprocess.run(["cmake", "-S", ROOT / "cpp", "-B", folder, *options], check=True, capture_output=True)
    subprocess.run(["cmake", "--build", folder, "-j", "2"], check=True, capture_output=True)
    return folder


def telling_thresholds(subject, volume):
    """Cuts that the network passes in a few and in some more places of the lungs; no voxel's probability is close."""
    scan = prepare_scan(volume, subject.card.preprocessing)
    inside = scan.lungs.on(scan.geometry, NEAR_LUNG_MM)
    compute, runtime = run_torch.prepare(subject.module, torch.device("cpu"))
    probability = segment(scan.hu, Network(subject.card, compute, torch.device("cpu"), runtime), inside=inside)
    cuts = []
    for first, last in ((-1500, -500), (-6000, -3000)):
        highest = np.sort(probability[inside])[first:last]
        gap = np.diff(highest).argmax()
        assert highest[gap + 1] - highest[gap] > 1e-6
        cuts.append(float(highest[gap : gap + 2].mean()))
    return cuts


def telling_first_look(weights, scan):
    """A cut that the first look passes at some of the candidates; more looks would change the answers on both sides."""
    detector = Detector.load(weights, device="cpu", runtime="torch")
    once = replace(detector.classifier, card=replace(detector.classifier.card, flips=1))
    each = [replace(detector, classifier=network).detect(scan).report for network in (once, detector.classifier)]
    by_one, by_all = ({f.center_lps: f.classification_score for f in report.findings} for report in each)
    first, mean = np.array(sorted((by_one[center], by_all[center]) for center in by_one.keys() & by_all)).T
    gap = np.diff(first[1:-1]).argmax() + 2
    assert first[gap] - first[gap - 1] > 1e-6
    changed = np.abs(first - mean) > 1e-3
    assert changed[:gap].any()
    assert changed[gap:].any()
    return float(first[gap - 1 : gap + 1].mean())


@pytest.fixture(scope="session")
def case(tmp_path_factory):
    """A phantom, tiny networks that mark parts of it, everything exported, and Python's report."""
    folder = tmp_path_factory.mktemp("case")
    volume = make_phantom(3, nodules=2, slice_thickness_mm=4.0, pixel_mm=1.0).volume
    scan = folder / "1.2.3.4.mhd"
    write_image(volume.hu, volume.geometry, scan)
    exported, weights = folder / "exported", folder / "weights"
    subjects = {}
    for name in ("segmentation", "nodule"):
        subject = tiny(name, threshold=0.0, min_volume_mm3=20.0)
        if name == "segmentation":
            high, low = telling_thresholds(subject, volume)
            subject = replace(subject, card=replace(subject.card, threshold=high, lower_thresholds=(low,)))
        else:
            subject = replace(subject, card=replace(subject.card, flips=3))
        card = save_model(weights / name, subject.module, subject.card)
        subjects[name] = Subject(name, subject.module, card)
    evidence = RuleEvidence("none", "none", (), 1, 1, 0.5, (0.4, 0.6), 0.0, 0.0, "made up")
    rule = DiameterRule(-5.0, 1.5, "log", evidence)
    rule.save(weights / "malignancy.json")
    subject = subjects["nodule"]
    card = replace(subject.card, again_above=telling_first_look(weights, scan))
    subjects["nodule"] = replace(subject, card=save_model(weights / "nodule", subject.module, card))
    entries = {name: export_model(s, exported, ["traced", "scripted", "aoti"]) for name, s in subjects.items()}
    write_manifest(exported, Manifest("0", "", entries))
    constants = pipeline_constants(subjects["segmentation"].card, subjects["nodule"].card, rule)
    write_constants(exported, constants)
    ct = read_ct(scan)
    write_regions(exported, ct, constants)
    detector = Detector.load(weights, device="cpu", runtime="torch")
    report = detector.detect(scan).report
    segmenter = replace(detector.segmenter, card=replace(detector.segmenter.card, lower_thresholds=()))
    assert 3 <= len(replace(detector, segmenter=segmenter).detect(scan).report.findings) < len(report.findings)
    return scan, exported, report


LEAKS = {"LSAN_OPTIONS": f"suppressions={ROOT / 'cpp' / 'lsan.supp'}:print_suppressions=0"}
FORBIDDEN = "LeakSanitizer has encountered a fatal error"
"""Where a sandbox forbids to look for leaks, the sanitizer ends the program with this word of its own."""


def call(program, *arguments):
    command = [program, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env={**os.environ, **LEAKS})
    if FORBIDDEN in done.stderr:
        unwatched = {**os.environ, "LSAN_OPTIONS": "detect_leaks=0"}
        done = subprocess.run(command, capture_output=True, text=True, check=False, env=unwatched)
    return done


def test_the_programs_look_for_leaks(programs):
    program = programs / "carina-run"
    assert b"__lsan_init" in program.read_bytes()
    environment = {**os.environ, **LEAKS}
    done = subprocess.run([program, "--help"], capture_output=True, text=True, check=False, env=environment)
    if FORBIDDEN in done.stderr:
        pytest.skip("LeakSanitizer may not look here: no test of the C++ programs has looked for leaks")
    assert done.returncode == 0, done.stderr


def assert_the_same(report, expected):
    assert report.case_id == expected.case_id
    assert report.input.series_uid == expected.input.series_uid
    assert report.input.shape_zyx == expected.input.shape_zyx
    assert report.input.lung_litres == expected.input.lung_litres
    assert len(report.findings) == len(expected.findings)
    for found, wanted in zip(report.findings, expected.findings, strict=True):
        assert found.slice_index == wanted.slice_index
        assert np.allclose(found.center_lps, wanted.center_lps, atol=0.01)
        assert np.allclose(found.center_zyx, wanted.center_zyx, atol=0.01)
        assert found.volume_mm3 == pytest.approx(wanted.volume_mm3, rel=1e-3)
        assert found.mean_hu == pytest.approx(wanted.mean_hu, abs=0.5)
        for field in ("p_nodule", "p_malignant", "segmentation_score", "classification_score"):
            assert getattr(found, field) == pytest.approx(getattr(wanted, field), abs=1e-4), field
    assert report.patient.p_malignant == pytest.approx(expected.patient.p_malignant, abs=1e-4)
    assert report.threshold == expected.threshold
    assert report.warnings[:-1] == expected.warnings  # the last one says what the program leaves out
    assert [m.sha256 for m in report.models] == [m.sha256 for m in expected.models[:2]]


@pytest.mark.parametrize("form", ["traced", "scripted", "aoti", "front-end"])
def test_the_report_is_that_of_python(programs, case, tmp_path, form):
    scan, exported, expected = case
    output = tmp_path / "report.json"
    done = call(programs / "carina-run", scan, "--exported", exported, "--format", form, "-o", output)
    assert done.returncode == 0, done.stderr
    assert_the_same(Report.from_json(output.read_bytes()), expected)
    assert expected.case_id == "1.2.3.4"


@pytest.mark.data
def test_a_real_scan_gives_the_report_of_python(programs, data_dir, tmp_path):
    ct = read_ct(data_dir / "ct" / "lidc-idri-0001")
    scan, exported, output = tmp_path / "scan.mhd", tmp_path / "exported", tmp_path / "report.json"
    write_image(ct.hu, ct.geometry, scan)
    with as_file(files("carina") / "weights") as weights:
        subjects = {name: Subject.load(weights / name) for name in ("segmentation", "nodule")}
        rule = DiameterRule.load(weights / "malignancy.json")
    entries = {name: export_model(subject, exported, ["traced"]) for name, subject in subjects.items()}
    write_manifest(exported, Manifest("0", "", entries))
    constants = pipeline_constants(subjects["segmentation"].card, subjects["nodule"].card, rule)
    write_constants(exported, constants)
    write_regions(exported, ct, constants)
    done = call(programs / "carina-run", scan, "--exported", exported, "-o", output)
    assert done.returncode == 0, done.stderr
    expected = Detector.load(device="cpu").detect(scan).report
    assert len(expected.findings) >= 1
    assert_the_same(Report.from_json(output.read_bytes()), expected)


def test_given_candidates_are_classified_as_in_python(programs, case, tmp_path):
    scan, exported, expected = case
    rows = [("1.2.3.4", *f.center_lps, 1) for f in expected.findings] + [("9.9.9.9", 0, 0, 0, 0)]
    table = tmp_path / "candidates.csv"
    table.write_text("seriesuid,coordX,coordY,coordZ,class\n" + "".join(",".join(map(str, r)) + "\n" for r in rows))
    output = tmp_path / "candidates.json"
    done = call(programs / "carina-run", scan, "--exported", exported, "--candidates", table, "-o", output)
    assert done.returncode == 0, done.stderr
    found = json.loads(output.read_text())["candidates"]
    assert len(found) == len(expected.findings)
    for row, wanted in zip(found, expected.findings, strict=True):
        assert row["classification_score"] == pytest.approx(wanted.classification_score, abs=1e-4)


@pytest.mark.parametrize("x", ["nan", "inf", "1e300", "-1e300"])
def test_what_is_no_coordinate_is_named(programs, case, tmp_path, x):
    scan, exported, _ = case
    table = tmp_path / "candidates.csv"
    table.write_text(f"coordY,coordZ,coordX\n0,0,{x}\n")
    done = call(programs / "carina-run", scan, "--exported", exported,
                "--candidates", table, "-o", tmp_path / "out.json")  # fmt: skip
    assert done.returncode == 1
    assert "is not a coordinate in mm" in done.stderr


def test_a_table_of_several_series_needs_a_scan_named_by_its_own(programs, case, tmp_path):
    scan, exported, _ = case
    ct = read_ct(scan)
    write_image(ct.hu, ct.geometry, tmp_path / "scan.mha")
    table = tmp_path / "candidates.csv"
    table.write_text("seriesuid,coordX,coordY,coordZ\n1.2.3.4,0,0,0\n9.9.9.9,0,0,0\n")
    done = call(programs / "carina-run", tmp_path / "scan.mha", "--exported", exported,
                "--candidates", table, "-o", tmp_path / "out.json")  # fmt: skip
    assert done.returncode == 1
    assert "names several series" in done.stderr


@pytest.mark.parametrize(("limit", "said"), [
    ("most_candidates", "candidates; only the 1 best were looked at"),
    ("most_findings", "findings; only the 1 most probable are listed"),
])  # fmt: skip
def test_what_is_left_out_is_warned_of_in_the_words_of_python(programs, case, tmp_path, limit, said):
    scan, exported, expected = case
    shutil.copytree(exported, tmp_path / "exported")
    constants = json.loads((exported / "pipeline.json").read_text())
    (tmp_path / "exported" / "pipeline.json").write_text(json.dumps(constants | {limit: 1}))
    output = tmp_path / "report.json"
    done = call(programs / "carina-run", scan, "--exported", tmp_path / "exported", "-o", output)
    assert done.returncode == 0, done.stderr
    # The threshold of these networks is 0: all candidates are findings, and Python's report says how many.
    every = expected.warnings[-1].split()[0]
    assert f"{every} {said}" in Report.from_json(output.read_bytes()).warnings


@pytest.mark.parametrize(("content", "message"), [
    (b"", "ElementDataFile is missing"),
    (b"not an image", "not a MetaImage header"),
    (b"NDims = 2\nElementDataFile = LOCAL\n", "NDims is 2, not 3"),
    (b"NDims = 3\nDimSize = 4 4\nElementDataFile = LOCAL\n", "expected 3 numbers"),
    (b"NDims = 3\nDimSize = 4 4 4\nElementType = MET_SHORT\nElementDataFile = LOCAL\nxx", "asks for 128"),
    (b"NDims = 3\nDimSize = 4 4 4\nElementType = MET_LONG\nElementDataFile = LOCAL\n", "MET_LONG"),
    (b"NDims = 3\nDimSize = 4 4 4\nElementType = MET_SHORT\nElementDataFile = gone.raw\n", "cannot open"),
    (b"NDims = 3\nDimSize = 4 4 4\nElementType = MET_SHORT\nCompressedData = True\nElementDataFile = LOCAL\nxx",
     "damaged or cut short"),
    (b"NDims = 3\nDimSize = 4 4 4\nElementType = MET_UCHAR\nElementDataFile = LOCAL\n" + bytes(64),
     "cannot be HU"),
])  # fmt: skip
def test_a_bad_scan_ends_with_one_line(programs, case, tmp_path, content, message):
    bad = tmp_path / "bad.mhd"
    bad.write_bytes(content)
    done = call(programs / "carina-run", bad, "--exported", case[1], "-o", tmp_path / "out.json")
    assert done.returncode == 1
    assert message in done.stderr
    assert done.stderr.count("\n") == 1
    assert not (tmp_path / "out.json").exists()


@pytest.mark.parametrize(("name", "shift_mm", "said"), [
    ("1.2.3.4.mhd", 5, "belongs to a scan on another grid"),
    ("1.2.3.5.mhd", 0, "belongs to series 1.2.3.4, the scan is 1.2.3.5"),
    ("2.25.7.mhd", 0, "belongs to series 1.2.3.4, the scan is 2.25.7"),
])  # fmt: skip
def test_the_lungs_of_another_scan_are_refused(programs, case, tmp_path, name, shift_mm, said):
    scan, exported, _ = case
    ct = read_ct(scan)
    affine = np.array(ct.geometry.affine)
    affine[0, 3] += shift_mm
    write_image(ct.hu, Geometry(ct.geometry.shape_zyx, affine), tmp_path / name)
    done = call(programs / "carina-run", tmp_path / name, "--exported", exported, "-o", tmp_path / "out.json")
    assert done.returncode == 1
    assert said in done.stderr


def test_a_missing_model_is_named(programs, case, tmp_path):
    scan, exported, _ = case
    shutil.copytree(exported, tmp_path / "exported")
    (tmp_path / "exported" / "nodule.traced.pt").unlink()
    done = call(programs / "carina-run", scan, "--exported", tmp_path / "exported", "-o", tmp_path / "out.json")
    assert done.returncode == 1
    assert "nodule.traced.pt" in done.stderr


@pytest.mark.parametrize(("arguments", "said"), [
    (("--what", "x"), "unknown option --what"),
    (("scan.mhd", "--exported", "x", "-o", "x", "--threads", "abc"), "--threads is 'abc'"),
    (("scan.mhd", "--exported", "x", "-o", "x", "--threads", "0"), "--threads is '0'"),
])  # fmt: skip
def test_wrong_arguments_end_with_code_2(programs, arguments, said):
    done = call(programs / "carina-run", *arguments)
    assert done.returncode == 2
    assert said in done.stderr


def test_an_input_of_another_shape_is_refused(programs, case, tmp_path):
    _, exported, _ = case
    crops = tmp_path / "crops.f32"
    np.zeros((1, 1, 16, 16, 16), np.float32).tofile(crops)
    done = call(programs / "carina-call", "load", exported / "nodule.traced.pt", crops, 1, 1, 1, 1, 16, 16, 16)
    assert done.returncode == 1
    assert "does not take an input of shape [1, 1, 16, 16, 16]" in done.stderr


def test_the_front_end_gives_the_logits_of_the_script(programs, case, tmp_path):
    _, exported, _ = case
    subject = tiny("nodule")
    crops = subject.example(2).numpy()
    file = tmp_path / "crops.f32"
    crops.tofile(file)
    for way in ("load", "front-end"):
        done = call(programs / "carina-call", way, exported / "nodule.traced.pt", file, 1, 1, *crops.shape)
        assert done.returncode == 0, done.stderr
        logits = np.reshape(json.loads(done.stdout)["logits"], (2, 2))
        with torch.inference_mode():
            assert np.allclose(logits, subject.module(torch.from_numpy(crops)).numpy(), atol=1e-5)


def look_at_the_middle(programs, exported, scan) -> dict:
    """What the program says of the scan's middle."""
    table, output = scan.with_name("candidates.csv"), scan.with_name("out.json")
    geometry = read_ct(scan).geometry
    x, y, z = geometry.to_lps(np.array(geometry.shape_zyx) / 2)
    table.write_text(f"coordX,coordY,coordZ\n{x},{y},{z}\n")
    done = call(programs / "carina-run", scan, "--exported", exported, "--candidates", table, "-o", output)
    assert done.returncode == 0, done.stderr
    return json.loads(output.read_text())


@pytest.mark.parametrize(("said", "otherwise", "type_"), [
    (b"", b"", "<i2"),
    (b"CompressedData = True", b"CompressedData = true", "<i2"),
    (b"CompressedData = True", b"CompressedData = 1", "<i2"),
    (b"BinaryDataByteOrderMSB = False", b"BinaryDataByteOrderMSB = T", ">i2"),
    (b"NDims", b"\nNDims", "<i2"),
], ids=["plain", "true", "1", "T", "blank line"])  # fmt: skip
def test_a_scan_is_read_as_itk_reads_it(programs, case, tmp_path, said, otherwise, type_):
    scan, exported, _ = case
    volume = read_ct(scan)
    changed = tmp_path / "changed.mha"
    write_image(volume.hu, volume.geometry, changed, compress=b"Compressed" in said)
    header, local, voxels = changed.read_bytes().partition(b"LOCAL\n")
    assert said in header
    if type_ == ">i2":
        voxels = np.frombuffer(voxels, "<i2").astype(type_).tobytes()
    changed.write_bytes(header.replace(said, otherwise, 1) + local + voxels)
    assert np.array_equal(read_ct(changed).hu, volume.hu)
    found, expected = (look_at_the_middle(programs, exported, path)["candidates"] for path in (changed, scan))
    assert found == expected


def test_voxels_that_are_no_numbers_are_warned_of_as_in_python(programs, case, tmp_path):
    scan, exported, _ = case
    volume = read_ct(scan)
    values = volume.hu.astype(np.float32)
    values[0, 0, :3] = (np.nan, -np.inf, np.nan)
    path = tmp_path / "scan.mha"
    write_image(values, volume.geometry, path)
    expected = read_ct(path).source.warnings
    assert expected == ("3 voxels were not finite numbers and were taken as air",)
    assert tuple(look_at_the_middle(programs, exported, path)["warnings"]) == expected

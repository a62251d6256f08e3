"""The whole pipeline on a small chest with balls of known places, with networks whose answers are known."""

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import carina
from ball_chest import BALLS, GRID, MIDDLE, chest
from carina.errors import NoLungsError, UsageError
from carina.findings import Report
from carina.io import read_ct, write_image
from carina.models.card import Card, load_model, save_model
from carina.pipeline import Detection, Detector, detector
from carina.volume import Volume
from small_models import save_known_models, sure_nodule_net


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_known_models(tmp_path_factory.mktemp("models"))


@pytest.fixture(scope="module")
def found(models: Path) -> Detection:
    return Detector.load(models, runtime="torch").detect(chest(*BALLS))


def test_every_ball_is_found_at_its_place(found):
    assert len(found.report.findings) == len(BALLS)
    for center, _ in BALLS:
        distances = [np.linalg.norm(np.subtract(f.center_lps, MIDDLE + center)) for f in found.report.findings]
        assert min(distances) < 1.0


def test_the_centre_is_given_in_the_index_of_the_input_too(found):
    for finding in found.report.findings:
        np.testing.assert_allclose(GRID.to_lps(finding.center_zyx), finding.center_lps, atol=1e-6)
        assert finding.slice_index == round(finding.center_zyx[0])


def test_diameters_are_those_of_the_balls(found):
    diameters = sorted(finding.diameter_mm for finding in found.report.findings)
    np.testing.assert_allclose(diameters, [10.0, 14.0], atol=1.0)


def test_the_mask_lies_on_the_input_and_counts_as_the_findings_do(found):
    assert found.mask.shape == GRID.shape_zyx
    for finding in found.report.findings:
        z, y, x = np.rint(finding.center_zyx).astype(int)
        assert found.mask[z, y, x] == finding.id
    assert found.mask.max() == len(found.report.findings)


def test_each_stage_says_what_it_thinks(found):
    for finding in found.report.findings:
        assert finding.p_nodule == pytest.approx(0.9, abs=1e-6)
        assert finding.classification_score == pytest.approx(0.9, abs=1e-6)
        assert finding.segmentation_score > 0.9
        assert 600 < finding.mean_hu < 1250


def test_the_larger_ball_drives_the_answer_for_the_patient(found):
    largest = max(found.report.findings, key=lambda f: f.diameter_mm)
    assert found.report.patient.finding_id == largest.id
    assert found.report.patient.p_malignant == pytest.approx(largest.p_nodule * largest.p_malignant)


def test_the_report_names_input_models_runtime_and_seconds(found):
    report = found.report
    assert report.case_id == "chest"
    assert report.input.shape_zyx == GRID.shape_zyx
    assert report.input.spacing_zyx_mm == pytest.approx((2.5, 2.5, 2.5))
    assert report.warnings == ("made up",)
    assert [model.role for model in report.models] == ["segmentation", "nodule", "malignancy"]
    assert all(model.runtime.startswith("torch ") for model in report.models[:2])
    assert set(report.seconds) == {"read", "lungs", "segment", "group", "classify", "diagnose"}
    assert Report.from_json(report.to_json()) == report


def test_the_faster_runtime_gives_the_same_findings(models, found):
    pytest.importorskip("onnx")
    pytest.importorskip("openvino")
    fast = Detector.load(models, runtime="openvino").detect(chest(*BALLS))
    assert all(model.runtime.startswith("openvino ") for model in fast.report.models[:2])
    for a, b in zip(found.report.findings, fast.report.findings, strict=True):
        np.testing.assert_allclose(a.center_lps, b.center_lps, atol=1e-3)
        assert a.p_nodule == pytest.approx(b.p_nodule, abs=1e-5)
    np.testing.assert_array_equal(found.mask, fast.mask)


def test_a_chest_without_balls_has_no_findings_and_no_answer_for_the_patient(models):
    detection = Detector.load(models, runtime="torch").detect(chest())
    assert detection.report.findings == ()
    assert detection.report.patient.p_malignant is None
    assert not detection.mask.any()


def test_findings_below_the_threshold_are_left_out(models):
    loaded = Detector.load(models, runtime="torch", threshold=0.95)
    assert loaded.detect(chest(*BALLS)).report.findings == ()


@pytest.mark.parametrize(("sensitivity", "balls"), [("high", len(BALLS)), ("balanced", 0), ("specific", 0)])
def test_a_sensitivity_is_the_cut_of_that_name_in_the_card(models, tmp_path, sensitivity, balls):
    folder = shutil.copytree(models, tmp_path / "cut")
    network, card = load_model(folder / "nodule")
    cuts = {"high": 0.85, "balanced": 0.92, "specific": 0.95}
    save_model(folder / "nodule", network, replace(card, threshold=cuts["balanced"], operating_points=cuts))
    report = Detector.load(folder, runtime="torch", sensitivity=sensitivity).detect(chest(*BALLS)).report
    assert report.threshold == cuts[sensitivity]
    assert len(report.findings) == balls


@pytest.mark.parametrize("threshold", [-0.1, 1.5, 50, float("nan")])
def test_a_threshold_that_is_no_probability_is_refused(threshold):
    for load in (Detector.load, lambda **given: carina.detect("x.nii", **given)):
        with pytest.raises(UsageError, match="not a probability"):
            load(threshold=threshold)


def test_without_the_second_stage_the_first_speaks(models):
    loaded = Detector.load(models, runtime="torch", first_stage_only=True)
    report = loaded.detect(chest(*BALLS)).report
    assert len(report.findings) == len(BALLS)
    for finding in report.findings:
        assert finding.classification_score is None
        assert finding.p_nodule == finding.segmentation_score
    assert [model.role for model in report.models] == ["segmentation", "malignancy"]


def test_a_malignancy_network_answers_in_place_of_the_rule(models, found, tmp_path):
    folder = shutil.copytree(models, tmp_path / "rated")
    save_model(
        folder / "malignancy",
        sure_nodule_net(0.25),
        Card("rater", "malignancy", {"kind": "nodule", "first_filters": 1}),
    )
    report = Detector.load(folder, runtime="torch").detect(chest(*BALLS)).report
    assert [finding.p_malignant for finding in report.findings] == pytest.approx([0.25] * len(BALLS), abs=1e-6)
    assert all(finding.p_malignant != pytest.approx(0.25, abs=0.01) for finding in found.report.findings)
    assert report.patient.p_malignant == pytest.approx(0.9 * 0.25, abs=1e-6)
    assert [(model.role, model.name) for model in report.models][-1] == ("malignancy", "rater")
    assert "diameter-rule" not in [model.name for model in report.models]


def test_too_many_candidates_are_cut_with_a_warning(models, monkeypatch):
    monkeypatch.setattr(detector, "MOST_CANDIDATES", 1)
    report = Detector.load(models, runtime="torch").detect(chest(*BALLS)).report
    assert len(report.findings) == 1
    assert any("2 candidates" in warning for warning in report.warnings)


def test_more_findings_than_a_report_can_list_are_cut_with_a_warning(models, found, monkeypatch):
    monkeypatch.setattr(detector, "MOST_FINDINGS", 1)
    report = Detector.load(models, runtime="torch").detect(chest(*BALLS)).report
    assert [f.center_lps for f in report.findings] == [found.report.findings[0].center_lps]
    assert any("2 findings" in warning for warning in report.warnings)


def test_progress_goes_through_the_stages_in_order(models):
    seen: list[tuple[str, float]] = []
    Detector.load(models, runtime="torch").detect(chest(*BALLS), progress=lambda *step: seen.append(step))
    stages = list(dict.fromkeys(stage for stage, _ in seen))
    assert stages == ["read", "lungs", "segment", "group", "classify", "diagnose"]
    assert all(0 <= done <= 1 for _, done in seen)


def test_a_file_gives_what_the_volume_in_memory_gives(models, found, tmp_path):
    volume = chest(*BALLS)
    write_image(volume.hu, volume.geometry, tmp_path / "chest.mhd")
    report = Detector.load(models, runtime="torch").detect(tmp_path / "chest.mhd").report
    same = [replace(finding, id=0) for finding in report.findings]
    assert same == [replace(finding, id=0) for finding in found.report.findings]
    assert report.input.format == "metaimage"


def test_a_scan_without_lungs_is_refused(models):
    water = Volume(np.zeros(GRID.shape_zyx, np.int16), GRID)
    with pytest.raises(NoLungsError):
        Detector.load(models, runtime="torch").detect(water)


@pytest.mark.data
@pytest.mark.slow
def test_a_real_scan_runs_through_with_slices_named(models, lidc_0001):
    report = Detector.load(models).detect(lidc_0001).report
    assert report.input.format == "dicom"
    assert 3 < report.input.lung_litres < 8
    slices = read_ct(lidc_0001).source.slices
    assert report.findings
    for finding in report.findings:
        named = slices[finding.slice_index]
        assert finding.sop_instance_uid == named.sop_instance_uid
        assert finding.instance_number == named.instance_number

"""What the shipped weights find, on phantoms and on real scans that did not train them (M21, M29-M33)."""

import json
import os
import resource
import subprocess
import sys
from importlib.resources import files
from pathlib import Path

import numpy as np
import pytest

from carina.data.known_lesions import boxes_lps, read_known_lesions
from carina.data.lidc import find_nodules, read_scan
from carina.data.phantom import make_phantom
from carina.findings import Finding
from carina.io import read_ct, read_image, write_image
from carina.models.card import load_card
from carina.pipeline import Detector

WEIGHTS = Path(str(files("carina"))) / "weights"
LUNA_CENTER = (56.208, 86.343, -115.868)
LUNA_DIAMETER_MM = 23.35
FULL_CHESTS = (
    "cptac-c3n-00247",
    "lung-pet-ct-dx-a0001-sharp",
    "lung-pet-ct-dx-a0001-soft",
    "lung-pet-ct-dx-a0002-sharp",
    "lung-pet-ct-dx-a0002-soft",
    "cip-64/dicom",
)


@pytest.fixture(scope="module")
def detector() -> Detector:
    return Detector.load(device="cpu")


def hits(finding: Finding, center_lps: tuple[float, float, float], diameter_mm: float) -> bool:
    return float(np.linalg.norm(np.subtract(finding.center_lps, center_lps))) <= diameter_mm / 2


def test_all_weights_together_are_under_10_mb() -> None:
    assert sum(path.stat().st_size for path in WEIGHTS.iterdir()) < 10e6


@pytest.mark.parametrize("name", ["segmentation", "nodule"])
def test_cards_name_every_series_and_not_the_test_scan(name: str) -> None:
    training = load_card(WEIGHTS / name).training
    assert len(training.series_uids) > 70
    assert (
        sum(not uid.startswith("2.25.") for uid in training.series_uids) == 5
    )  # the real CTs behind the synthetic ones
    assert not any(uid.endswith("179049373636438705059720603192") for uid in training.series_uids)


def test_the_card_says_how_often_probabilities_come_true() -> None:
    card = load_card(WEIGHTS / "nodule")
    assert 0 < card.operating_points["high"] < card.threshold < card.operating_points["specific"] < 1
    assert sum(one.count for one in card.reliability) > 300
    gaps = [one.count * abs(one.mean_probability - one.fraction) for one in card.reliability]
    assert sum(gaps) / sum(one.count for one in card.reliability) == pytest.approx(
        card.metrics["calibration_error_out_of_fold"], abs=1e-6
    )


@pytest.mark.slow
def test_large_nodules_of_unseen_phantoms_are_found(detector: Detector) -> None:
    found, wrong, there = 0, 0, 0
    for seed in (9101, 9102, 9103):
        phantom = make_phantom(seed, nodules=3)
        findings = detector.detect(phantom.volume).report.findings
        large = [nodule for nodule in phantom.nodules if nodule.diameter_mm >= 6]
        there += len(large)
        found += sum(any(hits(f, n.center_lps, n.diameter_mm) for f in findings) for n in large)
        wrong += sum(not any(hits(f, n.center_lps, n.diameter_mm) for n in phantom.nodules) for f in findings)
    assert there >= 3
    assert found >= 0.6 * there
    assert wrong <= 4 * 3


@pytest.mark.slow
def test_an_empty_phantom_gives_at_most_two_findings(detector: Detector) -> None:
    assert len(detector.detect(make_phantom(9201, nodules=0).volume).report.findings) <= 2


@pytest.mark.data
def test_the_luna16_nodule_is_the_first_finding(detector: Detector, lidc_0001: Path) -> None:
    findings = detector.detect(lidc_0001).report.findings
    distance_mm = np.linalg.norm(np.subtract(findings[0].center_lps, LUNA_CENTER))
    print(f"LIDC-IDRI-0001: {[round(f.p_nodule, 3) for f in findings]}, {distance_mm:.1f} mm off")
    assert len(findings) <= 2
    assert distance_mm < 2
    assert findings[0].diameter_mm == pytest.approx(LUNA_DIAMETER_MM, abs=3)


@pytest.mark.data
def test_the_mask_of_the_nodule_agrees_with_its_four_readers(
    detector: Detector, lidc_0001: Path, lidc_sqlite: Path
) -> None:
    found = detector.detect(lidc_0001)
    readings = read_scan(lidc_sqlite, str(found.report.input.series_uid)).readings
    (nodule,) = (n for n in find_nodules(readings, found.volume.geometry) if n.readers == 4)
    truth = np.zeros(found.mask.shape, bool)
    truth[tuple(slice(a, a + n) for a, n in zip(nodule.start_zyx, nodule.consensus.shape, strict=True))] = (
        nodule.consensus
    )
    marked = found.mask == 1
    dice = 2 * (marked & truth).sum() / (marked.sum() + truth.sum())
    print(f"Dice {dice:.3f}")
    assert dice >= 0.85


@pytest.mark.data
@pytest.mark.slow
def test_the_tumour_of_an_unseen_chest_is_the_first_finding(
    detector: Detector, chest_and_tumour: tuple[Path, Path]
) -> None:
    chest, tumour = chest_and_tumour
    truth, grid = read_image(tumour)
    findings = detector.detect(chest).report.findings
    on_tumour = [bool(truth[tuple(np.rint(grid.to_zyx(f.center_lps)).astype(int))]) for f in findings]
    print(f"{chest.name}: {[(round(f.p_nodule, 3), hit) for f, hit in zip(findings, on_tumour, strict=True)]}")
    assert on_tumour[0]
    assert on_tumour.count(False) <= 1


@pytest.mark.data
@pytest.mark.slow
def test_dicom_metaimage_and_nifti_give_the_same_centre(detector: Detector, lidc_0001: Path, tmp_path: Path) -> None:
    volume = read_ct(lidc_0001)
    centers = [detector.detect(lidc_0001).report.findings[0].center_lps]
    for name in ("scan.mhd", "scan.nii.gz"):
        write_image(volume.hu, volume.geometry, tmp_path / name)
        centers.append(detector.detect(tmp_path / name).report.findings[0].center_lps)
    assert np.ptp(np.array(centers), axis=0).max() < 0.01


@pytest.mark.data
@pytest.mark.slow
@pytest.mark.parametrize("name", FULL_CHESTS)
def test_every_full_chest_runs_to_a_report(detector: Detector, data_dir: Path, name: str) -> None:
    report = detector.detect(data_dir / "ct" / name).report
    assert len(report.findings) <= 20
    assert report.input.lung_litres > 2


@pytest.mark.data
@pytest.mark.slow
@pytest.mark.parametrize("patient", ["a0001", "a0002"])
def test_every_annotated_tumour_holds_a_finding_at_high_sensitivity(data_dir: Path, patient: str) -> None:
    """These scans were training backgrounds with the tumours masked; at the default threshold they may be missed."""
    card = load_card(WEIGHTS / "nodule")
    detector = Detector.load(device="cpu", threshold=0.0)
    known = read_known_lesions([data_dir / "annotations" / "lung-pet-ct-dx"])
    names = [f"lung-pet-ct-dx-{patient}-{kernel}" for kernel in ("sharp", "soft")]
    volumes = [read_ct(data_dir / "ct" / name) for name in names]
    # Both kernels show the same chest, and readers drew boxes on slices of either.
    boxes = [box for volume in volumes for box in boxes_lps(volume, known)]
    for name, volume in zip(names, volumes, strict=True):
        corners = [np.sort(volume.geometry.to_zyx(box), axis=0) for box in boxes]
        findings = detector.detect(volume).report.findings
        p = np.array([finding.p_nodule for finding in findings])
        centers = [np.array(finding.center_zyx) for finding in findings]
        inside = np.array([any(((low <= c) & (c <= high)).all() for low, high in corners) for c in centers], bool)
        best = p[inside].max(initial=0.0)
        others = p[~inside]
        print(
            f"{name}: p {best:.2f}, false ones above {(others > best).sum()}, over {(others >= card.threshold).sum()}"
        )
        assert best >= card.operating_points["high"]


@pytest.mark.data
@pytest.mark.slow
def test_detect_stays_under_three_gib(lidc_0001: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "carina", "detect", "-i", str(lidc_0001), "-o", str(tmp_path), "--json", "-q"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, check=True, env=dict(os.environ))
    assert json.loads(done.stdout)["findings"]
    peak_kib = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    assert peak_kib < 3 * 1024**2

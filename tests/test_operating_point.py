"""Candidates held against the truth of a cohort: what is right, wrong, or not judged, and what each teaches."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from carina.cli import main
from carina.data.cohort import write_scan
from carina.errors import InputError
from carina.evaluate.froc import froc
from carina.evaluate.match import match
from carina.evaluate.operating_point import Judged, _cut, calibrate, candidates, judge
from carina.evaluate.present import present_operating_point
from carina.geometry import Geometry
from carina.io.luna import IGNORE, Annotation
from carina.volume import Source, Volume
from froc_cohorts import detections, nodules

UID = "1.2.3"
SHAPE = (40, 60, 60)
GEOMETRY = Geometry.from_axes(SHAPE, spacing_zyx_mm=(2.0, 1.0, 1.0))
ROD = (slice(10, 14), slice(10, 14), slice(5, 55))
CENTER, END, BORDER, ELSEWHERE = (12.0, 12.0, 30.0), (12.0, 12.0, 50.0), (31.0, 41.0, 41.0), (30.0, 20.0, 20.0)


def write(folder: Path, lookalikes: tuple[tuple[float, float, float], ...] = ()) -> tuple[Path, Path]:
    """A scan with a rod as a nodule, a corner to be ignored, four marks, and look-alikes listed at these indices."""
    mask = np.zeros(SHAPE, np.uint8)
    mask[ROD] = 1
    mask[30:33, 40:43, 40:43] = IGNORE
    x, y, z = (float(v) for v in GEOMETRY.to_lps(CENTER))
    nodule = Annotation(UID, (x, y, z), 14.0, float(mask[ROD].sum() * 2), "solid", 1)
    volume = Volume(np.full(SHAPE, -900, np.int16), GEOMETRY, Source(series_uid=UID))
    listed = GEOMETRY.to_lps(np.reshape(lookalikes, (-1, 3)))
    write_scan(folder / "cohort", volume, mask, [nodule], listed, patient_id="p", origin="made")
    header = "seriesuid,coordX,coordY,coordZ,probability,segmentation_score,classification_score"
    marks = GEOMETRY.to_lps([CENTER, END, BORDER, ELSEWHERE])
    rows = [f"{UID},{x:.3f},{y:.3f},{z:.3f},0.5,0.5,0.5" for x, y, z in marks]
    (folder / "found").mkdir()
    (folder / "found" / "findings.csv").write_text("\n".join([header, *rows]) + "\n")
    return folder / "found", folder / "cohort"


def test_nodules_of_scans_without_a_result_do_not_count(tmp_path: Path) -> None:
    found, cohort = write(tmp_path)
    with (cohort / "annotations.csv").open("a") as table:
        table.write("another,0.0,0.0,0.0,14.0,1000.0,solid,1\n")
    assert judge(found, cohort).nodules.series_uid == (UID,)


def test_a_stage_score_that_is_no_number_is_named(tmp_path: Path) -> None:
    found, cohort = write(tmp_path)
    table = found / "findings.csv"
    table.write_text(table.read_text().replace("0.5,0.5\n", ",0.5\n", 1).replace("0.5,0.5\n", "inf,0.5\n", 1))
    with pytest.raises(InputError, match=r"line 3: segmentation_score is 'inf'"):
        judge(found, cohort)
    table.write_text(table.read_text().replace("inf", "x"))
    with pytest.raises(InputError, match=r"line 3: segmentation_score is 'x'"):
        judge(found, cohort)


def test_marks_on_a_nodule_beyond_its_radius_are_not_judged_but_teach(tmp_path: Path) -> None:
    judged = judge(*write(tmp_path))
    assert judged.truth.tolist() == [1, -1, -1, 0]
    assert judged.on_nodule.tolist() == [True, True, False, False]
    taught = candidates(judged)
    assert [c.is_nodule for c in taught] == [True, True, False]
    np.testing.assert_allclose([c.center_lps for c in taught], GEOMETRY.to_lps([CENTER, END, ELSEWHERE]), atol=1e-3)


def test_a_mark_near_a_listed_negative_lies_on_a_lookalike(tmp_path: Path) -> None:
    z, y, x = ELSEWHERE
    assert judge(*write(tmp_path, lookalikes=((z, y, x + 9),))).lookalike.tolist() == [False, False, False, True]


def test_neither_a_listed_nodule_nor_what_is_far_makes_a_lookalike(tmp_path: Path) -> None:
    z, y, x = ELSEWHERE
    found, cohort = write(tmp_path, lookalikes=((z, y, x + 11),))
    listed = (cohort / "candidates.csv").read_text().splitlines()
    assert [line.rsplit(",", 1)[1] for line in listed] == ["class", "1", "0"]
    assert not judge(found, cohort).lookalike.any()


def test_the_patient_of_a_scan_stands_in_its_cohort(tmp_path: Path) -> None:
    assert judge(*write(tmp_path)).patients == {UID: "p"}


def scored(patients: int, copies: int) -> Judged:
    """Each patient's scan so many times: three nodules, twelve other candidates, scores that know little of either."""
    rng = np.random.default_rng(0)
    truth = np.tile([1] * 3 + [0] * 12, patients)
    first, second = (1 / (1 + np.exp(-truth - rng.normal(0, 1.5, len(truth)))) for _ in range(2))
    patient_of = {f"1.{i}.{k}": f"patient {i}" for i in range(patients) for k in range(copies)}
    of_patient = [range(15 * i, 15 * i + 15) for i in range(patients) for _ in range(copies)]
    order = np.concatenate(of_patient)
    rows = [(uid, (50.0 * j, 0.0, 0.0), 0.5) for uid in patient_of for j in range(15)]
    marks = nodules([(uid, position, 10.0) for uid, position, _ in rows if position[0] < 150])
    no = np.zeros(len(rows), bool)
    return Judged(detections(rows), marks, first[order], second[order], truth[order], no, no, patient_of)


def with_lookalikes() -> Judged:
    """Eight scans with twelve false positives each, of which the first four lie on look-alikes."""
    judged = scored(8, 1)
    return replace(judged, lookalike=np.isin(np.arange(len(judged.truth)) % 15, range(3, 7)))


@pytest.mark.parametrize(("name", "in_eight_scans"), [("high", 32), ("balanced", 8), ("specific", 2)])
def test_each_cut_lets_in_4_1_and_a_quarter_false_positives_per_scan(name: str, in_eight_scans: int) -> None:
    judged = with_lookalikes()
    point = calibrate([judged], bootstraps=0)
    score = point.calibration.probability(judged.segmentation, judged.classification)
    false = np.sort(score[(judged.truth == 0) & ~judged.lookalike])[::-1]
    assert len(false) == 64
    assert false[in_eight_scans] < point.thresholds[name] <= false[in_eight_scans - 1] + 1e-4


def test_lookalikes_count_in_the_curve_though_not_for_the_cuts() -> None:
    judged = with_lookalikes()
    point, bare = (calibrate([one], bootstraps=0) for one in (judged, scored(8, 1)))
    assert point.froc.n_false == 96
    assert point.froc.sensitivity == bare.froc.sensitivity
    assert all(point.thresholds[name] < bare.thresholds[name] for name in bare.thresholds)


@pytest.mark.parametrize(
    ("scores", "cut"), [((0.62345, 0.62341), 0.6235), ((0.9, 0.62341), 0.9), ((0.9, 0.9), 1.0), ((), 1.0)]
)
def test_a_cut_of_one_false_positive_is_rounded_up(scores: tuple[float, ...], cut: float) -> None:
    """Two of equal scores come in together or not at all."""
    marks = detections([("1.1", (50.0 * i, 0.0, 0.0), score) for i, score in enumerate(scores, start=1)])
    matches = match(marks, nodules([("1.1", (0.0, 0.0, 0.0), 10.0)]), scans=["1.1"])
    assert _cut(froc(matches, bootstraps=0), 1.0) == pytest.approx(cut)


def test_copies_of_a_scan_make_nothing_surer() -> None:
    once, copied = (calibrate([scored(8, copies)], bootstraps=200) for copies in (1, 5))
    assert (copied.metrics["scans"], copied.metrics["patients"]) == (40, 8)
    for name in ("froc_average_low", "froc_average_high", "calibration_error_out_of_fold", "auc_joined_out_of_fold"):
        assert copied.metrics[name] == pytest.approx(once.metrics[name], abs=1e-4), name
    for one, other in zip(once.groups, copied.groups, strict=True):
        np.testing.assert_allclose(other.sensitivity_interval, one.sensitivity_interval, atol=1e-6)


def test_the_summary_says_what_was_resampled() -> None:
    once, copied = (calibrate([scored(8, copies)], bootstraps=20) for copies in (1, 5))
    drawn = "Intervals: percentiles over 20 resamples of the 8"
    assert f"{drawn} scans." in present_operating_point(once, "").notes
    assert f"{drawn} patients, each with all its scans." in present_operating_point(copied, "").notes


def test_scans_of_one_patient_alone_are_refused() -> None:
    with pytest.raises(InputError, match="one patient"):
        calibrate([scored(1, 5)])


@pytest.mark.parametrize("step", [["mine"], ["calibrate", "--weights", "w", "--measured-on", "x"]])
def test_without_results_there_is_nothing_to_tune(
    step: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "mined.csv"
    with pytest.raises(SystemExit) as end:
        main(["tune", *step, "--cohorts", "-o", str(output)])
    assert end.value.code == 2
    assert "no RESULTS given" in capsys.readouterr().err
    assert not output.exists()

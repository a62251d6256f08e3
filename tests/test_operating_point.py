"""Candidates held against the truth of a cohort: what is right, wrong, or not judged, and what each teaches."""

from pathlib import Path

import numpy as np

from carina.data.cohort import write_scan
from carina.data.store import IGNORE
from carina.evaluate.operating_point import candidates, judge
from carina.geometry import Geometry
from carina.io.luna import Annotation
from carina.volume import Source, Volume

UID = "1.2.3"
SHAPE = (40, 60, 60)
GEOMETRY = Geometry.from_axes(SHAPE, spacing_zyx_mm=(2.0, 1.0, 1.0))
ROD = (slice(10, 14), slice(10, 14), slice(5, 55))
CENTER, END, BORDER, ELSEWHERE = (12.0, 12.0, 30.0), (12.0, 12.0, 50.0), (31.0, 41.0, 41.0), (30.0, 20.0, 20.0)


def write(folder: Path) -> tuple[Path, Path]:
    """A scan with a rod as a nodule, a corner to be ignored, and four marks."""
    mask = np.zeros(SHAPE, np.uint8)
    mask[ROD] = 1
    mask[30:33, 40:43, 40:43] = IGNORE
    x, y, z = (float(v) for v in GEOMETRY.to_lps(CENTER))
    nodule = Annotation(UID, (x, y, z), 14.0, float(mask[ROD].sum() * 2), "solid", 1)
    volume = Volume(np.full(SHAPE, -900, np.int16), GEOMETRY, Source(series_uid=UID))
    write_scan(folder / "cohort", volume, mask, [nodule], np.zeros((0, 3)), patient_id="p", origin="made")
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


def test_marks_on_a_nodule_beyond_its_radius_are_not_judged_but_teach(tmp_path: Path) -> None:
    judged = judge(*write(tmp_path))
    assert judged.truth.tolist() == [1, -1, -1, 0]
    assert judged.on_nodule.tolist() == [True, True, False, False]
    taught = candidates(judged)
    assert [c.is_nodule for c in taught] == [True, True, False]
    np.testing.assert_allclose([c.center_lps for c in taught], GEOMETRY.to_lps([CENTER, END, ELSEWHERE]), atol=1e-3)

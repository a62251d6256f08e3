"""What became of every nodule, in a table of whole cohorts (M38)."""

from dataclasses import replace

import numpy as np
import pytest

from carina.errors import InputError
from carina.evaluate.malignancy import MalignancyTable
from carina.evaluate.pipeline import SAID, TRUTH, read_reports, score_pipeline
from carina.evaluate.present import present_pipeline
from carina.findings import MOST_FINDINGS
from made_reports import report


def truth(*rows):
    return MalignancyTable(
        tuple(row[0] for row in rows),
        np.array([row[1] for row in rows], np.float64).reshape(-1, 3),
        np.full(len(rows), 10.0),
        np.array([row[2] for row in rows], bool),
    )


HERE = (0.0, 0.0, 0.0)
THERE = (50.0, 0.0, 0.0)


@pytest.mark.parametrize(
    ("findings", "fate"),
    [
        ([], "missed"),
        ([(THERE, 0.9, 0.9)], "missed"),
        ([((5.0, 0.0, 0.0), 0.9, 0.9)], "missed"),  # exactly on the radius
        ([(HERE, 0.4, 0.9)], "filtered out"),
        ([(HERE, 0.5, 0.4)], "called benign"),
        ([(HERE, 0.9, 0.5)], "called malignant"),
        ([(HERE, 0.9, 0.2), ((1.0, 0.0, 0.0), 0.6, 0.9)], "called benign"),  # the most probable finding decides
    ],
)
@pytest.mark.parametrize("malignant", [False, True])
def test_the_fate_of_a_nodule(findings, fate, malignant):
    score = score_pipeline([report("1.1", findings)], truth(("1.1", HERE, malignant)), threshold=0.5)
    row = TRUTH[2] if malignant else TRUTH[1]
    counts = score.table.counts[TRUTH.index(row)]
    assert dict(zip(SAID, counts.tolist(), strict=True)) == {name: int(name == fate) for name in SAID}


def test_findings_that_hit_nothing_are_not_nodules_and_never_missed():
    findings = [(THERE, 0.9, 0.9), ((60.0, 0.0, 0.0), 0.9, 0.1), ((70.0, 0.0, 0.0), 0.1, 0.9)]
    score = score_pipeline([report("1.1", findings)], truth(), threshold=0.5)
    assert score.table.counts.tolist() == [[0, 1, 1, 1], [0, 0, 0, 0], [0, 0, 0, 0]]


def test_further_findings_in_a_nodule_are_no_false_alarms():
    findings = [(HERE, 0.9, 0.9), ((1.0, 0.0, 0.0), 0.8, 0.9)]
    score = score_pipeline([report("1.1", findings)], truth(("1.1", HERE, True)))
    assert score.table.counts.sum() == 1


def test_nodules_of_scans_without_a_report_are_left_out():
    score = score_pipeline([report("1.1", [])], truth(("1.2", HERE, True)))
    assert score.table.counts.sum() == 0
    assert score.patient_malignant.tolist() == [False]


def test_the_answer_for_the_patient_is_the_highest_product_above_the_threshold():
    findings = [(HERE, 0.9, 0.5), (THERE, 0.6, 0.8), ((9.0, 9.0, 9.0), 0.4, 1.0)]
    score = score_pipeline([report("1.1", findings), report("1.2", [])], truth(("1.1", HERE, True)), threshold=0.5)
    np.testing.assert_allclose(score.patient_probability, [0.48, 0.0])
    assert score.patient_malignant.tolist() == [True, False]


def test_a_threshold_below_that_of_a_report_cannot_be_judged():
    with pytest.raises(InputError, match="--threshold 0"):
        score_pipeline([report("1.1", [], threshold=0.3)], truth(), threshold=0.2)


def test_reports_that_could_list_no_more_are_told():
    far = [((500.0 + k, 0.0, 0.0), 0.1, 0.1) for k in range(MOST_FINDINGS)]
    score = score_pipeline([report("1.1", far), report("1.2", far[1:])], truth(("1.1", HERE, True)))
    assert score.full == 1
    assert any(note.startswith("1 of the reports") for note in present_pipeline(score).notes)
    assert not any("of the reports" in note for note in present_pipeline(replace(score, full=0)).notes)


def test_two_reports_of_one_scan_are_refused():
    with pytest.raises(InputError, match="two reports"):
        score_pipeline([report("1.1", []), report("1.1", [])], truth())


def test_a_folder_without_reports_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"no report\.json"):
        read_reports(tmp_path)

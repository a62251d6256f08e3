"""The report's JSON form: the one contract between the programs."""

import dataclasses
import json
from pathlib import Path

import jsonschema
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from carina.errors import InputError
from carina.findings import Finding, InputSummary, ModelInfo, PatientAnswer, Report

numbers = st.floats(-1e4, 1e4)
vectors = st.tuples(numbers, numbers, numbers)
findings = st.builds(
    Finding,
    id=st.integers(1, 255),
    center_lps=vectors,
    center_zyx=vectors,
    p_nodule=st.floats(0, 1),
    p_malignant=st.floats(0, 1),
    segmentation_score=st.floats(0, 1),
    diameter_mm=numbers,
    volume_mm3=numbers,
    mean_hu=numbers,
)
reports = st.builds(
    Report,
    input=st.builds(
        InputSummary, lung_litres=numbers, shape_zyx=st.tuples(*[st.integers(1, 999)] * 3), spacing_zyx_mm=vectors
    ),
    findings=st.lists(findings, max_size=3).map(tuple),
    patient=st.builds(PatientAnswer, p_malignant=st.none() | st.floats(0, 1)),
    models=st.lists(st.builds(ModelInfo), max_size=2).map(tuple),
    threshold=st.floats(0, 1),
    seconds=st.dictionaries(st.text(max_size=5), numbers, max_size=2),
    schema_version=st.just("1.0"),
)


@settings(deadline=None)
@given(reports)
def test_json_and_back(report: Report) -> None:
    assert Report.from_json(report.to_json()) == report


@settings(deadline=None)
@given(reports)
def test_json_fits_the_published_schema(report: Report) -> None:
    jsonschema.validate(json.loads(report.to_json()), Report.json_schema())


@settings(deadline=None)
@given(reports)
def test_research_use_is_said_in_every_report(report: Report) -> None:
    assert "Not for diagnosis" in json.loads(report.to_json())["notice"]


@settings(deadline=None)
@given(reports)
def test_another_major_version_is_refused(report: Report) -> None:
    newer = dataclasses.replace(report, schema_version="2.0")
    with pytest.raises(InputError, match=r"schema version 2\.0"):
        Report.from_json(newer.to_json())


def test_what_is_no_report_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="not a Carina report"):
        Report.from_json("{}")
    (tmp_path / "report.json").write_text("{}")
    with pytest.raises(InputError, match=r"report\.json: not a Carina report"):
        Report.read(tmp_path / "report.json")

"""Reports in files: what they hold, that they agree with each other, and that a folder shows a whole one or none."""

import csv
import io
import json
import re
import subprocess
import sys
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import jsonschema
import numpy as np
import pytest
import SimpleITK
from hypothesis import given, settings
from hypothesis import strategies as st

from carina.errors import InputError, UsageError
from carina.findings import RESEARCH_USE, Finding, InputSummary, ModelInfo, PatientAnswer, Report
from carina.geometry import Geometry
from carina.report import DICOM_FORMATS, FORMATS, render_html, write_report
from carina.report import files as report_files
from carina.report.html import PICTURED, moment, number, percent, seconds
from carina.report.schema import schema_text
from carina.report.tables import COLUMNS, findings_csv
from carina.volume import Volume

SCHEMA = Path(__file__).parents[1] / "docs" / "reference" / "report.schema.json"
PLAIN = {name: file for name, file in FORMATS.items() if name not in DICOM_FORMATS}
VOID = {"meta", "input", "br", "img", "link", "hr"}


def ct(shape: tuple[int, int, int] = (40, 60, 60)) -> Volume:
    geometry = Geometry.from_axes(shape, spacing_zyx_mm=(2.0, 1.0, 1.0), origin_lps=(-30.0, -30.0, 10.0))
    noise = np.random.default_rng(0).normal(-850, 40, shape)
    return Volume(noise.astype(np.int16), geometry)


def finding(number: int, volume: Volume, p_nodule: float = 0.5, **changes: object) -> Finding:
    index = (20.0, 30.0, 10.0 + 3 * number)
    made = Finding(
        id=number,
        center_lps=tuple(volume.geometry.to_lps(index).tolist()),
        center_zyx=index,
        diameter_mm=8.25,
        volume_mm3=294.0,
        mean_hu=-31.5,
        p_nodule=p_nodule,
        p_malignant=0.123456789,
        slice_index=20,
    )
    return replace(made, **changes)


def report(volume: Volume, *findings: Finding, **changes: object) -> Report:
    best = max(findings, key=lambda f: f.p_nodule, default=None)
    made = Report(
        case_id="1.2.840.99",
        input=InputSummary(
            "/data/DOE^JANE/scan", "dicom", "1.2.840.99", "1.2.840.7", None, volume.hu.shape, (2.0, 1.0, 1.0), 4.2
        ),
        findings=findings,
        patient=PatientAnswer(best and best.p_nodule * best.p_malignant, best and best.id, "maximum over findings"),
        threshold=0.3,
        models=(
            ModelInfo("segmentation", "unet", "ab" * 32, "torch cpu"),
            ModelInfo("malignancy", "rule of diameter", "cd" * 32, "numpy", "Fitted on 1,182 nodules."),
        ),
        seconds={"read": 1.25, "segment": 130.0},
        warnings=(),
        carina_version="0.1.0",
        created="2026-01-02T03:04:05+00:00",
    )
    return replace(made, **changes)


def labelled(volume: Volume, *findings: Finding) -> np.ndarray:
    labels = np.zeros(volume.hu.shape, np.int32)
    for one in findings:
        z, y, x = (round(i) for i in one.center_zyx)
        labels[z - 1 : z + 2, y - 1 : y + 2, x - 1 : x + 2] = one.id
    return labels


class Page(HTMLParser):
    """Checks that tags are closed in order; gathers ids, links and text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.ids: list[str] = []
        self.links: list[str] = []
        self.tags: list[str] = []
        self.unlabelled: list[str] = []
        self.words: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        self.tags.append(tag)
        if tag not in VOID:
            self.open.append(tag)
        self.ids += [values["id"]] if "id" in values else []
        self.links += [values[name] for name in ("href", "src", "aria-labelledby") if name in values]
        if values.get("role") == "img" and not values.get("aria-label"):
            self.unlabelled.append(self.get_starttag_text())

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.handle_endtag(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open, f"</{tag}> closes nothing"
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if "style" not in self.open:
            self.words.append(data)

    @property
    def text(self) -> str:
        return re.sub(r"\s+", " ", " ".join(self.words))


@pytest.fixture(scope="module")
def volume() -> Volume:
    return ct()


# The page


def test_the_page_is_well_formed_and_every_link_leads_somewhere(volume: Volume) -> None:
    findings = [finding(i, volume, 1 - i / 20) for i in range(1, 4)]
    page = Page(
        render_html(report(volume, *findings, warnings=("odd",)), volume=volume, labels=labelled(volume, *findings))
    )
    assert not page.open
    assert len(page.ids) == len(set(page.ids))
    targets = {link.lstrip("#") for link in page.links if not link.startswith("data:")}
    assert targets <= set(page.ids)
    assert not page.unlabelled


def test_the_page_loads_nothing_and_runs_no_script(volume: Volume) -> None:
    text = render_html(report(volume, finding(1, volume)), volume=volume, labels=None)
    page = Page(text)
    assert "script" not in page.tags
    assert all(link.startswith(("#", "data:image/png;base64,")) or link in page.ids for link in page.links)
    assert "default-src 'none'" in text
    assert not re.search(r"https?://|@import|url\(", text)


def test_text_from_files_is_escaped(volume: Volume) -> None:
    evil = "</p><script>alert('1')</script>\"&<img src=x onerror=y>"
    one = finding(1, volume, sop_instance_uid=evil)
    models = (ModelInfo(evil, evil, evil, evil, evil), ModelInfo("malignancy", evil, evil, evil, evil))
    page = Page(
        render_html(
            report(
                volume,
                one,
                case_id=evil,
                warnings=(evil,),
                models=models,
                seconds={evil: 1.0},
                notice=evil,
                created=evil,
                carina_version=evil,
                patient=PatientAnswer(0.1, 1, evil),
            ),
            volume=volume,
            labels=None,
        )
    )
    assert not page.open
    assert not {"script", "img"} & set(page.tags)
    assert page.text.count("alert('1')") >= 10


def test_the_page_names_no_path_study_or_patient(volume: Volume) -> None:
    text = render_html(report(volume, finding(1, volume)), volume=volume, labels=None)
    assert "1.2.840.99" in text
    assert "DOE" not in text
    assert "1.2.840.7" not in text


def test_the_answer_names_the_finding_that_drove_it(volume: Volume) -> None:
    findings = [finding(1, volume, 0.9), finding(2, volume, 0.6, p_malignant=0.8, diameter_mm=21.04)]
    answer = PatientAnswer(0.48, 2, "maximum over findings")
    text = Page(render_html(report(volume, *findings, patient=answer), volume=volume, labels=None)).text
    assert "Highest likelihood of a malignant nodule 48 %" in text
    assert "finding 2 , 21.0 mm across: 60 % likely a nodule; if it is one, 80 % likely malignant" in text
    assert "Fitted on 1,182 nodules." in text
    assert RESEARCH_USE in text


def test_an_empty_report_says_so_plainly_and_what_is_missed(volume: Volume) -> None:
    page = Page(render_html(report(volume), volume=volume, labels=None))
    assert not page.open
    assert "No finding above the threshold of 30 %." in page.text
    assert "does not say that the lungs are free of nodules" in page.text
    assert "limits" in page.ids
    assert "Drives the answer" not in page.text
    assert {link.lstrip("#") for link in page.links if link.startswith("#")} <= set(page.ids)


def test_each_finding_has_three_planes_in_two_windows_and_its_outline(volume: Volume) -> None:
    findings = [finding(1, volume), finding(2, volume, 0.4)]
    text = render_html(report(volume, *findings), volume=volume, labels=labelled(volume, *findings))
    for plane in ("axial", "coronal", "sagittal"):
        for window in ("lung", "soft tissue"):
            assert text.count(f'aria-label="Finding 2, {plane} plane, {window} window"') == 1
        assert re.search(rf'id="outline-2-{plane}" d="M', text)


def test_a_volume_made_in_memory_and_a_hidden_driver_have_a_page_too(volume: Volume) -> None:
    findings = [finding(i, volume, 1 - i / 50, center_lps=(0.0, 0.0, 40.0)) for i in range(1, PICTURED + 2)]
    made = report(volume, *findings, patient=PatientAnswer(0.4, PICTURED + 1, "maximum"))
    made = replace(made, input=replace(made.input, format="memory"))
    page = Page(render_html(made, volume=volume, labels=None))
    assert "Input memory" in page.text
    assert {link.lstrip("#") for link in page.links if link.startswith("#")} <= set(page.ids)


def test_findings_stand_by_probability(volume: Volume) -> None:
    findings = [finding(1, volume, 0.2), finding(2, volume, 0.8), finding(3, volume, 0.5)]
    made = report(volume, *findings)
    text = render_html(made, volume=volume, labels=None)
    assert re.findall(r'<h3 id="title-(\d)"', text) == ["2", "3", "1"]
    assert [row["id"] for row in csv.DictReader(io.StringIO(findings_csv(made)))] == ["2", "3", "1"]


def test_ten_findings_stay_below_three_megabytes() -> None:
    noisy = ct((60, 200, 200))
    findings = [finding(i, noisy, 1 - i / 20) for i in range(1, 11)]
    assert len(render_html(report(noisy, *findings), volume=noisy, labels=labelled(noisy, *findings))) < 3_000_000


def test_many_findings_are_all_listed_and_the_first_have_pictures(volume: Volume) -> None:
    findings = [finding(i, volume, 1 - i / 50, center_lps=(0.0, 0.0, 40.0)) for i in range(1, PICTURED + 4)]
    page = Page(render_html(report(volume, *findings), volume=volume, labels=None))
    assert page.text.count("Finding ") > PICTURED
    assert f"Pictures follow for the first {PICTURED} findings" in page.text
    assert sum(name.startswith("title-") for name in page.ids) == PICTURED
    assert {link.lstrip("#") for link in page.links if link.startswith("#")} <= set(page.ids)


# Numbers


@pytest.mark.parametrize(
    ("share", "text"),
    [(0.0, "< 1 %"), (0.004, "< 1 %"), (0.006, "1 %"), (0.5, "50 %"), (0.994, "99 %"), (1.0, "> 99 %")],
)
def test_probabilities_are_whole_percent_and_never_certain(share: float, text: str) -> None:
    assert percent(share).replace("\N{NO-BREAK SPACE}", " ") == text


def test_numbers_have_a_real_minus_and_thin_spaces() -> None:
    assert number(-1234.56) == "\N{MINUS SIGN}1\N{NARROW NO-BREAK SPACE}234.6"
    assert number(-0.04) == "0.0"
    assert seconds(130.4) == "2\N{NO-BREAK SPACE}min 10\N{NO-BREAK SPACE}s"
    assert seconds(1.234) == "1.23\N{NO-BREAK SPACE}s"
    assert moment("2026-01-02T03:04:05+00:00") == "2026-01-02 03:04 UTC"
    assert moment("yesterday") == "yesterday"


# JSON and CSV

uids = st.from_regex(r"[0-9.]{1,64}", fullmatch=True)
reals = st.floats(-1e4, 1e4)
shares = st.floats(0, 1)
made_findings = st.builds(
    Finding,
    id=st.integers(1, 200),
    center_lps=st.tuples(reals, reals, reals),
    center_zyx=st.tuples(reals, reals, reals),
    diameter_mm=st.floats(0, 300),
    volume_mm3=st.floats(0, 1e7),
    mean_hu=reals,
    p_nodule=shares,
    p_malignant=shares,
    slice_index=st.integers(0, 2000),
    segmentation_score=st.none() | shares,
    classification_score=st.none() | shares,
    sop_instance_uid=st.none() | uids,
    instance_number=st.none() | st.integers(-5, 5000),
)
made_reports = st.builds(
    Report,
    case_id=st.text(),
    input=st.builds(
        InputSummary,
        path=st.text(),
        format=st.just("nifti"),
        series_uid=st.none() | uids,
        study_uid=st.none() | uids,
        frame_of_reference_uid=st.none() | uids,
        shape_zyx=st.tuples(*[st.integers(1, 900)] * 3),
        spacing_zyx_mm=st.tuples(*[st.floats(0.1, 9)] * 3),
        lung_litres=st.floats(0, 12),
    ),
    findings=st.lists(made_findings, max_size=4).map(tuple),
    patient=st.builds(PatientAnswer, st.none() | shares, st.none() | st.integers(1, 9), st.text()),
    threshold=shares,
    models=st.lists(st.builds(ModelInfo, *[st.text()] * 5), max_size=2).map(tuple),
    seconds=st.dictionaries(st.text(), st.floats(0, 1e5), max_size=3),
    warnings=st.lists(st.text(), max_size=2).map(tuple),
    carina_version=st.just("0.1.0"),
    created=st.just("2026-01-02T03:04:05+00:00"),
)


@settings(max_examples=50, deadline=None)
@given(made_reports)
def test_every_report_survives_json_and_follows_its_schema(made: Report) -> None:
    assert Report.from_json(made.to_json()) == made
    jsonschema.validate(json.loads(made.to_json()), Report.json_schema())


def test_the_committed_schema_is_the_generated_one() -> None:
    assert SCHEMA.read_text(encoding="utf-8") == schema_text()
    jsonschema.Draft202012Validator.check_schema(json.loads(schema_text()))


def test_the_schema_command_writes_the_schema() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "carina.report.schema"], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout == schema_text()


def test_the_schema_refuses_a_finding_without_a_place(volume: Volume) -> None:
    made = json.loads(report(volume, finding(1, volume)).to_json())
    del made["findings"][0]["center_lps"]
    with pytest.raises(jsonschema.ValidationError, match="center_lps"):
        jsonschema.validate(made, Report.json_schema())


@settings(max_examples=50, deadline=None)
@given(made_reports)
def test_the_csv_gives_the_findings_back(made: Report) -> None:
    rows = list(csv.DictReader(io.StringIO(findings_csv(made), newline="")))
    by_rank = sorted(made.findings, key=lambda f: (-f.p_nodule, f.id))
    assert len(rows) == len(by_rank)
    for row, one in zip(rows, by_rank, strict=True):
        place = [float(row[name]) for name in ("coordX", "coordY", "coordZ")]
        assert place == pytest.approx(one.center_lps, abs=6e-4)
        assert float(row["probability"]) == pytest.approx(one.p_nodule, rel=1e-8)
        assert float(row["p_malignant"]) == pytest.approx(one.p_malignant, rel=1e-8)
        assert float(row["diameter_mm"]) == pytest.approx(one.diameter_mm, abs=6e-4)
        assert (row["id"], row["slice_index"]) == (str(one.id), str(one.slice_index))
        assert row["instance_number"] == ("" if one.instance_number is None else str(one.instance_number))
        for name in ("segmentation_score", "classification_score"):
            score = getattr(one, name)
            assert row[name] == "" if score is None else float(row[name]) == pytest.approx(score, rel=1e-8)
        assert row["sop_instance_uid"] == (one.sop_instance_uid or "")
        series = made.input.series_uid or made.case_id
        assert row["seriesuid"] == "".join("_" if c < " " or c == "\x7f" else c for c in series)


def test_the_csv_begins_with_the_columns_of_luna16(volume: Volume) -> None:
    assert findings_csv(report(volume)) == ",".join(COLUMNS) + "\n"
    assert COLUMNS[:5] == ("seriesuid", "coordX", "coordY", "coordZ", "probability")


# Files


def test_all_formats_are_written_and_agree(tmp_path: Path, volume: Volume) -> None:
    one = finding(1, volume)
    made = report(volume, one)
    paths = write_report(made, tmp_path / "out" / "case", PLAIN, volume=volume, labels=labelled(volume, one))
    assert {name: path.name for name, path in paths.items()} == PLAIN
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["case"]
    assert sorted(p.name for p in (tmp_path / "out" / "case").iterdir()) == sorted(PLAIN.values())
    assert Report.from_json(paths["json"].read_bytes()) == made
    assert paths["csv"].read_text(encoding="utf-8") == findings_csv(made)


def test_the_mask_lies_where_the_ct_lies_and_holds_the_ids(tmp_path: Path, volume: Volume) -> None:
    findings = [finding(1, volume), finding(2, volume)]
    labels = labelled(volume, *findings)
    path = write_report(report(volume, *findings), tmp_path / "case", ["mask"], volume=volume, labels=labels)["mask"]
    image = SimpleITK.ReadImage(str(path))
    assert np.array_equal(SimpleITK.GetArrayFromImage(image), labels)
    for one in findings:
        assert image.GetPixel(image.TransformPhysicalPointToIndex(one.center_lps)) == one.id


def test_labels_must_fit_the_input_and_the_findings(tmp_path: Path, volume: Volume) -> None:
    made = report(volume, finding(1, volume))
    with pytest.raises(InputError, match="shape"):
        write_report(made, tmp_path / "a", ["mask"], volume=volume, labels=np.zeros((3, 3, 3), np.int32))
    with pytest.raises(InputError, match="no finding's id"):
        write_report(made, tmp_path / "a", ["mask"], volume=volume, labels=np.full(volume.hu.shape, 9, np.int32))
    assert not list(tmp_path.iterdir())


def test_unknown_formats_and_a_mask_without_labels_are_usage_errors(tmp_path: Path, volume: Volume) -> None:
    with pytest.raises(UsageError, match="pdf"):
        write_report(report(volume), tmp_path / "a", ["json", "pdf"], volume=volume, labels=None)
    with pytest.raises(UsageError, match="segmentation"):
        write_report(report(volume), tmp_path / "a", ["mask"], volume=volume, labels=None)
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="is a file"):
        write_report(report(volume), tmp_path / "file", ["json"], volume=volume, labels=None)


def test_a_failure_leaves_no_folder_and_an_older_report_untouched(tmp_path: Path, volume: Volume) -> None:
    folder = tmp_path / "case"
    write_report(report(volume), folder, ["json", "csv"], volume=volume, labels=None)
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    lost = report(volume, finding(1, volume, center_lps=(9e3, 0.0, 0.0)))  # cannot be pictured
    for target in (folder, tmp_path / "new"):
        with pytest.raises(InputError, match="lies elsewhere"):
            write_report(lost, target, ["json", "csv", "html"], volume=volume, labels=None)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    assert [path.name for path in tmp_path.iterdir()] == ["case"]


def test_a_new_report_replaces_the_old_one_and_leaves_other_files(tmp_path: Path, volume: Volume) -> None:
    folder = tmp_path / "case"
    write_report(report(volume), folder, ["json", "csv", "html"], volume=volume, labels=None)
    (folder / "notes.txt").write_text("mine")
    second = report(volume, finding(1, volume))
    write_report(second, folder, ["json"], volume=volume, labels=None)
    assert sorted(path.name for path in folder.iterdir()) == ["notes.txt", "report.json"]
    assert Report.from_json((folder / "report.json").read_bytes()) == second


def test_while_files_change_places_there_is_no_report_json(
    tmp_path: Path, volume: Volume, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "case"
    write_report(report(volume), folder, ["json", "csv"], volume=volume, labels=None)
    order: list[str] = []
    move = Path.replace

    def watched(self: Path, target: Path) -> Path:
        assert not (folder / "report.json").exists()
        order.append(target.name)
        return move(self, target)

    monkeypatch.setattr(report_files.Path, "replace", watched)
    write_report(report(volume), folder, ["json", "csv", "html"], volume=volume, labels=None)
    assert order == ["findings.csv", "report.html", "report.json"]


def test_writing_reports_needs_no_torch() -> None:
    code = "import sys, carina.report; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)

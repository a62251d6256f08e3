"""Findings as DICOM: valid by dciodvfy, read back by highdicom, each voxel at its place in the patient."""

import re
import shutil
from dataclasses import replace
from pathlib import Path

import highdicom
import numpy as np
import pydicom
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import ImageFont
from pydicom.dataset import Dataset
from scipy.spatial.transform import Rotation

from carina import io
from carina.cli.detect import Detect
from carina.errors import InputError, UsageError
from carina.findings import Report
from carina.geometry import Geometry
from carina.report import check_formats, dicom_codes, write_report
from carina.report.dicom_keyimages import caption
from carina.volume import Volume
from dciodvfy import errors_of
from made_reports import report_on

FORMATS = ("json", "seg", "sr", "keyimages")
SPHERES = (((10.0, 15.0, 20.0), 9.0), ((20.0, 28.0, 30.0), 7.0))


def spheres(geometry: Geometry) -> tuple[np.ndarray, np.ndarray]:
    """HU and labels with a dense ball per entry of ``SPHERES``, centres in voxels and diameters in mm."""
    index = np.moveaxis(np.indices(geometry.shape_zyx), 0, -1)
    labels = np.zeros(geometry.shape_zyx, np.uint8)
    for label, (center, diameter_mm) in enumerate(SPHERES, start=1):
        labels[np.linalg.norm((index - center) * geometry.spacing_zyx_mm, axis=-1) < diameter_mm / 2] = label
    return np.where(labels > 0, 30, -850).astype(np.int16), labels


@pytest.fixture(scope="module")
def ct(tmp_path_factory: pytest.TempPathFactory) -> Volume:
    folder = tmp_path_factory.mktemp("source") / "ct"
    geometry = Geometry.from_axes((30, 40, 44), spacing_zyx_mm=(2.0, 0.9, 0.9), origin_lps=(-20, 10, 5))
    io.write_dicom(Volume(spheres(geometry)[0], geometry), folder, patient_id="P1", patient_name="Doe^Jane")
    return io.read_ct(folder)


@pytest.fixture(scope="module")
def written(ct: Volume, tmp_path_factory: pytest.TempPathFactory) -> tuple[Report, dict[str, Path]]:
    labels = spheres(ct.geometry)[1]
    report = report_on(ct, labels)
    return report, write_report(report, tmp_path_factory.mktemp("case") / "case", FORMATS, volume=ct, labels=labels)


def objects(paths: dict[str, Path]) -> list[Path]:
    return [paths["seg"], paths["sr"], *sorted(paths["keyimages"].iterdir())]


def voxels_of(seg: highdicom.seg.Segmentation, volume: Volume) -> np.ndarray:
    """The segment of each voxel of ``volume``, put there through the patient's coordinates of each frame's pixels."""
    found = seg.get_volume(combine_segments=True)
    index = np.argwhere(found.array > 0)
    positions = found.map_indices_to_reference(index)
    back = volume.geometry.to_zyx(positions)
    assert np.abs(back - np.rint(back)).max() < 0.01
    labels = np.zeros(volume.hu.shape, np.uint8)
    labels[tuple(np.rint(back).astype(int).T)] = found.array[tuple(index.T)]
    return labels


# Validity


def test_dciodvfy_finds_no_error_in_any_object(written: tuple[Report, dict[str, Path]]) -> None:
    assert {path.name: errors_of(path) for path in objects(written[1])} == {
        "findings.seg.dcm": [],
        "findings.sr.dcm": [],
        "001.dcm": [],
        "002.dcm": [],
    }


def test_dciodvfy_finds_an_error_where_there_is_one(written: tuple[Report, dict[str, Path]], tmp_path: Path) -> None:
    broken = pydicom.dcmread(written[1]["sr"])
    del broken.CompletionFlag
    broken.save_as(tmp_path / "broken.dcm")
    assert errors_of(tmp_path / "broken.dcm")


# Identity


def test_patient_and_study_are_the_sources_and_all_else_is_new(
    ct: Volume, written: tuple[Report, dict[str, Path]]
) -> None:
    source = pydicom.dcmread(ct.source.slices[0].path)
    made = [pydicom.dcmread(path) for path in objects(written[1])]
    for one in made:
        assert (one.PatientID, str(one.PatientName)) == ("P1", "Doe^Jane")
        assert one.StudyInstanceUID == source.StudyInstanceUID
        assert one.SeriesInstanceUID != source.SeriesInstanceUID
        assert "for research use only" in one.SeriesDescription
    assert len({one.SOPInstanceUID for one in made}) == len(made)
    assert len({one.SeriesInstanceUID for one in made}) == 3


def test_a_second_writing_shares_no_uid_with_the_first(
    ct: Volume, written: tuple[Report, dict[str, Path]], tmp_path: Path
) -> None:
    again = write_report(written[0], tmp_path / "case", FORMATS, volume=ct, labels=spheres(ct.geometry)[1])
    first, second = (
        {
            uid
            for path in objects(paths)
            for uid in (lambda d: (d.SeriesInstanceUID, d.SOPInstanceUID))(pydicom.dcmread(path))
        }
        for paths in (written[1], again)
    )
    assert not first & second


@pytest.mark.parametrize(
    ("charset", "name"),
    [
        ("ISO_IR 6", "LIDC-IDRI-0001"),
        ("ISO_IR 100", "Müller^Jörg"),
        ("ISO_IR 144", "ЖЮЛЬ"),
        (["", "ISO 2022 IR 87"], "Yamada^Tarou=山田^太郎"),
    ],
)
def test_names_in_any_character_set_are_kept(ct: Volume, tmp_path: Path, charset: str | list[str], name: str) -> None:
    folder = tmp_path / "ct"
    folder.mkdir()
    for one in ct.source.slices:
        dataset = pydicom.dcmread(one.path)
        dataset.SpecificCharacterSet, dataset.PatientName = charset, name
        dataset.save_as(folder / Path(one.path).name)
    volume = io.read_ct(folder)
    labels = spheres(volume.geometry)[1]
    for path in objects(
        write_report(report_on(volume, labels), tmp_path / "case", FORMATS, volume=volume, labels=labels)
    ):
        assert str(pydicom.dcmread(path).PatientName) == name
        assert errors_of(path) == []


def test_sources_that_leave_optional_things_out_or_wrong_are_taken(ct: Volume, tmp_path: Path) -> None:
    folder = tmp_path / "ct"
    folder.mkdir()
    for one in ct.source.slices:
        dataset = pydicom.dcmread(one.path)
        for keyword in (
            "PatientBirthDate",
            "ReferringPhysicianName",
            "StudyDate",
            "StudyTime",
            "AccessionNumber",
            "StudyID",
            "SliceThickness",
        ):
            delattr(dataset, keyword)
        dataset.PatientSex = "W"
        dataset.save_as(folder / Path(one.path).name)
    volume = io.read_ct(folder)
    labels = spheres(volume.geometry)[1]
    for path in objects(
        write_report(report_on(volume, labels), tmp_path / "case", FORMATS, volume=volume, labels=labels)
    ):
        assert errors_of(path) == []


# The segmentation


def test_the_segmentation_gives_the_same_voxels_back(ct: Volume, written: tuple[Report, dict[str, Path]]) -> None:
    seg = highdicom.seg.segread(written[1]["seg"])
    assert seg.SegmentationType == "BINARY"
    np.testing.assert_array_equal(voxels_of(seg, ct), spheres(ct.geometry)[1])


def test_each_frame_refers_to_the_slice_it_lies_on(ct: Volume, written: tuple[Report, dict[str, Path]]) -> None:
    labels = spheres(ct.geometry)[1]
    seg = highdicom.seg.segread(written[1]["seg"])
    uids = [one.sop_instance_uid for one in ct.source.slices]
    frames = seg.get_pixels_by_source_instance(
        uids, combine_segments=True, ignore_spatial_locations=False, assert_missing_frames_are_empty=True
    )
    np.testing.assert_array_equal(frames, labels)


def test_segments_name_who_made_them(written: tuple[Report, dict[str, Path]]) -> None:
    seg = highdicom.seg.segread(written[1]["seg"])
    for segment in seg.SegmentSequence:
        algorithm = segment.SegmentationAlgorithmIdentificationSequence[0]
        assert segment.SegmentAlgorithmType == "AUTOMATIC"
        assert (algorithm.AlgorithmName, algorithm.AlgorithmVersion) == ("Carina", "0.1.0")
        assert "ab" * 32 in algorithm.AlgorithmParameters
    assert [segment.TrackingID for segment in seg.SegmentSequence] == ["Finding 1", "Finding 2"]


def test_a_finding_without_a_voxel_has_no_segment_and_keeps_its_number(ct: Volume, tmp_path: Path) -> None:
    labels = spheres(ct.geometry)[1]
    report = report_on(ct, labels)
    labels[labels == 1] = 0
    paths = write_report(report, tmp_path / "case", FORMATS, volume=ct, labels=labels)
    seg = highdicom.seg.segread(paths["seg"])
    assert [(s.SegmentNumber, s.TrackingID) for s in seg.SegmentSequence] == [(1, "Finding 2")]
    sr = highdicom.sr.srread(paths["sr"])
    assert len(sr.content.get_volumetric_roi_measurement_groups()) == 1
    assert len(sr.content.get_planar_roi_measurement_groups()) == 2


# The structured report


def values_of(group: object) -> dict[str, float]:
    return {one.name.meaning: float(one.value) for one in group.get_measurements()}


def test_the_report_gives_the_same_measures_back(ct: Volume, written: tuple[Report, dict[str, Path]]) -> None:
    report, paths = written
    segments = voxels_of(highdicom.seg.segread(paths["seg"]), ct)
    content = highdicom.sr.srread(paths["sr"]).content
    volumetric, planar = content.get_volumetric_roi_measurement_groups(), content.get_planar_roi_measurement_groups()
    assert len(volumetric) == len(planar) == len(report.findings)
    for groups in (volumetric, planar):
        for finding, group in zip(report.findings, groups, strict=True):
            assert values_of(group) == pytest.approx(
                {
                    "Long axis": finding.long_axis_mm,
                    "Short axis": finding.short_axis_mm,
                    "Mean of long and short axis": finding.mean_axis_mm,
                    "Diameter of the sphere of equal volume": finding.diameter_mm,
                    "Volume": (segments == finding.id).sum() * ct.geometry.voxel_volume_mm3,
                    "Volume with partial-volume correction": finding.corrected_volume_mm3,
                    "Volume denser than -300 HU": finding.solid_volume_mm3,
                    "Certainty of Finding": 100 * finding.p_nodule,
                    "Probability of malignancy if it is a nodule": 100 * finding.p_malignant,
                    "Probability of cancer": 100 * finding.p_nodule * finding.p_malignant,
                    "Attenuation Coefficient": finding.mean_hu,
                },
                rel=1e-6,
            )


def test_groups_refer_to_the_segments_of_their_tracking_uid(written: tuple[Report, dict[str, Path]]) -> None:
    seg = highdicom.seg.segread(written[1]["seg"])
    content = highdicom.sr.srread(written[1]["sr"]).content
    tracked = {s.TrackingUID: s.SegmentNumber for s in seg.SegmentSequence}
    for group in content.get_volumetric_roi_measurement_groups():
        references = [item.ReferencedSOPSequence[0] for item in group[0].ContentSequence if item.ValueType == "IMAGE"]
        (segment,) = [one for one in references if "ReferencedSegmentNumber" in one]
        assert segment.ReferencedSOPInstanceUID == seg.SOPInstanceUID
        assert segment.ReferencedSegmentNumber == tracked[group.tracking_uid]
    assert {group.tracking_uid for group in content.get_planar_roi_measurement_groups()} == set(tracked)


def test_the_circle_lies_on_the_nodule_in_its_key_slice(ct: Volume, written: tuple[Report, dict[str, Path]]) -> None:
    content = highdicom.sr.srread(written[1]["sr"]).content
    uids = [one.sop_instance_uid for one in ct.source.slices]
    for (center, diameter_mm), group in zip(SPHERES, content.get_planar_roi_measurement_groups(), strict=True):
        middle, rim = group.roi.value
        image = group.roi.ContentSequence[0].ReferencedSOPSequence[0]
        assert group.roi.graphic_type.value == "CIRCLE"
        assert abs(uids.index(image.ReferencedSOPInstanceUID) - center[0]) <= 1
        assert middle == pytest.approx([center[2] + 0.5, center[1] + 0.5], abs=0.6)
        assert 0.9 * np.linalg.norm(rim - middle) == pytest.approx(diameter_mm / 2, abs=0.7)


def test_private_codes_are_identified_and_no_other_scheme_is_unknown(written: tuple[Report, dict[str, Path]]) -> None:
    sr = pydicom.dcmread(written[1]["sr"])
    designators: set[str] = set()

    def note(_: Dataset, element: pydicom.DataElement) -> None:
        if element.keyword == "CodingSchemeDesignator":
            designators.add(element.value)

    sr.walk(note)
    assert designators == {"DCM", "SCT", "UCUM", "LN", "RFC5646", "99CARINA"}
    assert [item.CodingSchemeDesignator for item in sr.CodingSchemeIdentificationSequence] == ["99CARINA"]


def text_values(sr: Dataset) -> list[str]:
    found: list[str] = []
    sr.walk(lambda _, element: found.append(element.value) if element.keyword == "TextValue" else None)
    return found


def test_the_report_says_for_research_which_models_and_what_was_odd(written: tuple[Report, dict[str, Path]]) -> None:
    report, paths = written
    texts = text_values(pydicom.dcmread(paths["sr"]))
    assert report.notice in texts
    assert set(report.warnings) <= set(texts)
    assert f"segmentation=unet sha256:{'ab' * 32}" in texts


def summary_of(path: Path) -> tuple[str, dict[str, float]]:
    (whole,) = highdicom.sr.srread(path).content.get_image_measurement_groups()
    (evaluation,) = whole.get_qualitative_evaluations(name=highdicom.sr.CodedConcept("111017", "DCM", "Summary"))
    return evaluation.value.value, values_of(whole)


def test_the_patient_answer_stands_in_the_group_of_the_whole_ct(written: tuple[Report, dict[str, Path]]) -> None:
    code, values = summary_of(written[1]["sr"])
    assert code == "111242"
    assert values["Probability of cancer"] == pytest.approx(24.0)


def test_without_findings_the_report_says_so_and_nothing_else_is_written(ct: Volume, tmp_path: Path) -> None:
    labels = np.zeros(ct.hu.shape, np.uint8)
    paths = write_report(report_on(ct, labels), tmp_path / "case", FORMATS, volume=ct, labels=labels)
    assert set(paths) == {"json", "sr"}
    code, values = summary_of(paths["sr"])
    assert code == "111241"
    assert "Probability of cancer" not in values
    assert errors_of(paths["sr"]) == []


# Key images


def test_key_images_show_the_slice_with_the_finding_ringed(ct: Volume, written: tuple[Report, dict[str, Path]]) -> None:
    uids = [one.sop_instance_uid for one in ct.source.slices]
    for (center, diameter_mm), path in zip(SPHERES, sorted(written[1]["keyimages"].iterdir()), strict=True):
        image = pydicom.dcmread(path)
        assert image.SOPClassUID == "1.2.840.10008.5.1.4.1.1.7"
        assert abs(uids.index(image.SourceImageSequence[0].ReferencedSOPInstanceUID) - center[0]) <= 1
        assert list(image.PatientOrientation) == ["L", "P"]
        factor = image.Rows // 40
        assert image.PixelSpacing[0] == pytest.approx(0.9 / factor)
        y, x = (round((c + 0.5) * factor) for c in center[1:])
        assert image.pixel_array[y, x].min() > 200
        yellow = (image.pixel_array == (255, 210, 0)).all(axis=-1)
        ring = np.argwhere(yellow[:, : x + 5])  # the number stands to the right
        distance_mm = np.linalg.norm(ring[ring[:, 0] < image.Rows * 0.85] - (y, x), axis=1) * 0.9 / factor
        assert distance_mm.size > 200
        assert distance_mm.min() > diameter_mm / 2
        assert distance_mm.max() < diameter_mm / 2 + 5


def test_the_font_has_every_character_of_a_caption(written: tuple[Report, dict[str, Path]]) -> None:
    font = ImageFont.load_default(20)
    unknown = bytes(font.getmask("\uffff"))
    for finding in written[0].findings:
        for p_nodule in (0.001, 0.5, 0.999):
            text = "".join(caption(replace(finding, p_nodule=p_nodule)))
            assert [one for one in set(text) if bytes(font.getmask(one)) == unknown] == []


# Geometry


@st.composite
def geometries(draw: st.DrawFn) -> Geometry:
    rotation = Rotation.from_rotvec(draw(st.tuples(*[st.floats(-0.6, 0.6)] * 3))).as_matrix()
    flips = draw(st.sampled_from([(1, 1, 1), (-1, 1, -1), (-1, -1, 1), (1, -1, -1)]))
    axes = rotation @ np.eye(3)[:, ::-1] * flips
    spacing = draw(st.tuples(st.floats(1.0, 3.0), st.floats(0.6, 1.2), st.floats(0.6, 1.2)))
    origin = draw(st.tuples(*[st.floats(-300, 300)] * 3))
    shape = (24, draw(st.integers(34, 44)), draw(st.integers(36, 50)))
    return Geometry.from_axes(shape, spacing_zyx_mm=spacing, origin_lps=origin, axes=axes)


@settings(max_examples=4, deadline=None)
@given(geometry=geometries())
def test_voxels_lie_right_in_oblique_reversed_and_oblong_series(
    geometry: Geometry, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("oblique")
    io.write_dicom(Volume(spheres(geometry)[0], geometry), folder / "ct", patient_id="P1")
    volume = io.read_ct(folder / "ct")
    labels = np.where(volume.hu > -400, np.where(np.arange(24)[:, None, None] < 15, 1, 2), 0).astype(np.uint8)
    paths = write_report(report_on(volume, labels), folder / "case", FORMATS, volume=volume, labels=labels)
    np.testing.assert_array_equal(voxels_of(highdicom.seg.segread(paths["seg"]), volume), labels)
    groups = highdicom.sr.srread(paths["sr"]).content.get_planar_roi_measurement_groups()
    uids = [one.sop_instance_uid for one in volume.source.slices]
    for label, group in enumerate(groups, start=1):
        image = group.roi.ContentSequence[0].ReferencedSOPSequence[0]
        level = uids.index(image.ReferencedSOPInstanceUID)
        points = np.asarray(group.roi.value)
        column, row = points[0] if len(points) == 2 else points.mean(axis=0)
        center = np.argwhere(labels == label).mean(axis=0)
        assert np.abs(np.array([level, row - 0.5, column - 0.5]) - center).max() < 1.6
        radius_mm = np.abs(points - (column, row)).max(axis=0) * volume.geometry.spacing_zyx_mm[:0:-1]
        assert radius_mm[0] == pytest.approx(radius_mm[1], rel=0.01) or len(points) == 2
    assert [errors_of(path) for path in objects(paths)] == [[]] * 4


# What is refused


def test_input_that_is_no_dicom_is_refused_and_nothing_is_written(ct: Volume, tmp_path: Path) -> None:
    labels = spheres(ct.geometry)[1]
    io.write_image(ct.hu, ct.geometry, tmp_path / "ct.nii.gz")
    volume = io.read_ct(tmp_path / "ct.nii.gz")
    with pytest.raises(InputError, match=r"describe DICOM images, and the input is nifti"):
        write_report(report_on(volume, labels), tmp_path / "case", FORMATS, volume=volume, labels=labels)
    assert not (tmp_path / "case").exists()


def test_a_report_without_its_segmentation_is_refused() -> None:
    with pytest.raises(UsageError, match="ask for seg,sr"):
        check_formats(["sr", "json"])


def test_the_command_line_refuses_before_it_looks_at_the_input(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="ask for seg,sr"):
        Detect(input=(("nowhere",),), output=tmp_path, format="sr").run()
    with pytest.raises(UsageError, match="unknown format dicom"):
        Detect(input=(("nowhere",),), output=tmp_path, format="json,dicom").run()


def test_a_missing_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("carina.report.files.find_spec", lambda _: None)
    with pytest.raises(UsageError, match=r"carina-ct\[dicom\]"):
        check_formats(["keyimages"])
    check_formats(["json", "csv", "html", "mask"])


def test_a_source_that_changed_since_it_was_read_is_refused(ct: Volume, tmp_path: Path) -> None:
    slices = list(ct.source.slices)
    slices[3] = replace(slices[3], path=slices[4].path)
    volume = replace(ct, source=replace(ct.source, slices=tuple(slices)))
    labels = spheres(ct.geometry)[1]
    with pytest.raises(InputError, match="was analysed"):
        write_report(report_on(volume, labels), tmp_path / "case", FORMATS, volume=volume, labels=labels)


@pytest.mark.parametrize("keyword", ["FrameOfReferenceUID", "StudyInstanceUID"])
def test_a_source_without_what_references_need_is_refused(ct: Volume, tmp_path: Path, keyword: str) -> None:
    first = pydicom.dcmread(ct.source.slices[0].path)
    delattr(first, keyword)
    first.save_as(tmp_path / "first.dcm")
    slices = (replace(ct.source.slices[0], path=str(tmp_path / "first.dcm")), *ct.source.slices[1:])
    volume = replace(ct, source=replace(ct.source, slices=slices))
    labels = spheres(ct.geometry)[1]
    with pytest.raises(InputError, match=f"has no {keyword}"):
        write_report(report_on(volume, labels), tmp_path / "case", FORMATS, volume=volume, labels=labels)


def test_an_earlier_run_with_key_images_is_replaced_whole(ct: Volume, tmp_path: Path) -> None:
    labels = spheres(ct.geometry)[1]
    write_report(report_on(ct, labels), tmp_path / "case", FORMATS, volume=ct, labels=labels)
    labels[labels == 2] = 0
    report = report_on(ct, labels)
    write_report(report, tmp_path / "case", FORMATS, volume=ct, labels=labels)
    assert [path.name for path in (tmp_path / "case" / "keyimages").iterdir()] == ["001.dcm"]
    write_report(report, tmp_path / "case", ["json"], volume=ct, labels=labels)
    assert [path.name for path in (tmp_path / "case").iterdir()] == ["report.json"]


# The documentation


def test_the_documented_way_to_read_them_back_works(
    written: tuple[Report, dict[str, Path]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    page = (Path(__file__).parents[1] / "docs" / "how-to" / "dicom-output.md").read_text(encoding="utf-8")
    (snippet,) = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    shutil.copytree(written[1]["seg"].parent, tmp_path / "out" / "case")
    monkeypatch.chdir(tmp_path)
    exec(compile(snippet, "dicom-output.md", "exec"), {})
    assert "Nodule 2" in (printed := capsys.readouterr().out)
    codes = {
        item.meaning: (item.value, item.scheme_designator)
        for item in vars(dicom_codes).values()
        if isinstance(item, highdicom.sr.CodedConcept)
    }
    for row in re.findall(r"^\| ([A-Z][^|]+) \| ([a-z0-9-]+), ([A-Z0-9]+) \|", page, re.MULTILINE):
        meaning = re.sub(", (derivation|method) .*", "", row[0])
        assert codes[meaning] == row[1:]
        assert meaning in printed


# A real CT


@pytest.mark.data
def test_a_real_ct_has_valid_objects_with_the_nodule_at_its_place(lidc_0001: Path, tmp_path: Path) -> None:
    volume = io.read_ct(lidc_0001)
    center_lps = np.array([56.208, 86.343, -115.868])
    lines = (
        (np.arange(n) - c) * mm
        for n, c, mm in zip(
            volume.hu.shape, volume.geometry.to_zyx(center_lps), volume.geometry.spacing_zyx_mm, strict=True
        )
    )
    z, y, x = np.ix_(*lines)
    labels = (z**2 + y**2 + x**2 < (23.35 / 2) ** 2).astype(np.uint8)
    report = report_on(volume, labels)
    paths = write_report(report, tmp_path / "case", FORMATS, volume=volume, labels=labels)
    assert {path.name: errors_of(path) for path in objects(paths)} == {
        "findings.seg.dcm": [], "findings.sr.dcm": [], "001.dcm": []
    }  # fmt: skip
    seg = highdicom.seg.segread(paths["seg"])
    np.testing.assert_array_equal(voxels_of(seg, volume), labels)
    found = seg.get_volume(combine_segments=True)
    positions = found.map_indices_to_reference(np.argwhere(found.array > 0))
    assert np.linalg.norm(positions.mean(axis=0) - center_lps) < 1.5
    source = pydicom.dcmread(volume.source.slices[0].path, stop_before_pixels=True)
    for path in objects(paths):
        made = pydicom.dcmread(path)
        assert (made.PatientID, made.StudyInstanceUID) == (source.PatientID, source.StudyInstanceUID)

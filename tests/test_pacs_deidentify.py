"""De-identified copies of a CT and of what Carina made of it hold nothing of the patient and still fit each other."""

from collections.abc import Iterator
from pathlib import Path

import pydicom
import pytest
from pydicom.dataset import Dataset

from carina import io
from carina.errors import InputError
from carina.pacs.deidentify import deidentify, deidentify_files
from carina.pacs.secret import Secret
from carina.report import write_report
from dciodvfy import errors_of
from made_reports import report_on
from pacs_samples import PATIENT_ID, series, study_uid

SECRET = Secret(b"0" * 32)
IDENTIFYING = {
    "PatientName": "Doe^Jane",
    "PatientID": PATIENT_ID,
    "PatientBirthDate": "19510203",
    "StudyDate": "20240506",
    "ContentDate": "20240506",
    "AccessionNumber": "ACC-4711",
    "ReferringPhysicianName": "House^Gregory",
    "InstitutionName": "Saint Elsewhere",
    "StudyDescription": "Thorax of Doe",
    "SeriesDescription": "Thorax of Doe",
    "StationName": "CT-ROOM-5",
    "DeviceSerialNumber": "SN-12345",
    "PatientComments": "lives in Elm Street",
    "OtherPatientIDs": "OTHER-88",
}


@pytest.fixture(scope="module")
def originals(tmp_path_factory) -> list[Path]:
    """A CT with every kind of identifier, and its SEG, SR and key images."""
    root = tmp_path_factory.mktemp("originals")
    files = series(root / "ct", 1)
    for file in files:
        dataset = pydicom.dcmread(file)
        for keyword, value in IDENTIFYING.items():
            setattr(dataset, keyword, value)
        dataset.add_new(0x00091001, "LO", "HIDDEN-IN-PRIVATE")
        dataset.private_block(0x0011, "MAKER", create=True).add_new(1, "LO", "HIDDEN-IN-PRIVATE")
        item = Dataset()
        item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = dataset.SOPClassUID, dataset.SOPInstanceUID
        item.PersonName = "Nurse^Nancy"
        dataset.ReferencedImageSequence = [item]
        dataset.ReferencedStudySequence = [study := Dataset()]
        study.ReferencedSOPClassUID, study.ReferencedSOPInstanceUID = "1.2.840.10008.3.1.2.3.1", study_uid(1)
        dataset.save_as(file)
    volume = io.read_ct(root / "ct")
    labels = (volume.hu > 1000).astype("uint8")
    labels[20:24, 20:24, 20:24] = 1
    report = report_on(volume, labels)
    write_report(report, root / "out", ("json", "seg", "sr", "keyimages"), volume=volume, labels=labels)
    return [*files[:3], *sorted((root / "out").rglob("*.dcm"))]


@pytest.fixture(scope="module")
def copies(originals, tmp_path_factory) -> list[Path]:
    return deidentify_files(originals, tmp_path_factory.mktemp("copies") / "out", SECRET)


def everything(dataset: Dataset) -> Iterator[pydicom.DataElement]:
    for element in dataset:
        yield element
        if element.VR == "SQ":
            for item in element.value:
                yield from everything(item)


def test_nothing_that_identifies_is_left_anywhere(originals, copies):
    uids = set()
    for file in originals:
        dataset = pydicom.dcmread(file)
        uids |= {str(dataset[k].value) for k in ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID")}
    words = [w for v in IDENTIFYING.values() for w in v.split("^")] + ["Nancy", "HIDDEN-IN-PRIVATE", *uids]
    assert len(words) > 15
    for copy in copies:
        data = copy.read_bytes()
        assert [word for word in words if word.encode() in data] == []


def test_private_elements_and_dates_are_gone(copies):
    for copy in copies:
        for element in everything(pydicom.dcmread(copy)):
            assert not element.tag.is_private
            if element.VR in ("DA", "DT") and element.value:
                assert str(element.value).startswith("1900")


def test_the_copies_refer_to_each_other_as_the_originals_do(originals, copies):
    new = dict(zip(originals, map(pydicom.dcmread, copies), strict=True))
    studies = {str(copy.StudyInstanceUID) for copy in new.values()}
    assert studies == {SECRET.uid(str(pydicom.dcmread(originals[0]).StudyInstanceUID))}
    seg = next(copy for copy in new.values() if copy.Modality == "SEG")
    report = next(copy for copy in new.values() if copy.Modality == "SR")
    ct = next(copy for copy in new.values() if copy.Modality == "CT")
    named = {str(e.value) for e in everything(report) if e.keyword == "ReferencedSOPInstanceUID"}
    assert {str(seg.SOPInstanceUID), str(ct.SOPInstanceUID)} <= named
    assert seg.FrameOfReferenceUID == ct.FrameOfReferenceUID
    assert seg.ReferencedSeriesSequence[0].SeriesInstanceUID == ct.SeriesInstanceUID
    assert ct.ReferencedImageSequence[0].ReferencedSOPInstanceUID == ct.SOPInstanceUID
    assert {copy.SOPClassUID for copy in new.values()} == {pydicom.dcmread(file).SOPClassUID for file in originals}


def test_pixels_and_measurements_stay(originals, copies):
    for original, copy in zip(map(pydicom.dcmread, originals), map(pydicom.dcmread, copies), strict=True):
        if "PixelData" in original:
            assert copy.PixelData == original.PixelData
        numbers = [[e.value for e in everything(d) if e.keyword == "NumericValue"] for d in (original, copy)]
        assert numbers[0] == numbers[1]


def test_the_copies_say_that_and_how_they_were_made(copies):
    for copy in map(pydicom.dcmread, copies):
        assert copy.PatientIdentityRemoved == "YES"
        assert [c.CodeValue for c in copy.DeidentificationMethodCodeSequence] == ["113100", "113104"]
        assert copy.PatientID == copy.PatientName == pydicom.dcmread(copies[0]).PatientID
        assert copy.file_meta.MediaStorageSOPInstanceUID == copy.SOPInstanceUID


def test_the_copies_are_valid(originals, copies):
    for original, copy in zip(originals, copies, strict=True):
        assert set(errors_of(copy)) <= set(errors_of(original))


def test_another_secret_gives_another_patient(originals):
    one = deidentify(pydicom.dcmread(originals[0]), Secret(b"1" * 32))
    other = deidentify(pydicom.dcmread(originals[0]), SECRET)
    assert one.PatientID != other.PatientID
    assert one.StudyInstanceUID != other.StudyInstanceUID


def test_names_burned_into_pixels_stay_here(originals):
    dataset = pydicom.dcmread(originals[0])
    dataset.BurnedInAnnotation = "YES"
    with pytest.raises(InputError, match="burned"):
        deidentify(dataset, SECRET)

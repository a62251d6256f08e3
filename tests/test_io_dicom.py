"""M22, M25: DICOM series to volumes: order, place, identity and choice."""

import os
import re
import shutil
from pathlib import Path

import numpy as np
import pydicom
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom.dataset import Dataset
from pydicom.uid import EnhancedCTImageStorage

from carina.errors import CarinaError, GeometryError, InputError
from carina.geometry import Geometry
from carina.io import list_series, read_ct, write_dicom
from carina.io.series import SeriesInfo, choose, is_sharp
from carina.volume import Volume
from io_samples import UID, edit, edit_all, move, small_ct, small_series

NUMBERS = st.tuples(*[st.floats(-1, 1)] * 4).filter(lambda q: sum(a * a for a in q) > 0.01)


@settings(max_examples=10, deadline=None)
@given(
    quaternion=NUMBERS,
    spacing=st.tuples(st.floats(0.5, 8), st.floats(0.2, 3), st.floats(0.2, 3)),
    origin=st.tuples(*[st.floats(-500, 500)] * 3),
)
def test_a_series_reads_back_in_any_orientation(tmp_path_factory, quaternion, spacing, origin):
    ct = small_ct(quaternion=quaternion, spacing=spacing, origin=origin)
    folder = tmp_path_factory.mktemp("any") / "series"
    write_dicom(ct, folder)
    back = read_ct(folder)
    assert np.array_equal(back.hu, ct.hu)
    assert back.geometry.same_as(ct.geometry, tolerance_mm=1e-6)


def test_left_handed_stack_keeps_every_voxel_at_its_place(tmp_path):
    up = small_ct()
    turned = np.array(up.geometry.affine)
    turned[:3, 3] = up.geometry.to_lps((15, 0, 0))
    turned[:3, 0] *= -1
    down = Volume(up.hu[::-1].copy(), Geometry(up.hu.shape, turned))
    write_dicom(down, tmp_path / "down")
    back = read_ct(tmp_path / "down")
    assert np.array_equal(back.hu, up.hu)
    assert back.geometry.same_as(up.geometry)


def test_order_of_files_and_instance_numbers_does_not_matter(tmp_path):
    files = small_series(tmp_path / "a")
    shuffled = np.random.default_rng(1).permutation(16)
    for number, index in enumerate(shuffled):
        edit(files[index], InstanceNumber=number + 1)
    back = read_ct([files[i] for i in shuffled])
    assert np.array_equal(back.hu, small_ct().hu)
    assert [s.path for s in back.source.slices] == [str(f) for f in files]
    assert back.source.slices[shuffled[0]].instance_number == 1


def test_source_names_series_study_frame_patient_and_slices(tmp_path):
    files = small_series(tmp_path / "a", patient_id="P7", study_uid="1.2.3.4")
    source = read_ct(tmp_path / "a").source
    header = pydicom.dcmread(files[0])
    assert (source.series_uid, source.study_uid, source.patient_id) == (UID, "1.2.3.4", "P7")
    assert source.frame_of_reference_uid == header.FrameOfReferenceUID
    assert source.slices[0].sop_instance_uid == header.SOPInstanceUID
    assert source.format == "dicom"
    assert source.warnings == ()


def test_nested_folders_other_files_and_no_endings(tmp_path):
    files = small_series(tmp_path / "deep" / "series")
    for index, file in enumerate(files):
        target = tmp_path / "deep" / ("left" if index % 2 else "right") / f"IM{index}"
        target.parent.mkdir(exist_ok=True)
        file.rename(target)
    (tmp_path / "notes.txt").write_text("read me")
    (tmp_path / "deep" / ".hidden").write_bytes(b"\0" * 200)
    (tmp_path / "empty").touch()
    assert np.array_equal(read_ct(tmp_path).hu, small_ct().hu)


def test_what_is_neither_file_nor_folder_is_refused(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(InputError, match="neither a file nor a folder"):
        read_ct(tmp_path / "pipe")


def test_dicom_files_without_a_series_uid_are_mentioned(tmp_path):
    files = small_series(tmp_path / "a", shape=(17, 8, 8))
    edit(files[16], SeriesInstanceUID=None)
    ct = read_ct(tmp_path)
    assert ct.hu.shape[0] == 16
    assert any("000017.dcm" in w for w in ct.source.warnings)


def test_damage_is_named_when_no_series_is_left(tmp_path):
    files = small_series(tmp_path / "a")
    files[3].write_bytes(files[3].read_bytes()[:400])
    with pytest.raises(InputError, match=r"only 15 slices.*000004\.dcm"):
        read_ct(tmp_path)


def test_spacing_comes_from_positions_not_from_slice_thickness(tmp_path):
    edit_all(small_series(tmp_path / "a"), SliceThickness=5, SpacingBetweenSlices=5)
    assert read_ct(tmp_path / "a").geometry.spacing_zyx_mm == pytest.approx((2.5, 0.7, 0.8))


def test_positions_rounded_to_a_tenth_are_one_stack(tmp_path):
    files = small_series(tmp_path / "a", spacing=(0.625, 1.0, 1.0), origin=(0.0, 0.0, 0.0))
    for index, file in enumerate(files):
        edit(file, ImagePositionPatient=[0, 0, round(0.625 * index, 1)])
    ct = read_ct(tmp_path / "a")
    assert ct.geometry.spacing_zyx_mm[0] == pytest.approx(0.625, abs=0.01)
    assert any("deviate" in w for w in ct.source.warnings)


def test_tissue_between_slices_is_warned_of(tmp_path):
    edit_all(small_series(tmp_path / "a"), SliceThickness=1)
    assert any("nodules between them" in w for w in read_ct(tmp_path / "a").source.warnings)


def test_missing_slice_is_named_by_its_neighbours(tmp_path):
    files = small_series(tmp_path / "a", shape=(18, 8, 8))
    files[7].unlink()
    with pytest.raises(GeometryError, match=r"000007.dcm \(instance 7\) and 000009.dcm \(instance 9\).*1 missing"):
        read_ct(tmp_path / "a")


def test_uneven_spacing_is_refused(tmp_path):
    files = small_series(tmp_path / "a")
    move(files[5], (0, 0, 1.2))
    with pytest.raises(GeometryError, match="not evenly spaced"):
        read_ct(tmp_path / "a")


def test_small_differences_that_add_up_are_refused(tmp_path):
    files = small_series(tmp_path / "a", shape=(40, 8, 8), spacing=(2.5, 1.0, 1.0))
    for index, file in enumerate(files[20:]):
        move(file, (0, 0, 0.25 * index))
    with pytest.raises(GeometryError, match="off an even grid"):
        read_ct(tmp_path / "a")


def test_duplicate_position_is_refused(tmp_path):
    files = small_series(tmp_path / "a")
    shutil.copy(files[3], tmp_path / "a" / "again.dcm")
    edit(tmp_path / "a" / "again.dcm", SOPInstanceUID="1.2.3.99", AcquisitionNumber=2)
    with pytest.raises(GeometryError, match="same place"):
        read_ct(tmp_path / "a")


def test_a_copy_of_a_file_is_read_once_and_mentioned(tmp_path):
    files = small_series(tmp_path / "a")
    shutil.copy(files[3], tmp_path / "a" / "copy.dcm")
    ct = read_ct(tmp_path / "a")
    assert ct.hu.shape[0] == 16
    assert any("copies" in w for w in ct.source.warnings)


def test_two_files_that_claim_one_instance_are_refused(tmp_path):
    files = small_series(tmp_path / "a")
    shutil.copy(files[3], tmp_path / "a" / "other.dcm")
    edit(tmp_path / "a" / "other.dcm", PatientComments="changed")
    with pytest.raises(InputError, match="same SOPInstanceUID"):
        read_ct(tmp_path / "a")


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"ImageOrientationPatient": [1, 0, 0, 0, 0, -1]}, "orientation"),
        ({"PixelSpacing": [0.7, 0.9]}, "pixel spacing"),
    ],
)
def test_mixed_slices_are_refused(tmp_path, change, word):
    edit(small_series(tmp_path / "a")[4], **change)
    with pytest.raises(GeometryError, match=f"mixed {word}.*000005.dcm"):
        read_ct(tmp_path / "a")


def test_gantry_tilt_is_refused_with_its_angle(tmp_path):
    for index, file in enumerate(small_series(tmp_path / "a")):
        move(file, (0, 2.5 * index * np.tan(np.radians(15)), 0))
    with pytest.raises(GeometryError, match=r"15.0 degrees.*gantry tilt"):
        read_ct(tmp_path / "a")


def test_straightened_tilt_is_read_with_a_warning(tmp_path):
    edit_all(small_series(tmp_path / "a"), GantryDetectorTilt=12)
    assert any("tilted" in w for w in read_ct(tmp_path / "a").source.warnings)


def test_a_shifted_slice_is_refused(tmp_path):
    move(small_series(tmp_path / "a")[9], (5, 0, 0))
    with pytest.raises(GeometryError, match="sideways"):
        read_ct(tmp_path / "a")


def test_localizer_in_the_series_is_left_out_and_mentioned(tmp_path):
    files = small_series(tmp_path / "a", shape=(17, 8, 8))
    edit(files[0], ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"])
    ct = read_ct(tmp_path / "a")
    assert ct.hu.shape[0] == 16
    assert any("localizer" in w for w in ct.source.warnings)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"ImageType": ["ORIGINAL", "PRIMARY", "LOCALIZER"]}, "localizer"),
        ({"SOPClassUID": "1.2.840.10008.5.1.4.1.1.7"}, "secondary capture"),
        ({"SOPClassUID": "1.2.840.10008.5.1.4.1.1.4", "Modality": "MR"}, "modality MR"),
        ({"Modality": "PT"}, "modality PT"),
        ({"PhotometricInterpretation": "RGB", "SamplesPerPixel": 3}, "colour"),
        ({"ImageType": ["DERIVED", "SECONDARY", "SCREEN SAVE"]}, "screen capture"),
        ({"ImagePositionPatient": None}, "ImagePositionPatient is missing"),
        ({"RescaleIntercept": None}, "RescaleIntercept is missing"),
        ({"RescaleType": "MGML"}, "not HU but MGML"),
        ({"ImageOrientationPatient": [1, 0, 0, 0.5, 0.5, 0]}, "perpendicular"),
        ({"PixelSpacing": [0, 0]}, "not positive"),
    ],
)
def test_what_is_no_ct_is_refused_with_the_reason(tmp_path, change, reason):
    edit_all(small_series(tmp_path / "a"), **change)
    with pytest.raises(InputError, match=reason):
        read_ct(tmp_path / "a")
    (info,) = list_series(tmp_path / "a")
    assert not info.usable
    assert reason in info.verdict


def test_too_few_slices(tmp_path):
    small_series(tmp_path / "a", shape=(15, 8, 8))
    with pytest.raises(InputError, match="only 15 slices"):
        read_ct(tmp_path / "a")


def test_a_series_that_is_refused_beside_a_good_one_is_named_with_the_reason(tmp_path):
    small_series(tmp_path / "good", shape=(16, 8, 8), uid="1.2.3.1")
    small_series(tmp_path / "short", shape=(3, 8, 8), uid="1.2.3.2")
    (warning,) = read_ct(tmp_path).source.warnings
    assert warning.startswith("series 1.2.3.2 was refused: only 3 slices")


def test_thinner_series_is_chosen_and_the_reason_said(tmp_path):
    small_series(tmp_path / "thick", spacing=(5.0, 1.0, 1.0), shape=(16, 8, 8), uid="1.2.3.1")
    small_series(tmp_path / "thin", spacing=(1.0, 1.0, 1.0), shape=(20, 8, 8), uid="1.2.3.2")
    ct = read_ct(tmp_path)
    assert ct.source.series_uid == "1.2.3.2"
    assert "slices every 1 mm, the next one slices every 5 mm" in ct.source.warnings[0]
    assert [i.reason for i in list_series(tmp_path) if i.chosen] == [
        "best of 2 CT series: slices every 1 mm, the next one slices every 5 mm"
    ]


def test_series_uid_overrides_the_choice(tmp_path):
    small_series(tmp_path / "a", uid="1.2.3.1")
    small_series(tmp_path / "b", seed=1, uid="1.2.3.2")
    for uid, seed in (("1.2.3.1", 0), ("1.2.3.2", 1)):
        assert np.array_equal(read_ct(tmp_path, series_uid=uid).hu, small_ct(seed).hu)


def test_unknown_series_uid_lists_what_is_there(tmp_path):
    small_series(tmp_path / "a", uid="1.2.3.1")
    with pytest.raises(InputError, match=r"no series 9\.9; found 1\.2\.3\.1"):
        read_ct(tmp_path, series_uid="9.9")


def test_two_patients_are_never_mixed_up(tmp_path):
    small_series(tmp_path / "a", uid="1.2.3.1", patient_id="A")
    small_series(tmp_path / "b", uid="1.2.3.2", patient_id="B")
    with pytest.raises(InputError, match="2 patients"):
        read_ct(tmp_path)
    assert not any(i.chosen for i in list_series(tmp_path))


def info(**changes):
    defaults = {
        "path": "x", "format": "dicom", "usable": True, "verdict": "", "images": 100,
        "spacing_zyx_mm": (2.0, 1.0, 1.0), "length_mm": 300.0,
    }  # fmt: skip
    return SeriesInfo(**(defaults | changes))


@pytest.mark.parametrize(
    ("better", "worse", "reason"),
    [
        ({}, {"axial": False, "spacing_zyx_mm": (1.0, 1.0, 1.0)}, "axial"),
        ({}, {"original": False, "spacing_zyx_mm": (1.0, 1.0, 1.0)}, "original"),
        ({}, {"length_mm": 60.0, "spacing_zyx_mm": (1.0, 1.0, 1.0)}, "300 mm long"),
        ({"spacing_zyx_mm": (1.25, 1.0, 1.0), "kernel": "B70f"}, {"kernel": "B30f"}, "every 1.2 mm"),
        ({"kernel": "STANDARD"}, {"kernel": "LUNG"}, "even kernel STANDARD"),
        ({"images": 150}, {"images": 140}, "150 slices"),
    ],
)
def test_what_makes_a_series_better(better, worse, reason):
    a, b = info(series_uid="2", **better), info(series_uid="1", **worse)
    for order in ([a, b], [b, a]):
        best, why = choose(order)
        assert best is a
        assert reason in why


@pytest.mark.parametrize(
    "kernel", ["B70f", "B60s", "I70f", "I70f\\3", "Br59d", "LUNG", "BONE", "BONEPLUS", "EDGE", "FC51", "L", "D", "D\\2"]
)
def test_sharp_kernels(kernel):
    assert is_sharp(kernel)


@pytest.mark.parametrize("kernel", ["B30f", "B45f", "I31f\\3", "STANDARD", "SOFT", "FC08", "Br36", "B", "", "C"])
def test_even_kernels(kernel):
    assert not is_sharp(kernel)


def test_a_kernel_of_several_values_is_read(tmp_path):
    small_series(tmp_path)
    for path in tmp_path.rglob("*.dcm"):
        dataset = pydicom.dcmread(path)
        dataset.ConvolutionKernel = ["I70f", "3"]
        dataset.save_as(path)
    (found,) = list_series(tmp_path)
    assert found.kernel == "I70f\\3"


def enhanced(path, frames=16, **overrides):
    """One multi-frame CT whose frames are stored from the top downwards."""
    ct = small_ct(shape=(frames, 12, 10))
    classic = pydicom.dcmread(write_dicom(ct, path.parent / "classic")[0])
    for keyword in (
        "ImagePositionPatient",
        "ImageOrientationPatient",
        "PixelSpacing",
        "RescaleSlope",
        "RescaleIntercept",
    ):
        delattr(classic, keyword)
    classic.SOPClassUID = classic.file_meta.MediaStorageSOPClassUID = EnhancedCTImageStorage
    classic.NumberOfFrames = frames
    orientation, measures, rescale = Dataset(), Dataset(), Dataset()
    orientation.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
    measures.PixelSpacing = [0.7, 0.8]
    rescale.RescaleIntercept, rescale.RescaleSlope, rescale.RescaleType = -1024, 1, "HU"
    shared = Dataset()
    shared.PlaneOrientationSequence, shared.PixelMeasuresSequence = [orientation], [measures]
    shared.PixelValueTransformationSequence = [rescale]
    classic.SharedFunctionalGroupsSequence = [shared]
    groups = []
    for z in reversed(range(frames)):
        position, group = Dataset(), Dataset()
        position.ImagePositionPatient = [round(float(p), 6) for p in ct.geometry.to_lps((z, 0, 0))]
        group.PlanePositionSequence = [position]
        groups.append(group)
    classic.PerFrameFunctionalGroupsSequence = groups
    classic.PixelData = (ct.hu[::-1].astype(np.int16) + 1024).tobytes()
    for keyword, value in overrides.items():
        setattr(classic, keyword, value)
    path.parent.mkdir(exist_ok=True)
    classic.save_as(path)
    shutil.rmtree(path.parent / "classic")
    return ct


def test_enhanced_multi_frame_ct(tmp_path):
    ct = enhanced(tmp_path / "m" / "multi.dcm")
    back = read_ct(tmp_path / "m")
    assert np.array_equal(back.hu, ct.hu)
    assert back.geometry.same_as(ct.geometry)
    assert len({s.sop_instance_uid for s in back.source.slices}) == 1


def test_multi_frame_without_positions_is_refused(tmp_path):
    enhanced(tmp_path / "m" / "multi.dcm", PerFrameFunctionalGroupsSequence=[])
    with pytest.raises(InputError, match="16 frames but 0 functional groups"):
        read_ct(tmp_path / "m")


def test_damaged_header_value_is_a_verdict(tmp_path):
    files = small_series(tmp_path / "a")
    for file in files:
        file.write_bytes(file.read_bytes().replace(b"0.7\\0.8 ", b"0.7\\x.8 "))
    with pytest.raises(InputError, match="damaged header"):
        read_ct(tmp_path / "a")


def test_a_value_of_another_kind_than_its_attribute_is_a_verdict(tmp_path):
    for file in small_series(tmp_path / "a"):
        data = file.read_bytes()
        at = data.index(b"\x08\x00\x08\x00CS") + 4
        file.write_bytes(data[:at] + b"FD" + data[at + 2 :])
    (info,) = list_series(tmp_path / "a")
    assert not info.usable
    with pytest.raises(InputError, match="damaged header"):
        read_ct(tmp_path / "a")


FILLED = """
SOPClassUID SOPInstanceUID StudyInstanceUID SeriesInstanceUID FrameOfReferenceUID Modality ImageType PixelSpacing
ImageOrientationPatient ImagePositionPatient SamplesPerPixel PhotometricInterpretation Rows Columns BitsAllocated
BitsStored HighBit PixelRepresentation PixelData RescaleIntercept RescaleSlope RescaleType PatientPosition
PatientID PatientName SliceThickness InstanceNumber SeriesNumber AcquisitionNumber SeriesDescription
"""
MAY_BE_EMPTY = """
PatientBirthDate PatientSex StudyDate StudyTime ReferringPhysicianName StudyID AccessionNumber Manufacturer
PositionReferenceIndicator KVP
"""


def test_written_series_has_all_attributes_that_the_ct_image_iod_asks_for(tmp_path):
    header = pydicom.dcmread(small_series(tmp_path / "a", patient_id="P", patient_name="Doe^J", description="d")[2])
    assert [keyword for keyword in FILLED.split() if header.get(keyword) in (None, "")] == []
    assert [keyword for keyword in MAY_BE_EMPTY.split() if keyword not in header] == []


def test_writing_the_same_phantom_twice_gives_the_same_files(tmp_path):
    first, second = small_series(tmp_path / "a"), small_series(tmp_path / "b")
    assert [f.read_bytes() for f in first] == [f.read_bytes() for f in second]


def test_a_series_is_never_written_over_files(tmp_path):
    (tmp_path / "precious").write_text("x")
    with pytest.raises(InputError, match="holds files already"):
        small_series(tmp_path)


def test_volume_read_from_a_file_is_written_under_a_new_uid(tmp_path):
    small_series(tmp_path / "a")
    original = read_ct(tmp_path / "a")
    write_dicom(original, tmp_path / "b")
    assert read_ct(tmp_path / "b").source.series_uid != original.source.series_uid


DATA_OF_PYDICOM = [
    file
    for file in sorted((Path(pydicom.__file__).parent / "data").rglob("*"))
    if file.is_file() and not file.suffix.startswith(".py")
]


def test_every_file_of_pydicoms_test_data_gets_a_verdict(capfd):
    assert len(DATA_OF_PYDICOM) > 100
    for file in DATA_OF_PYDICOM:
        with pytest.raises(CarinaError, match=re.escape(str(file))):
            read_ct(file)
    assert capfd.readouterr() == ("", "")


def test_the_whole_of_pydicoms_test_data_is_listed_without_one_chest_ct(capfd):
    infos = list_series(DATA_OF_PYDICOM)
    assert all(i.verdict and not i.usable for i in infos)
    assert {"MR", "CT", "US"} <= {i.modality for i in infos}
    assert capfd.readouterr() == ("", "")

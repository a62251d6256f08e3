"""Every row of docs/how-to/bad-input.md: the input is made, read, and refused with that message and exit code."""

import re
import shutil
import struct
from collections.abc import Callable, Collection
from pathlib import Path

import numpy as np
import pydicom
import pytest
import SimpleITK

from carina.cli import main
from carina.errors import CarinaError
from carina.io import read_ct, write_image
from io_samples import edit, edit_all, move, small_ct, small_geometry, small_series
from small_models import save_known_models

DOC = Path(__file__).parents[1] / "docs" / "how-to" / "bad-input.md"
ROWS = [
    [cell.strip() for cell in line.strip("|\n ").split("|")]
    for line in DOC.read_text(encoding="utf-8").splitlines()
    if line.startswith("| ")
][1:]

Make = Callable[[Path], object]
"""Makes the input in an empty folder; may return another path to read than the folder."""


def series(**changes) -> Make:
    return lambda folder: edit_all(small_series(folder / "a"), **changes)


def one_slice(**changes) -> Make:
    return lambda folder: edit(small_series(folder / "a")[4], **changes)


def image(array, name="ct.nii.gz") -> Make:
    return lambda folder: write_image(array, small_geometry(array.shape), folder / name)


def cut(path: Path, share: float) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])


def text_files(folder):
    (folder / "notes.txt").write_text("nothing to see")


def dicomdir(folder):
    (folder / "DICOMDIR").write_bytes(bytes(128) + b"DICM")


def one_file(folder):
    return small_series(folder / "a")[0]


def missing_slice(folder):
    small_series(folder / "a", shape=(18, 8, 8))[7].unlink()


def same_place(folder):
    files = small_series(folder / "a")
    shutil.copy(files[3], folder / "a" / "again.dcm")
    edit(folder / "a" / "again.dcm", SOPInstanceUID="1.2.3.99")


def same_instance(folder):
    files = small_series(folder / "a")
    shutil.copy(files[3], folder / "a" / "again.dcm")
    edit(folder / "a" / "again.dcm", PatientComments="changed")


def other_size(folder):
    edit(small_series(folder / "a")[4], Rows=10, PixelData=bytes(2 * 10 * 10))


def tilt(folder):
    for index, file in enumerate(small_series(folder / "a")):
        move(file, (0, 2.5 * index * np.tan(np.radians(15)), 0))


def damaged_header(folder):
    for file in small_series(folder / "a"):
        file.write_bytes(file.read_bytes().replace(b"0.7\\0.8 ", b"0.7\\x.8 "))


def two_patients(folder):
    for name in ("1.2.3.1", "1.2.3.2"):
        small_series(folder / name, uid=name, patient_id=name)


def cut_dicom(syntax) -> Make:
    return lambda folder: cut(small_series(folder / "a", shape=(17, 64, 64), transfer_syntax=syntax)[8], 0.8)


def jpeg_with_a_hole(folder):
    file = small_series(folder / "a", shape=(16, 64, 64), transfer_syntax="jpeg-lossless")[8]
    dataset = pydicom.dcmread(file)
    (frame,) = pydicom.encaps.generate_frames(dataset.PixelData, number_of_frames=1)
    dataset.PixelData = pydicom.encaps.encapsulate([frame[:2000] + frame[2300:]])
    dataset.save_as(file)


def no_pixels(folder):
    edit(small_series(folder / "a")[8], PixelData=None)


def two_images(folder):
    for name in ("a.mha", "b.mha"):
        write_image(small_ct().hu, small_ct().geometry, folder / name)


def text_as_nifti(folder):
    (folder / "ct.nii.gz").write_text("This is no image.\n" * 40)


def colour_volume(folder):
    pixels = SimpleITK.GetImageFromArray(np.zeros((16, 8, 8, 3), np.uint8), isVector=True)
    SimpleITK.WriteImage(pixels, str(folder / "rgb.mha"))


def over_time(folder):
    twice = SimpleITK.GetImageFromArray(np.stack([small_ct().hu, small_ct().hu]), isVector=False)
    SimpleITK.WriteImage(twice, str(folder / "time.nii.gz"))


def without_spacing(folder):
    image(small_ct().hu, "ct.mhd")(folder)
    header = folder / "ct.mhd"
    lines = [line for line in header.read_text().splitlines(keepends=True) if "ElementSpacing" not in line]
    header.write_text("".join(lines))


def two_sizes(folder):
    image(small_ct().hu, "ct.nii")(folder)
    content = bytearray((folder / "ct.nii").read_bytes())
    struct.pack_into("<2f", content, 80, 0.8, 0.8)
    struct.pack_into("<h", content, 254, 1)
    struct.pack_into("<12f", content, 280, -0.7, 0, 0, 0, 0, -0.7, 0, 0, 0, 0, 2.5, 0)
    (folder / "ct.nii").write_bytes(content)


def sheared(folder):
    image(small_ct().hu, "ct.nii")(folder)
    content = bytearray((folder / "ct.nii").read_bytes())
    content[252:254] = bytes(2)  # qform_code: leave the placement to the sform
    content[280:296] = np.array([0.8, 0.0, 1.0, 0.0], "<f4").tobytes()  # srow_x leans along z
    (folder / "ct.nii").write_bytes(content)


def cut_image(name) -> Make:
    def make(folder):
        image(small_ct().hu, name)(folder)
        cut(folder / name, 0.7)

    return make


def no_raw(folder):
    image(small_ct().hu, "ct.mhd")(folder)
    (folder / "ct.zraw").unlink()


def without_lungs(folder):
    hu = np.full((40, 32, 32), 30, np.int16)
    hu[:, :5] = -1000
    image(hu, "ct.mha")(folder)


MAKE: dict[str, Make] = {
    "a path that does not exist": lambda folder: folder / "nowhere",
    "an empty folder": lambda folder: None,
    "a folder of text files": text_files,
    "a DICOMDIR alone": dicomdir,
    "an MRI series": series(Modality="MR", SOPClassUID="1.2.840.10008.5.1.4.1.1.4"),
    "a localizer": series(ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"]),
    "secondary captures": series(SOPClassUID="1.2.840.10008.5.1.4.1.1.7"),
    "colour images": series(PhotometricInterpretation="RGB", SamplesPerPixel=3),
    "a report without an image": series(SOPClassUID="1.2.840.10008.5.1.4.1.1.88.11", Rows=None, Modality="SR"),
    "one DICOM file of a series": one_file,
    "a series of 15 slices": lambda folder: small_series(folder / "a", shape=(15, 8, 8)),
    "a series with a missing slice": missing_slice,
    "a slice out of step": lambda folder: move(small_series(folder / "a")[5], (0, 0, 1.2)),
    "two slices at one place": same_place,
    "two files that claim one SOPInstanceUID": same_instance,
    "mixed orientation": one_slice(ImageOrientationPatient=[1, 0, 0, 0, 0, -1]),
    "mixed pixel spacing": one_slice(PixelSpacing=[0.7, 0.9]),
    "mixed image size": other_size,
    "gantry tilt": tilt,
    "a slice shifted sideways": lambda folder: move(small_series(folder / "a")[9], (5, 0, 0)),
    "slices without a position": series(ImagePositionPatient=None),
    "slices without a rescale intercept": series(RescaleIntercept=None),
    "an iodine map": series(RescaleType="MGML"),
    "a damaged header": damaged_header,
    "CTs of two patients": two_patients,
    "a series UID that is not there": lambda folder: small_series(folder / "a"),
    "a DICOM file cut short": cut_dicom("explicit"),
    "a compressed image cut short": cut_dicom("jpeg-2000"),
    "a JPEG image with a hole": jpeg_with_a_hole,
    "a DICOM file without pixels": no_pixels,
    "a folder of two image files": two_images,
    "text that is named .nii.gz": text_as_nifti,
    "a mask": image(np.ones((16, 8, 8), np.uint8)),
    "a picture scaled to 0..255": image(np.arange(16 * 64).reshape(16, 8, 8).astype(np.int16) % 256),
    "a CT without its rescale intercept": image(np.arange(16 * 64).reshape(16, 8, 8).astype(np.uint16)),
    "a colour volume": colour_volume,
    "a series over time": over_time,
    "an image of 8 slices": image(np.full((8, 8, 8), -900, np.int16)),
    "a sheared NIfTI file": sheared,
    "an image that does not say its spacing": without_spacing,
    "a NIfTI file with two sizes of its voxels": two_sizes,
    "a .nii.gz file cut short": cut_image("ct.nii.gz"),
    "a .nii file cut short": cut_image("ct.nii"),
    "a .mhd file without its data": no_raw,
    "a CT without lungs": without_lungs,
}

USABLE_BUT_AMBIGUOUS = {"CTs of two patients", "a folder of two image files", "a series UID that is not there"}
"""Each series can be read: ``carina info`` lists them and ends well, reading asks for a choice."""


NO_INPUT: dict[str, list[str]] = {
    "no path at all": ["info"],
    "a probability above 1": ["detect", "-i", "ct", "-o", "out", "--threshold", "1.5"],
    "an unknown output format": ["detect", "-i", "ct", "-o", "out", "--format", "pdf"],
    "an unknown device": ["detect", "-i", "ct", "-o", "out", "--device", "gpu"],
    "a folder without weights": ["detect", "-i", "ct", "-o", "out", "--weights", "nowhere"],
}
"""Refused before any CT is looked at."""


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_known_models(tmp_path_factory.mktemp("weights"))


def matches(pattern: str, message: str) -> bool:
    return re.fullmatch(".*".join(re.escape(part) for part in pattern.split("…")), message, re.DOTALL) is not None


def run(*arguments: object) -> int:
    with pytest.raises(SystemExit) as ended:
        main([str(argument) for argument in arguments])
    return int(ended.value.code)


def test_every_row_is_tested_and_every_test_is_a_row():
    assert {row[0] for row in ROWS} == {*MAKE, *NO_INPUT}


def rows(wanted: Collection[str]) -> pytest.MarkDecorator:
    chosen = [row for row in ROWS if row[0] in wanted]
    return pytest.mark.parametrize(("kind", "found_in", "message", "code"), chosen, ids=[row[0] for row in chosen])


@rows(MAKE)
def test_detect_refuses_in_one_line_with_message_and_exit_code(tmp_path, capfd, weights, kind, found_in, message, code):
    (tmp_path / "in").mkdir()
    made = MAKE[kind](tmp_path / "in")
    path = made if isinstance(made, Path) else tmp_path / "in"
    series = ["--series", "9.9.9"] if kind == "a series UID that is not there" else []
    arguments = ["-o", tmp_path / "out", "--weights", weights, "--runtime", "torch", *series]
    assert run("detect", "-i", path, *arguments) == int(code)
    said, line = capfd.readouterr()
    assert said == ""
    assert line.count("\n") == 1
    assert matches(f"carina: {message}\n", line), line
    assert not list((tmp_path / "out").glob("*/*"))


@rows(MAKE)
def test_what_reads_refuses_and_what_lists_says_why(tmp_path, capfd, kind, found_in, message, code):
    made = MAKE[kind](tmp_path)
    path = made if isinstance(made, Path) else tmp_path
    if found_in != "lungs":
        with pytest.raises(CarinaError) as refused:
            read_ct(path, series_uid="9.9.9" if kind == "a series UID that is not there" else None)
        assert matches(message, str(refused.value)), str(refused.value)
        assert capfd.readouterr() == ("", "")
    seen_by_info = found_in == "header" and kind not in USABLE_BUT_AMBIGUOUS
    assert run("info", path) == (int(code) if seen_by_info else 0)


@rows(NO_INPUT)
def test_commands_that_cannot_be_carried_out(capsys, monkeypatch, tmp_path, kind, found_in, message, code):
    monkeypatch.chdir(tmp_path)
    assert run(*NO_INPUT[kind]) == int(code)
    assert matches(f"carina: {message}\n", capsys.readouterr().err)
    assert not list(tmp_path.iterdir())

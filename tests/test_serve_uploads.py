"""From the bytes of an upload to a study's folder: what is taken, what is refused, and what no client can do."""

import gzip
import io
import struct
import tracemalloc
import warnings
import zipfile
from pathlib import Path

import numpy as np
import pydicom
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from carina.io import read_ct, write_dicom
from carina.serve.limits import MIB, Limits
from carina.serve.problems import ProblemError
from carina.serve.receive import Receiver, base_name
from carina.serve.unpack import unpack
from serve_samples import small_chest, write_samples


@pytest.fixture(scope="module")
def samples(tmp_path_factory) -> Path:
    return write_samples(tmp_path_factory.mktemp("samples"))


def receive(body: bytes, content_type: str, folder: Path, limits: Limits, piece: int = 1000):
    folder.mkdir(parents=True, exist_ok=True)
    receiver = Receiver(content_type, folder, limits)
    try:
        for start in range(0, len(body), piece):
            receiver.feed(body[start : start + piece])
        return receiver.finish()
    finally:
        receiver.close()


def take(body: bytes, folder: Path, content_type: str = "", limits: Limits | None = None) -> Path:
    limits = limits or Limits()
    parts = receive(body, content_type, folder / "parts", limits, 2**16)
    study = folder / "study"
    study.mkdir()
    unpack(parts, study, limits)
    return study


def zipped(files: dict[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", method) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return out.getvalue()


def form(files: list[tuple[str, bytes]], boundary: str = "XX") -> tuple[bytes, str]:
    body = b""
    for name, content in files:
        head = f'--{boundary}\r\nContent-Disposition: form-data; name="file"; filename="{name}"\r\n\r\n'
        body += head.encode() + content + b"\r\n"
    return body + f"--{boundary}--\r\n".encode(), f"multipart/form-data; boundary={boundary}"


@pytest.mark.parametrize("name", ["chest.zip", "chest.mha", "chest.nii.gz", "chest.nrrd"])
def test_a_ct_comes_through_whole(name, samples, tmp_path):
    study = take((samples / name).read_bytes(), tmp_path)
    assert np.array_equal(read_ct(study).hu, small_chest().hu)


def test_a_header_and_its_data_find_each_other_in_a_form(samples, tmp_path):
    header = (samples / "chest.mhd").read_bytes()
    body, kind = form([("C:\\CT\\chest.zraw", (samples / "chest.zraw").read_bytes()), ("chest.mhd", header)])
    assert np.array_equal(read_ct(take(body, tmp_path, kind)).hu, small_chest().hu)


def test_dicom_files_of_a_form_are_one_study(samples, tmp_path):
    files = [(file.name, file.read_bytes()) for file in sorted((samples / "dicom").iterdir())]
    body, kind = form(files)
    assert np.array_equal(read_ct(take(body, tmp_path, kind)).hu, small_chest().hu)


def test_what_is_no_image_is_left_out(samples, tmp_path):
    study = take(zipped({"a.mha": (samples / "chest.mha").read_bytes(), "read me.txt": b"hello"}), tmp_path)
    assert [file.name for file in study.iterdir()] == ["000001.mha"]


@pytest.mark.parametrize(
    "name", ["../../evil.mha", "/etc/evil.mha", "..\\..\\evil.mha", "a/../../../evil.mha", "x\0y.mha"]
)
def test_names_of_members_lead_nowhere(name, samples, tmp_path):
    inner = tmp_path / "a" / "b"
    inner.mkdir(parents=True)
    study = take(zipped({name: (samples / "chest.mha").read_bytes()}, zipfile.ZIP_STORED), inner)
    found = [file.relative_to(tmp_path) for file in tmp_path.rglob("*") if file.is_file()]
    assert found == [(study / "000001.mha").relative_to(tmp_path)]


@pytest.mark.parametrize("target", ["/etc/passwd", "../../secret.raw", "LIST", "slice%03d.raw 1 9 1"])
def test_a_header_that_points_elsewhere_is_refused(target, samples, tmp_path):
    header = (samples / "chest.mhd").read_bytes().replace(b"chest.zraw", target.encode())
    with pytest.raises(ProblemError, match="needs its data file"):
        take(header, tmp_path)


@pytest.mark.parametrize(
    "pointer",
    [
        b"ElementDataFile = /etc/passwd\n",
        b"ElementDataFile : /etc/passwd\n",
        b"\vElementDataFile\r= /etc/passwd\n",
        b"Comment = a\n" * 500 + b"ElementDataFile : /etc/passwd\n",
    ],
)
@pytest.mark.parametrize("name", ["chest.mha", "chest.mhd"])
def test_a_header_with_two_pointers_is_refused(name, pointer, samples, tmp_path):
    content = (samples / name).read_bytes()
    for place in (b"NDims", b"ElementDataFile"):
        body, kind = form([(name, content.replace(place, pointer + place)), ("chest.zraw", b"voxels")])
        with pytest.raises(ProblemError, match=r"no DICOM and no image|exactly one line"):
            take(body, tmp_path / place.decode(), kind)


def test_a_pointer_in_the_lines_behind_the_first_one_is_refused(samples, tmp_path):
    header = (samples / "chest.mhd").read_bytes() + b"\n" * 2 * MIB + b"ElementDataFile = /etc/passwd\n"
    with pytest.raises(ProblemError, match="exactly one line"):
        take(header, tmp_path)


NRRD = b"NRRD0004\ntype: short\ndimension: 3\nsizes: 20 9 9\nencoding: raw\n"


@pytest.mark.parametrize("before", [b"", b"# " + b"x" * 5000 + b"\n", b"# a\r", b"\0\n"])
@pytest.mark.parametrize("pointer", [b"Data File: ", b"datafile: "])
@pytest.mark.parametrize("after", [b"\n\n", b"\n", b"\r\n\r\n"])
def test_an_nrrd_that_points_elsewhere_is_refused(before, pointer, after, tmp_path):
    with pytest.raises(ProblemError, match="names another file"):
        take(NRRD + before + pointer + b"/etc/passwd" + after, tmp_path)


def test_an_nrrd_whose_header_does_not_end_is_refused(tmp_path):
    with pytest.raises(ProblemError, match="without an empty line at its end"):
        take(NRRD + b"# x\n" * MIB + b"data file: /etc/passwd\n\n", tmp_path)


def test_a_bomb_is_refused_before_it_fills_the_disk(tmp_path):
    bomb = zipped({"a": bytes(100 * MIB)})
    assert len(bomb) < MIB
    with pytest.raises(ProblemError, match="times its size"):
        take(bomb, tmp_path)
    assert sum(file.stat().st_size for file in tmp_path.rglob("*") if file.is_file()) < 40 * MIB


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_methods_that_unpack_without_a_bound_are_refused(method, tmp_path):
    with pytest.raises(ProblemError, match="another method than deflate") as problem:
        take(zipped({"a": bytes(MIB)}, method), tmp_path)
    assert problem.value.status == 415


def test_a_member_before_its_archive_is_refused(tmp_path):
    body = bytearray(zipped({"a": b"b"}))
    end = body.rfind(b"PK\x05\x06")
    struct.pack_into("<I", body, end + 16, end)  # where the list of contents would be, so that all moves to the front
    with pytest.raises(ProblemError, match="cannot be read"):
        take(bytes(body), tmp_path)


def test_members_that_lie_about_their_size_are_refused(tmp_path):
    body = bytearray(zipped({"a": bytes(3 * MIB)}))
    at = body.rfind(b"PK\x01\x02")
    struct.pack_into("<I", body, at + 24, 10)  # the size after unpacking, in the list of contents
    with pytest.raises(ProblemError):
        take(bytes(body), tmp_path)


def test_members_that_share_bytes_count_each(tmp_path):
    """A bomb that needs no ratio: many entries that point to the same data."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        archive.writestr("a", bytes(3 * MIB))
        first = archive.infolist()[0]
        archive.filelist.extend([first] * 2000)
    with pytest.raises(ProblemError, match="unpacks to"):
        take(out.getvalue(), tmp_path, limits=Limits(unpacked_bytes=64 * MIB))


def test_a_list_of_contents_that_would_fill_the_memory_is_refused(tmp_path):
    end = struct.pack("<4s4H2IH", b"PK\x05\x06", 0, 0, 0xFFFF, 0xFFFF, 2**31, 0, 0)
    with pytest.raises(ProblemError, match="lists more than"):
        take(b"PK\x03\x04" + bytes(100) + end, tmp_path)


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"", "no file"),
        (b"hello", "no DICOM and no image"),
        (b"PK\x03\x04" + bytes(50), "no list of contents"),
        (zipped({}), "no DICOM and no image"),
        (zipped({"a.zip": zipped({"b": b"c"})}), "archive inside"),
        (b"\x1f\x8b" + bytes(20), "gzip"),
        (bytes(344) + b"ni1\0" + bytes(200), "pair of header and image"),
        (bytes(128) + b"DICM" + b"\x02\x00\x10\x001.2.840.10008.1.2.1.99", "deflated"),
    ],
)
def test_what_cannot_be_a_ct_is_refused_with_its_reason(body, message, tmp_path):
    with pytest.raises(ProblemError, match=message):
        take(body, tmp_path)


def test_deflated_dicom_is_refused_however_far_its_header_says_so(tmp_path):
    write_dicom(small_chest(), tmp_path / "dicom", transfer_syntax="deflated")
    file = pydicom.dcmread(next((tmp_path / "dicom").iterdir()))
    padded = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that UID is longer than any may be
        file.file_meta.MediaStorageSOPInstanceUID = "1." + "2" * 5000
        file.save_as(padded)
    with pytest.raises(ProblemError, match="deflated"):
        take(padded.getvalue(), tmp_path / "upload")


def test_an_image_that_unpacks_without_end_costs_no_memory(samples, tmp_path):
    whole = gzip.decompress((samples / "chest.nii.gz").read_bytes())
    study = take(gzip.compress(whole + bytes(256 * MIB), 1), tmp_path)
    tracemalloc.start()
    try:
        assert np.array_equal(read_ct(study).hu, small_chest().hu)
        assert tracemalloc.get_traced_memory()[1] < 32 * MIB
    finally:
        tracemalloc.stop()


def test_an_encrypted_archive_is_refused(tmp_path):
    body = bytearray(zipped({"a": b"b"}))
    body[body.rfind(b"PK\x01\x02") + 8] |= 1
    with pytest.raises(ProblemError, match="encrypted"):
        take(bytes(body), tmp_path)


def test_the_body_is_bounded(tmp_path):
    with pytest.raises(ProblemError, match="larger than 5000 bytes"):
        receive(bytes(5001), "", tmp_path, Limits(upload_bytes=5000))


def test_the_number_of_files_is_bounded(tmp_path):
    body, kind = form([("a", b"1")] * 5)
    with pytest.raises(ProblemError, match="more than 4 files"):
        receive(body, kind, tmp_path, Limits(files=4))
    with pytest.raises(ProblemError, match="more than 4 files"):
        take(zipped({str(n): b"1" for n in range(5)}), tmp_path / "zip", limits=Limits(files=4))


@pytest.mark.parametrize(
    "body",
    [b"nonsense", b"--XX\r\n", b'--XX\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\nabc', b""],
)
def test_a_malformed_form_is_refused(body, tmp_path):
    with pytest.raises(ProblemError):
        receive(body, "multipart/form-data; boundary=XX", tmp_path, Limits())


def test_a_form_without_a_boundary_is_refused(tmp_path):
    with pytest.raises(ProblemError, match="boundary"):
        receive(b"x", "multipart/form-data", tmp_path, Limits())


def test_a_field_that_is_no_file_is_refused(tmp_path):
    body = b'--XX\r\nContent-Disposition: form-data; name="a"\r\n\r\nb\r\n--XX--\r\n'
    with pytest.raises(ProblemError, match="no file"):
        receive(body, "multipart/form-data; boundary=XX", tmp_path, Limits())


@settings(max_examples=30, deadline=None)
@given(contents=st.lists(st.binary(max_size=300), min_size=1, max_size=4), piece=st.integers(1, 400))
def test_a_form_gives_its_files_back_however_it_is_cut(contents, piece, tmp_path_factory):
    contents = [content.replace(b"--XX", b"") for content in contents]
    body, kind = form([(str(n), content) for n, content in enumerate(contents)])
    parts = receive(body, kind, tmp_path_factory.mktemp("form"), Limits(), piece)
    assert [part.path.read_bytes() for part in parts] == contents


@given(st.text())
def test_a_base_name_has_no_folders(name):
    assert not set("/\\") & set(base_name(name))

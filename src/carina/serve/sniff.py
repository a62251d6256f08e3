"""What an uploaded file is, from its content; and whether its header points to other files, which is never followed.

Must not know archives' members or requests.
"""

import gzip
import re
import zlib
from mmap import ACCESS_READ, mmap
from pathlib import Path
from typing import Literal

from pydicom.filereader import read_dataset, read_preamble
from pydicom.uid import DeflatedExplicitVRLittleEndian

from carina.io.dicom_header import looks_like_dicom, quiet_pydicom
from carina.serve.limits import MIB
from carina.serve.problems import ProblemError

Kind = Literal["zip", "dicom", "nifti", "nifti-gz", "nrrd", "metaimage", "metaimage-header", "other"]

_DEFLATED = DeflatedExplicitVRLittleEndian.encode()
_HEAD = 4096
_NRRD_HEADER = MIB
"""An NRRD header is longer only where something is hidden in it."""

_POINTER = re.compile(rb"[ \t]*ElementDataFile[ \t]*[=:][ \t]*([^\r\n]*)(?:\r?\n|\Z)")


def kind_of(path: Path) -> Kind:
    """The kind of a file.

    Raises:
        ProblemError: a kind that is known and not taken, with the reason.
    """
    with path.open("rb") as file:
        head = file.read(_HEAD)
    if head[:4] in (b"PK\x03\x04", b"PK\x05\x06"):
        return "zip"
    if head[:2] == b"\x1f\x8b":
        _check_gzip(path)
        return "nifti-gz"
    if head[:4] == b"NRRD":
        _check_nrrd(path)
        return "nrrd"
    if _is_nifti(head):
        return "nifti"
    if b"ElementDataFile" in head and (b"NDims" in head or b"ObjectType" in head):
        return "metaimage" if data_file_of(path) == "LOCAL" else "metaimage-header"
    if looks_like_dicom(path):
        if _DEFLATED in head or _transfer_syntax(path) == DeflatedExplicitVRLittleEndian:
            raise ProblemError("unsupported", "deflated DICOM is not taken: it grows without bound; send it inflated")
        return "dicom"
    return "other"


def data_file_of(path: Path) -> str:
    """Where a MetaImage says that its voxels are.

    ITK's header ends with the first pointer that it understands; so there may be no second one in the whole file, the
    voxels included.

    Raises:
        ProblemError: there is a second one, or the only one is in an unusual form.
    """
    with path.open("rb") as file, mmap(file.fileno(), 0, access=ACCESS_READ) as content:
        at = content.find(b"ElementDataFile")
        found = _POINTER.match(content, content.rfind(b"\n", 0, at) + 1)
        if found is None or content.find(b"ElementDataFile", found.end()) >= 0:
            raise ProblemError("invalid", "a MetaImage needs exactly one line 'ElementDataFile = ...'")
        return found[1].strip().decode("utf-8", "replace")


def _transfer_syntax(path: Path) -> str:
    """What the file meta information says (PS3.10 7.1), however long it is; "" where it cannot be read."""
    try:
        with path.open("rb") as file, quiet_pydicom():
            read_preamble(file, force=True)
            meta = read_dataset(file, False, True, stop_when=lambda tag, _vr, _length: tag >> 16 != 2)
            return str(meta.get("TransferSyntaxUID", ""))
    except Exception:  # pydicom meets damaged bytes with exceptions of many types, here and when the CT is read
        return ""


def _is_nifti(head: bytes) -> bool:
    if head[344:348] == b"ni1\0" or head[4:8] == b"ni2\0":
        raise ProblemError("unsupported", "a NIfTI pair of header and image; send one .nii or .nii.gz file")
    return head[344:348] == b"n+1\0" or head[4:8] == b"n+2\0"


def _check_gzip(path: Path) -> None:
    try:
        with gzip.open(path) as file:
            head = file.read(540)
    except (OSError, EOFError, zlib.error) as error:
        raise ProblemError("invalid", f"a damaged gzip file: {error}") from error
    if not _is_nifti(head):
        raise ProblemError("unsupported", "a gzip file that is no NIfTI; send .nii.gz, or a zip of DICOM")


def _check_nrrd(path: Path) -> None:
    with path.open("rb") as file:
        lines = file.read(_NRRD_HEADER).replace(b"\r\n", b"\n").replace(b"\r", b"\n")
    header, end, _ = lines.partition(b"\n\n")
    if re.search(rb"^data ?file:", header, re.IGNORECASE | re.MULTILINE):
        raise ProblemError("unsupported", "an NRRD header that names another file; send one .nrrd file with its voxels")
    if not end:
        raise ProblemError("invalid", f"an NRRD header without an empty line at its end in {_NRRD_HEADER} bytes")

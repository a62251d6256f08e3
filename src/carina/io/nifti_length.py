"""Whether a NIfTI file holds all the voxels that its header promises; ITK fills up a short one without a word.

Must not know what the voxels mean. Header layout: https://nifti.nimh.nih.gov/nifti-1 (nifti1.h, nifti2.h).
"""

import gzip
import struct
import zlib
from math import prod
from pathlib import Path

from carina.errors import InputError

_CHUNK = 1 << 20


def check_nifti_length(path: Path) -> None:
    """Refuse a NIfTI file that ends before its last voxel, or whose compressed stream is damaged.

    Raises:
        InputError: it does, or its header is not that of NIfTI.
    """
    with path.open("rb") as file:
        compressed = file.read(2) == b"\x1f\x8b"
    try:
        with gzip.open(path) if compressed else path.open("rb") as stream:
            header = stream.read(540)
            length = len(header)
            while chunk := stream.read(_CHUNK):
                length += len(chunk)
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise InputError(f"{path}: the compressed file is damaged or ends early ({error})") from error
    expected = _expected_length(header)
    if expected is None:
        raise InputError(f"{path}: not a NIfTI file of one piece")
    if length < expected:
        raise InputError(f"{path}: ends early: {length} bytes of voxels and header, {expected} expected")


def _expected_length(header: bytes) -> int | None:
    for order in "<>":
        if len(header) >= 348 and struct.unpack_from(f"{order}i", header, 0)[0] == 348:
            dim = struct.unpack_from(f"{order}8h", header, 40)
            bits = struct.unpack_from(f"{order}h", header, 72)[0]
            offset = int(struct.unpack_from(f"{order}f", header, 108)[0])
        elif len(header) >= 540 and struct.unpack_from(f"{order}i", header, 0)[0] == 540:
            dim = struct.unpack_from(f"{order}8q", header, 16)
            bits = struct.unpack_from(f"{order}h", header, 14)[0]
            offset = struct.unpack_from(f"{order}q", header, 168)[0]
        else:
            continue
        return int(offset + prod(max(1, n) for n in dim[1 : dim[0] + 1]) * bits // 8)
    return None

"""What ITK keeps quiet about when it reads NIfTI: files that end early, voxels that are not numbers or of unknown size.

ITK fills up a short file, turns NaN to 0, which is the HU of water, and a voxel's size of 0 to 1 mm. Must not know what
the voxels mean.
Header layout: nifti1.h, https://nifti.nimh.nih.gov. NIfTI-2 is refused by ITK before this module sees it.
"""

import gzip
import struct
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import IO

import numpy as np
from jaxtyping import Bool

from carina.errors import GeometryError, InputError

_HEADER_BYTES = 348

_FLOAT_TYPES = {16: "f4", 64: "f8"}

_BYTES = {2: 1, 256: 1, 4: 2, 512: 2, 8: 4, 768: 4, 16: 4, 64: 8, 1024: 8, 1280: 8}
"""Of a voxel by the header's datatype; like ITK, which passes over the header's own number of bits."""

_FIRST_VOXEL = 352
"""Where the voxels of a file of one piece begin at the earliest; of one that says less, ITK takes header for voxels."""


@dataclass(frozen=True)
class _Layout:
    """Where the voxels are in the file and of which type; ``order`` is ``<`` or ``>``."""

    order: str
    shape_xyz: tuple[int, ...]
    datatype: int
    voxel_bytes: int
    offset: int


def not_numbers(path: Path) -> Bool[np.ndarray, "*shape"] | None:
    """Check that a NIfTI file is whole, and find the voxels that are NaN or infinite.

    Args:
        path: the file, compressed or not.

    Returns:
        True where a voxel is not a finite number, slowest axis first; None if all are.

    Raises:
        InputError: the file ends before its last voxel, its compressed stream is damaged, or it is not NIfTI.
    """
    with _opened(path) as file:
        header = file.read(_HEADER_BYTES)
        layout = _layout(header)
        if layout is None:
            raise InputError(f"{path}: not a NIfTI file of one piece")
        count = prod(layout.shape_xyz)
        expected = layout.offset + count * layout.voxel_bytes
        # One byte more, so that the end of a compressed stream is checked; never all, which may be without end.
        content = header + file.read(expected + 1 - len(header))
    if len(content) < expected:
        raise InputError(f"{path}: ends early: {len(content)} bytes of header and voxels, {expected} expected")
    if layout.datatype not in _FLOAT_TYPES:
        return None
    values = np.frombuffer(content, f"{layout.order}{_FLOAT_TYPES[layout.datatype]}", count, layout.offset)
    lost = ~np.isfinite(values)
    return lost.reshape(layout.shape_xyz[::-1]) if lost.any() else None


def check_voxel_size(path: Path) -> None:
    """Check that the header gives one size of the voxels, in ``pixdim`` and where it has one in its ``sform`` too.

    Raises:
        GeometryError: it gives none, or two.
    """
    with _opened(path) as file:
        header = file.read(_HEADER_BYTES)
    layout = _layout(header)
    if layout is None:
        return  # which reading the voxels refuses
    pixdim = np.abs(struct.unpack_from(f"{layout.order}3f", header, 80))
    if not (np.isfinite(pixdim).all() and pixdim.all()):
        raise GeometryError(f"{path}: does not say how large its voxels are; write its spacing into the header")
    sform = np.array(struct.unpack_from(f"{layout.order}12f", header, 280)).reshape(3, 4)[:, :3]
    sides = np.linalg.norm(sform, axis=0)
    if struct.unpack_from(f"{layout.order}h", header, 254)[0] > 0 and not np.allclose(sides, pixdim, rtol=0.01):
        by_sform, by_pixdim = (" x ".join(f"{side:g}" for side in sizes) for sizes in (sides, pixdim))
        raise GeometryError(
            f"{path}: voxels of {by_sform} by its sform and of {by_pixdim} by its pixdim; put the wrong one right"
        )


@contextmanager
def _opened(path: Path) -> Iterator[IO[bytes] | gzip.GzipFile]:
    with path.open("rb") as file:
        compressed = file.read(2) == b"\x1f\x8b"
        file.seek(0)
        if not compressed:
            yield file
            return
        try:
            with gzip.open(file) as inside:
                yield inside
        except (EOFError, gzip.BadGzipFile, zlib.error) as error:
            raise InputError(f"{path}: the compressed file is damaged or ends early ({error})") from error


def _layout(header: bytes) -> _Layout | None:
    for order in "<>":
        if len(header) == _HEADER_BYTES and struct.unpack_from(f"{order}i", header, 0)[0] == 348:
            dim = struct.unpack_from(f"{order}8h", header, 40)
            datatype, bits = struct.unpack_from(f"{order}2h", header, 70)
            (offset,) = struct.unpack_from(f"{order}f", header, 108)
            if not _FIRST_VOXEL <= offset < 2**31:  # NaN too
                return None
            # Further dimensions are of size 1, or the volume was refused before.
            shape_xyz = tuple(max(1, n) for n in dim[1 : min(dim[0], 3) + 1])
            voxel_bytes = _BYTES.get(datatype, max(0, bits) // 8)
            return _Layout(order, shape_xyz, datatype, voxel_bytes, int(offset))
    return None

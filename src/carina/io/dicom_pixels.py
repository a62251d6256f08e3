"""DICOM pixels to HU, whole or not at all: a file that cannot be decoded to the last voxel is refused by name.

Compressed syntaxes are decoded by pydicom with GDCM. Must not know series or geometry.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pydicom
from jaxtyping import Bool, Int16, Integer
from pydicom.dataset import Dataset
from pydicom.encaps import generate_frames
from pydicom.uid import (
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000TransferSyntaxes,
    JPEGLSTransferSyntaxes,
    JPEGTransferSyntaxes,
)

from carina.errors import InputError
from carina.hu import AIR
from carina.io.dicom_header import Slice
from carina.io.hu_values import to_hu
from carina.io.native_stderr import caught_stderr

_END_MARKED = (*JPEGTransferSyntaxes, *JPEGLSTransferSyntaxes, *JPEG2000TransferSyntaxes)
_END_OF_IMAGE = b"\xff\xd9"


def read_slices(slices: Sequence[Slice]) -> Int16[np.ndarray, "z y x"]:
    """HU of slices, in their order.

    One thread: parsing holds Python's lock, and two threads were slower than one.

    Raises:
        InputError: a file cannot be decoded, is cut short, or decodes to another size than its header says.
    """
    hu = np.empty((len(slices), *slices[0].shape_yx), np.int16)
    by_file: dict[Path, list[int]] = {}
    for index, one in enumerate(slices):
        by_file.setdefault(one.path, []).append(index)
    for path, indices in by_file.items():
        stored, padding = _decode(path)
        frames = stored.reshape(-1, *stored.shape[-2:])
        for index in indices:
            one = slices[index]
            if one.frame >= len(frames) or frames.shape[1:] != one.shape_yx:
                raise InputError(
                    f"{path}: decoded to {len(frames)} images of {frames.shape[1:]}, the header says {one.shape_yx}; "
                    f"the file is damaged, fetch it again"
                )
            hu[index] = _rescale(frames[one.frame], one.slope, one.intercept, padding)
    return hu


def is_lossy(path: Path) -> bool:
    """Whether the file's transfer syntax or its header says that compression lost information."""
    header = pydicom.dcmread(path, stop_before_pixels=True, specific_tags=["LossyImageCompression"], force=True)
    lossy = {
        "1.2.840.10008.1.2.4.50",
        "1.2.840.10008.1.2.4.51",
        "1.2.840.10008.1.2.4.81",
    }
    return header.get("LossyImageCompression") == "01" or header.file_meta.get("TransferSyntaxUID") in lossy


def _decode(path: Path) -> tuple[Integer[np.ndarray, "*frames y x"], tuple[int, int] | None]:
    try:
        dataset = pydicom.dcmread(path, force=True)
        _complete_meta(dataset)
        if "PixelData" not in dataset:
            raise InputError("it holds no pixel data, or ends within it")
        if dataset.file_meta.TransferSyntaxUID in _END_MARKED:
            _check_ends(dataset)
            with caught_stderr() as remarks:
                stored = dataset.pixel_array
            # The decoder says it only there, and returns made-up voxels all the same.
            if corrupt := [line for line in remarks if "orrupt" in line or "marker" in line]:
                raise InputError(corrupt[0])
            return stored, _padding(dataset)
        return dataset.pixel_array, _padding(dataset)
    except Exception as error:  # decoders meet damaged bytes with exceptions of many types
        words = " ".join(str(error).split())[:200] or type(error).__name__
        if "by all available plugins: gdcm" in words:
            words = "the decoder finds the compressed image damaged"
        raise InputError(f"{path}: the pixel data cannot be decoded ({words}); fetch the file again") from error


def _complete_meta(dataset: Dataset) -> None:
    """Name the transfer syntax of a bare data set, which has no file meta information to name it."""
    if "TransferSyntaxUID" not in dataset.file_meta:
        implicit = dataset.original_encoding[0]
        dataset.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian if implicit else ExplicitVRLittleEndian


def _check_ends(dataset: Dataset) -> None:
    """Refuse a compressed frame without its end marker: decoders fill what is missing with made-up values."""
    frames = int(dataset.get("NumberOfFrames") or 1)
    for number, frame in enumerate(generate_frames(dataset.PixelData, number_of_frames=frames)):
        if _END_OF_IMAGE not in frame[-16:]:
            raise InputError(f"compressed frame {number + 1} ends early")


def _padding(dataset: Dataset) -> tuple[int, int] | None:
    """Lowest and highest stored value that mean "nothing was seen here" (PS3.3 C.7.5.1.1.2), if the file names any.

    Files write signed values as unsigned and the other way round; both are turned to what the pixels hold.
    """
    value = dataset.get("PixelPaddingValue")
    if value is None or value == "":
        return None
    limit = dataset.get("PixelPaddingRangeLimit")
    ends = [int(value), int(value if limit in (None, "") else limit)]
    bits, signed = int(dataset.BitsAllocated), bool(dataset.PixelRepresentation)
    low = -(1 << (bits - 1)) if signed else 0
    wrapped = [(end - low) % (1 << bits) + low for end in ends]
    return min(wrapped), max(wrapped)


def _rescale(
    stored: Integer[np.ndarray, "y x"], slope: float, intercept: float, padding: tuple[int, int] | None
) -> Int16[np.ndarray, "y x"]:
    """Stored values to HU (PS3.3 C.11.1.1.2), padding to air."""
    if slope == 1 and intercept == int(intercept):
        hu = to_hu(stored.astype(np.int32) + int(intercept))
    else:
        hu = to_hu(stored.astype(np.float64) * slope + intercept)
    if padding is not None:
        hu[_within(stored, *padding)] = AIR
    return hu


def _within(stored: Integer[np.ndarray, "y x"], low: int, high: int) -> Bool[np.ndarray, "y x"]:
    return np.asarray((stored >= low) & (stored <= high))

"""DICOM headers: which files are instances of a CT, what each says of its slices, and why one is refused.

Must not read pixels nor judge a series as a whole.
"""

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pydicom
from pydicom.dataset import Dataset
from pydicom.multival import MultiValue
from pydicom.uid import CTImageStorage, EnhancedCTImageStorage, LegacyConvertedEnhancedCTImageStorage

from carina.errors import InputError
from carina.geometry import Vector3

_CT_CLASSES = (CTImageStorage, EnhancedCTImageStorage, LegacyConvertedEnhancedCTImageStorage)

_SECONDARY_CAPTURE = "1.2.840.10008.5.1.4.1.1.7"

_FUNCTIONAL_GROUPS = ("SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence")

_HEADER = [
    "SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID", "FrameOfReferenceUID", "PatientID",
    "Modality", "SeriesDescription", "SeriesNumber", "ImageType", "ConvolutionKernel", "SliceThickness",
    "GantryDetectorTilt", "InstanceNumber", "AcquisitionNumber", "ImagePositionPatient",
    "ImageOrientationPatient", "PixelSpacing", "Rows", "Columns", "NumberOfFrames", "SamplesPerPixel",
    "PhotometricInterpretation", "RescaleIntercept", "RescaleSlope", "RescaleType", "LossyImageCompression",
    *_FUNCTIONAL_GROUPS,
]  # fmt: skip
"""The attributes that are read of every file; skipping the others makes reading a folder quick."""


@dataclass(frozen=True)
class Slice:
    """One image of a stack as its header describes it.

    Attributes:
        path: file.
        frame: number of the frame in a multi-frame file, from 0.
        sop_instance_uid: SOPInstanceUID.
        instance_number: InstanceNumber, None where the file has none.
        position_lps: ImagePositionPatient, centre of the first voxel in mm.
        row_axis: unit vector along which the column index grows (first half of ImageOrientationPatient).
        column_axis: unit vector along which the row index grows.
        spacing_yx_mm: PixelSpacing: distance of rows, of columns.
        shape_yx: Rows, Columns.
        slope: RescaleSlope.
        intercept: RescaleIntercept.
    """

    path: Path
    frame: int
    sop_instance_uid: str
    instance_number: int | None
    position_lps: Vector3
    row_axis: Vector3
    column_axis: Vector3
    spacing_yx_mm: tuple[float, float]
    shape_yx: tuple[int, int]
    slope: float
    intercept: float

    def __str__(self) -> str:
        number = f" (instance {self.instance_number})" if self.instance_number is not None else ""
        return f"{self.path.name}{number}"


@dataclass(frozen=True)
class Instance:
    """One DICOM file.

    Attributes:
        path: file.
        header: its attributes without pixels; empty if the file could not be parsed.
        slices: its images; empty if refused.
        refusal: why it is no part of a CT stack, "" if it is.
    """

    path: Path
    header: Dataset
    slices: tuple[Slice, ...] = ()
    refusal: str = ""

    @property
    def series_uid(self) -> str | None:
        """SeriesInstanceUID, None where the file has none."""
        return text_of(self.header, "SeriesInstanceUID") or None


@contextmanager
def quiet_pydicom() -> Iterator[None]:
    """Hold back pydicom's remarks on sloppy files: what matters is checked and said by Carina itself."""
    logger = logging.getLogger("pydicom")
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)


def looks_like_dicom(path: Path) -> bool:
    """Whether a file begins as DICOM files do: ``DICM`` after 128 bytes, or a bare group 2 or 8 data set.

    Raises:
        OSError: the file cannot be opened.
    """
    with path.open("rb") as file:
        start = file.read(132)
    bare = len(start) == 132 and start[0] in (2, 8) and start[1] == 0 and start[2] < 0x20 and start[3] == 0
    return start[128:] == b"DICM" or bare


def read_instance(path: Path) -> Instance:
    """Read a DICOM file's header and judge it; a file that cannot be parsed is a refused instance."""
    try:
        header = pydicom.dcmread(path, stop_before_pixels=True, specific_tags=_HEADER, force=True)
    except Exception as error:  # pydicom meets damaged bytes with exceptions of many types
        return Instance(path, Dataset(), refusal=f"damaged header ({_words(error)})")
    try:
        if refusal := _refusal(header):
            return Instance(path, header, refusal=refusal)
        return Instance(path, header, slices=tuple(_slices(path, header)))
    except InputError as error:
        return Instance(path, header, refusal=str(error))
    except Exception as error:  # values that are not what their attribute asks for
        return Instance(path, header, refusal=f"damaged header ({_words(error)})")


def text_of(header: Dataset, keyword: str) -> str:
    """An attribute as text without blanks at its ends, "" where absent or damaged; several values as DICOM joins."""
    try:
        value = header.get(keyword)
    except Exception:  # a value that cannot be parsed names nothing
        return ""
    if isinstance(value, MultiValue):
        return "\\".join(map(str, value)).strip()
    return "" if value is None else str(value).strip()


def image_type(header: Dataset) -> list[str]:
    """The values of ImageType, upper case."""
    value = header.get("ImageType") or []
    return [str(part).upper() for part in ([value] if isinstance(value, str) else value)]


def _refusal(header: Dataset) -> str:
    """Why an instance cannot be a slice of a CT, "" if it can."""
    sop_class, modality = text_of(header, "SOPClassUID"), text_of(header, "Modality")
    kind = image_type(header)
    samples = header.get("SamplesPerPixel")
    if not header.get("Rows") or not header.get("Columns"):
        name = pydicom.uid.UID(sop_class).name if sop_class else "no SOP class"
        return f"not an image ({name})"
    if sop_class.startswith(_SECONDARY_CAPTURE):
        return "a secondary capture, not a CT"
    if sop_class not in _CT_CLASSES:
        if modality and modality != "CT":
            return f"not a CT (modality {modality})"
        return f"not a CT ({pydicom.uid.UID(sop_class).name if sop_class else 'no SOP class'})"
    if modality not in ("CT", ""):
        return f"not a CT (modality {modality})"
    if "LOCALIZER" in kind:
        return "a localizer (scout view)"
    if any("SCREEN" in part or "DOSE" in part for part in kind):
        return "a screen capture or dose report"
    if samples not in (1, None) or text_of(header, "PhotometricInterpretation") not in ("MONOCHROME1", "MONOCHROME2"):
        return f"a colour image ({text_of(header, 'PhotometricInterpretation') or f'{samples} samples per pixel'})"
    return ""


def _slices(path: Path, header: Dataset) -> Iterator[Slice]:
    frames = int(header.get("NumberOfFrames") or 1)
    per_frame = list(header.get("PerFrameFunctionalGroupsSequence") or [])
    shared = (list(header.get("SharedFunctionalGroupsSequence") or []) or [Dataset()])[0]
    if frames > 1 and len(per_frame) != frames:
        raise InputError(f"{frames} frames but {len(per_frame)} functional groups that place them")
    for frame in range(frames):
        groups = (per_frame[frame] if per_frame else Dataset(), shared)
        row, column = _orientation(_floats(header, groups, "PlaneOrientationSequence", "ImageOrientationPatient", 6))
        position = _floats(header, groups, "PlanePositionSequence", "ImagePositionPatient", 3)
        spacing = _floats(header, groups, "PixelMeasuresSequence", "PixelSpacing", 2)
        if min(spacing) <= 0:
            raise InputError(f"PixelSpacing {spacing} is not positive")
        units = _find(header, groups, "PixelValueTransformationSequence", "RescaleType")
        if str(units or "HU").strip().upper() not in ("HU", "US", "HU_MOD"):
            raise InputError(f"values are not HU but {units}")
        number = header.get("InstanceNumber")
        yield Slice(
            path=path,
            frame=frame,
            sop_instance_uid=text_of(header, "SOPInstanceUID"),
            instance_number=None if number in (None, "") else int(number),
            position_lps=(position[0], position[1], position[2]),
            row_axis=row,
            column_axis=column,
            spacing_yx_mm=(spacing[0], spacing[1]),
            shape_yx=(int(header.Rows), int(header.Columns)),
            slope=_floats(header, groups, "PixelValueTransformationSequence", "RescaleSlope", 1)[0],
            intercept=_floats(header, groups, "PixelValueTransformationSequence", "RescaleIntercept", 1)[0],
        )


def _find(header: Dataset, groups: tuple[Dataset, ...], sequence: str, keyword: str) -> object:
    """An attribute where multi-frame files keep it (per frame, then shared: PS3.3 C.7.6.16), else at the top."""
    for group in groups:
        items = group.get(sequence)
        if items and items[0].get(keyword) is not None:
            return items[0].get(keyword)
    return header.get(keyword)


def _floats(header: Dataset, groups: tuple[Dataset, ...], sequence: str, keyword: str, count: int) -> list[float]:
    value = _find(header, groups, sequence, keyword)
    if value is None or value == "":
        raise InputError(f"{keyword} is missing")
    numbers = [float(part) for part in (value if count > 1 else [value])]  # type: ignore[attr-defined, unused-ignore]
    if len(numbers) != count or not all(abs(number) < 1e9 for number in numbers):
        raise InputError(f"{keyword} {value} is not {count} finite numbers")
    return numbers


def _orientation(six: list[float]) -> tuple[Vector3, Vector3]:
    """Two perpendicular unit vectors; rounding in the file is taken out, more than rounding refused."""
    row, column = six[:3], six[3:]
    length_row, length_column = sum(a * a for a in row) ** 0.5, sum(a * a for a in column) ** 0.5
    skew = sum(a * b for a, b in zip(row, column, strict=True))
    if abs(length_row - 1) > 0.01 or abs(length_column - 1) > 0.01 or abs(skew) > 0.001:
        raise InputError(f"ImageOrientationPatient {six} is not a pair of perpendicular unit vectors")
    row = [a / length_row for a in row]
    skew = sum(a * b for a, b in zip(row, column, strict=True))
    column = [b - skew * a for a, b in zip(row, column, strict=True)]
    length_column = sum(a * a for a in column) ** 0.5
    column = [a / length_column for a in column]
    return (row[0], row[1], row[2]), (column[0], column[1], column[2])


def _words(error: Exception) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__

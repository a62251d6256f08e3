"""MetaImage, NIfTI and NRRD, in and out, through SimpleITK.

ITK counts axes (x, y, z) and works in LPS; the reversal to Carina's (z, y, x) happens here and nowhere else.
Must not know DICOM.
"""

import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Shaped

from carina.errors import GeometryError, InputError
from carina.geometry import Geometry
from carina.io.hu_values import check_plausible, to_hu
from carina.io.native_stderr import caught_stderr
from carina.io.nifti import check_voxel_size, not_numbers
from carina.io.series import FEWEST_SLICES, SeriesInfo
from carina.io.uid import is_uid
from carina.volume import FORMATS, Source, Volume, ending_of, stem_of

if TYPE_CHECKING:
    import SimpleITK

_ITK_NAMES = {"metaimage": "MetaImageIO", "nifti": "NiftiImageIO", "nrrd": "NrrdImageIO"}

_SPACING = re.compile(
    rb"^[ \t]*(Element(Spacing|Size)[ \t]*=|spacings[ \t]*:|space directions[ \t]*:)", re.MULTILINE | re.IGNORECASE
)
"""How a MetaImage or NRRD header says how large the voxels are."""

_HEADER_BYTES = 65_536
"""More than a MetaImage or NRRD header holds before the voxels."""


def series_uid_of(path: Path) -> str | None:
    """The series UID that a file is named by, as in LUNA16; None where its name is something else."""
    stem = stem_of(path)
    # Two dots make a version number or a date too, unless the UID was derived from a UUID (PS3.5 B.2).
    return stem if is_uid(stem) and (stem.count(".") >= 3 or stem.startswith("2.25.")) else None


def check_name(path: Path) -> None:
    """Refuse names that are not UTF-8: ITK ends the program at one, and no report could tell of it.

    Raises:
        InputError: the name is not UTF-8.
    """
    try:
        str(path).encode()
    except UnicodeEncodeError as error:
        raise InputError(f"{str(path).encode(errors='backslashreplace').decode()}: not UTF-8; rename it") from error


def read_image(path: str | Path) -> tuple[Shaped[np.ndarray, "z y x"], Geometry]:
    """Read a volume of any kind, a mask for example, as it is stored.

    Args:
        path: a MetaImage, NIfTI or NRRD file.

    Returns:
        The array, type as in the file, and its geometry.

    Raises:
        InputError: not such a file, cut short, not one scalar volume.
        GeometryError: its axes are not perpendicular.
    """
    path = Path(path)
    with _itk_errors(path):
        reader = _reader(path)
        _check_kind(path, reader)
        lost = not_numbers(path) if FORMATS[ending_of(path) or ""] == "nifti" else None
        array = _array_of(reader.Execute())
    if lost is not None:
        array[lost] = np.nan
    return array.reshape(array.shape[-3:]), _geometry_of(path, reader)


def read_ct_image(path: Path) -> Volume:
    """Read a CT from a MetaImage, NIfTI or NRRD file.

    Raises:
        InputError: as ``read_image``, or the values cannot be HU, or fewer than 16 slices.
    """
    info = _examine(path)
    array, geometry = read_image(path)
    warnings = [*_unplaced(path), *_value_warnings(array)]
    hu = to_hu(array)
    warnings.extend(check_plausible(hu, str(path)))
    source = Source(str(path), info.format, info.series_uid, warnings=tuple(warnings))
    return Volume(hu, geometry, source)


def describe_image(path: Path) -> SeriesInfo:
    """The verdict on an image file, judged from its header."""
    try:
        return _examine(path)
    except InputError as error:
        verdict = str(error).removeprefix(f"{path}: ")
        return SeriesInfo(str(path), FORMATS[ending_of(path) or ""], False, verdict, 0, series_uid=series_uid_of(path))


def _examine(path: Path) -> SeriesInfo:
    import SimpleITK

    with _itk_errors(path):
        reader = _reader(path)
        _check_kind(path, reader)
    if SimpleITK.GetPixelIDValueAsString(reader.GetPixelID()).startswith("8-bit"):
        raise InputError(f"{path}: 8-bit values cannot hold HU; this looks like a mask or a picture")
    geometry = _geometry_of(path, reader)
    slices = geometry.shape_zyx[0]
    if slices < FEWEST_SLICES:
        raise InputError(f"{path}: only {slices} slices; a chest CT needs at least {FEWEST_SLICES}")
    file_format = FORMATS[ending_of(path) or ""]
    info = SeriesInfo(str(path), file_format, True, f"image, {slices} slices", slices, series_uid=series_uid_of(path))
    return info.with_geometry(geometry)


def write_image(
    array: Shaped[np.ndarray, "z y x"], geometry: Geometry, path: str | Path, *, compress: bool = True
) -> None:
    """Write a volume; the file appears only when it is complete.

    Args:
        array: numbers of any integer or floating type, or booleans (written as 0 and 1).
        geometry: where the voxels lie.
        path: the ending names the format: .mhd (with a .zraw or .raw beside it), .mha, .nii, .nii.gz, .nrrd.
        compress: whether to compress, where the format leaves the choice.

    Raises:
        InputError: an unknown ending, or array and geometry disagree.
    """
    import SimpleITK

    path = Path(path)
    if ending_of(path) in (None, ".nhdr"):
        raise InputError(f"{path}: cannot write this ending; use .mhd, .mha, .nii, .nii.gz or .nrrd")
    if array.shape != geometry.shape_zyx:
        raise InputError(f"array of shape {array.shape} does not fit geometry {geometry.shape_zyx}")
    if array.dtype == np.bool_:
        array = array.astype(np.uint8)
    elif array.dtype == np.float16:
        array = array.astype(np.float32)
    image = SimpleITK.GetImageFromArray(np.ascontiguousarray(array))
    image.SetOrigin(geometry.origin_lps)
    image.SetSpacing(geometry.spacing_zyx_mm[::-1])
    image.SetDirection(geometry.axes[:, ::-1].ravel().tolist())
    path.parent.mkdir(parents=True, exist_ok=True)
    # MetaImage names its data file inside the header, so both are written under their final names elsewhere.
    scratch = Path(tempfile.mkdtemp(prefix=".carina-", dir=path.parent))
    try:
        with _itk_errors(path):
            SimpleITK.WriteImage(image, str(scratch / path.name), useCompression=compress)
        for written in sorted(scratch.iterdir(), key=lambda file: file.name == path.name):
            written.replace(path.parent / written.name)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


@contextmanager
def _itk_errors(path: Path) -> Iterator[None]:
    """Turn ITK's errors into one line that names the file, and keep ITK from writing to the terminal."""
    import SimpleITK

    shown = SimpleITK.ProcessObject.GetGlobalWarningDisplay()
    SimpleITK.ProcessObject.SetGlobalWarningDisplay(False)
    said: list[str] = []
    try:
        with caught_stderr() as said:
            yield
    except RuntimeError as error:
        text = str(error)
        if "rthonormal" in text:
            raise GeometryError(
                f"{path}: the axes of the volume are not perpendicular (gantry tilt or shear)"
            ) from error
        # MetaImage tells the reason on standard error only; the exception says "Success".
        reason = "; ".join(line for line in said if line) or text.rpartition("ITK ERROR:")[2]
        reason = " ".join(re.sub(r"\w+IO\(0x[0-9a-f]+\): ", "", reason).split())[:200]
        raise InputError(f"{path}: damaged, incomplete or not what its ending says ({reason})") from error
    finally:
        SimpleITK.ProcessObject.SetGlobalWarningDisplay(shown)


def _reader(path: Path) -> "SimpleITK.ImageFileReader":
    import SimpleITK

    check_name(path)
    if not path.is_file():
        raise InputError(f"{path}: no such file")
    ending = ending_of(path)
    if ending is None:
        raise InputError(f"{path}: not an image file that Carina reads ({', '.join(FORMATS)})")
    reader = SimpleITK.ImageFileReader()
    reader.SetImageIO(_ITK_NAMES[FORMATS[ending]])
    reader.SetFileName(str(path))
    reader.ReadImageInformation()
    return reader


def _check_kind(path: Path, reader: "SimpleITK.ImageFileReader") -> None:
    size = reader.GetSize()
    if reader.GetNumberOfComponents() != 1:
        raise InputError(f"{path}: {reader.GetNumberOfComponents()} values per voxel (colour?); a CT has one")
    if len(size) < 3 or any(extra != 1 for extra in size[3:]):
        raise InputError(f"{path}: {len(size)}-dimensional of size {size}; a CT is one volume of three dimensions")


def _check_voxel_size(path: Path, reader: "SimpleITK.ImageFileReader") -> None:
    """Refuse a file that does not say how large its voxels are: ITK takes 1 mm, and every measure would be wrong."""
    if FORMATS[ending_of(path) or ""] == "nifti":
        check_voxel_size(path)
    elif set(reader.GetSpacing()[:3]) == {1.0}:
        with path.open("rb") as file:
            if not _SPACING.search(file.read(_HEADER_BYTES)):
                raise GeometryError(f"{path}: does not say how large its voxels are; write its spacing into the header")


def _geometry_of(path: Path, reader: "SimpleITK.ImageFileReader") -> Geometry:
    _check_voxel_size(path, reader)
    dimension = reader.GetDimension()
    directions = np.array(reader.GetDirection()).reshape(dimension, dimension)[:3, :3]
    try:
        return Geometry.from_axes(
            reader.GetSize()[2::-1],
            spacing_zyx_mm=reader.GetSpacing()[2::-1],
            origin_lps=reader.GetOrigin()[:3],
            axes=directions[:, ::-1],
        )
    except GeometryError as error:
        raise GeometryError(f"{path}: {error}") from error


def _array_of(image: Any) -> Shaped[np.ndarray, "..."]:
    import SimpleITK

    return np.asarray(SimpleITK.GetArrayFromImage(image))


def _unplaced(path: Path) -> tuple[str, ...]:
    """A warning if a NIfTI file carries no position: both its sform and its qform are marked unknown."""
    with _itk_errors(path):
        reader = _reader(path)
    codes = [reader.GetMetaData(key) for key in ("sform_code", "qform_code") if reader.HasMetaDataKey(key)]
    if codes and all(code.strip() in ("0", "NIFTI_XFORM_UNKNOWN") for code in codes):
        return ("the file does not say where its voxels lie in the patient; positions in mm count from its corner",)
    return ()


def _value_warnings(array: Shaped[np.ndarray, "z y x"]) -> tuple[str, ...]:
    if not np.issubdtype(array.dtype, np.floating):
        return ()
    lost = int(array.size - np.isfinite(array).sum())
    return (f"{lost} voxels were not finite numbers and were taken as air",) if lost else ()

"""A path to a Volume: finds what lies there, chooses the series, and reads it.

Must not know how any format is stored.
"""

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from carina.errors import InputError
from carina.io.dicom_header import looks_like_dicom
from carina.io.dicom_series import Series, read_series_headers, read_volume
from carina.io.image import check_name, describe_image, read_ct_image, series_uid_of
from carina.io.series import SeriesInfo, choose
from carina.volume import FORMATS, Volume, ending_of

Paths = str | Path | Sequence[str | Path]


@dataclass(frozen=True)
class _Found:
    """Files by kind; ``others`` are neither DICOM nor images."""

    dicom: tuple[Path, ...]
    images: tuple[Path, ...]
    others: tuple[Path, ...]


def read_ct(path: Paths, *, series_uid: str | None = None) -> Volume:
    """Read a CT.

    Args:
        path: a DICOM folder (nested, with other files among them), a list of DICOM files, or a MetaImage, NIfTI or
            NRRD file, or a folder with one of those.
        series_uid: the series to read; default: the best one (``carina.io.series.choose``), which the volume's
            warnings name where there was a choice.

    Raises:
        InputError: nothing readable there, or nothing that is a CT; the message says why for each series.
        GeometryError: the slices do not form one regular stack.
    """
    where, found = _name(path), _find(path)
    if found.dicom:
        return _read_dicom(where, found, series_uid)
    return read_ct_image(_one_image(where, found, series_uid))


def list_series(path: Paths) -> list[SeriesInfo]:
    """Every DICOM series and image file at a path, each with the verdict on it and the one ``read_ct`` takes.

    The verdict rests on headers; damaged pixels are found when they are read.

    Raises:
        InputError: nothing there is DICOM or an image.
    """
    where, found = _name(path), _find(path)
    series = read_series_headers(found.dicom)
    infos = [one.info for one in series] + [describe_image(image) for image in found.images]
    if not infos:
        raise _nothing(where, found)
    usable = [info for info in infos if info.usable and (info.format == "dicom" or not found.dicom)]
    if not usable or (not found.dicom and len(infos) > 1) or _patients(series) > 1:
        return infos
    best, reason = choose(usable)
    return [replace(info, chosen=True, reason=reason) if info is best else info for info in infos]


def _read_dicom(where: str, found: _Found, series_uid: str | None) -> Volume:
    series = read_series_headers(found.dicom)
    if series_uid is not None:
        for one in series:
            if one.info.series_uid == series_uid:
                return read_volume(one)
        raise InputError(f"{where}: no series {series_uid}; found {_some([_uid_of(one) for one in series])}")
    usable = [one for one in series if one.stack is not None]
    if not usable:
        raise _none_usable(where, series)
    if _patients(series) > 1:
        raise InputError(
            f"{where}: CT series of {_patients(series)} patients; give one patient's folder or name one of the "
            f"series {_some([_uid_of(one) for one in usable])}"
        )
    best, reason = choose([one.info for one in usable])
    warnings = [f"series {best.series_uid} was chosen: {reason}"] if len(usable) > 1 else []
    warnings += [f"series {one.info.series_uid} was refused: {one.info.verdict}" for one in series if one.stack is None]
    if nameless := [one.info.path for one in series if one.info.series_uid is None]:
        warnings.append(f"DICOM files without a series UID were left out: {_some(nameless)}")
    if found.images:
        warnings.append(f"image files beside the DICOM series were left out: {_some([i.name for i in found.images])}")
    return read_volume(next(one for one in usable if one.info is best), warnings)


def _one_image(where: str, found: _Found, series_uid: str | None) -> Path:
    images = found.images
    if series_uid is not None:
        images = tuple(image for image in images if series_uid_of(image) == series_uid)
        if not images and found.images:
            raise InputError(f"{where}: no image file is named by series {series_uid}; found {_some(found.images)}")
    if not images:
        raise _nothing(where, found)
    if len(images) > 1:
        raise InputError(
            f"{where}: {len(images)} image files ({_some([image.name for image in images])}); give one of them"
        )
    return images[0]


def _find(path: Paths) -> _Found:
    dicom: list[Path] = []
    images: list[Path] = []
    others: list[Path] = []
    paths = [path] if isinstance(path, str | Path) else list(path)
    for file in dict.fromkeys(file for one in paths for file in _files(Path(one))):
        check_name(file)
        if ending_of(file) is not None:
            images.append(file)
            continue
        try:
            kind = dicom if file.name.upper() != "DICOMDIR" and looks_like_dicom(file) else others
        except OSError as error:
            raise InputError(f"{file}: cannot be opened ({error.strerror or error})") from error
        kind.append(file)
    return _Found(tuple(dicom), tuple(images), tuple(others))


def _files(path: Path) -> Iterator[Path]:
    """The file itself, or all files below a folder in a fixed order; hidden ones are passed over."""
    if not path.exists():
        raise InputError(f"{path}: no such file or folder")
    if path.is_file():
        yield path
        return
    if not path.is_dir():
        raise InputError(f"{path}: neither a file nor a folder")
    for _, files in folders_below(path):
        yield from files


def folders_below(path: Path) -> Iterator[tuple[Path, list[Path]]]:
    """A folder and all below it with the files in each, in a fixed order; hidden ones are passed over.

    A link to a folder is followed, once: cohorts are often made of links, and links may lead round in a circle.

    Raises:
        InputError: a folder may not be listed.
    """
    seen: set[str] = set()
    for folder, below, names in os.walk(path, onerror=_cannot_list, followlinks=True):
        real = os.path.realpath(folder)
        if real in seen:
            below.clear()
            continue
        seen.add(real)
        below[:] = sorted(name for name in below if not name.startswith((".", "__MACOSX")))
        files = (Path(folder, name) for name in sorted(names) if not name.startswith("."))
        yield Path(folder), [file for file in files if file.is_file()]


def _cannot_list(error: OSError) -> None:
    raise InputError(f"{error.filename}: cannot be listed ({error.strerror or error})") from error


def _patients(series: Sequence[Series]) -> int:
    return len({one.patient_id for one in series if one.stack is not None})


def _nothing(where: str, found: _Found) -> InputError:
    if not found.others:
        return InputError(f"{where}: no files there; expected DICOM, or one of {', '.join(FORMATS)}")
    names = _some([file.name for file in found.others])
    if any(file.name.upper() == "DICOMDIR" for file in found.others):
        names += "; a DICOMDIR is only an index, give the folder of the images"
    return InputError(f"{where}: neither DICOM nor an image ({', '.join(FORMATS)}); found {names}")


def _none_usable(where: str, series: Sequence[Series]) -> InputError:
    if len(series) == 1 and series[0].error is not None:
        return series[0].error
    verdicts = [f"{_uid_of(one)}: {one.info.verdict}" for one in series]
    return InputError(f"{where}: none of {len(series)} series is a CT that can be read. {_some(verdicts, '; ')}")


def _uid_of(series: Series) -> str:
    return series.info.series_uid or series.info.path


def _name(path: Paths) -> str:
    if isinstance(path, str | Path):
        return str(path)
    paths = list(path)
    return str(paths[0]) if len(paths) == 1 else f"{len(paths)} files"


def _some(names: Sequence[object], separator: str = ", ") -> str:
    shown = separator.join(str(name) for name in names[:3])
    return f"{shown} and {len(names) - 3} more" if len(names) > 3 else shown

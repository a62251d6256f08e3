"""DICOM instances to series: grouping, the verdict on each series, and reading one as a Volume.

Must not know other formats, nor how a series is chosen among several (``carina.io.series``).
"""

import filecmp
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from carina.errors import InputError
from carina.io.dicom_header import Instance, Slice, quiet_pydicom, read_instance, text_of
from carina.io.dicom_pixels import is_lossy, read_slices
from carina.io.dicom_stack import Stack, stack
from carina.io.hu_values import check_plausible
from carina.io.series import SeriesInfo
from carina.volume import SliceRef, Source, Volume


@dataclass(frozen=True)
class Series:
    """The instances that share a SeriesInstanceUID.

    Attributes:
        info: what is known of it, with the verdict.
        patient_id: PatientID of its first instance, "" where absent.
        instances: all of them, refused ones too.
        stack: its slices in order; None if the series is refused.
        error: the refusal as it is to be raised; None if usable.
        warnings: oddities of the headers that were let pass.
    """

    info: SeriesInfo
    patient_id: str
    instances: tuple[Instance, ...]
    stack: Stack | None
    error: InputError | None
    warnings: tuple[str, ...] = ()


def read_series_headers(paths: Iterable[Path]) -> list[Series]:
    """Read the headers of DICOM files and judge every series that they make up.

    Files without a SeriesInstanceUID make a series of their own each.
    """
    groups: dict[str, list[Instance]] = {}
    with quiet_pydicom():
        for path in paths:
            instance = read_instance(path)
            groups.setdefault(instance.series_uid or str(path), []).append(instance)
        return [_judge(instances) for instances in groups.values()]


def read_volume(series: Series, extra_warnings: Sequence[str] = ()) -> Volume:
    """Decode a series.

    Args:
        series: what ``read_series_headers`` found.
        extra_warnings: what the caller has to say about the choice of this series.

    Raises:
        InputError: the series was refused, or its pixels cannot be decoded.
    """
    if series.stack is None:
        raise series.error or InputError(f"{series.info.path}: {series.info.verdict}")
    slices, header = series.stack.slices, series.instances[0].header
    warnings = [*extra_warnings, *series.warnings, *series.stack.warnings]
    with quiet_pydicom():
        hu = read_slices(slices)
        if is_lossy(slices[0].path):
            warnings.append("the images were compressed with loss")
        warnings.extend(check_plausible(hu, series.info.path))
        source = Source(
            path=series.info.path,
            format="dicom",
            series_uid=series.info.series_uid,
            study_uid=series.info.study_uid,
            frame_of_reference_uid=text_of(header, "FrameOfReferenceUID") or None,
            patient_id=text_of(header, "PatientID") or None,
            slices=tuple(SliceRef(s.sop_instance_uid, s.instance_number, str(s.path)) for s in slices),
            warnings=tuple(warnings),
        )
    return Volume(hu, series.stack.geometry, source)


def _judge(instances: list[Instance]) -> Series:
    kept = [one for one in instances if not one.refusal]
    warnings = []
    header = (kept or instances)[0].header
    info = SeriesInfo(
        path=str(instances[0].path.parent if len(instances) > 1 else instances[0].path),
        format="dicom",
        usable=False,
        verdict="",
        images=sum(len(one.slices) or 1 for one in instances),
        series_uid=text_of(header, "SeriesInstanceUID") or None,
        study_uid=text_of(header, "StudyInstanceUID") or None,
        modality=text_of(header, "Modality"),
        description=text_of(header, "SeriesDescription"),
        kernel=text_of(header, "ConvolutionKernel"),
        original="DERIVED" not in text_of(header, "ImageType").upper(),
    )
    patient_id = text_of(header, "PatientID")

    def refused(error: InputError) -> Series:
        where = f"{info.path}, series {info.series_uid}" if len(instances) > 1 else info.path
        verdict = replace(info, usable=False, verdict=str(error))
        return Series(verdict, patient_id, tuple(instances), None, type(error)(f"{where}: {error}"))

    left_out = Counter(one.refusal for one in instances if one.refusal)
    if not kept:
        return refused(InputError("; ".join(left_out)))
    warnings += [f"{count} of the series' files left out: {reason}" for reason, count in left_out.items()]
    try:
        slices, copies = _without_copies([one for instance in kept for one in instance.slices])
        placed = stack(slices, _number(text_of(header, "SliceThickness")))
    except InputError as error:
        said = f"{error} ({'; '.join(warnings)})" if warnings else str(error)
        return refused(type(error)(said))
    if copies:
        warnings.append(f"{copies} files are copies of others and were read once")
    if abs(_number(text_of(header, "GantryDetectorTilt")) or 0.0) > 0.1:
        warnings.append("the scanner's gantry was tilted; positions say that the stack was straightened since")
    verdict = replace(info, usable=True, verdict=f"CT, {len(slices)} slices").with_geometry(placed.geometry)
    ordered = tuple(sorted(instances, key=lambda one: bool(one.refusal)))
    return Series(verdict, patient_id, ordered, placed, None, tuple(warnings))


def _without_copies(slices: list[Slice]) -> tuple[list[Slice], int]:
    """Leave out files that are byte for byte the same instance as another one."""
    first: dict[tuple[str, int], Slice] = {}
    copies = 0
    for one in slices:
        known = first.setdefault((one.sop_instance_uid or str(one.path), one.frame), one)
        if known is one:
            continue
        if not filecmp.cmp(known.path, one.path, shallow=False):
            raise InputError(
                f"{known.path.name} and {one.path.name} differ but carry the same SOPInstanceUID; remove one of them"
            )
        copies += 1
    return list(first.values()), copies


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None

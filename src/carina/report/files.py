"""All outputs of one case, written so that the case's folder shows one whole report or none.

Must not know what stands in the files.
"""

import shutil
import uuid
from collections.abc import Collection
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from jaxtyping import Integer

from carina.errors import UsageError
from carina.findings import Report
from carina.report.html import render_html
from carina.report.masks import check_labels, write_mask
from carina.report.tables import findings_csv
from carina.volume import Volume

FORMATS = {
    "csv": "findings.csv",
    "html": "report.html",
    "mask": "mask.nii.gz",
    "seg": "findings.seg.dcm",
    "sr": "findings.sr.dcm",
    "keyimages": "keyimages",
    "json": "report.json",
}
"""Format to the name of its file or folder, in the order in which they appear in an existing folder."""

DICOM_FORMATS = ("seg", "sr", "keyimages")
"""Formats that need the extra ``dicom``, and DICOM as input."""


def write_report(
    report: Report,
    folder: Path,
    formats: Collection[str],
    *,
    volume: Volume,
    labels: Integer[np.ndarray, "z y x"] | None,
) -> dict[str, Path]:
    """Write a report into the folder of its case.

    The files are made beside the folder and moved in when all are there. A new folder appears at once with all of
    them; in an existing one each file is replaced whole, ``report.json`` last, and files of an earlier report that
    are not written now are removed, since they would tell of another run. Other files are left alone.

    Args:
        report: what to write.
        folder: the case's own folder; parents are made.
        formats: any of ``FORMATS``.
        volume: the CT that was analysed, for the pictures and for the grid of the mask.
        labels: on the volume's grid, 0 or the ``id`` of the finding a voxel belongs to; None where nothing was
            segmented, then pictures have no outline and ``mask`` and ``seg`` cannot be written.

    Returns:
        The path of each format that was written; without findings there is no ``seg`` and there are no
        ``keyimages``, and ``sr`` says so.

    Raises:
        UsageError: what ``check_formats`` refuses, ``mask`` or ``seg`` without labels, or a file where the folder
            should be.
        InputError: the labels do not fit the volume or the report, or a DICOM format and an input that is not DICOM.
    """
    check_formats(formats)
    if folder.exists() and not folder.is_dir():
        raise UsageError(f"{folder} is a file; the report needs a folder of its own")
    if labels is None and (wanting := sorted({"mask", "seg"} & set(formats))):
        raise UsageError(f"the format {wanting[0]} needs a segmentation, and this report has none")
    staging = folder.parent / f".{folder.name[:64]}.{uuid.uuid4().hex[:12]}.partial"
    staging.mkdir(parents=True)
    try:
        _write_all(report, staging, formats, volume, labels)
        written = [name for name in FORMATS if (staging / FORMATS[name]).exists()]
        _publish(staging, folder)
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    return {name: folder / FORMATS[name] for name in written}


def check_formats(formats: Collection[str]) -> None:
    """Refuse formats that cannot be written here, before anything is analysed.

    Raises:
        UsageError: an unknown format, ``sr`` without the ``seg`` that it refers to, or a DICOM format without the
            extra ``dicom``.
    """
    unknown = sorted(set(formats) - set(FORMATS))
    if unknown:
        raise UsageError(f"unknown format {', '.join(unknown)}; known are {', '.join(sorted(FORMATS))}")
    if "sr" in formats and "seg" not in formats:
        raise UsageError("the format sr refers to the segments of seg; ask for seg,sr")
    wanting = [name for name in DICOM_FORMATS if name in formats]
    if wanting and find_spec("highdicom") is None:
        raise UsageError(f"the format {wanting[0]} needs the extra dicom: pip install 'carina-ct[dicom]'")


def _write_all(
    report: Report,
    folder: Path,
    formats: Collection[str],
    volume: Volume,
    labels: Integer[np.ndarray, "z y x"] | None,
) -> None:
    if "json" in formats:
        (folder / FORMATS["json"]).write_text(report.to_json() + "\n", encoding="utf-8")
    if "csv" in formats:
        (folder / FORMATS["csv"]).write_text(findings_csv(report), encoding="utf-8", newline="")
    if "html" in formats:
        page = render_html(report, volume=volume, labels=labels)
        (folder / FORMATS["html"]).write_text(page, encoding="utf-8")
    if "mask" in formats and labels is not None:
        write_mask(labels, report, volume.geometry, folder / FORMATS["mask"])
    if set(DICOM_FORMATS) & set(formats):
        _write_dicom(report, folder, formats, volume, labels)


def _write_dicom(
    report: Report,
    folder: Path,
    formats: Collection[str],
    volume: Volume,
    labels: Integer[np.ndarray, "z y x"] | None,
) -> None:
    from carina.report.dicom_context import DicomContext
    from carina.report.dicom_keyimages import key_images
    from carina.report.dicom_seg import segmentation
    from carina.report.dicom_sr import structured_report

    context = DicomContext.of(report, volume)
    if "seg" in formats and labels is not None:
        check_labels(labels, report, volume.geometry)
        seg = segmentation(context, labels)
        if seg is not None:
            context.save(seg, folder / FORMATS["seg"])
        if "sr" in formats:
            context.save(structured_report(context, seg, labels), folder / FORMATS["sr"])
    if "keyimages" in formats and report.findings:
        (folder / FORMATS["keyimages"]).mkdir()
        for image in key_images(context):
            context.save(image, folder / FORMATS["keyimages"] / f"{image.InstanceNumber:03d}.dcm")


def _publish(staging: Path, folder: Path) -> None:
    if not folder.exists():
        staging.rename(folder)
        return
    # While files change places the folder holds no report.json, so whoever waits for it never reads a mixture.
    (folder / FORMATS["json"]).unlink(missing_ok=True)
    for name in FORMATS.values():
        if (folder / name).is_dir():
            shutil.rmtree(folder / name)
        if (staging / name).exists():
            (staging / name).replace(folder / name)
        else:
            (folder / name).unlink(missing_ok=True)

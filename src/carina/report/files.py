"""All outputs of one case, written so that the case's folder shows one whole report or none.

Must not know what stands in the files.
"""

import shutil
import uuid
from collections.abc import Collection
from pathlib import Path

import numpy as np
from jaxtyping import Integer

from carina.errors import UsageError
from carina.findings import Report
from carina.report.html import render_html
from carina.report.masks import write_mask
from carina.report.tables import findings_csv
from carina.volume import Volume

FORMATS = {"csv": "findings.csv", "html": "report.html", "mask": "mask.nii.gz", "json": "report.json"}
"""Format to file name, in the order in which the files appear in an existing folder."""


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
        formats: any of ``json``, ``csv``, ``html`` and ``mask``.
        volume: the CT that was analysed, for the pictures and for the grid of the mask.
        labels: on the volume's grid, 0 or the ``id`` of the finding a voxel belongs to; None where nothing was
            segmented, then pictures have no outline and ``mask`` cannot be written.

    Returns:
        The path of each format that was written.

    Raises:
        UsageError: an unknown format, ``mask`` without labels, or a file where the folder should be.
        InputError: the labels do not fit the volume or the report.
    """
    unknown = sorted(set(formats) - set(FORMATS))
    if unknown:
        raise UsageError(f"unknown format {', '.join(unknown)}; known are {', '.join(sorted(FORMATS))}")
    if folder.exists() and not folder.is_dir():
        raise UsageError(f"{folder} is a file; the report needs a folder of its own")
    if "mask" in formats and labels is None:
        raise UsageError("the format mask needs a segmentation, and this report has none")
    staging = folder.parent / f".{folder.name[:64]}.{uuid.uuid4().hex[:12]}.partial"
    staging.mkdir(parents=True)
    try:
        _write_all(report, staging, formats, volume, labels)
        _publish(staging, folder)
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    return {name: folder / FORMATS[name] for name in FORMATS if name in formats}


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


def _publish(staging: Path, folder: Path) -> None:
    if not folder.exists():
        staging.rename(folder)
        return
    # While files change places the folder holds no report.json, so whoever waits for it never reads a mixture.
    (folder / FORMATS["json"]).unlink(missing_ok=True)
    for name in FORMATS.values():
        if (staging / name).exists():
            (staging / name).replace(folder / name)
        else:
            (folder / name).unlink(missing_ok=True)

"""``findings.csv``: LUNA16's columns first, so that its tools read the file, then Carina's own.

Must not know pictures or HTML.
"""

import csv
import io
import re

from carina.findings import Report

COLUMNS = (
    "seriesuid",
    "coordX",
    "coordY",
    "coordZ",
    "probability",
    "id",
    "diameter_mm",
    "volume_mm3",
    "p_malignant",
    "mean_hu",
    "segmentation_score",
    "classification_score",
    "slice_index",
    "instance_number",
    "sop_instance_uid",
    "long_axis_mm",
    "short_axis_mm",
    "mean_axis_mm",
    "corrected_volume_mm3",
    "solid_volume_mm3",
)


def findings_csv(report: Report) -> str:
    """The findings as CSV text, most probable first.

    ``coordX, coordY, coordZ`` are ``center_lps`` in mm and ``probability`` is ``p_nodule``. ``seriesuid`` is the
    case's name where the input carries no UID, with control characters as ``_``; fields that the input does not
    have are empty.
    """
    # A file's name may hold line breaks, which would break the table for readers that go line by line.
    series = re.sub(r"[\x00-\x1f\x7f]", "_", report.input.series_uid or report.case_id)
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(COLUMNS)
    for finding in sorted(report.findings, key=lambda f: (-f.p_nodule, f.id)):
        x, y, z = finding.center_lps
        table.writerow(
            [
                series,
                f"{x:.3f}",
                f"{y:.3f}",
                f"{z:.3f}",
                f"{finding.p_nodule:.9g}",
                finding.id,
                f"{finding.diameter_mm:.3f}",
                f"{finding.volume_mm3:.3f}",
                f"{finding.p_malignant:.9g}",
                f"{finding.mean_hu:.1f}",
                _score(finding.segmentation_score),
                _score(finding.classification_score),
                finding.slice_index,
                "" if finding.instance_number is None else finding.instance_number,
                finding.sop_instance_uid or "",
                _size(finding.long_axis_mm),
                _size(finding.short_axis_mm),
                _size(finding.mean_axis_mm),
                _size(finding.corrected_volume_mm3),
                _size(finding.solid_volume_mm3),
            ]
        )
    return text.getvalue()


def _score(value: float | None) -> str:
    return "" if value is None else f"{value:.9g}"


def _size(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"

"""Key images: the slice of each finding as a DICOM secondary capture (PS3.3 A.8.1) with the finding marked.

The slice is shown as it is stored, so that it looks like the one in the viewer. Needs the extra ``dicom``. Must not
know the other objects.
"""

import math
from typing import Any

import numpy as np
from highdicom.sc import SCImage
from jaxtyping import UInt8
from PIL import Image, ImageDraw, ImageFont
from pydicom.dataset import Dataset
from pydicom.valuerep import DSfloat

from carina import hu
from carina.findings import Finding
from carina.report.dicom_context import RESEARCH, DicomContext, new_uid
from carina.report.html import percent

SERIES_NUMBER = 9103

SHOWN = 20
"""Findings beyond this many, the least probable, have no key image."""

_LEAST_WIDTH = 512
_MARK = (255, 210, 0)
_MARGIN_MM = 3.0


def key_images(context: DicomContext) -> list[SCImage]:
    """One image per finding, the most probable first, as instances of one series."""
    findings = sorted(context.report.findings, key=lambda f: (-f.p_nodule, f.id))[:SHOWN]
    about = context.about("Carina key images", SERIES_NUMBER)
    return [
        _capture(context, finding, about | {"sop_instance_uid": new_uid(), "instance_number": number})
        for number, finding in enumerate(findings, start=1)
    ]


def picture(context: DicomContext, finding: Finding) -> UInt8[np.ndarray, "rows columns 3"]:
    """The key slice in the lung window, enlarged by a whole factor where it is small, with a ring and a caption."""
    values = context.volume.hu[context.key_slice(finding)]
    low, high = hu.LUNG_WINDOW
    grey = np.clip((values.astype(np.float32) - low) / (high - low), 0, 1)
    factor = _enlarged(context)
    image = Image.fromarray(np.kron(np.rint(255 * grey).astype(np.uint8), np.ones((factor, factor), np.uint8)))
    canvas = image.convert("RGB")
    draw = ImageDraw.Draw(canvas)
    row, column, radius_mm = context.circle(finding)
    _, row_mm, column_mm = context.volume.geometry.spacing_zyx_mm
    y, x = (row + 0.5) * factor, (column + 0.5) * factor
    tall, wide = ((radius_mm + _MARGIN_MM) / mm * factor for mm in (row_mm, column_mm))
    draw.ellipse((x - wide, y - tall, x + wide, y + tall), outline=_MARK, width=2)
    size = canvas.width // 32
    font = ImageFont.load_default(size)
    draw.text((x + wide + 3, y - tall), str(finding.id), fill=_MARK, font=font)
    for number, line in enumerate(reversed(caption(finding)), start=1):
        place = (size // 2, canvas.height - round(1.3 * size * number) - 2)
        draw.text(place, line, fill=_MARK, font=font, stroke_width=2, stroke_fill=(0, 0, 0))
    return np.asarray(canvas)


def caption(finding: Finding) -> tuple[str, str]:
    """What is written into the picture; the font has no no-break space."""
    probability = percent(finding.p_nodule).replace("\N{NO-BREAK SPACE}", " ")
    first = f"Carina finding {finding.id}: nodule {probability}, {_size(finding)}"
    return first, RESEARCH[0].upper() + RESEARCH[1:]


def _size(finding: Finding) -> str:
    if finding.long_axis_mm is None or finding.short_axis_mm is None:
        return f"{finding.diameter_mm:.1f} mm"
    return f"{finding.long_axis_mm:.1f} x {finding.short_axis_mm:.1f} mm"


def _enlarged(context: DicomContext) -> int:
    _, rows, columns = context.volume.geometry.shape_zyx
    return math.ceil(_LEAST_WIDTH / min(rows, columns))


def _capture(context: DicomContext, finding: Finding, about: dict[str, Any]) -> SCImage:
    header = context.headers[context.key_slice(finding)]
    geometry = context.volume.geometry
    factor = _enlarged(context)
    right, down = _letters(geometry.axes[:, 2]), _letters(geometry.axes[:, 1])
    image = SCImage.from_ref_dataset(
        ref_dataset=header,
        pixel_array=picture(context, finding),
        photometric_interpretation="RGB",
        bits_allocated=8,
        coordinate_system="PATIENT",
        patient_orientation=(right[0], down[0]),
        **about,
    )
    image.PixelSpacing = [DSfloat(mm / factor, auto_format=True) for mm in geometry.spacing_zyx_mm[1:]]
    image.PatientOrientation = [right, down]  # highdicom takes one letter of each only
    image.copy_patient_and_study_information(header)
    image.BodyPartExamined = "CHEST"
    image.BurnedInAnnotation = "NO"  # of the patient: the caption names the finding only
    image.ImageComments = f"Finding {finding.id}, {RESEARCH}"
    source = Dataset()
    source.ReferencedSOPClassUID = header.SOPClassUID
    source.ReferencedSOPInstanceUID = header.SOPInstanceUID
    image.SourceImageSequence = [source]
    return image


def _letters(direction_lps: np.ndarray) -> str:
    """A direction in the patient as PatientOrientation writes it (PS3.3 C.7.6.1.1.1), the main one first."""
    named = zip(direction_lps, ("LR", "PA", "HF"), strict=True)
    main = sorted(((abs(part), letters[int(part < 0)]) for part, letters in named), reverse=True)
    return "".join(letter for size, letter in main if size > 0.2)

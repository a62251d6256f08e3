"""The outlined regions as a DICOM segmentation (PS3.3 A.51): BINARY, one segment per finding.

Needs the extra ``dicom``. Must not know the structured report.
"""

import numpy as np
from highdicom.color import CIELabColor
from highdicom.seg import (
    SegmentAlgorithmTypeValues,
    Segmentation,
    SegmentationTypeValues,
    SegmentDescription,
)
from jaxtyping import Integer

from carina.findings import Finding
from carina.report import dicom_codes as codes
from carina.report.dicom_context import DicomContext, tracking_id

SERIES_NUMBER = 9101


def segmentation(context: DicomContext, labels: Integer[np.ndarray, "z y x"]) -> Segmentation | None:
    """The segmentation of a report.

    Segments are numbered from 1 in the order of the findings' ids; findings without a voxel have none.

    Args:
        context: the report and its CT.
        labels: on the volume's grid, 0 or the ``id`` of a voxel's finding.

    Returns:
        None where no voxel belongs to a finding: DICOM knows no segmentation without segments.
    """
    present = segments(context, labels)
    if not present:
        return None
    number_of = np.zeros(int(labels.max()) + 1, np.uint8)
    number_of[[finding.id for finding in present]] = np.arange(1, len(present) + 1)
    # Only the slices between the first and the last marked one are handed over and referred to.
    marked = np.flatnonzero(labels.any(axis=(1, 2)))
    part = slice(int(marked[0]), int(marked[-1]) + 1)
    return Segmentation(
        source_images=context.headers[part],
        pixel_array=number_of[labels[part]],
        segmentation_type=SegmentationTypeValues.BINARY,
        segment_descriptions=[_describe(context, n, finding) for n, finding in enumerate(present, start=1)],
        content_label="CARINA_NODULES",
        content_description="Lung nodules, for research use only",
        **context.about("Carina nodule segmentation", SERIES_NUMBER),
    )


def segments(context: DicomContext, labels: Integer[np.ndarray, "z y x"]) -> list[Finding]:
    """The findings that have voxels, in the order of their segments."""
    present = set(np.unique(labels).tolist())
    return sorted((f for f in context.report.findings if f.id in present), key=lambda f: f.id)


def _describe(context: DicomContext, number: int, finding: Finding) -> SegmentDescription:
    hue = 2.4 * number  # the golden angle: neighbouring numbers look different
    return SegmentDescription(
        segment_number=number,
        segment_label=f"Nodule {finding.id}",
        segmented_property_category=codes.ABNORMAL_STRUCTURE,
        segmented_property_type=codes.NODULE,
        algorithm_type=SegmentAlgorithmTypeValues.AUTOMATIC,
        algorithm_identification=context.algorithm_sequence(),
        tracking_uid=context.tracking_uids[finding.id],
        tracking_id=tracking_id(finding),
        anatomic_regions=[codes.LUNG],
        display_color=CIELabColor(75.0, 60 * float(np.cos(hue)), 60 * float(np.sin(hue))),
    )

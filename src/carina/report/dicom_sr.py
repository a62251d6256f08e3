"""The findings as a DICOM structured report: Comprehensive 3D SR after TID 1500 (PS3.16).

Each finding has a volumetric group that refers to its segment, and a planar group with a circle on its key slice for
viewers that show no groups of segments; both carry the same tracking UID and the same measurements. A group without a
region speaks of the whole CT. Needs the extra ``dicom``. Must not know how regions were found.
"""

from collections.abc import Iterator, Sequence

import numpy as np
from highdicom.seg import Segmentation
from highdicom.sr import (
    CodedConcept,
    Comprehensive3DSR,
    DeviceObserverIdentifyingAttributes,
    FindingSite,
    GraphicTypeValues,
    ImageRegion,
    Measurement,
    MeasurementReport,
    MeasurementsAndQualitativeEvaluations,
    ObservationContext,
    ObserverContext,
    PlanarROIMeasurementsAndQualitativeEvaluations,
    QualitativeEvaluation,
    ReferencedSegment,
    RelationshipTypeValues,
    SourceImageForRegion,
    SourceSeriesForSegmentation,
    TextContentItem,
    TrackingIdentifier,
    VolumetricROIMeasurementsAndQualitativeEvaluations,
)
from jaxtyping import Float64, Integer
from pydicom.uid import generate_uid

from carina.findings import Finding
from carina.report import dicom_codes as codes
from carina.report.dicom_context import MANUFACTURER, DicomContext, new_uid, tracking_id

SERIES_NUMBER = 9102

_SQUARE = 1e-3
"""Pixels whose sides differ by less than this share are square."""


def structured_report(
    context: DicomContext, seg: Segmentation | None, labels: Integer[np.ndarray, "z y x"]
) -> Comprehensive3DSR:
    """The report of a case; without findings it says that there are none.

    Args:
        context: the report and its CT.
        seg: the segmentation whose segments are referred to; None where there is none.
        labels: what it was made of.
    """
    present, voxels = np.unique(labels[labels > 0], return_counts=True)
    segment_mm3 = dict(zip(present.tolist(), voxels * context.volume.geometry.voxel_volume_mm3, strict=True))
    groups: list[
        MeasurementsAndQualitativeEvaluations
        | VolumetricROIMeasurementsAndQualitativeEvaluations
        | PlanarROIMeasurementsAndQualitativeEvaluations
    ] = [_whole_ct(context)]
    numbers = _segment_numbers(seg)
    for finding in context.report.findings:
        measurements = list(_measurements(finding, segment_mm3.get(finding.id)))
        number = numbers.get(context.tracking_uids[finding.id])
        if seg is not None and number is not None:
            groups.append(_volumetric(context, finding, measurements, seg, number))
        groups.append(_planar(context, finding, measurements))
    content = MeasurementReport(
        observation_context=ObservationContext(observer_device_context=_observer(context)),
        procedure_reported=codes.CT_CHEST,
        imaging_measurements=groups,
        title=codes.REPORT_TITLE,
    )
    for text in (context.report.notice, context.report.patient.method, *context.report.warnings):
        comment = TextContentItem(codes.COMMENT, text, RelationshipTypeValues.CONTAINS)
        content[0].ContentSequence.append(comment)
    evidence = [*context.headers, seg] if seg is not None else list(context.headers)
    return Comprehensive3DSR(
        evidence=evidence,
        content=content[0],
        is_complete=True,
        is_final=False,
        is_verified=False,
        coding_schemes=[codes.PRIVATE],
        **context.about("Carina nodule report", SERIES_NUMBER),
    )


def _observer(context: DicomContext) -> ObserverContext:
    version = context.report.carina_version
    return ObserverContext(
        observer_type=codes.DEVICE,
        observer_identifying_attributes=DeviceObserverIdentifyingAttributes(
            uid=str(generate_uid(entropy_srcs=["carina", version, context.serial_number])),
            name="Carina",
            manufacturer_name=MANUFACTURER,
            model_name=f"Carina {version}",
            serial_number=context.serial_number,
        ),
    )


def _whole_ct(context: DicomContext) -> MeasurementsAndQualitativeEvaluations:
    report = context.report
    measurements = [Measurement(codes.THRESHOLD, 100 * report.threshold, codes.PERCENT)]
    if report.patient.p_malignant is not None:
        percent = 100 * report.patient.p_malignant
        measurements.append(Measurement(codes.PROBABILITY_OF_CANCER, percent, codes.PERCENT))
    summary = codes.WITH_FINDINGS if report.findings else codes.WITHOUT_FINDINGS
    return MeasurementsAndQualitativeEvaluations(
        tracking_identifier=TrackingIdentifier(uid=new_uid(), identifier="Whole CT"),
        algorithm_id=context.algorithm(),
        finding_sites=[FindingSite(codes.LUNG)],
        measurements=measurements,
        qualitative_evaluations=[QualitativeEvaluation(codes.SUMMARY, summary)],
    )


def _volumetric(
    context: DicomContext, finding: Finding, measurements: Sequence[Measurement], seg: Segmentation, number: int
) -> VolumetricROIMeasurementsAndQualitativeEvaluations:
    series = str(context.headers[0].SeriesInstanceUID)
    return VolumetricROIMeasurementsAndQualitativeEvaluations(
        tracking_identifier=_tracking(context, finding),
        referenced_segment=ReferencedSegment(
            str(seg.SOPClassUID), str(seg.SOPInstanceUID), number, source_series=SourceSeriesForSegmentation(series)
        ),
        finding_type=codes.NODULE,
        finding_category=codes.ABNORMAL_STRUCTURE,
        finding_sites=[FindingSite(codes.LUNG)],
        algorithm_id=context.algorithm(),
        measurements=measurements,
    )


def _planar(
    context: DicomContext, finding: Finding, measurements: Sequence[Measurement]
) -> PlanarROIMeasurementsAndQualitativeEvaluations:
    header = context.headers[context.key_slice(finding)]
    kind, points = _outline(context, finding)
    return PlanarROIMeasurementsAndQualitativeEvaluations(
        tracking_identifier=_tracking(context, finding),
        referenced_region=ImageRegion(
            kind, points, SourceImageForRegion(str(header.SOPClassUID), str(header.SOPInstanceUID))
        ),
        finding_type=codes.NODULE,
        finding_category=codes.ABNORMAL_STRUCTURE,
        finding_sites=[FindingSite(codes.LUNG)],
        algorithm_id=context.algorithm(),
        measurements=measurements,
    )


def _tracking(context: DicomContext, finding: Finding) -> TrackingIdentifier:
    return TrackingIdentifier(uid=context.tracking_uids[finding.id], identifier=tracking_id(finding))


def _measurements(finding: Finding, segment_mm3: float | None) -> Iterator[Measurement]:
    lengths: tuple[tuple[CodedConcept, float | None, CodedConcept], ...] = (
        (codes.LONG_AXIS, finding.long_axis_mm, codes.MILLIMETRE),
        (codes.SHORT_AXIS, finding.short_axis_mm, codes.MILLIMETRE),
        (codes.MEAN_AXIS, finding.mean_axis_mm, codes.MILLIMETRE),
        (codes.SPHERE_DIAMETER, finding.diameter_mm, codes.MILLIMETRE),
        (codes.CORRECTED_VOLUME, finding.corrected_volume_mm3, codes.CUBIC_MILLIMETRE),
        (codes.SOLID_VOLUME, finding.solid_volume_mm3, codes.CUBIC_MILLIMETRE),
        (codes.CERTAINTY, 100 * finding.p_nodule, codes.PERCENT),
        (codes.MALIGNANT_IF_NODULE, 100 * finding.p_malignant, codes.PERCENT),
        (codes.PROBABILITY_OF_CANCER, 100 * finding.p_nodule * finding.p_malignant, codes.PERCENT),
    )
    for name, value, unit in lengths:
        if value is not None:
            yield Measurement(name, value, unit)
    if segment_mm3 is not None:
        # Of the segment itself, so that whoever counts its voxels finds the same.
        yield Measurement(codes.VOLUME, segment_mm3, codes.CUBIC_MILLIMETRE, method=codes.COUNTED)
    yield Measurement(codes.ATTENUATION, finding.mean_hu, codes.HOUNSFIELD, derivation=codes.MEAN)


def _outline(context: DicomContext, finding: Finding) -> tuple[GraphicTypeValues, Float64[np.ndarray, "points 2"]]:
    """The circle on the key slice as (column, row), where 0.5 is the first pixel's centre (PS3.3 C.18.6.1.2)."""
    row, column, radius_mm = context.circle(finding)
    _, row_mm, column_mm = context.volume.geometry.spacing_zyx_mm
    tall, wide = radius_mm / row_mm, radius_mm / column_mm
    center = np.array([column + 0.5, row + 0.5])
    across, down = np.array([wide, 0.0]), np.array([0.0, tall])
    if abs(tall / wide - 1) < _SQUARE:
        return GraphicTypeValues.CIRCLE, np.stack([center, center + across])
    # A circle in the patient is an ellipse in pixels that are not square: ends of the major axis, then the minor.
    major, minor = (across, down) if wide > tall else (down, across)
    return GraphicTypeValues.ELLIPSE, np.stack([center - major, center + major, center - minor, center + minor])


def _segment_numbers(seg: Segmentation | None) -> dict[str, int]:
    if seg is None:
        return {}
    return {str(segment.TrackingUID): int(segment.SegmentNumber) for segment in seg.SegmentSequence}

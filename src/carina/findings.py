"""What Carina says about a CT: candidates inside the pipeline, findings and the report outside.

``Report`` is the one contract between the command line, the HTTP API, the DICOM writers and the viewer. Its JSON
form is versioned: a field may be added within a version, a change of meaning raises it.

Must not know how findings are made or drawn.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from carina.errors import InputError, UsageError
from carina.geometry import Shape3, Vector3

SCHEMA_VERSION = "1.0"
RESEARCH_USE = "For research use only. Not for diagnosis."

MOST_FINDINGS = 255
"""No report lists more: its mask holds one byte per voxel."""


def check_threshold(threshold: float | None, name: str = "threshold") -> None:
    """Refuse a lowest ``p_nodule`` that is no probability: every CT would silently have no findings, or all candidates.

    Args:
        threshold: None where none was given.
        name: what it is called, for the message.

    Raises:
        UsageError: not a number from 0 to 1.
    """
    if threshold is not None and not 0 <= threshold <= 1:  # nor is NaN
        raise UsageError(f"a {name} of {threshold} is not a probability; give a number from 0 to 1")


@dataclass(frozen=True)
class Candidate:
    """A connected region that the segmentation marked, on the analysis grid.

    Attributes:
        center_zyx: probability-weighted centre, fractional index on the analysis grid.
        center_lps: the same point in mm.
        box_zyx: first and one-past-last voxel along each axis of the analysis grid.
        volume_mm3: volume of the region.
        score: mean of the highest probabilities in the region, in [0, 1].
        threshold: the region's voxels have a higher probability than this.
    """

    center_zyx: Vector3
    center_lps: Vector3
    box_zyx: tuple[Shape3, Shape3]
    volume_mm3: float
    score: float
    threshold: float


@dataclass(frozen=True)
class Finding:
    """One suspicious nodule.

    Attributes:
        id: 1 for the most probable finding of the report; also its value in the mask.
        center_lps: centre in patient millimetres (LPS, the frame of DICOM and LUNA16).
        center_zyx: the same point as fractional index into the input volume.
        diameter_mm: diameter of the sphere of the same volume.
        volume_mm3: volume of the segmented region.
        mean_hu: mean HU in the segmented region.
        p_nodule: probability in [0, 1] that this is a nodule.
        p_malignant: probability in [0, 1] that it is malignant, given that it is a nodule; see the model named
            "malignancy" in the report for what stands behind the number.
        segmentation_score: what the first stage said on its own, in [0, 1], not calibrated.
        classification_score: what the second stage said on its own; None where it was left out.
        slice_index: first-axis index of the slice of the input nearest to the centre.
        sop_instance_uid: DICOM instance of that slice, None unless the input was DICOM.
        instance_number: its InstanceNumber.
        long_axis_mm: greatest diameter on the axial slice of the input on which the nodule is largest. This and the
            following fields are None where no voxel of the input's grid was outlined.
        short_axis_mm: greatest diameter perpendicular to it on the same slice.
        mean_axis_mm: mean of both axes.
        long_axis_lps: both ends of the long axis, mm in the patient.
        short_axis_lps: both ends of the short axis.
        corrected_volume_mm3: volume on the input's grid, voxels at the edge counted by their share.
        solid_volume_mm3: the part of it that is denser than -300 HU.
    """

    id: int
    center_lps: Vector3
    center_zyx: Vector3
    diameter_mm: float
    volume_mm3: float
    mean_hu: float
    p_nodule: float
    p_malignant: float
    slice_index: int
    segmentation_score: float | None = None
    classification_score: float | None = None
    sop_instance_uid: str | None = None
    instance_number: int | None = None
    long_axis_mm: float | None = None
    short_axis_mm: float | None = None
    mean_axis_mm: float | None = None
    long_axis_lps: tuple[Vector3, Vector3] | None = None
    short_axis_lps: tuple[Vector3, Vector3] | None = None
    corrected_volume_mm3: float | None = None
    solid_volume_mm3: float | None = None


@dataclass(frozen=True)
class InputSummary:
    """What was analysed."""

    path: str
    format: str
    series_uid: str | None
    study_uid: str | None
    frame_of_reference_uid: str | None
    shape_zyx: Shape3
    spacing_zyx_mm: Vector3
    lung_litres: float


@dataclass(frozen=True)
class ModelInfo:
    """Which model did which part: its role, name, the SHA-256 of its weights and the runtime that ran it."""

    role: str
    name: str
    sha256: str
    runtime: str
    summary: str = ""


@dataclass(frozen=True)
class PatientAnswer:
    """The answer for the patient: the maximum over the findings.

    Attributes:
        p_malignant: highest ``p_nodule * p_malignant`` over the findings, None without findings.
        finding_id: the finding that drove it.
        method: how it was computed, in words.
    """

    p_malignant: float | None
    finding_id: int | None
    method: str


@dataclass(frozen=True)
class Report:
    """Everything that is said about one CT."""

    case_id: str
    input: InputSummary
    findings: tuple[Finding, ...]
    patient: PatientAnswer
    threshold: float
    models: tuple[ModelInfo, ...]
    seconds: dict[str, float]
    warnings: tuple[str, ...]
    carina_version: str
    created: str
    notice: str = RESEARCH_USE
    schema_version: str = SCHEMA_VERSION

    def to_json(self) -> str:
        """The report as indented JSON; ``from_json`` gives the same report back."""
        return msgspec.json.format(msgspec.json.encode(self), indent=2).decode()

    @classmethod
    def from_json(cls, text: str | bytes) -> "Report":
        """Read a report.

        Raises:
            InputError: not a report, or one of another major schema version.
        """
        try:
            report = msgspec.json.decode(text, type=cls)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise InputError(f"not a Carina report: {error}") from error
        if report.schema_version.split(".")[0] != SCHEMA_VERSION.split(".")[0]:
            raise InputError(
                f"the report has schema version {report.schema_version}, this Carina reads {SCHEMA_VERSION}"
            )
        return report

    @classmethod
    def read(cls, path: Path) -> "Report":
        """Read a report from its file.

        Raises:
            InputError: as ``from_json``, with the file's name.
            OSError: the file cannot be read.
        """
        try:
            return cls.from_json(path.read_bytes())
        except InputError as error:
            raise InputError(f"{path}: {error}") from error

    @staticmethod
    def json_schema() -> dict[str, Any]:
        """The JSON Schema (2020-12) of ``to_json``'s form."""
        schema = msgspec.json.schema(Report)
        return {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": "Carina report", **schema}

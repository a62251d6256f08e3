"""A CT volume: HU, their place in the patient, and where they came from.

Must not know how files are read (``carina.io``) or what is done with the voxels.
"""

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np
from jaxtyping import Int16

from carina.errors import InputError
from carina.geometry import Geometry

Format = Literal["dicom", "metaimage", "nifti", "nrrd", "memory"]

FORMATS: dict[str, Format] = {
    ".mhd": "metaimage",
    ".mha": "metaimage",
    ".nii": "nifti",
    ".nii.gz": "nifti",
    ".nrrd": "nrrd",
    ".nhdr": "nrrd",
}
"""Endings of image files, in whatever case they are written, and the format behind each."""


def ending_of(path: Path) -> str | None:
    """The ending of an image file that Carina reads, None for any other file."""
    name = path.name.lower()
    return next((ending for ending in sorted(FORMATS, key=len, reverse=True) if name.endswith(ending)), None)


def stem_of(path: Path) -> str:
    """The name of an image file without its ending; any other name as it is."""
    return path.name[: len(path.name) - len(ending_of(path) or "")]


@dataclass(frozen=True)
class SliceRef:
    """The DICOM instance behind one slice.

    Attributes:
        sop_instance_uid: SOPInstanceUID of the instance.
        instance_number: InstanceNumber as the scanner counted, None where the file has none.
        path: the file it was read from.
    """

    sop_instance_uid: str
    instance_number: int | None
    path: str


@dataclass(frozen=True)
class Source:
    """Where a volume came from.

    Attributes:
        path: file or folder that was read; "" for a volume made in memory.
        format: how it was stored.
        series_uid: SeriesInstanceUID; None where neither the file nor its name carries one.
        study_uid: StudyInstanceUID, DICOM only.
        frame_of_reference_uid: FrameOfReferenceUID, DICOM only.
        patient_id: PatientID as written in the file, DICOM only. Never logged.
        slices: one entry per slice in the order of the array's first axis; empty unless DICOM.
        warnings: oddities that were put right while reading, in words for the report.
    """

    path: str = ""
    format: Format = "memory"
    series_uid: str | None = None
    study_uid: str | None = None
    frame_of_reference_uid: str | None = None
    patient_id: str | None = None
    slices: tuple[SliceRef, ...] = ()
    warnings: tuple[str, ...] = ()

    @property
    def case_id(self) -> str:
        """A name for outputs: the series UID, else the file's name without its ending, else ``case``.

        It never leads out of a folder, whatever a file calls its series.
        """
        name = self.series_uid or stem_of(Path(self.path))
        name = re.sub(r"[/\\\x00-\x1f]", "_", name)
        return name if name.strip(".") else "case"


@dataclass(frozen=True, eq=False)
class Volume:
    """A CT volume, valid once constructed.

    Attributes:
        hu: HU as int16, axes (z, y, x), unclipped; read-only.
        geometry: where the voxels lie in the patient.
        source: where the volume came from.

    Raises:
        InputError: array and geometry disagree about the shape, or slices and array about their number.
    """

    hu: Int16[np.ndarray, "z y x"]
    geometry: Geometry
    source: Source = field(default_factory=Source)

    def __post_init__(self) -> None:
        if self.hu.shape != self.geometry.shape_zyx:
            raise InputError(f"array of shape {self.hu.shape} does not fit geometry {self.geometry.shape_zyx}")
        if self.source.slices and len(self.source.slices) != self.hu.shape[0]:
            raise InputError(f"{len(self.source.slices)} slice references for {self.hu.shape[0]} slices")
        self.hu.flags.writeable = False

"""What all DICOM objects of one report share: the source's headers, who made them, tracking identifiers, UIDs.

Patient and study are those of the source; series and instances are new. Needs the extra ``dicom``. Must not know
what the objects hold.
"""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
from highdicom import AlgorithmIdentificationSequence
from highdicom.sr import AlgorithmIdentification
from pydicom.dataset import Dataset
from pydicom.errors import InvalidDicomError
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid
from pydicom.valuerep import DSfloat

from carina.errors import InputError
from carina.findings import Finding, Report
from carina.report import dicom_codes as codes
from carina.volume import Volume

MANUFACTURER = "The Carina developers"
RESEARCH = "for research use only"

_NAMES = ("PatientName", "ReferringPhysicianName")
_NEEDED = ("StudyInstanceUID", "SeriesInstanceUID", "FrameOfReferenceUID", "SOPInstanceUID")
_MAY_BE_EMPTY = (
    "PatientID", "PatientBirthDate", "PatientSex", "StudyDate", "StudyTime", "StudyID", "AccessionNumber",
)  # fmt: skip


@dataclass(frozen=True, eq=False)
class DicomContext:
    """A report and the CT it speaks of, ready to be written as DICOM.

    Attributes:
        report: what was found.
        volume: the CT.
        headers: the source's instances without pixels, in the order of the volume's first axis. Their names are
            empty, for highdicom prints a warning with any name of one part only.
        names: PatientName and ReferringPhysicianName of the source.
        tracking_uids: by finding, the UID under which every object speaks of it.
    """

    report: Report
    volume: Volume
    headers: tuple[Dataset, ...]
    names: dict[str, str]
    tracking_uids: dict[int, str]

    @classmethod
    def of(cls, report: Report, volume: Volume) -> "DicomContext":
        """Read the source's headers.

        Raises:
            InputError: the input was not DICOM, its files are gone or changed, or they lack what the objects need.
        """
        if not volume.source.slices:
            raise InputError(
                f"{volume.source.path or 'this volume'}: the formats seg, sr and keyimages describe DICOM images, and "
                f"the input is {volume.source.format}. Leave them out, or give the DICOM series itself"
            )
        headers = tuple(_header(one.path, one.sop_instance_uid) for one in volume.source.slices)
        names = {keyword: str(headers[0].get(keyword, "") or "") for keyword in _NAMES}
        for header in headers:
            header.update(dict.fromkeys(_NAMES, ""))
            # The segmentation must state one, and some scanners leave it out: the distance of the slices then.
            if not header.get("SliceThickness"):
                header.SliceThickness = DSfloat(volume.geometry.spacing_zyx_mm[0], auto_format=True)
        return cls(report, volume, headers, names, {f.id: new_uid() for f in report.findings})

    def about(self, what: str, series_number: int) -> dict[str, Any]:
        """What the constructors of all objects take: a new series and instance, and who made them.

        Args:
            what: begins the series' description.
            series_number: SeriesNumber.
        """
        return {
            "series_instance_uid": new_uid(),
            "series_number": series_number,
            "sop_instance_uid": new_uid(),
            "instance_number": 1,
            "manufacturer": MANUFACTURER,
            "manufacturer_model_name": "Carina",
            "software_versions": self.report.carina_version,
            "device_serial_number": self.serial_number,
            "series_description": f"{what}, {RESEARCH}",
        }

    def save(self, dataset: Dataset, path: Path) -> None:
        """Write an object of this report as a DICOM file."""
        dataset.update(self.names)
        dataset.save_as(path, enforce_file_format=True)

    @cached_property
    def serial_number(self) -> str:
        """Names the device by what makes it one: the weights of its first network."""
        return next((m.sha256 for m in self.report.models if m.sha256), "none")[:64]

    @cached_property
    def parameters(self) -> dict[str, str]:
        """Models with the hash of their weights, and the threshold."""
        models = {m.role: f"{m.name} sha256:{m.sha256}" for m in self.report.models}
        return models | {"threshold": f"{self.report.threshold:.6g}"}

    def algorithm(self) -> AlgorithmIdentification:
        """Who found and measured, for the structured report (TID 4019)."""
        return AlgorithmIdentification(
            name="Carina",
            version=self.report.carina_version,
            parameters=[f"{name}={value}" for name, value in self.parameters.items()],
            family=codes.NETWORKS,
            manufacturer=MANUFACTURER,
        )

    def algorithm_sequence(self) -> AlgorithmIdentificationSequence:
        """The same for segments (PS3.3 table 10-19)."""
        return AlgorithmIdentificationSequence(
            name="Carina",
            version=self.report.carina_version,
            family=codes.NETWORKS,
            source=MANUFACTURER,
            parameters=self.parameters,
        )

    def key_slice(self, finding: Finding) -> int:
        """Index of the slice on which a finding is shown: that of its axes, or the one nearest to its centre."""
        if finding.long_axis_lps is not None:
            levels = self.volume.geometry.to_zyx(finding.long_axis_lps)[:, 0]
            if np.ptp(levels) < 0.5:
                return int(np.clip(np.rint(levels.mean()), 0, len(self.headers) - 1))
        return finding.slice_index

    def circle(self, finding: Finding) -> tuple[float, float, float]:
        """Row and column (index, whole numbers are pixel centres) of the circle around a finding, and its radius in mm.

        It passes through the ends of the long axis where there is one on the key slice.
        """
        center, diameter_mm = np.asarray(finding.center_zyx), finding.diameter_mm
        if finding.long_axis_lps is not None and finding.long_axis_mm is not None:
            ends = self.volume.geometry.to_zyx(finding.long_axis_lps)
            center, diameter_mm = ends.mean(axis=0), finding.long_axis_mm
        return float(center[1]), float(center[2]), diameter_mm / 2


def new_uid() -> str:
    """A UID that nothing else has (PS3.5 annex B.2)."""
    return str(generate_uid(prefix=None))


def tracking_id(finding: Finding) -> str:
    """The name under which every object speaks of a finding."""
    return f"Finding {finding.id}"


def _header(path: str, sop_instance_uid: str) -> Dataset:
    try:
        header = pydicom.dcmread(path, stop_before_pixels=True)
    except (OSError, InvalidDicomError) as error:
        raise InputError(f"{path}: cannot be read again for the DICOM output ({error})") from error
    missing = [keyword for keyword in _NEEDED if not header.get(keyword)]
    if missing:
        raise InputError(f"{path}: has no {' and no '.join(missing)}, which DICOM output refers to")
    if header.SOPInstanceUID != sop_instance_uid:
        raise InputError(f"{path}: is now instance {header.SOPInstanceUID}; {sop_instance_uid} was analysed")
    if header.SOPClassUID != CTImageStorage:
        raise InputError(f"{path}: is no CT Image Storage ({header.SOPClassUID}); DICOM output refers to those only")
    for keyword in _MAY_BE_EMPTY:
        if keyword not in header:
            setattr(header, keyword, "")
    if header.PatientSex not in ("M", "F", "O", ""):
        header.PatientSex = ""
    # Everything is written as UTF-8, which holds any name.
    header.decode()
    header.SpecificCharacterSet = "ISO_IR 192"
    header.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    return header

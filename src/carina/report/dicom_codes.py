"""Codes of the DICOM objects: DICOM's own and SNOMED's where they exist, Carina's private ones where none does.

Must not know reports or files.
"""

from highdicom.coding_schemes import CodingSchemeIdentificationItem
from highdicom.sr import CodedConcept

PRIVATE = CodingSchemeIdentificationItem(
    "99CARINA", name="Carina private codes", version="1", responsible_organization="The Carina developers"
)
"""What stands behind the designator 99CARINA; goes into every object that uses one of its codes."""


def _dicom(value: str, meaning: str) -> CodedConcept:
    return CodedConcept(value, "DCM", meaning)


def _snomed(value: str, meaning: str) -> CodedConcept:
    return CodedConcept(value, "SCT", meaning)


def _unit(value: str, meaning: str) -> CodedConcept:
    return CodedConcept(value, "UCUM", meaning)


def _private(value: str, meaning: str) -> CodedConcept:
    return CodedConcept(value, "99CARINA", meaning, "1")


# What was found, and where (PS3.16 CID 7150, 7151, 4031).
ABNORMAL_STRUCTURE = _snomed("49755003", "Morphologically Abnormal Structure")
NODULE = _snomed("27925004", "Nodule")
LUNG = _snomed("39607008", "Lung")

# Sizes (CID 7469, 7470).
LONG_AXIS = _snomed("103339001", "Long axis")
SHORT_AXIS = _snomed("103340004", "Short axis")
VOLUME = _snomed("118565006", "Volume")
COUNTED = _dicom("126030", "Sum of segmented voxel volumes")
"""How a volume was measured (CID 7474)."""
MEAN_AXIS = _private("mean-axis", "Mean of long and short axis")
SPHERE_DIAMETER = _private("sphere-diameter", "Diameter of the sphere of equal volume")
CORRECTED_VOLUME = _private("corrected-volume", "Volume with partial-volume correction")
SOLID_VOLUME = _private("solid-volume", "Volume denser than -300 HU")

# Density: a mean (CID 7464) of the attenuation.
ATTENUATION = _dicom("112031", "Attenuation Coefficient")
MEAN = _snomed("373098007", "Mean")

# Probabilities, as in CID 6048.
CERTAINTY = _dicom("111012", "Certainty of Finding")
PROBABILITY_OF_CANCER = _dicom("111047", "Probability of cancer")
MALIGNANT_IF_NODULE = _private("p-malignant", "Probability of malignancy if it is a nodule")
THRESHOLD = _private("threshold", "Least certainty of a finding that is listed")

# The whole CT (CID 6047).
SUMMARY = _dicom("111017", "CAD Processing and Findings Summary")
WITH_FINDINGS = _dicom("111242", "All algorithms succeeded; with findings")
WITHOUT_FINDINGS = _dicom("111241", "All algorithms succeeded; without findings")

COMMENT = _dicom("121106", "Comment")
DEVICE = _dicom("121007", "Device")
CT_CHEST = CodedConcept("24627-2", "LN", "CT Chest")
REPORT_TITLE = _dicom("126000", "Imaging Measurement Report")
NETWORKS = _dicom("123110", "Artificial Intelligence")

MILLIMETRE = _unit("mm", "millimeter")
CUBIC_MILLIMETRE = _unit("mm3", "cubic millimeter")
HOUNSFIELD = _unit("[hnsf'U]", "Hounsfield unit")
PERCENT = _unit("%", "percent")

"""De-identification of what leaves: the Basic Application Level Confidentiality Profile of PS3.15 annex E.

Made for CT images and for the objects that Carina makes of them, not for whatever DICOM there is. Table E.1-1 comes
from the package ``dicom-anonymizer``; where the table leaves a choice ("X/Z/D"), the value is kept as a dummy, so that
the object stays valid. The content of reports is cleaned rather than replaced (Clean Structured Content Option,
E.3.5): codes and numbers stay, of the texts only those that describe the algorithm. Must not know networks. Needs the
extra ``pacs``.
"""

from collections.abc import Sequence
from functools import cache
from pathlib import Path

from dicomanonymizer.dicomfields_selector import dicom_anonymization_database_selector
from pydicom import dcmread
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.multival import MultiValue
from pydicom.sequence import Sequence as Items
from pydicom.uid import UID_dictionary

from carina.errors import InputError
from carina.findings import RESEARCH_USE
from carina.pacs.secret import Secret

_EDITION = "dicomfields_2026c"

_CATEGORIES = {
    "X_TAGS": "remove",
    "Z_TAGS": "empty",
    "X_Z_TAGS": "empty",
    "D_TAGS": "dummy",
    "Z_D_TAGS": "dummy",
    "X_D_TAGS": "dummy",
    "X_Z_D_TAGS": "dummy",
    "U_TAGS": "uid",
    "X_Z_U_STAR_TAGS": "uid",
}

_DUMMIES: dict[str, object] = {
    "DA": "19000101", "TM": "000000", "DT": "19000101000000", "AS": "000Y", "UR": "http://anonymous.invalid",
    "DS": "0", "IS": "0", "FD": 0.0, "FL": 0.0, "SS": 0, "US": 0, "SL": 0, "UL": 0, "OB": b"\0\0", "UN": b"\0\0",
    "OW": b"\0\0",
}  # fmt: skip

_DUMMY_TEXT = "ANONYMOUS"

_NEVER_EMPTY = {"ReferencedStudySequence"}
"""Where the table lets a sequence be removed or emptied, and PS3.3 wants an item in it if it is there."""

_SAFE_TEXTS = {"112039", "111001", "111002", "111003", "121013", "121014", "121015"}
"""Concepts (PS3.16 annex D) whose text Carina writes itself: tracking identifier, algorithm, device observer."""

_METHOD = (
    ("113100", "Basic Application Confidentiality Profile"),
    ("113104", "Clean Structured Content Option"),
)
"""Codes of PS3.16 CID 7050."""


def deidentify_files(files: Sequence[Path], folder: Path, secret: Secret) -> list[Path]:
    """Write de-identified copies.

    Args:
        files: CT images, and objects that Carina made of them.
        folder: a new folder; the copies are numbered.
        secret: what UIDs and the patient's pseudonym are made with: the same secret gives the same ones.

    Raises:
        InputError: an image has names burned into its pixels.
    """
    folder.mkdir(parents=True)
    copies = []
    for number, file in enumerate(files, start=1):
        copies.append(folder / f"{number:06d}.dcm")
        deidentify(dcmread(file), secret).save_as(copies[-1], enforce_file_format=True)
    return copies


def deidentify(dataset: Dataset, secret: Secret) -> Dataset:
    """De-identify a dataset in place, and give it back.

    Raises:
        InputError: BurnedInAnnotation says that its pixels hold names.
    """
    if str(dataset.get("BurnedInAnnotation", "NO")).upper() == "YES":
        raise InputError("an image has annotations burned into its pixels and cannot be de-identified; it stays here")
    patient = f"{dataset.get('IssuerOfPatientID', '')} {dataset.get('PatientID', '')}"
    _clean(dataset, secret)
    # The profile lets a dummy stand for a name, which keeps the studies of one patient together.
    dataset.PatientID = dataset.PatientName = secret.key(f"patient {patient}")[:16].upper()
    dataset.PatientIdentityRemoved = "YES"
    dataset.LongitudinalTemporalInformationModified = "REMOVED"
    dataset.DeidentificationMethod = "PS3.15 Basic Application Confidentiality Profile"
    dataset.DeidentificationMethodCodeSequence = [_code(value, meaning) for value, meaning in _METHOD]
    meta = FileMetaDataset()
    meta.TransferSyntaxUID = dataset.file_meta.TransferSyntaxUID
    meta.MediaStorageSOPClassUID = dataset.SOPClassUID
    meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    dataset.file_meta = meta
    if hasattr(dataset, "preamble"):
        dataset.preamble = b"\0" * 128
    return dataset


def _clean(dataset: Dataset, secret: Secret) -> None:
    for tag in list(dataset.keys()):
        element = dataset[tag]
        action = "remove" if element.tag.is_private else _action(element.tag.group, element.tag.element)
        if element.keyword == "ContentSequence":
            _clean_content(dataset, secret)
        elif action == "remove" or (action == "empty" and element.keyword in _NEVER_EMPTY):
            del dataset[tag]
        elif action == "empty":
            element.value = Items() if element.VR == "SQ" else None
        elif element.VR == "SQ":
            for item in element.value or ():
                _clean(item, secret)
        elif action == "dummy":
            element.value = _DUMMIES.get(element.VR, _DUMMY_TEXT)
        elif element.VR == "UI":
            _replace_uids(element, secret, always=action == "uid")
        elif element.VR == "PN":
            element.value = None


def _clean_content(item: Dataset, secret: Secret) -> None:
    kept = []
    for child in item.ContentSequence:
        if child.ValueType == "TEXT" and not _is_safe(child):
            continue
        if child.ValueType in ("PNAME", "DATE", "TIME", "DATETIME"):
            continue
        _clean(child, secret)
        kept.append(child)
    item.ContentSequence = kept


def _is_safe(text: Dataset) -> bool:
    concept = text.ConceptNameCodeSequence[0]
    known = concept.CodingSchemeDesignator == "DCM" and concept.CodeValue in _SAFE_TEXTS
    return known or str(text.TextValue) == RESEARCH_USE


def _replace_uids(element: DataElement, secret: Secret, *, always: bool) -> None:
    """Replace UIDs of instances; those that the standard assigns (classes, transfer syntaxes) keep their meaning."""
    if not always:
        return
    values = element.value if isinstance(element.value, MultiValue) else [element.value]
    new = [value if not value or value in UID_dictionary else secret.uid(str(value)) for value in values]
    element.value = new if len(new) > 1 else new[0]


@cache
def _action(group: int, element: int) -> str:
    for (wanted_group, wanted_element, group_mask, element_mask), action in _repeating().items():
        if group & group_mask == wanted_group & group_mask and element & element_mask == wanted_element & element_mask:
            return action
    return _table().get((group, element), "")


@cache
def _table() -> dict[tuple[int, ...], str]:
    """Actions by (group, element), or by (group, element, mask of group, mask of element)."""
    database = dicom_anonymization_database_selector(_EDITION)
    return {tuple(tag): action for name, action in _CATEGORIES.items() for tag in database[name]}


def _repeating() -> dict[tuple[int, ...], str]:
    return {tag: action for tag, action in _table().items() if len(tag) == 4}


def _code(value: str, meaning: str) -> Dataset:
    code = Dataset()
    code.CodeValue, code.CodingSchemeDesignator, code.CodeMeaning = value, "DCM", meaning
    return code

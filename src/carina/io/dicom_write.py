"""A Volume to a valid DICOM CT series (CT Image IOD, PS3.3 A.3), one file per slice.

For phantoms and tests: names and dates are empty unless given. Must not know how DICOM is read.
"""

import shutil
import tempfile
from pathlib import Path
from typing import Literal

import numpy as np
from jaxtyping import Int16
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.uid import (
    UID,
    CTImageStorage,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    RLELossless,
    generate_uid,
)
from pydicom.valuerep import DSfloat

from carina.errors import InputError
from carina.volume import Volume

Syntax = Literal["explicit", "implicit", "deflated", "rle", "jpeg-lossless", "jpeg-ls", "jpeg-2000"]

_SYNTAXES: dict[str, UID] = {
    "explicit": ExplicitVRLittleEndian,
    "implicit": ImplicitVRLittleEndian,
    "deflated": DeflatedExplicitVRLittleEndian,
    "rle": RLELossless,
    "jpeg-lossless": JPEGLosslessSV1,
    "jpeg-ls": JPEGLSLossless,
    "jpeg-2000": JPEG2000Lossless,
}


def write_dicom(
    volume: Volume,
    folder: str | Path,
    *,
    patient_id: str = "",
    patient_name: str = "",
    description: str = "",
    study_uid: str | None = None,
    series_uid: str | None = None,
    transfer_syntax: Syntax = "explicit",
) -> list[Path]:
    """Write a volume as a CT series; the files appear only when all are complete.

    The first axis becomes the order of the slices, rows run along the second one; any orientation is kept. Reading
    the series gives the same voxel at the same place; a stack with left-handed axes comes back with its first axis
    reversed, for DICOM stacks are right-handed.

    Args:
        volume: what to write.
        folder: a new or empty folder.
        patient_id: PatientID.
        patient_name: PatientName.
        description: SeriesDescription.
        study_uid: StudyInstanceUID; default: one made from the series UID.
        series_uid: SeriesInstanceUID; default: that of the volume if it was made in memory, else a new one.
        transfer_syntax: how pixels are stored; all choices are lossless.

    Returns:
        The files, in the order of the volume's first axis.

    Raises:
        InputError: the folder holds files already.
    """
    folder = Path(folder)
    if folder.is_dir() and any(folder.iterdir()):
        raise InputError(f"{folder}: holds files already; a series is written to a new or empty folder")
    own = volume.source.series_uid if volume.source.format == "memory" else None
    series_uid = series_uid or own or str(generate_uid())
    study_uid = study_uid or str(generate_uid(entropy_srcs=[series_uid, "study"]))
    folder.parent.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(prefix=".carina-", dir=folder.parent))
    try:
        names = []
        for index in range(volume.hu.shape[0]):
            dataset = _slice(volume, index, series_uid, _SYNTAXES[transfer_syntax])
            dataset.StudyInstanceUID = study_uid
            dataset.PatientID, dataset.PatientName = patient_id, patient_name
            dataset.SeriesDescription = description
            names.append(f"{index + 1:06d}.dcm")
            dataset.save_as(scratch / names[-1], enforce_file_format=True)
        if folder.is_dir():
            folder.rmdir()
        scratch.chmod(0o755)
        scratch.rename(folder)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    return [folder / name for name in names]


def _slice(volume: Volume, index: int, series_uid: str, syntax: UID) -> FileDataset:
    geometry = volume.geometry
    spacing = geometry.spacing_zyx_mm
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = CTImageStorage
    meta.MediaStorageSOPInstanceUID = generate_uid(entropy_srcs=[series_uid, str(index)])
    meta.TransferSyntaxUID = syntax
    dataset = FileDataset("", {}, file_meta=meta, preamble=b"\0" * 128)
    for empty in (
        "PatientBirthDate", "PatientSex", "StudyDate", "StudyTime", "ReferringPhysicianName", "StudyID",
        "AccessionNumber", "Manufacturer", "PositionReferenceIndicator", "KVP",
    ):  # fmt: skip
        setattr(dataset, empty, None)
    dataset.SOPClassUID = CTImageStorage
    dataset.SOPInstanceUID = meta.MediaStorageSOPInstanceUID
    dataset.SeriesInstanceUID = series_uid
    dataset.FrameOfReferenceUID = volume.source.frame_of_reference_uid or generate_uid(
        entropy_srcs=[series_uid, "frame"]
    )
    dataset.Modality = "CT"
    dataset.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
    dataset.PatientPosition = "HFS"
    dataset.BodyPartExamined = "CHEST"
    dataset.SeriesNumber = dataset.AcquisitionNumber = 1
    dataset.InstanceNumber = index + 1
    dataset.SliceThickness = _decimal(spacing[0])
    dataset.PixelSpacing = [_decimal(spacing[1]), _decimal(spacing[2])]
    dataset.ImageOrientationPatient = [_decimal(a) for a in (*geometry.axes[:, 2], *geometry.axes[:, 1])]
    dataset.ImagePositionPatient = [_decimal(a) for a in geometry.to_lps((index, 0, 0))]
    dataset.SamplesPerPixel = 1
    dataset.PhotometricInterpretation = "MONOCHROME2"
    dataset.Rows, dataset.Columns = geometry.shape_zyx[1:]
    dataset.BitsAllocated = dataset.BitsStored = 16
    dataset.HighBit = 15
    dataset.PixelRepresentation = 1
    dataset.RescaleIntercept, dataset.RescaleSlope, dataset.RescaleType = 0, 1, "HU"
    _set_pixels(dataset, volume.hu[index], syntax)
    return dataset


def _decimal(number: float) -> DSfloat:
    """A number in the 16 characters that a decimal string may have."""
    return DSfloat(float(number) + 0.0, auto_format=True)


def _set_pixels(dataset: FileDataset, hu: Int16[np.ndarray, "y x"], syntax: UID) -> None:
    pixels = np.ascontiguousarray(hu, "<i2").tobytes()
    if not syntax.is_compressed:
        dataset.PixelData = pixels
    elif syntax == RLELossless:
        dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        dataset.PixelData = pixels
        dataset.compress(RLELossless, generate_instance_uid=False)
    else:
        dataset.PixelData = encapsulate([_compressed(pixels, hu.shape[0], hu.shape[1], syntax)])
    dataset["PixelData"].VR = "OW" if not syntax.is_compressed else "OB"


def _compressed(pixels: bytes, rows: int, columns: int, syntax: UID) -> bytes:
    """One signed 16-bit image as a JPEG, JPEG-LS or JPEG 2000 stream, by GDCM."""
    import gdcm

    kinds = {
        JPEGLosslessSV1: gdcm.TransferSyntax.JPEGLosslessProcess14_1,
        JPEGLSLossless: gdcm.TransferSyntax.JPEGLSLossless,
        JPEG2000Lossless: gdcm.TransferSyntax.JPEG2000Lossless,
    }
    element = gdcm.DataElement(gdcm.Tag(0x7FE0, 0x0010))
    element.SetByteStringValue(pixels)
    writer = gdcm.ImageWriter()  # owns the image, must outlive it
    image = writer.GetImage()
    image.SetNumberOfDimensions(2)
    image.SetDimensions((columns, rows, 1))
    image.SetPixelFormat(gdcm.PixelFormat(1, 16, 16, 15, 1))
    image.SetPhotometricInterpretation(gdcm.PhotometricInterpretation(gdcm.PhotometricInterpretation.MONOCHROME2))
    image.SetTransferSyntax(gdcm.TransferSyntax(gdcm.TransferSyntax.ExplicitVRLittleEndian))
    image.SetDataElement(element)
    change = gdcm.ImageChangeTransferSyntax()
    change.SetTransferSyntax(gdcm.TransferSyntax(kinds[syntax]))
    change.SetInput(image)
    if not change.Change():
        raise InputError(f"the pixels cannot be stored as {syntax.name}")
    fragments = change.GetOutput().GetDataElement().GetSequenceOfFragments()
    # GDCM hands bytes over as a string whose odd characters stand for single bytes.
    stream: str = fragments.GetFragment(0).GetByteValue().GetBuffer()
    return stream.encode("utf-8", "surrogateescape")

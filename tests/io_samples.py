"""Small CTs and damaged copies of them for the tests of ``carina.io``."""

from pathlib import Path
from typing import Any

import numpy as np
import pydicom
from scipy.spatial.transform import Rotation

from carina.geometry import Geometry
from carina.io import write_dicom
from carina.volume import Source, Volume

UID = "1.2.826.0.1.3680043.10.1.7"


def small_geometry(
    shape=(16, 12, 10), spacing=(2.5, 0.7, 0.8), origin=(-100.0, -120.0, 30.0), quaternion=(0.0, 0.0, 0.0, 1.0)
) -> Geometry:
    """An axial stack, turned by ``quaternion``."""
    axes = Rotation.from_quat(quaternion).as_matrix() @ np.eye(3)[:, ::-1]
    return Geometry.from_axes(shape, spacing_zyx_mm=spacing, origin_lps=origin, axes=axes)


def small_ct(seed: int = 0, uid: str | None = UID, **geometry: Any) -> Volume:
    """Random HU from air to bone in every voxel, so that no two slices are alike."""
    place = small_geometry(**geometry)
    hu = np.random.default_rng(seed).integers(-1024, 1500, place.shape_zyx).astype(np.int16)
    hu[:, 0, 0] = -1000
    return Volume(hu, place, Source(series_uid=uid))


def small_series(folder: Path, seed: int = 0, **options: Any) -> list[Path]:
    """The small CT as a DICOM series of 16 files."""
    keys = ("shape", "spacing", "origin", "quaternion", "uid")
    ct = small_ct(seed, **{key: options.pop(key) for key in keys if key in options})
    return write_dicom(ct, folder, **options)


def edit(path: Path, **attributes: Any) -> None:
    """Set attributes of a DICOM file; None takes one out."""
    dataset = pydicom.dcmread(path)
    for keyword, value in attributes.items():
        if value is None:
            delattr(dataset, keyword)
        else:
            setattr(dataset, keyword, value)
    if "SOPInstanceUID" in attributes:
        dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    dataset.save_as(path)


def edit_all(paths: list[Path], **attributes: Any) -> None:
    """The same edit in every file."""
    for path in paths:
        edit(path, **attributes)


def move(path: Path, by_lps: tuple[float, float, float]) -> None:
    """Shift a slice by millimetres."""
    position = pydicom.dcmread(path).ImagePositionPatient
    edit(path, ImagePositionPatient=[round(float(p) + d, 6) for p, d in zip(position, by_lps, strict=True)])

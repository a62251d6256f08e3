"""Files in and out: every format becomes a ``Volume``. Must not import torch.

The names below are loaded when first used, so that importing this package costs nothing.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from carina.io.dicom_write import write_dicom
    from carina.io.image import read_image, write_image
    from carina.io.luna import LunaCohort
    from carina.io.read import list_series, read_ct
    from carina.io.series import SeriesInfo

_HOME = {
    "LunaCohort": "carina.io.luna",
    "SeriesInfo": "carina.io.series",
    "list_series": "carina.io.read",
    "read_ct": "carina.io.read",
    "read_image": "carina.io.image",
    "write_dicom": "carina.io.dicom_write",
    "write_image": "carina.io.image",
}

__all__ = ["LunaCohort", "SeriesInfo", "list_series", "read_ct", "read_image", "write_dicom", "write_image"]


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(import_module(_HOME[name]), name)
    raise AttributeError(f"module 'carina.io' has no attribute {name!r}")

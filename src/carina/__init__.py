"""Carina: lung-nodule analysis for chest CT. Research use only, not for diagnosis.

``carina.detect(path)`` reads a CT and returns a report; ``carina.Detector`` loads the models once and applies them
many times. Importing this package does not import torch: names below are loaded when first used.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from carina.errors import CarinaError
    from carina.findings import Finding, Report
    from carina.geometry import Geometry
    from carina.io import read_ct
    from carina.pipeline import Detector, detect
    from carina.volume import Volume

_HOME = {
    "CarinaError": "carina.errors",
    "Detector": "carina.pipeline",
    "Finding": "carina.findings",
    "Geometry": "carina.geometry",
    "Report": "carina.findings",
    "Volume": "carina.volume",
    "detect": "carina.pipeline",
    "read_ct": "carina.io",
}

__all__ = [
    "CarinaError",
    "Detector",
    "Finding",
    "Geometry",
    "Report",
    "Volume",
    "__version__",
    "detect",
    "read_ct",
]


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(import_module(_HOME[name]), name)
    raise AttributeError(f"module 'carina' has no attribute {name!r}")

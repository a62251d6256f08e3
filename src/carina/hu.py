"""Hounsfield units: the few constants that the whole package shares, and the scaling that networks see.

Must not know files, geometry or networks.
"""

from typing import Any, Protocol, TypeVar, cast, runtime_checkable

AIR = -1000
"""HU of air; the value of everything outside the scanner's view."""

LUNG_WINDOW = (-1350, 150)
"""Lowest and highest HU of the display window radiologists use for lungs (centre -600, width 1500)."""

SOFT_TISSUE_WINDOW = (-160, 240)
"""Lowest and highest HU of the mediastinal display window (centre 40, width 400)."""


@runtime_checkable
class _Array(Protocol):
    def clip(self, low: float, high: float, /) -> Any: ...


A = TypeVar("A", bound=_Array)


def normalise(hu: A, clip_hu: tuple[float, float]) -> A:
    """Scale HU to what networks see: ``clip_hu`` maps to [-1, 1], values outside are clipped.

    Args:
        hu: a floating-point NumPy array or torch tensor of any shape, in HU.
        clip_hu: lowest and highest HU that the network distinguishes (from the model's card).

    Returns:
        An array of the same type and shape in [-1, 1].
    """
    low, high = clip_hu
    return cast(A, (hu.clip(low, high) - low) * (2.0 / (high - low)) - 1.0)

"""From numbers in a file to HU: rounding, padding, and whether the numbers can be HU at all.

Must not know formats or geometry.
"""

import numpy as np
from jaxtyping import Int16, Shaped

from carina.errors import InputError
from carina.hu import AIR

LOWEST_HU = -1024
"""Scanners count down to -1024; what lies below marks voxels outside the scanner's view (LUNA16: -3024)."""

_INT16 = np.iinfo(np.int16)


def to_hu(values: Shaped[np.ndarray, "*shape"]) -> Int16[np.ndarray, "*shape"]:
    """Numbers in HU to int16: rounded, held within int16, and air wherever the scanner saw nothing.

    Args:
        values: HU of any real type. Voxels that are not finite count as outside the scanner's view.
    """
    if values.dtype == np.int16:
        hu = values.copy()
    elif np.issubdtype(values.dtype, np.floating):
        finite = np.nan_to_num(values, nan=AIR, posinf=_INT16.max, neginf=AIR)
        hu = np.rint(finite).clip(_INT16.min, _INT16.max).astype(np.int16)
    else:
        hu = values.clip(max(_INT16.min, np.iinfo(values.dtype).min), _INT16.max).astype(np.int16)
    hu[hu < LOWEST_HU] = AIR
    return hu


def check_plausible(hu: Int16[np.ndarray, "*shape"], where: str) -> tuple[str, ...]:
    """Refuse numbers that cannot be HU of a patient, warn of those that hardly are.

    Every CT of a chest holds air and fat, both below 0.

    Args:
        hu: the voxels.
        where: the file, for the message.

    Returns:
        Warnings in words, empty if nothing is odd.

    Raises:
        InputError: no voxel lies below 0.
    """
    low, high = int(hu.min()), int(hu.max())
    if low >= 0:
        likely = "a mask or an 8-bit picture" if high <= 255 else "CT values before the rescale intercept"
        raise InputError(
            f"{where}: values run from {low} to {high}, which cannot be HU (air is -1000); this looks like "
            f"{likely}. Give the CT in HU"
        )
    if low > -500:
        return (f"no voxel is below {low} HU: the image shows neither lung nor air around the patient",)
    return ()

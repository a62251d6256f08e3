"""Slices of one series to one regular stack: order, spacing and axes from positions, and everything that forbids it.

Spacing never comes from SliceThickness. Must not know files' pixels.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from math import atan2, degrees

import numpy as np

from carina.errors import GeometryError, InputError
from carina.geometry import Geometry
from carina.io.dicom_header import Slice
from carina.io.series import FEWEST_SLICES

_UNEVEN = 0.1
"""Steps between slices may differ from the median step by this fraction ..."""

_ROUNDING_MM = 0.06
"""... plus this: positions in some files are rounded to a tenth of a millimetre."""

_MOST_OFF_GRID = 0.5
"""Slices lie no further from an even grid than this fraction of a step: small differences of one sign add up."""

_MOST_TILT_DEGREES = 0.1
_MOST_SIDEWAYS_MM = 0.2


@dataclass(frozen=True)
class Stack:
    """Slices in the order of the volume's first axis.

    Attributes:
        slices: sorted along the normal, upwards.
        geometry: where their voxels lie.
        warnings: oddities that were let pass.
    """

    slices: tuple[Slice, ...]
    geometry: Geometry
    warnings: tuple[str, ...] = ()


def stack(slices: Sequence[Slice], thickness_mm: float | None = None) -> Stack:
    """Sort slices along their normal and place them.

    The normal is the cross product of the row's and the column's direction (PS3.3 C.7.6.2.1.1), so that the
    axes of the volume are right-handed whichever way the scanner counted.

    Args:
        slices: all slices of one series in any order.
        thickness_mm: SliceThickness, only to warn of tissue between slices that no slice shows.

    Raises:
        InputError: fewer than 16 slices.
        GeometryError: mixed size, orientation or spacing; duplicate positions; gaps; gantry tilt.
    """
    if len(slices) < FEWEST_SLICES:
        raise InputError(
            f"only {len(slices)} {'slice' if len(slices) == 1 else 'slices'}; a chest CT needs at least "
            f"{FEWEST_SLICES}. Give the folder that holds the whole series"
        )
    _check_alike(slices)
    row, column = np.array(slices[0].row_axis), np.array(slices[0].column_axis)
    normal = np.cross(row, column)
    positions = np.array([s.position_lps for s in slices])
    order = np.argsort(positions @ normal, kind="stable")
    ordered = tuple(slices[i] for i in order)
    positions = positions[order]
    height = positions @ normal
    _check_duplicates(ordered, height)
    spacing = float((height[-1] - height[0]) / (len(slices) - 1))
    _check_tilt(positions, height, row, column)
    _check_steps(ordered, height)
    affine = np.eye(4)
    affine[:3, 0] = normal * spacing
    affine[:3, 1] = column * ordered[0].spacing_yx_mm[0]
    affine[:3, 2] = row * ordered[0].spacing_yx_mm[1]
    affine[:3, 3] = positions[0]
    geometry = Geometry((len(ordered), *ordered[0].shape_yx), affine)
    return Stack(ordered, geometry, _oddities(height, spacing, thickness_mm))


def _check_alike(slices: Sequence[Slice]) -> None:
    kinds: tuple[tuple[str, list[tuple[float, ...]]], ...] = (
        ("size (rows, columns)", [s.shape_yx for s in slices]),
        ("orientation", [tuple(round(a, 3) + 0.0 for a in (*s.row_axis, *s.column_axis)) for s in slices]),
        ("pixel spacing (mm)", [tuple(round(a, 4) for a in s.spacing_yx_mm) for s in slices]),
    )
    for what, values in kinds:
        counts = Counter(values).most_common()
        if len(counts) > 1 and not _only_rounding(values):
            usual, odd = counts[0][0], counts[-1][0]
            raise GeometryError(
                f"slices of mixed {what}: {counts[0][1]} have {_list(usual)}, {counts[-1][1]} "
                f"{'has' if counts[-1][1] == 1 else 'have'} {_list(odd)}, such as {slices[values.index(odd)]}. "
                f"Give only the files of one stack"
            )


def _only_rounding(values: Sequence[tuple[float, ...]]) -> bool:
    """Whether the values differ by no more than neighbours on the rounding grid do."""
    numbers = np.array(values, float)
    return bool(np.ptp(numbers, axis=0).max() < 0.0015) and not np.issubdtype(np.array(values).dtype, np.integer)


def _check_duplicates(slices: Sequence[Slice], height: np.ndarray) -> None:
    step = np.diff(height)
    if not (step < 0.01).any():
        return
    first = int(np.argmax(step < 0.01))
    raise GeometryError(
        f"{int((step < 0.01).sum())} slices lie at the same place as another, first {slices[first]} and "
        f"{slices[first + 1]} at {height[first]:.2f} mm along the normal. The series holds several acquisitions "
        f"or reconstructions; give only the files of one"
    )


def _check_tilt(positions: np.ndarray, height: np.ndarray, row: np.ndarray, column: np.ndarray) -> None:
    sideways = (positions - positions[0]) @ np.stack([row, column], axis=1)
    travel = float(np.linalg.norm(sideways[-1]))
    tilt = degrees(atan2(travel, float(height[-1] - height[0])))
    if tilt > _MOST_TILT_DEGREES and travel > _MOST_SIDEWAYS_MM:
        raise GeometryError(
            f"the stack leans by {tilt:.1f} degrees against the normal of its slices (gantry tilt): from the first "
            f"to the last slice the images move sideways by {travel:.1f} mm. Resample the series to a straight stack"
        )
    worst = float(np.linalg.norm(sideways, axis=1).max())
    if worst > max(_MOST_SIDEWAYS_MM, travel + 0.05):
        raise GeometryError(
            f"the slices are shifted sideways against each other by up to {worst:.1f} mm; expected one straight "
            f"stack. Give only the files of one reconstruction"
        )


def _check_steps(slices: Sequence[Slice], height: np.ndarray) -> None:
    step = np.diff(height)
    usual = float(np.median(step))
    odd = np.abs(step - usual) > _UNEVEN * usual + _ROUNDING_MM
    if not odd.any():
        off_mm = _off_even_grid_mm(height)
        if off_mm > _MOST_OFF_GRID * usual:
            raise GeometryError(
                f"the slices are not evenly spaced: from {step.min():.2f} to {step.max():.2f} mm apart, so that "
                f"they lie up to {off_mm:.1f} mm off an even grid. Give the files of one reconstruction"
            )
        return
    places = []
    for i in np.flatnonzero(odd)[:5]:
        missing = round(step[i] / usual) - 1
        whole = missing >= 1 and abs(step[i] / usual - round(step[i] / usual)) < 0.15
        what = f"{missing} missing" if whole else "uneven"
        places.append(f"{slices[i]} and {slices[i + 1]}: {step[i]:.2f} mm ({what})")
    more = int(odd.sum()) - len(places)
    raise GeometryError(
        f"the slices are not evenly spaced: {usual:.2f} mm apart as a rule, but between {'; '.join(places)}"
        f"{f' and {more} more places' if more else ''}. Give the complete series"
    )


def _off_even_grid_mm(height: np.ndarray) -> float:
    return float(np.abs(height - np.linspace(height[0], height[-1], len(height))).max())


def _oddities(height: np.ndarray, spacing: float, thickness_mm: float | None) -> tuple[str, ...]:
    found = []
    off_mm = _off_even_grid_mm(height)
    if off_mm > 0.01:
        found.append(f"slice positions deviate from an even grid by up to {off_mm:.2f} mm")
    if thickness_mm and spacing > 1.5 * thickness_mm:
        found.append(
            f"slices of {thickness_mm:g} mm lie {spacing:.2f} mm apart; nodules between them are not in the images"
        )
    return tuple(found)


def _list(numbers: object) -> str:
    return ", ".join(f"{n:g}" for n in numbers)  # type: ignore[attr-defined]

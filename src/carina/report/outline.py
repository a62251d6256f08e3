"""Contours of a soft mask on a grid of pixels (marching squares), as lines that an SVG can draw.

Must not know patients, findings or files.
"""

import numpy as np
from jaxtyping import Float

_LEVEL = 0.5
# The four sides of a cell, each as (row, column) offsets of the two pixels it joins.
_SIDES = {"top": ((0, 0), (0, 1)), "right": ((0, 1), (1, 1)), "bottom": ((1, 0), (1, 1)), "left": ((0, 0), (1, 0))}
# Which sides a contour joins, by the sum of 1, 2, 4, 8 for the corners top left, top right, bottom right and
# bottom left that lie inside. Cases beyond 7 are those of the inverse.
_JOINED = {
    1: (("left", "top"),),
    2: (("top", "right"),),
    3: (("left", "right"),),
    4: (("right", "bottom"),),
    5: (("left", "top"), ("right", "bottom")),
    6: (("top", "bottom"),),
    7: (("left", "bottom"),),
}


def outline(soft_mask: Float[np.ndarray, "rows columns"]) -> Float[np.ndarray, "segments 2 2"]:
    """Line segments where the mask crosses one half.

    Args:
        soft_mask: 1 inside, 0 outside, anything between near the border.

    Returns:
        Begin and end of each segment as (x, y): x along columns, y along rows, and a pixel's centre at whole
        numbers. A region that leaves the picture is left open there.
    """
    inside = soft_mask >= _LEVEL
    corners = 1 * inside[:-1, :-1] + 2 * inside[:-1, 1:] + 4 * inside[1:, 1:] + 8 * inside[1:, :-1]
    # Inverted cases join the same sides, except for the two diagonals (5 and 10), which turn the other way.
    parts = []
    for case in range(1, 15):
        rows, columns = np.nonzero(corners == case)
        if case == 10:
            joined: tuple[tuple[str, str], ...] = (("top", "right"), ("left", "bottom"))
        else:
            joined = _JOINED[min(case, 15 - case)]
        parts += [np.stack([_crossing(soft_mask, rows, columns, side) for side in sides], axis=1) for sides in joined]
    return np.concatenate(parts)


def svg_path(segments: Float[np.ndarray, "segments 2 2"]) -> str:
    """The segments as the ``d`` attribute of an SVG path, in pixels of which the first begins at 0."""
    return "".join(f"M{a:.1f} {b:.1f}L{c:.1f} {d:.1f}" for (a, b), (c, d) in segments + 0.5)


def _crossing(
    soft_mask: Float[np.ndarray, "rows columns"], rows: np.ndarray, columns: np.ndarray, side: str
) -> Float[np.ndarray, "cells 2"]:
    """Where the level is crossed between the two pixels of one side of each cell, as (x, y)."""
    (row_a, column_a), (row_b, column_b) = _SIDES[side]
    a = soft_mask[rows + row_a, columns + column_a]
    b = soft_mask[rows + row_b, columns + column_b]
    way = (_LEVEL - a) / (b - a)
    x = columns + column_a + way * (column_b - column_a)
    y = rows + row_a + way * (row_b - row_a)
    return np.stack([x, y], axis=1).astype(np.float64)

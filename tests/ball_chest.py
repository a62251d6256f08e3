"""A small chest with balls of known places."""

import numpy as np

from carina.geometry import Geometry
from carina.volume import Source, Volume

GRID = Geometry.from_axes((70, 70, 100), spacing_zyx_mm=(2.5,) * 3, origin_lps=(-125, -87, 400))
MIDDLE = GRID.to_lps((np.array(GRID.shape_zyx) - 1) / 2)
BALLS = (((-60.0, 5.0, 10.0), 7.0), ((55.0, -12.0, -15.0), 5.0))
"""Centre from the middle of the chest and radius, mm."""


def chest(*balls: tuple[tuple[float, float, float], float], hu: float = 1250.0) -> Volume:
    """Two ellipsoid lungs in a body of water, and balls as bright as to be cut half-way at their surface."""
    position = GRID.to_lps(np.stack(np.indices(GRID.shape_zyx), -1)) - MIDDLE
    values = np.full(GRID.shape_zyx, -1000.0)
    values[((position[..., :2] / (115, 80)) ** 2).sum(-1) < 1] = 20
    for side in (-55, 55):
        values[(((position - (side, 0, 0)) / (42, 60, 75)) ** 2).sum(-1) < 1] = -850
    for center, radius in balls:
        values[np.linalg.norm(position - center, axis=-1) < radius] = hu
    values += np.random.default_rng(0).normal(0, 20, values.shape)
    return Volume(np.rint(values).astype(np.int16), GRID, Source(path="chest.mhd", warnings=("made up",)))

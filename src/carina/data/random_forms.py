"""Random rotations, fields and curves that inserted bodies are varied with.

Must not know what is drawn.
"""

import numpy as np
from jaxtyping import Float32, Float64

from carina.data.blend import FineGrid


def smooth_noise(
    rng: np.random.Generator, grid: FineGrid, cell_mm: float, strength: float
) -> Float32[np.ndarray, "z y x"]:
    """Random values of standard deviation about ``strength`` that vary over about ``cell_mm``."""
    shape = grid.offset_mm.shape[:3]
    cells = [max(cell_mm / step, 1.0) for step in grid.step_mm]
    coarse = rng.standard_normal([int(n / c) + 3 for n, c in zip(shape, cells, strict=True)]) * 1.4 * strength
    for axis, (n, cell) in enumerate(zip(shape, cells, strict=True)):
        place = np.arange(n) / cell + rng.uniform()
        left = place.astype(int)
        weights = np.zeros((n, coarse.shape[axis]))
        weights[np.arange(n), left] = 1 - (place - left)
        weights[np.arange(n), left + 1] = place - left
        coarse = np.moveaxis(np.tensordot(weights, coarse, axes=(1, axis)), 0, axis)
    return coarse.astype(np.float32)


def random_rotation(rng: np.random.Generator) -> Float64[np.ndarray, "3 3"]:
    """A rotation or mirrored rotation, all equally likely."""
    q, r = np.linalg.qr(rng.standard_normal((3, 3)))
    return np.asarray(q * np.sign(np.diag(r)))


def random_curve(rng: np.random.Generator, length_mm: float) -> Float64[np.ndarray, "14 3"]:
    """A bent line through the origin, about ``length_mm`` long, in mm."""
    t = np.linspace(-0.5, 0.5, 14)[:, None]
    bend = rng.standard_normal(2) * 0.15 * length_mm
    wave = np.concatenate([length_mm * t, bend[0] * (4 * t * t - 0.3), bend[1] * (8 * t**3 - t)], axis=1)
    return np.asarray(wave @ random_rotation(rng))

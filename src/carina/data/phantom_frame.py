"""The size of a synthetic patient, and the smooth fields that its anatomy is built with.

The phantom's own frame: millimetres in (z, y, x); z = 0 at the lowest slice and grows to the head, y = 0 in the
middle of the chest and grows to the back, x = 0 at the midline and grows to the patient's left.

Must not know organs, scanners or files.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float32

from carina.geometry import Shape3

Field = Float32[np.ndarray, "z y x"]

CELL_MM = 2.5
"""Voxel size of the coarse grid that anatomy is grown on."""


@dataclass(frozen=True)
class Frame:
    """The sizes that everything else hangs on, all in mm of the phantom's frame.

    Attributes:
        half_width: of the inside of the rib cage.
        half_depth: of the inside of the rib cage.
        dome: height of the right dome of the diaphragm.
        apex: height of the top of the lungs.
        carina: height of the tracheal bifurcation.
        top: height of the scan.
        fat: thickness of fat under the skin.
        muscle: scale of the muscles of the chest wall.
        breasts: size of the breasts, 0 in men.
        contrast_hu: what contrast medium adds to blood, 0 without.
    """

    half_width: float
    half_depth: float
    dome: float
    apex: float
    carina: float
    top: float
    fat: float
    muscle: float
    breasts: float
    contrast_hu: float

    @property
    def body_half_width(self) -> float:
        """Half of the patient's largest width."""
        return self.half_width + 18 + 10 * self.muscle + self.fat

    @property
    def body_half_depth(self) -> float:
        """Half of the patient's depth; the centre lies 8 mm behind that of the rib cage."""
        return self.half_depth + 24 + 8 * self.muscle + 0.7 * self.fat


def draw_frame(rng: np.random.Generator) -> Frame:
    """Draw the size of a patient."""
    size = rng.normal(1.0, 0.06)
    woman = rng.random() < 0.45
    size *= 0.95 if woman else 1.03
    dome = rng.uniform(85, 115)
    lung = float(np.clip(rng.normal(195, 16), 165, 230)) * size
    return Frame(
        half_width=float(np.clip(rng.normal(132, 6) * size, 112, 152)),
        half_depth=float(np.clip(rng.normal(92, 6) * size, 78, 108)),
        dome=dome,
        apex=dome + lung,
        carina=dome + lung * rng.uniform(0.58, 0.64),
        top=dome + lung + rng.uniform(14, 34),
        fat=float(np.clip(rng.lognormal(2.5, 0.5), 5, 34)),
        muscle=rng.uniform(0.6, 1.0) if woman else rng.uniform(0.8, 1.5),
        breasts=rng.uniform(0.5, 1.2) if woman else 0.0,
        contrast_hu=float(rng.uniform(80, 260)) if rng.random() < 0.45 else 0.0,
    )


def smooth_noise(rng: np.random.Generator, shape: Shape3, cell: float) -> Field:
    """Random field of mean 0 and standard deviation 1 whose grain is about ``cell`` voxels."""
    out = rng.standard_normal([int(np.ceil(n / cell)) + 4 for n in shape], dtype=np.float32)
    for axis, n in enumerate(shape):
        offset = np.arange(n)[:, None] / cell + 1.5 - np.arange(out.shape[axis])[None]
        weights = np.exp(-(offset**2) / (2 * 0.6**2)).astype(np.float32)
        out = np.moveaxis(np.tensordot(weights, out, (1, axis)), 0, axis)
    return np.ascontiguousarray((out - out.mean()) / out.std(), dtype=np.float32)


def smoothstep(value: np.ndarray, low: float, high: float) -> np.ndarray:
    """0 below ``low``, 1 above ``high``, smooth between."""
    t = np.clip((value - low) / (high - low), 0, 1)
    return np.asarray(t * t * (3 - 2 * t))


def distance(f: np.ndarray) -> np.ndarray:
    """Turn an implicit function into a signed distance near its surface: divide by the length of its gradient."""
    steepness = np.sqrt(sum(g * g for g in np.gradient(f, CELL_MM)))
    return np.asarray(f / np.maximum(steepness, 0.35), np.float32)

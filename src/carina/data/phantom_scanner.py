"""A synthetic CT scanner: protocol, sampling grid, point spread, kernel and noise.

Must not know what is scanned.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Float32
from scipy import fft

from carina.geometry import Shape3, Vector3

Kernel = Literal["soft", "sharp"]
Plane = Float32[np.ndarray, "y x"]


@dataclass(frozen=True)
class Protocol:
    """How a phantom is scanned.

    Attributes:
        pixel_mm: in-plane voxel size.
        matrix: number of pixels along each side.
        thickness_mm: slice thickness, equal to the slice distance.
        planes: thin planes that are averaged to one slice.
        slices: number of slices.
        kernel: reconstruction kernel.
        noise_hu: standard deviation of the noise in the middle of the chest.
        origin_zyx_mm: centre of the first voxel of the first thin plane.
    """

    pixel_mm: float
    matrix: int
    thickness_mm: float
    planes: int
    slices: int
    kernel: Kernel
    noise_hu: float
    origin_zyx_mm: Vector3

    @property
    def fine_spacing_zyx_mm(self) -> Vector3:
        """Voxel size of the thin planes."""
        return self.thickness_mm / self.planes, self.pixel_mm, self.pixel_mm

    @property
    def fine_shape_zyx(self) -> Shape3:
        """Shape of the stack of thin planes."""
        return self.slices * self.planes, self.matrix, self.matrix


def draw_protocol(
    rng: np.random.Generator,
    half_width_mm: float,
    height_mm: float,
    *,
    pixel_mm: float | None,
    slice_thickness_mm: float | None,
    kernel: Kernel | None,
) -> Protocol:
    """Draw a scan protocol; what is given is kept.

    Args:
        rng: source of all randomness.
        half_width_mm: half of the width that the view must show.
        height_mm: height to scan.
        pixel_mm: in-plane voxel size, drawn from 0.75 to 1.0 mm where None.
        slice_thickness_mm: drawn from 1 to 5 mm where None, mostly thin.
        kernel: drawn where None.
    """
    thickness = float(rng.choice((1.0, 1.25, 1.5, 2.0, 2.5, 3.0, 5.0), p=(0.2, 0.24, 0.1, 0.14, 0.18, 0.1, 0.04)))
    thickness = slice_thickness_mm if slice_thickness_mm is not None else thickness
    drawn_pixel = float(np.round(rng.uniform(0.75, 1.0), 4))
    pixel = pixel_mm if pixel_mm is not None else drawn_pixel
    chosen: Kernel = "sharp" if rng.random() < 0.4 else "soft"
    chosen = kernel if kernel is not None else chosen
    planes = max(1, round(thickness / 1.1))
    matrix = int(np.ceil(2 * half_width_mm * rng.uniform(0.98, 1.12) / pixel / 8) * 8)
    noise = rng.uniform(9, 24) * (1.9 if chosen == "sharp" else 1.0) / np.sqrt(thickness / 1.25) * 0.85 / pixel
    corner = -(matrix - 1) / 2 * pixel
    return Protocol(
        pixel, matrix, thickness, planes, max(16, int(height_mm / thickness)), chosen, float(np.clip(noise, 5, 70)),
        (thickness / planes / 2, corner + rng.uniform(0, 12), corner + rng.uniform(-5, 5)),
    )  # fmt: skip


class Detector:
    """Turns averaged planes of true HU into slices as a scanner reconstructs them.

    Args:
        protocol: how the phantom is scanned.
        loudness: relative strength of the noise at each pixel (dense paths are noisier).
    """

    def __init__(self, protocol: Protocol, loudness: Plane) -> None:
        n = fft.next_fast_len(protocol.matrix + 8, real=True)
        fy = fft.fftfreq(n, protocol.pixel_mm)[:, None]
        fx = fft.rfftfreq(n, protocol.pixel_mm)[None]
        f = np.sqrt(fy**2 + fx**2)
        if protocol.kernel == "soft":
            self._transfer = np.exp(-2 * (np.pi * 0.62 * f) ** 2)
            colour = np.sqrt(f) * np.exp(-2 * (np.pi * 0.55 * f) ** 2)
        else:
            # A sharp kernel lifts the middle frequencies: edges overshoot and noise is grainy.
            self._transfer = np.exp(-2 * (np.pi * 0.42 * f) ** 2) * (
                1 + 1.1 * (f / 0.5) ** 2 * np.exp(-((f / 0.55) ** 2))
            )
            colour = np.sqrt(f) * self._transfer * (0.5 + f / 0.5)
        both_sides = np.full(f.shape, 2.0)
        both_sides[:, 0] = 1.0
        power = (colour**2 * both_sides).sum() / (n * n)
        self._colour = (colour / np.sqrt(power)).astype(np.float32)
        self._transfer = self._transfer.astype(np.float32)
        self._size = n
        self._loudness = loudness * np.float32(protocol.noise_hu)

    def expose(self, rng: np.random.Generator, plane: Plane, louder: float = 1.0) -> Plane:
        """Blur a plane of true HU by the point spread and add correlated noise."""
        n = plane.shape[0]
        padded = np.pad(plane, ((0, self._size - n), (0, self._size - n)), mode="edge")
        white = np.zeros_like(padded)
        white[:n, :n] = rng.standard_normal((n, n), dtype=np.float32) * self._loudness * np.float32(louder)
        spectrum = fft.rfft2(padded) * self._transfer + fft.rfft2(white) * self._colour
        return np.asarray(fft.irfft2(spectrum, s=padded.shape)[:n, :n], np.float32)


class Upsampler:
    """Linear interpolation from a coarse grid to thin planes, one plane at a time.

    Args:
        coarse_origin_zyx_mm: position of the first coarse voxel.
        cell_mm: coarse voxel size.
        coarse_shape: shape of the coarse grid.
        y_mm: positions of the rows of a plane.
        x_mm: positions of the columns of a plane.
    """

    def __init__(
        self, coarse_origin_zyx_mm: Vector3, cell_mm: float, coarse_shape: Shape3, y_mm: np.ndarray, x_mm: np.ndarray
    ) -> None:
        self._z0, self._cell, self._depth = coarse_origin_zyx_mm[0], cell_mm, coarse_shape[0]
        self._rows = _weights((y_mm - coarse_origin_zyx_mm[1]) / cell_mm, coarse_shape[1])
        self._columns = _weights((x_mm - coarse_origin_zyx_mm[2]) / cell_mm, coarse_shape[2]).T.copy()

    def plane(self, field: Float32[np.ndarray, "depth height width"], z_mm: float) -> Plane:
        """The field at height ``z_mm``; beyond the coarse grid its border value goes on."""
        position = min(max((z_mm - self._z0) / self._cell, 0.0), self._depth - 1.001)
        low = int(position)
        share = np.float32(position - low)
        between = field[low] * (1 - share) + field[low + 1] * share
        return np.asarray(self._rows @ between @ self._columns)


def _weights(position: np.ndarray, n: int) -> Plane:
    position = np.clip(position, 0, n - 1.001)
    low = position.astype(int)
    out = np.zeros((len(position), n), np.float32)
    rows = np.arange(len(position))
    out[rows, low] = 1 - (position - low)
    out[rows, low + 1] = position - low
    return out

"""What happens to a CT between two readers: other kernels, slices, noise, orders of voxels, positions of the patient.

Every change is a pure function of a volume and says where each place of the patient has gone. Must not know nodules
or networks.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Float64, Int16
from scipy import ndimage

from carina.geometry import Geometry
from carina.hu import AIR
from carina.volume import Source, Volume


@dataclass(frozen=True, eq=False)
class Changed:
    """A changed CT.

    Attributes:
        volume: the CT after the change.
        moved: 4 x 4, from a position (mm, LPS, 1) in the CT before the change to the same place after it.
    """

    volume: Volume
    moved: Float64[np.ndarray, "4 4"]

    def place(self, position_lps: Float64[np.ndarray, "*n 3"]) -> Float64[np.ndarray, "*n 3"]:
        """Where a place of the CT before the change lies now."""
        return np.asarray(position_lps @ self.moved[:3, :3].T + self.moved[:3, 3])


def soften(volume: Volume, sigma_mm: float = 0.7) -> Changed:
    """A softer kernel: every slice blurred."""
    return _same_place(volume, _blurred(volume, sigma_mm))


def sharpen(volume: Volume, sigma_mm: float = 0.7, strength: float = 1.0) -> Changed:
    """A sharper kernel: edges, and noise with them, ``1 + strength`` times as high above a blurred copy."""
    blurred = _blurred(volume, sigma_mm)
    return _same_place(volume, volume.hu + strength * (volume.hu - blurred))


def thicken(volume: Volume, thickness_mm: float = 5.0) -> Changed:
    """Neighbouring slices averaged to at least this thickness; what does not fill the last one is dropped."""
    count = max(1, int(np.ceil(thickness_mm / volume.geometry.spacing_zyx_mm[0] - 0.01)))
    n, height, width = volume.hu.shape
    kept = volume.hu[: n // count * count].astype(np.float32)
    hu = _as_hu(kept.reshape(n // count, count, height, width).mean(axis=1))
    affine = np.array(volume.geometry.affine)
    affine[:3, 3] = volume.geometry.to_lps(((count - 1) / 2, 0.0, 0.0))
    affine[:3, 0] *= count
    return Changed(_volume(hu, Geometry((n // count, height, width), affine), volume), np.eye(4))


def add_noise(volume: Volume, sigma_hu: float = 40.0, seed: int = 0) -> Changed:
    """Noise of a lower dose: grains of about a pixel, the same standard deviation everywhere."""
    grain = np.random.default_rng(seed).standard_normal(volume.hu.shape, dtype=np.float32)
    grain = ndimage.gaussian_filter(grain, (0.0, 0.6, 0.6))
    return _same_place(volume, volume.hu + sigma_hu / grain.std() * grain)


def reverse_stack(volume: Volume) -> Changed:
    """The same voxels at the same places, the last slice first in the array."""
    n = volume.hu.shape[0]
    affine = np.array(volume.geometry.affine)
    affine[:3, 3] = volume.geometry.to_lps((n - 1.0, 0.0, 0.0))
    affine[:3, 0] *= -1
    return Changed(_volume(volume.hu[::-1], Geometry(volume.hu.shape, affine), volume), np.eye(4))


def reorder_axes(volume: Volume) -> Changed:
    """The same voxels at the same places, the array's axes in the opposite order."""
    affine = np.array(volume.geometry.affine)[:, [2, 1, 0, 3]]
    hu = volume.hu.transpose(2, 1, 0)
    return Changed(_volume(hu, Geometry(hu.shape, affine), volume), np.eye(4))


def mirror(volume: Volume) -> Changed:
    """The patient's left and right exchanged."""
    step = np.diag([1.0, 1.0, -1.0])
    return Changed(_volume(volume.hu[:, :, ::-1], volume.geometry, volume), _moved(volume.geometry, step))


def turn(volume: Volume, degrees: float) -> Changed:
    """The patient turned about the axis of the stack; what turns in from outside is air."""
    _, dy, dx = volume.geometry.spacing_zyx_mm
    cos, sin = np.cos(np.deg2rad(degrees)), np.sin(np.deg2rad(degrees))
    turned = np.array([[1, 0, 0], [0, cos, -sin * dx / dy], [0, sin * dy / dx, cos]])
    middle = (np.array(volume.hu.shape) - 1) / 2
    back = np.linalg.inv(turned)
    offset = middle[1:] - back[1:, 1:] @ middle[1:]
    hu = np.stack(
        [ndimage.affine_transform(s, back[1:, 1:], offset, order=1, cval=AIR) for s in volume.hu.astype(np.float32)]
    )
    return Changed(_volume(_as_hu(hu), volume.geometry, volume), _moved(volume.geometry, turned))


CHANGES: dict[str, Callable[[Volume], Changed]] = {
    "unchanged": lambda volume: Changed(volume, np.eye(4)),
    "softer kernel (blur of 0.7 mm)": soften,
    "sharper kernel (edges doubled)": sharpen,
    "slices of 5 mm": thicken,
    "noise of 40 HU": add_noise,
    "stack reversed": reverse_stack,
    "array axes reordered": reorder_axes,
    "left and right exchanged": mirror,
    "turned by 10 degrees": lambda volume: turn(volume, 10),
    "turned by 90 degrees": lambda volume: turn(volume, 90),
}
"""The rows of the robustness table."""


def _blurred(volume: Volume, sigma_mm: float) -> Float[np.ndarray, "z y x"]:
    _, dy, dx = volume.geometry.spacing_zyx_mm
    return np.asarray(ndimage.gaussian_filter(volume.hu.astype(np.float32), (0.0, sigma_mm / dy, sigma_mm / dx)))


def _same_place(volume: Volume, hu: Float[np.ndarray, "z y x"]) -> Changed:
    return Changed(_volume(_as_hu(hu), volume.geometry, volume), np.eye(4))


def _as_hu(hu: Float[np.ndarray, "z y x"]) -> Int16[np.ndarray, "z y x"]:
    limits = np.iinfo(np.int16)
    return np.asarray(np.clip(np.rint(hu), limits.min, limits.max), np.int16)


def _volume(hu: Int16[np.ndarray, "z y x"], geometry: Geometry, before: Volume) -> Volume:
    return Volume(np.array(hu), geometry, Source(series_uid=before.source.series_uid))


def _moved(geometry: Geometry, step_zyx: Float64[np.ndarray, "3 3"]) -> Float64[np.ndarray, "4 4"]:
    """From a linear map of index offsets about the middle of the grid to one of positions."""
    axes = geometry.affine[:3, :3]
    linear = axes @ step_zyx @ np.linalg.inv(axes)
    middle = geometry.to_lps((np.array(geometry.shape_zyx) - 1) / 2)
    moved = np.eye(4)
    moved[:3, :3] = linear
    moved[:3, 3] = middle - linear @ middle
    return moved

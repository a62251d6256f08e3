"""Pictures of a CT as radiology shows them, whatever the orientation of the stack.

Planes are laid into the patient, not into the array, and filled by linear interpolation: axial with the patient's
right on the viewer's left and the front up, coronal with the head up, sagittal with the front to the left. Pixels
are square in millimetres.

Must not know findings, HTML or files.
"""

import io
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Float64, Int16, Shaped, UInt8
from PIL import Image
from scipy.ndimage import map_coordinates

from carina import hu
from carina.errors import InputError
from carina.geometry import Geometry, Shape3, Vector3
from carina.volume import Volume


@dataclass(frozen=True)
class Plane:
    """How a plane is shown: unit vectors (LPS) to the right and down the picture, and the letters at its edges.

    Attributes:
        name: axial, coronal or sagittal.
        right_lps: direction in the patient that points right in the picture.
        down_lps: direction in the patient that points down in the picture.
        letters: what lies to the left, right, top and bottom (Right, Left, Anterior, Posterior, Head, Feet).
    """

    name: str
    right_lps: Vector3
    down_lps: Vector3
    letters: tuple[str, str, str, str]


AXIAL = Plane("axial", (1.0, 0.0, 0.0), (0.0, 1.0, 0.0), ("R", "L", "A", "P"))
CORONAL = Plane("coronal", (1.0, 0.0, 0.0), (0.0, 0.0, -1.0), ("R", "L", "H", "F"))
SAGITTAL = Plane("sagittal", (0.0, 1.0, 0.0), (0.0, 0.0, -1.0), ("A", "P", "H", "F"))
PLANES = (AXIAL, CORONAL, SAGITTAL)


@dataclass(frozen=True, eq=False)
class Picture:
    """A grey picture and where it lies in the patient.

    Attributes:
        grey: the pixels, 0 black.
        plane: how it lies.
        corner_lps: position of the centre of the first pixel; along the line of sight any depth.
        pixel_mm: side of a pixel in the patient.
    """

    grey: UInt8[np.ndarray, "rows columns"]
    plane: Plane
    corner_lps: Vector3
    pixel_mm: float

    def to_pixel(self, position_lps: Vector3) -> tuple[float, float]:
        """Where a position in the patient falls: (x, y) in pixels from the picture's top left edge."""
        offset = np.asarray(position_lps, float) - self.corner_lps
        x = float(offset @ np.asarray(self.plane.right_lps)) / self.pixel_mm + 0.5
        y = float(offset @ np.asarray(self.plane.down_lps)) / self.pixel_mm + 0.5
        return x, y

    def png(self) -> bytes:
        """The picture as an 8-bit grey PNG."""
        buffer = io.BytesIO()
        Image.fromarray(self.grey).save(buffer, "PNG")
        return buffer.getvalue()


@dataclass(frozen=True, eq=False)
class View:
    """One plane through a point, not yet windowed.

    Attributes:
        plane: how it lies.
        hu: HU of each pixel; air outside the volume.
        inside: share in [0, 1] of the region of interest in each pixel.
        corner_lps: position of the centre of the first pixel.
        pixel_mm: side of a pixel.
    """

    plane: Plane
    hu: Float[np.ndarray, "rows columns"]
    inside: Float[np.ndarray, "rows columns"]
    corner_lps: Vector3
    pixel_mm: float

    def picture(self, window_hu: tuple[int, int]) -> Picture:
        """The view with ``window_hu`` spread from black to white."""
        return Picture(
            _grey(self.hu, float(window_hu[0]), float(window_hu[1])), self.plane, self.corner_lps, self.pixel_mm
        )


def views(
    volume: Volume,
    center_lps: Vector3,
    *,
    field_mm: float,
    pixels: int,
    region: Shaped[np.ndarray, "z y x"] | None = None,
    region_value: int = 1,
) -> tuple[View, View, View]:
    """The axial, coronal and sagittal planes through a point.

    Args:
        volume: the CT, in any orientation.
        center_lps: the point in the middle of each picture.
        field_mm: side of the picture in the patient.
        pixels: pixels along each side.
        region: map on the volume's grid, of which the voxels of ``region_value`` are outlined.
        region_value: the value to outline.

    Raises:
        InputError: the point lies so far outside that no voxel would be seen.
    """
    box = _box(volume.geometry, center_lps, field_mm)
    local = volume.geometry.crop([s.start for s in box], _shape(box))
    values = volume.hu[box]
    inside = np.zeros(values.shape, bool) if region is None else region[box] == region_value
    pixel_mm = field_mm / pixels
    return (
        _view(values, inside, local, AXIAL, center_lps, pixel_mm, pixels),
        _view(values, inside, local, CORONAL, center_lps, pixel_mm, pixels),
        _view(values, inside, local, SAGITTAL, center_lps, pixel_mm, pixels),
    )


def projections(volume: Volume, pixel_mm: float = 2.0) -> tuple[Picture, Picture]:
    """The whole CT seen from the front and from the side, like a radiograph (mean along the line of sight)."""
    low, high = volume.geometry.bounds_lps()
    across, deep, tall = (np.arange(a, b + pixel_mm / 2, pixel_mm) for a, b in zip(low, high, strict=True))
    tall = tall[::-1]
    front = np.zeros((len(tall), len(across)))
    side = np.zeros((len(tall), len(deep)))
    for row, z in enumerate(tall):
        p, l = np.meshgrid(deep, across, indexing="ij")  # noqa: E741  the L of LPS
        level = _sample(volume.hu, volume.geometry, np.stack([l, p, np.full_like(l, z)], axis=-1), np.nan)
        seen = np.isfinite(level)
        dense = np.where(seen, np.clip(level, hu.AIR, 400) - hu.AIR, 0.0)
        front[row] = dense.sum(axis=0) / np.maximum(seen.sum(axis=0), 1)
        side[row] = dense.sum(axis=1) / np.maximum(seen.sum(axis=1), 1)
    corner = (float(across[0]), float(deep[0]), float(tall[0]))
    return (
        Picture(_stretch(front), CORONAL, corner, pixel_mm),
        Picture(_stretch(side), SAGITTAL, corner, pixel_mm),
    )


def _view(
    values: Int16[np.ndarray, "z y x"],
    inside: Bool[np.ndarray, "z y x"],
    geometry: Geometry,
    plane: Plane,
    center_lps: Vector3,
    pixel_mm: float,
    pixels: int,
) -> View:
    steps = (np.arange(pixels) - (pixels - 1) / 2) * pixel_mm
    down = steps[:, None, None] * np.asarray(plane.down_lps)
    right = steps[None, :, None] * np.asarray(plane.right_lps)
    positions = np.asarray(center_lps, float) + down + right
    corner = positions[0, 0]
    return View(
        plane,
        _sample(values, geometry, positions, float(hu.AIR)),
        _sample(inside.astype(np.float32), geometry, positions, 0.0),
        (float(corner[0]), float(corner[1]), float(corner[2])),
        pixel_mm,
    )


def _sample(
    array: Shaped[np.ndarray, "z y x"],
    geometry: Geometry,
    positions_lps: Float64[np.ndarray, "rows columns 3"],
    fill: float,
) -> Float[np.ndarray, "rows columns"]:
    """Linear interpolation at positions in the patient; ``fill`` beyond the outer faces of the outer voxels."""
    index = np.moveaxis(geometry.to_zyx(positions_lps), -1, 0)
    last = np.asarray(geometry.shape_zyx)[:, None, None] - 1
    outside = ((index < -0.5) | (index > last + 0.5)).any(axis=0)
    values = map_coordinates(array, np.clip(index, 0, last), order=1, output=np.float32)
    return np.where(outside, np.float32(fill), values)


def _box(geometry: Geometry, center_lps: Vector3, field_mm: float) -> tuple[slice, slice, slice]:
    """The voxels that a cube of side ``field_mm`` can touch, so that only these are read."""
    half = field_mm / 2
    corners = np.array(np.meshgrid(*[(c - half, c + half) for c in center_lps])).reshape(3, 8).T
    index = geometry.to_zyx(corners)
    start = np.maximum(np.floor(index.min(axis=0)).astype(int) - 1, 0)
    stop = np.minimum(np.ceil(index.max(axis=0)).astype(int) + 2, geometry.shape_zyx)
    if (start >= stop).any():
        raise InputError(f"a picture around {center_lps} mm would show nothing: the CT lies elsewhere")
    z, y, x = (slice(int(a), int(b)) for a, b in zip(start, stop, strict=True))
    return z, y, x


def _shape(box: tuple[slice, slice, slice]) -> Shape3:
    z, y, x = (s.stop - s.start for s in box)
    return z, y, x


def _grey(values: Float[np.ndarray, "rows columns"], low: float, high: float) -> UInt8[np.ndarray, "rows columns"]:
    share = np.clip((values - low) / max(high - low, 1e-6), 0, 1)
    return np.round(share * 255).astype(np.uint8)


def _stretch(values: Float[np.ndarray, "rows columns"]) -> UInt8[np.ndarray, "rows columns"]:
    low, high = np.percentile(values, (1, 99.5))
    return _grey(values, float(low), float(high))

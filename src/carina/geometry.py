"""Where voxels lie in the patient: one affine from array index to millimetres.

Carina knows one frame only: LPS, the patient frame of DICOM (x grows to the patient's Left, y to the Posterior,
z to the head, "Superior"; DICOM PS3.3 C.7.6.2.1.1), in millimetres. Array indices are (z, y, x) and whole
numbers are voxel centres. Other conventions (NIfTI's RAS, ITK's x-first tuples) are converted at the border.

Must not know files, HU or networks.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from jaxtyping import Float, Float64

from carina.errors import GeometryError

Vector3 = tuple[float, float, float]
Shape3 = tuple[int, int, int]
ArrayLike = np.ndarray | Sequence[Any]


@dataclass(frozen=True, eq=False)
class Geometry:
    """The position of a regular grid of voxels in the patient.

    Attributes:
        shape_zyx: number of voxels along each array axis.
        affine: maps (z, y, x, 1) to (L, P, S, 1) in mm. Its columns are the steps of one voxel along each axis.

    Raises:
        GeometryError: the affine is not finite, not invertible, or its axes are not perpendicular.
    """

    shape_zyx: Shape3
    affine: Float64[np.ndarray, "4 4"]

    def __post_init__(self) -> None:
        if min(self.shape_zyx) < 1:
            raise GeometryError(f"a volume of shape {self.shape_zyx} has no voxels")
        if not np.isfinite(self.affine).all():
            raise GeometryError("the position of the voxels is not finite")
        spacing = np.linalg.norm(self.affine[:3, :3], axis=0)
        if spacing.min() <= 1e-6:
            raise GeometryError(f"voxel spacing {spacing.tolist()} mm is not positive")
        axes = self.affine[:3, :3] / spacing
        if np.abs(axes.T @ axes - np.eye(3)).max() > 1e-3:
            raise GeometryError("the axes of the volume are not perpendicular (gantry tilt or shear)")
        self.affine.flags.writeable = False

    @classmethod
    def from_axes(
        cls,
        shape_zyx: Shape3,
        *,
        spacing_zyx_mm: ArrayLike = (1.0, 1.0, 1.0),
        origin_lps: ArrayLike = (0.0, 0.0, 0.0),
        axes: ArrayLike | None = None,
    ) -> "Geometry":
        """Build from spacing, the position of voxel (0, 0, 0) and unit vectors.

        Args:
            shape_zyx: number of voxels along each array axis.
            spacing_zyx_mm: distance of voxel centres along each array axis.
            origin_lps: position of the first voxel's centre in mm.
            axes: 3 x 3, column k is the unit vector (LPS) of array axis k. Default: an axial stack from feet to
                head, rows from front to back, columns from the patient's right to the left.
        """
        directions = np.eye(3)[:, ::-1] if axes is None else np.asarray(axes, float)
        affine = np.eye(4)
        affine[:3, :3] = directions * np.asarray(spacing_zyx_mm, float)
        affine[:3, 3] = np.asarray(origin_lps, float)
        return cls((int(shape_zyx[0]), int(shape_zyx[1]), int(shape_zyx[2])), affine)

    @cached_property
    def spacing_zyx_mm(self) -> Vector3:
        """Distance of neighbouring voxel centres along each array axis, in mm."""
        z, y, x = np.linalg.norm(self.affine[:3, :3], axis=0)
        return float(z), float(y), float(x)

    @cached_property
    def axes(self) -> Float64[np.ndarray, "3 3"]:
        """Unit vectors of the array axes (z, y, x) in LPS, one per column."""
        return np.asarray(self.affine[:3, :3] / np.asarray(self.spacing_zyx_mm))

    @property
    def origin_lps(self) -> Vector3:
        """Position of the centre of voxel (0, 0, 0) in mm."""
        return float(self.affine[0, 3]), float(self.affine[1, 3]), float(self.affine[2, 3])

    @property
    def voxel_volume_mm3(self) -> float:
        """Volume of one voxel in cubic millimetres."""
        z, y, x = self.spacing_zyx_mm
        return z * y * x

    def to_lps(self, index_zyx: ArrayLike) -> Float64[np.ndarray, "*points 3"]:
        """Array indices (..., 3), fractional ones too, to patient positions (..., 3) in mm."""
        index = np.asarray(index_zyx, np.float64)
        return np.asarray(index @ self.affine[:3, :3].T + self.affine[:3, 3])

    def to_zyx(self, position_lps: ArrayLike) -> Float64[np.ndarray, "*points 3"]:
        """Patient positions (..., 3) in mm to fractional array indices (..., 3)."""
        offset = np.asarray(position_lps, np.float64) - self.affine[:3, 3]
        return np.asarray(offset @ np.linalg.inv(self.affine[:3, :3]).T)

    def contains(self, position_lps: ArrayLike) -> bool:
        """Whether a position in mm falls into a voxel of this grid."""
        index = self.to_zyx(position_lps)
        return bool(np.all(index >= -0.5) and np.all(index <= np.asarray(self.shape_zyx) - 0.5))

    def crop(self, start_zyx: ArrayLike, shape_zyx: Shape3) -> "Geometry":
        """The geometry of the box that begins at voxel ``start_zyx`` and holds ``shape_zyx`` voxels."""
        affine = np.array(self.affine)
        affine[:3, 3] = self.to_lps(np.asarray(start_zyx, float))
        return Geometry(shape_zyx, affine)

    def same_as(self, other: "Geometry", tolerance_mm: float = 0.01) -> bool:
        """Whether both grids put every voxel at the same place, within ``tolerance_mm``."""
        if self.shape_zyx != other.shape_zyx:
            return False
        index = corners(self.shape_zyx)
        return bool(np.abs(self.to_lps(index) - other.to_lps(index)).max() <= tolerance_mm)

    def bounds_lps(self) -> tuple[Float[np.ndarray, "3"], Float[np.ndarray, "3"]]:
        """Lowest and highest patient position (mm) of any voxel's centre."""
        positions = self.to_lps(corners(self.shape_zyx))
        return positions.min(axis=0), positions.max(axis=0)


def corners(shape_zyx: Shape3) -> Float64[np.ndarray, "8 3"]:
    """Indices of the centres of a grid's eight corner voxels."""
    steps = [(0.0, n - 1.0) for n in shape_zyx]
    return np.array(np.meshgrid(*steps, indexing="ij"), np.float64).reshape(3, -1).T


def sphere_diameter(volume_mm3: float) -> float:
    """Diameter in mm of the sphere of a volume."""
    return float((6 * volume_mm3 / np.pi) ** (1 / 3))

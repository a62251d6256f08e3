"""Draw a body into a CT so that it looks scanned: partial volume, the scan's blur and the scan's own noise.

A body is a signed distance in mm. It is sampled finer than the voxels, averaged over each voxel, added only where
it is denser than what is there, blurred as the scan is, and limited to the lung; the noise of the scan stays.

Must not know nodules, their statistics, or files.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from jaxtyping import Bool, Float, Float32, Float64, Int16, Int64, UInt8
from scipy import ndimage

from carina.errors import InputError
from carina.geometry import Geometry, Vector3
from carina.io.luna import IGNORE
from carina.volume import Volume

GAP_MM = 2.5
"""Widest gap between a lung mask and the wall that bodies may fill."""


@dataclass(frozen=True)
class Tissue:
    """What a body is made of.

    Attributes:
        hu: HU of the tissue, one number or one per point of the fine grid.
        edge_mm: width of the soft edge (scale of a logistic curve).
        inset_mm: how far the half-dense surface lies inside the outlined one, as readers outline generously.
    """

    hu: Float32[np.ndarray, "*grid"] | float
    edge_mm: float
    inset_mm: float = 0.0


@dataclass(frozen=True, eq=False)
class FineGrid:
    """Points finer than voxels over a box of voxels.

    Attributes:
        box: the voxels covered, as slices of the array.
        offset_mm: position of each fine point relative to the body's centre, along the array's axes.
        step_mm: distance of neighbouring fine points.
        factor: fine points per voxel along each axis.
    """

    box: tuple[slice, slice, slice]
    offset_mm: Float32[np.ndarray, "z y x 3"]
    step_mm: Vector3
    factor: tuple[int, int, int]

    def to_voxels(self, fine: Float32[np.ndarray, "z y x"]) -> Float32[np.ndarray, "z2 y2 x2"]:
        """Average over the fine points of each voxel."""
        for axis, k in enumerate(self.factor):
            if k > 1:
                shape = fine.shape
                fine = fine.reshape(*shape[:axis], shape[axis] // k, k, *shape[axis + 1 :]).mean(axis + 1)
        return fine


@dataclass(frozen=True, eq=False)
class Blended:
    """What drawing a body changed.

    Attributes:
        box: the voxels that may have changed.
        mask: voxels in ``box`` at least half covered by the body and inside the lung.
        near: voxels in ``box`` within 2 mm of the body.
        whole_mm3: volume of the whole body, in the lung or not.
        inside: share of that volume that lies in the lung.
        contrast_hu: how much denser the masked voxels became on average.
        in_air: share of the masked voxels that were aerated lung before.
        hu: the box with the body in it.
    """

    box: tuple[slice, slice, slice]
    mask: Bool[np.ndarray, "z y x"]
    near: Bool[np.ndarray, "z y x"]
    whole_mm3: float
    inside: float
    contrast_hu: float
    in_air: float
    hu: Int16[np.ndarray, "z y x"]


@dataclass(frozen=True, eq=False)
class Raster:
    """The lung on every few voxels, for choosing places.

    Attributes:
        stride: voxels from one raster point to the next, along each axis.
        first: voxel of the first raster point.
        depth_mm: distance of each point from the lung's border, 0 outside.
    """

    stride: Int64[np.ndarray, "3"]
    first: Int64[np.ndarray, "3"]
    depth_mm: Float64[np.ndarray, "z y x"]

    def to_zyx(self, points: Int64[np.ndarray, "*n 3"]) -> Float64[np.ndarray, "*n 3"]:
        """Voxel indices of raster points."""
        return np.asarray(points * self.stride + self.first, float)


class Canvas:
    """A copy of a CT to draw into, with its lung, its labels and its own blur and noise.

    Attributes:
        hu: HU, changed by ``paint``.
        label: 0 background, 1 to 200 nodules, 255 ignore; changed by whoever draws.
        geometry: where the voxels lie.
        lung: voxels that may be drawn in.
        noise_hu: standard deviation of the fine noise in the lung.
        mottle_hu: standard deviation of the coarser noise and texture of the lung.
        blur_mm: in-plane standard deviation of the scan's point spread.
    """

    def __init__(
        self,
        volume: Volume,
        lung: Bool[np.ndarray, "z y x"],
        ignore: Bool[np.ndarray, "z y x"] | None,
        rng: np.random.Generator,
    ) -> None:
        if lung.shape != volume.hu.shape or (ignore is not None and ignore.shape != lung.shape):
            raise InputError(f"lung or ignore mask does not fit the volume of shape {volume.hu.shape}")
        self.hu: Int16[np.ndarray, "z y x"] = np.array(volume.hu)
        self.geometry: Geometry = volume.geometry
        self.spacing = np.array(volume.geometry.spacing_zyx_mm)
        self.lung = lung
        self.label: UInt8[np.ndarray, "z y x"] = np.zeros(lung.shape, np.uint8)
        if ignore is not None:
            self.label[ignore] = IGNORE
        self.noise_hu, self.mottle_hu = _noise(self.hu, lung)
        self.blur_mm = float(rng.uniform(0.4, 0.8))

    @cached_property
    def raster(self) -> Raster:
        """The lung on a raster of about 2.5 mm."""
        stride = np.maximum(1, np.rint(2.5 / self.spacing)).astype(int)
        lung = self.lung[tuple(slice(int(s) // 2, None, int(s)) for s in stride)]
        if not lung.any():
            return Raster(stride, stride // 2, np.zeros(lung.shape))
        box = ndimage.find_objects(lung.view(np.uint8))[0]
        # One layer of padding where the lung ends; none where the scan ends: there is no pleura.
        low = np.maximum([s.start - 1 for s in box], 0)
        high = [s.stop + 1 for s in box]
        near = lung[tuple(slice(int(a), b) for a, b in zip(low, high, strict=True))]
        depth = ndimage.distance_transform_edt(near, sampling=self.spacing * stride)
        return Raster(stride, low * stride + stride // 2, np.asarray(depth))

    def fine_grid(
        self,
        center_zyx: Float64[np.ndarray, "3"],
        low_mm: Float[np.ndarray, "3"],
        high_mm: Float[np.ndarray, "3"],
        step_mm: float,
    ) -> FineGrid | None:
        """Fine points over a body's box and 4 mm around it; None where that does not meet the volume.

        Args:
            center_zyx: the body's centre, fractional index.
            low_mm: lowest point of the body relative to its centre, in mm along the array's axes.
            high_mm: highest point likewise.
            step_mm: largest distance of fine points.
        """
        margin = np.maximum(4.0, 1.5 * self.spacing)
        low = np.floor(center_zyx + (low_mm - margin) / self.spacing).astype(int).clip(0)
        high = np.ceil(center_zyx + (high_mm + margin) / self.spacing).astype(int) + 1
        high = np.minimum(high, self.hu.shape)
        if (high - low < 2).any():
            return None
        factor = np.ceil(self.spacing / step_mm).astype(int)
        lines = [
            ((a + (np.arange((b - a) * k) + 0.5) / k - 0.5 - c) * s).astype(np.float32)
            for a, b, k, c, s in zip(low, high, factor, center_zyx, self.spacing, strict=True)
        ]
        offset = np.stack(np.meshgrid(*lines, indexing="ij"), axis=-1)
        fine = self.spacing / factor
        return FineGrid(
            (slice(low[0], high[0]), slice(low[1], high[1]), slice(low[2], high[2])),
            offset,
            (float(fine[0]), float(fine[1]), float(fine[2])),
            (int(factor[0]), int(factor[1]), int(factor[2])),
        )

    def blend(
        self,
        grid: FineGrid,
        distance_mm: Float32[np.ndarray, "z y x"],
        tissue: Tissue,
        drawn_mm: Float32[np.ndarray, "z y x"] | None = None,
    ) -> Blended:
        """What the CT would look like with a body in it; nothing is changed before ``paint``.

        Args:
            grid: the fine points.
            distance_mm: signed distance of the body that counts as its mask, at the fine points.
            tissue: what it is made of.
            drawn_mm: signed distance of what is drawn where that is more than the mask (spicules).
        """
        drawn = distance_mm if drawn_mm is None else drawn_mm
        alpha = _logistic((drawn - tissue.inset_mm) / tissue.edge_mm)
        amount = grid.to_voxels(alpha)
        if isinstance(tissue.hu, float):
            target = np.full_like(amount, tissue.hu)
        else:
            target = grid.to_voxels(alpha * tissue.hu) / np.maximum(amount, 1e-6)
        covered = grid.to_voxels(np.clip(0.5 + distance_mm / min(grid.step_mm), 0, 1))
        near = grid.to_voxels((distance_mm > -2).astype(np.float32)) > 0

        box = grid.box
        hu = self.hu[box].astype(np.float32)
        structure = ndimage.median_filter(hu, size=(1, 3, 3))
        fill_in = self._may_fill(box, structure)
        amount *= fill_in
        base = self._without_mottle(hu, structure, self.lung[box])
        added = amount * np.maximum(target - base, 0)
        # Thin vessels inside a solid body would shine through as ghosts: take off what is above the noise.
        residual = hu - structure
        ghost = residual - np.clip(residual, -3 * self.noise_hu, 3 * self.noise_hu)
        added -= amount * np.clip((target + 500) / 400, 0, 1) * ghost * (target > base)
        sigma = np.array([0.2 * self.spacing[0], self.blur_mm, self.blur_mm]) / self.spacing
        seen = ndimage.gaussian_filter(added, sigma, mode="constant", truncate=3.0)
        seen[np.abs(seen) < 0.5] = 0

        mask = (covered >= 0.5) & fill_in
        voxel_mm3 = self.geometry.voxel_volume_mm3
        return Blended(
            box,
            mask,
            near,
            float(covered.sum() * voxel_mm3),
            float(covered[fill_in].sum() / max(covered.sum(), 1e-6)),
            float(seen[mask].mean()) if mask.any() else 0.0,
            float((structure[mask] < -450).mean()) if mask.any() else 0.0,
            np.clip(np.rint(hu + seen), -32768, 32767).astype(np.int16),
        )

    def paint(self, blended: Blended) -> None:
        """Put a blended body into the CT."""
        self.hu[blended.box] = blended.hu

    def _may_fill(
        self, box: tuple[slice, slice, slice], structure: Float32[np.ndarray, "z y x"]
    ) -> Bool[np.ndarray, "z y x"]:
        """The lung, and the gap that a lung mask leaves before the denser wall: bodies flatten against it."""
        lung = self.lung[box]
        if lung.all() or not lung.any():
            return np.array(lung)
        reach = 2 * np.floor(GAP_MM / self.spacing).astype(int) + 1
        gap = ndimage.maximum_filter(lung.view(np.uint8), size=tuple(reach)).view(bool)
        return np.asarray(lung | (gap & (structure < -300) & (structure > -1000)), bool)

    def _without_mottle(
        self,
        hu: Float32[np.ndarray, "z y x"],
        structure: Float32[np.ndarray, "z y x"],
        lung: Bool[np.ndarray, "z y x"],
    ) -> Float32[np.ndarray, "z y x"]:
        """The structures of the background, without the mottle that has to stay visible in the body."""
        air = hu[lung & (structure < -600)]
        level = float(np.median(air)) if air.size > 20 else -850.0
        rise = structure - level
        return np.asarray(level + rise - np.clip(rise, -2 * self.mottle_hu, 2 * self.mottle_hu), np.float32)


def _logistic(x: Float32[np.ndarray, "z y x"]) -> Float32[np.ndarray, "z y x"]:
    return np.asarray(0.5 + 0.5 * np.tanh(0.5 * x), np.float32)


def _noise(hu: Int16[np.ndarray, "z y x"], lung: Bool[np.ndarray, "z y x"]) -> tuple[float, float]:
    """Standard deviation of fine and of coarser noise in the lung, by robust estimates over some slices."""
    area = lung.sum(axis=(1, 2))
    good = np.flatnonzero(area > 0.3 * area.max()) if area.any() else np.array([], int)
    if not good.size:
        raise InputError("the lung mask is empty: nothing can be drawn into this CT")
    chosen = good[np.linspace(0, len(good) - 1, 8).astype(int)]
    slices = hu[chosen].astype(np.float32)
    structure = ndimage.median_filter(slices, size=(1, 3, 3))
    mottle = structure - ndimage.gaussian_filter(structure, (0, 6, 6))
    inside = lung[chosen] & (structure < -600)
    if inside.sum() < 100:
        return 10.0, 10.0

    def spread(values: Float32[np.ndarray, "n"]) -> float:
        return 1.4826 * float(np.median(np.abs(values - np.median(values))))

    return spread((slices - structure)[inside]), spread(mottle[inside])

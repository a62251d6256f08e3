"""Placing nodules and their look-alikes in the synthetic lungs, and working out what they cover.

Must not know scanners' noise or files.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Float32, UInt8
from scipy import ndimage

from carina.data.phantom_anatomy import Anatomy
from carina.data.phantom_frame import CELL_MM
from carina.data.phantom_lung import LungTrees, sample
from carina.data.phantom_nodules import Lesion, Place, draw_band, draw_diameter, draw_nodule, draw_plaque
from carina.data.phantom_scanner import Protocol
from carina.errors import UsageError
from carina.geometry import sphere_diameter

PLACES: tuple[Place, ...] = ("free", "pleural", "vascular")
PLACE_SHARES = (0.52, 0.28, 0.20)
LEAST_IN_LUNG = 0.7
"""Share of a nodule's full shape that lies within the lung."""


@dataclass(frozen=True)
class Placed:
    """A lesion in the grid of thin planes.

    Attributes:
        lesion: its shape.
        place: where it was put.
        centre_zyx_mm: centre of mass of what lies within the lung, phantom's frame.
        volume_mm3: volume within the lung, from supersampling.
        start_zyx: first voxel of the box that holds it.
        coverage: share of each voxel that it fills.
        hu: its HU in each voxel.
    """

    lesion: Lesion
    place: Place
    centre_zyx_mm: Float[np.ndarray, "3"]
    volume_mm3: float
    start_zyx: tuple[int, int, int]
    coverage: Float32[np.ndarray, "z y x"]
    hu: Float32[np.ndarray, "z y x"]

    @property
    def diameter_mm(self) -> float:
        """Diameter of the sphere of the same volume."""
        return sphere_diameter(self.volume_mm3)


def render(
    lesion: Lesion, place: Place, centre_zyx_mm: np.ndarray, anatomy: Anatomy, protocol: Protocol
) -> Placed | None:
    """Work out which part of each thin voxel the lesion fills inside the lung; None where too little lies in it."""
    spacing = np.asarray(protocol.fine_spacing_zyx_mm)
    origin = np.asarray(protocol.origin_zyx_mm)
    fine = min(0.5, max(0.22, lesion.radius_mm / 8))
    parts = np.maximum(2, np.ceil(spacing / fine)).astype(int)
    reach = lesion.reach_mm
    lo = np.maximum(np.floor((centre_zyx_mm - reach - origin) / spacing).astype(int), 0)
    hi = np.minimum(np.ceil((centre_zyx_mm + reach - origin) / spacing).astype(int) + 1, protocol.fine_shape_zyx)
    if (hi - lo < 2).any():
        return None
    shape = hi - lo
    axes = [
        (lo[k] - 0.5 + (np.arange(shape[k] * parts[k]) + 0.5) / parts[k]) * spacing[k] + origin[k] for k in range(3)
    ]
    grid = np.stack(np.meshgrid(*axes, indexing="ij"), -1).reshape(-1, 3)
    near = np.linalg.norm(grid - centre_zyx_mm, axis=1) <= reach
    inside = np.full(len(grid), -9.0, np.float32)
    offsets = (grid[near] - centre_zyx_mm).astype(np.float32)
    inside[near] = lesion.inside(offsets)
    step = float((spacing / parts).mean())
    whole = np.clip(0.5 + inside / step, 0, 1)
    lung = np.full(len(grid), -9.0, np.float32)
    touched = whole > 0
    lung[touched] = sample(anatomy.lung, anatomy, grid[touched])
    cut = np.minimum(whole, np.clip(0.5 + lung / step, 0, 1))
    if cut.sum() < LEAST_IN_LUNG * whole.sum() or cut.sum() == 0:
        return None

    def pool(values: np.ndarray) -> np.ndarray:
        blocks = values.reshape(shape[0], parts[0], shape[1], parts[1], shape[2], parts[2])
        return np.asarray(blocks.mean(axis=(1, 3, 5)), np.float32)

    coverage = pool(cut)
    hu = np.full(coverage.shape, lesion.hu, np.float32)
    if lesion.core_share:
        core = np.zeros(len(grid), np.float32)
        core[near] = np.clip(0.5 + lesion.inside(offsets, lesion.core_share) / step, 0, 1)
        part = pool(np.minimum(core, cut)) / np.maximum(coverage, 1e-3)
        hu += np.minimum(part, 1) * (lesion.core_hu - lesion.hu)
    centre = (grid * cut[:, None]).sum(0) / cut.sum()
    volume = float(coverage.sum() * np.prod(spacing))
    return Placed(lesion, place, centre, volume, (int(lo[0]), int(lo[1]), int(lo[2])), coverage, hu)


def place_nodules(
    rng: np.random.Generator,
    n: int,
    anatomy: Anatomy,
    trees: LungTrees,
    protocol: Protocol,
    vessels: UInt8[np.ndarray, "z y x"],
    walls: UInt8[np.ndarray, "z y x"],
) -> list[Placed]:
    """Place ``n`` nodules apart from each other, visible beside vessels and airways.

    Raises:
        UsageError: so many have no room.
    """
    placed: list[Placed] = []
    depth = anatomy.lung
    voxels = np.argwhere(depth > 0.5)
    vessel_mid = np.concatenate([(t.a + t.b) / 2 for t in (trees.arteries, trees.veins)])
    vessel_r = np.concatenate([t.radius_a for t in (trees.arteries, trees.veins)])
    on_vessel = vessel_mid[(vessel_r > 0.7) & (vessel_r < 2.2)]
    for _ in range(20 * n + 20):
        if len(placed) == n:
            return placed
        diameter = draw_diameter(rng)
        place = PLACES[int(rng.choice(3, p=PLACE_SHARES))]
        for attempt in range(80):
            # A chest that has no room for a large nodule gets a smaller one.
            lesion = draw_nodule(rng, diameter * 0.97**attempt if diameter * 0.97**attempt > 3.1 else 3.1)
            r = lesion.radius_mm
            if place == "vascular":
                centre = on_vessel[rng.integers(len(on_vessel))] + rng.normal(0, 0.3 * r, 3)
            else:
                centre = (
                    voxels[rng.integers(len(voxels))] + rng.uniform(-0.5, 0.5, 3)
                ) * CELL_MM + anatomy.origin_zyx_mm
            at = float(sample(depth, anatomy, centre[None])[0])
            if place == "pleural" and not 0.35 * r < at < 0.85 * r:
                continue
            if place != "pleural" and at < r + 1.5:
                continue
            if any(np.linalg.norm(p.centre_zyx_mm - centre) < p.lesion.reach_mm + lesion.reach_mm + 3 for p in placed):
                continue
            new = render(lesion, place, centre, anatomy, protocol)
            if new is None or _crowded(new, vessels, walls) or not 3.0 <= new.diameter_mm <= 31.0:
                continue
            placed.append(new)
            break
    return placed
    raise UsageError(f"the lungs of this phantom have room for {len(placed)} nodules, not for {n}; ask for fewer")


def _box(placed: Placed) -> tuple[slice, slice, slice]:
    z, y, x = (slice(a, a + n) for a, n in zip(placed.start_zyx, placed.coverage.shape, strict=True))
    return z, y, x


def _crowded(placed: Placed, vessels: np.ndarray, walls: np.ndarray) -> bool:
    """Whether large vessels or airways would hide the nodule."""
    box, total = _box(placed), placed.coverage.sum() * 255
    return bool(
        (vessels[box] * placed.coverage).sum() > 0.3 * total or (walls[box] * placed.coverage).sum() > 0.15 * total
    )


def place_lookalikes(
    rng: np.random.Generator, n: int, anatomy: Anatomy, protocol: Protocol, apart_from: list[Placed]
) -> list[Placed]:
    """Place scars in the lungs and plaques on the pleura, away from the nodules."""
    placed: list[Placed] = []
    voxels = np.argwhere(anatomy.lung > 0.5)
    slope = np.stack(list(np.gradient(ndimage.gaussian_filter(anatomy.lung, 1.0))), -1)
    for _ in range(60 * n):
        if len(placed) == n:
            break
        voxel = voxels[rng.integers(len(voxels))]
        centre = voxel * CELL_MM + np.asarray(anatomy.origin_zyx_mm)
        at = float(anatomy.lung[tuple(voxel)])
        if rng.random() < 0.5:
            if at < 6:
                continue
            lesion = draw_band(rng)
        else:
            if not at < 2.0:
                continue
            inward = slope[tuple(voxel)]
            inward /= np.linalg.norm(inward) + 1e-6
            frame = np.linalg.qr(np.column_stack([inward, rng.standard_normal((3, 2))]))[0]
            flat = draw_plaque(rng)
            lesion = Lesion(flat.type, flat.form, flat.radius_mm, frame @ flat.stretch, flat.bumps, flat.heights,
                            flat.widths, flat.spikes, 0.0, flat.hu)  # fmt: skip
        if any(np.linalg.norm(p.centre_zyx_mm - centre) < p.lesion.reach_mm + 30 for p in apart_from):
            continue
        new = render(lesion, "pleural" if at < 3 else "free", centre, anatomy, protocol)
        if new is not None:
            placed.append(new)
    return placed

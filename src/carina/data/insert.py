"""Insert nodules into a CT: shapes of real nodules in tissue of every type, at places where nodules grow.

What is inserted is known exactly: mask, volume, diameter, type. What nobody could see, or what lies mostly outside
the lung, is marked to be ignored instead.

Must not know files or how a cohort is laid out (``carina.data.synthesize``).
"""

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Bool, Float64
from scipy import ndimage

from carina.data.blend import Canvas, FineGrid, Tissue
from carina.data.random_forms import random_rotation, smooth_noise
from carina.data.shapes import SIDE, VOXELS_PER_DIAMETER, ShapeAtlas
from carina.geometry import Vector3
from carina.io.luna import IGNORE, MOST_NODULES

NoduleType = Literal["solid", "part-solid", "ground-glass", "calcified"]
Site = Literal["free", "pleural", "vascular"]

SITES: dict[Site, float] = {"free": 0.45, "pleural": 0.33, "vascular": 0.22}
TYPES: dict[NoduleType, float] = {"solid": 0.61, "calcified": 0.05, "ground-glass": 0.18, "part-solid": 0.16}
SMALL_TYPES: dict[NoduleType, float] = {"solid": 0.79, "calcified": 0.06, "ground-glass": 0.15}
"""Shares of nodule types; nodules under 5 mm are rarely anything but solid."""

DIAMETER_MM = (3.2, 32.0)
"""Smallest and largest diameter of a nodule that is inserted."""

MASSES = 0.06
"""Share of what is inserted that is larger than a nodule."""

MASS_MM = (30.0, 90.0)
"""Smallest and largest diameter of a mass."""

LEAST_SEEN_MM = 3.0
"""Smallest equivalent diameter of a mask that counts as a nodule."""


@dataclass(frozen=True)
class Inserted:
    """One nodule that was inserted, as it came out in the voxels.

    Attributes:
        label: its value in the label mask.
        center_zyx: centre of its mask, fractional index.
        center_lps: the same point in mm.
        diameter_mm: diameter of the sphere of the mask's volume.
        volume_mm3: volume of the mask.
        type: kind of tissue.
        site: where it was put.
    """

    label: int
    center_zyx: Vector3
    center_lps: Vector3
    diameter_mm: float
    volume_mm3: float
    type: NoduleType
    site: Site


@dataclass(frozen=True, eq=False)
class Places:
    """Points of the lung by kind of site, on a coarse raster.

    Attributes:
        index_zyx: voxel indices in the lung.
        depth_mm: distance of each from the lung's border.
        dense: whether each lies in something dense (a vessel).
    """

    index_zyx: Float64[np.ndarray, "n 3"]
    depth_mm: Float64[np.ndarray, "n"]
    dense: Bool[np.ndarray, "n"]

    def draw(self, site: Site, diameter_mm: float, rng: np.random.Generator) -> Float64[np.ndarray, "3"] | None:
        """A point where a nodule of this size and site may have its centre; None if there is none."""
        radius = diameter_mm / 2
        if site == "free":
            fits = self.depth_mm > radius + 1
        elif site == "pleural":
            fits = (self.depth_mm > 0.1 * radius) & (self.depth_mm < 1.0 * radius + 1)
        else:
            fits = self.dense & (self.depth_mm > max(3.0, 0.7 * radius))
        rows = np.flatnonzero(fits)
        return self.index_zyx[rng.choice(rows)] if rows.size else None


def find_places(canvas: Canvas) -> Places:
    """All places of the lung of a CT, on its raster."""
    points = np.argwhere(canvas.raster.depth_mm > 0)
    index = canvas.raster.to_zyx(points)
    return Places(
        index,
        np.asarray(canvas.raster.depth_mm[tuple(points.T)], float),
        np.asarray(canvas.hu[tuple(index.astype(int).T)] > -400),
    )


def draw_diameter(atlas: ShapeAtlas, rng: np.random.Generator) -> float:
    """A diameter in mm: half as in LIDC, most others log-uniform from 3.5 to 30 mm so that no size is rare."""
    if rng.random() < MASSES:
        return math.exp(rng.uniform(*np.log(MASS_MM)))
    if rng.random() < 0.55:
        diameter = float(rng.choice(atlas.diameter_mm)) * rng.uniform(0.7, 1.2)
    else:
        diameter = math.exp(rng.uniform(math.log(3.5), math.log(30.0)))
    return min(max(diameter, DIAMETER_MM[0]), DIAMETER_MM[1])


def insert_nodules(
    canvas: Canvas, atlas: ShapeAtlas, count: int, rng: np.random.Generator, attempts: int = 8
) -> list[Inserted]:
    """Insert ``count`` nodules of random size, type and site; fewer where no free place is found.

    Args:
        canvas: the CT, changed in place: its HU, and its labels (k for the k-th nodule, 255 for what to ignore).
        atlas: shapes to draw from.
        count: how many to insert, at most ``MOST_NODULES``.
        rng: source of all randomness.
        attempts: places tried for each nodule.

    Returns:
        The nodules that can be seen, in order of their label.
    """
    places = find_places(canvas)
    inserted: list[Inserted] = []
    # The largest first: later there would be no room for them.
    for diameter in sorted((draw_diameter(atlas, rng) for _ in range(min(count, MOST_NODULES))), reverse=True):
        shares = TYPES if diameter >= 5 else SMALL_TYPES
        kind = list(shares)[rng.choice(len(shares), p=list(shares.values()))]
        # No place is as far from the border as a mass is wide.
        site = list(SITES)[rng.choice(len(SITES), p=list(SITES.values()))] if diameter <= DIAMETER_MM[1] else "pleural"
        for _ in range(attempts):
            center = places.draw(site, diameter, rng)
            if center is None:
                continue
            center = center + rng.uniform(-1, 1, 3) / canvas.spacing
            if site == "vascular":
                center = center + rng.normal(0, 0.3 * diameter, 3) / canvas.spacing
            outcome = insert_nodule(canvas, atlas, center, diameter, kind, len(inserted) + 1, site, rng)
            if outcome == "occupied":
                continue
            if outcome != "ignored":
                inserted.append(outcome)
            break
    return inserted


def insert_nodule(
    canvas: Canvas,
    atlas: ShapeAtlas,
    center_zyx: Float64[np.ndarray, "3"],
    diameter_mm: float,
    kind: NoduleType,
    label: int,
    site: Site,
    rng: np.random.Generator,
) -> Inserted | Literal["occupied", "ignored"]:
    """Insert one nodule.

    Args:
        canvas: the CT, changed in place.
        atlas: shapes to draw from.
        center_zyx: where its centre of mass goes, fractional index.
        diameter_mm: wished equivalent diameter; what lies outside the lung is cut off.
        kind: type of tissue.
        label: its value in the label mask.
        site: recorded with the nodule.
        rng: source of all randomness.

    Returns:
        The nodule; "occupied" if something labelled is closer than 2 mm (nothing is changed then); "ignored" if
        it came out invisible or mostly outside the lung (its place is marked 255 then).
    """
    shape = int(rng.integers(len(atlas)))
    turn = random_rotation(rng) * rng.uniform(0.85, 1.18, 3)
    spiculated = kind in ("solid", "part-solid") and diameter_mm >= 8 and rng.random() < 0.35
    lobulated = diameter_mm >= 6 and rng.random() < 0.3
    spike_mm = diameter_mm * rng.uniform(0.25, 0.6) if spiculated else 0.0

    # Rows of ``turn`` are array axes, columns the shape's own axes: offset -> shape is a multiplication from the
    # right, and a shape's point lies at (its position) @ inv(turn).
    outline = (
        (np.argwhere(atlas.mask(shape)) - (SIDE - 1) / 2) * (diameter_mm / VOXELS_PER_DIAMETER) @ np.linalg.inv(turn)
    )
    margin = spike_mm + 0.08 * diameter_mm
    grid = canvas.fine_grid(
        center_zyx, outline.min(0) - margin, outline.max(0) + margin, float(np.clip(diameter_mm / 12, 0.35, 0.9))
    )
    if grid is None:
        return "occupied"
    points = grid.offset_mm @ turn.astype(np.float32)
    distance = atlas.signed_distance(shape, points, diameter_mm)
    distance += smooth_noise(rng, grid, max(1.5, diameter_mm / rng.uniform(2.5, 6)), rng.uniform(0, 0.06) * diameter_mm)
    if lobulated:
        distance += smooth_noise(rng, grid, diameter_mm / rng.uniform(2, 3), 0.1 * diameter_mm)
    drawn = np.maximum(distance, _spicules(grid, diameter_mm, spike_mm, rng)) if spiculated else None

    blended = canvas.blend(grid, distance, _tissue(kind, grid, distance, diameter_mm, rng), drawn)
    here = canvas.label[blended.box]
    if (here[blended.near] > 0).any():
        return "occupied"
    canvas.paint(blended)
    mask = _largest_part(blended.mask)
    voxels = int(mask.sum())
    volume_mm3 = voxels * canvas.geometry.voxel_volume_mm3
    diameter = (6 / math.pi * volume_mm3) ** (1 / 3)
    least_hu = max(100.0, max(canvas.noise_hu, canvas.mottle_hu) * max(1.8, 12 / max(diameter, 1.0)))
    cut_off = diameter < LEAST_SEEN_MM or volume_mm3 < 0.35 * blended.whole_mm3
    if cut_off or blended.in_air < 0.5 or blended.contrast_hu < least_hu:
        here[blended.near] = IGNORE
        return "ignored"
    here[blended.mask] = IGNORE  # crumbs that the lung's border cut off
    here[mask] = label
    center = np.argwhere(mask).mean(axis=0) + [s.start for s in blended.box]
    z, y, x = (float(v) for v in center)
    left, posterior, superior = (float(v) for v in canvas.geometry.to_lps(center))
    return Inserted(label, (z, y, x), (left, posterior, superior), diameter, volume_mm3, kind, site)


def _largest_part(mask: Bool[np.ndarray, "z y x"]) -> Bool[np.ndarray, "z y x"]:
    """The largest connected part of a mask: the lung's border may cut crumbs off a body."""
    labels, n = ndimage.label(mask, np.ones((3, 3, 3)))
    if n < 2:
        return mask
    return np.asarray(labels == 1 + np.argmax(np.bincount(labels.ravel())[1:]), bool)


def _spicules(
    grid: FineGrid, diameter_mm: float, length_mm: float, rng: np.random.Generator
) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    """Signed distance of thin tapering rays from the body's centre."""
    directions = rng.standard_normal((int(rng.integers(6, 24)), 3))
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    squared = np.square(grid.offset_mm).sum(axis=-1)
    best = np.full(squared.shape, -99.0, np.float32)
    for direction in directions.astype(np.float32):
        reach = diameter_mm / 2 + length_mm * rng.uniform(0.3, 1.0)
        base = rng.uniform(0.03, 0.12) * diameter_mm + 0.4
        along = grid.offset_mm @ direction
        away = np.sqrt(np.maximum(squared - along * along, 0))
        ray = np.where(along > 0, base * (1 - along / reach) - away, -99.0)
        best = np.maximum(best, ray)
    return best.astype(np.float32)


def _tissue(
    kind: NoduleType,
    grid: FineGrid,
    distance_mm: np.ndarray[tuple[int, ...], np.dtype[np.float32]],
    diameter_mm: float,
    rng: np.random.Generator,
) -> Tissue:
    """Tissue of a kind: HU with texture, and how soft its edge is."""
    inset = rng.uniform(0, 0.5) * min(1.0, diameter_mm / 8)
    texture = smooth_noise(rng, grid, rng.uniform(1.5, 4), rng.uniform(0, 45))
    texture += smooth_noise(rng, grid, max(3.0, diameter_mm / 3), rng.uniform(0, 30))
    if kind == "solid":
        return Tissue(rng.normal(20, 60) + texture, rng.uniform(0.1, 0.45), inset)
    if kind == "calcified":
        calcium = smooth_noise(rng, grid, max(2.0, diameter_mm / 3), rng.uniform(0, 120))
        return Tissue(rng.uniform(150, 700) + texture + calcium, rng.uniform(0.1, 0.4), inset)
    glass = rng.uniform(-740, -420) + 1.6 * texture
    edge = rng.uniform(0.5, 1.0) + 0.04 * diameter_mm
    if kind == "ground-glass":
        return Tissue(glass, edge, inset)
    core_mm = distance_mm - rng.uniform(0.1, 0.32) * diameter_mm
    core_mm += smooth_noise(rng, grid, max(2.0, diameter_mm / 4), 0.08 * diameter_mm)
    share = 0.5 + 0.5 * np.tanh(core_mm / 1.0)
    return Tissue((glass * (1 - share) + rng.normal(0, 70) * share).astype(np.float32), edge, inset)

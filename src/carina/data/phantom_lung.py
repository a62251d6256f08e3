"""What grows inside the synthetic lungs: arteries with their bronchi, veins, and where these cross or touch.

Must not know scanners, nodules or files.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Float32
from scipy import ndimage
from scipy.spatial import cKDTree

from carina.data.phantom_anatomy import Anatomy
from carina.data.phantom_frame import CELL_MM
from carina.data.phantom_trees import Branches, Tubes, bend, grow_tree, join, polyline

TIP_VOLUME_MM3 = 450.0
"""Lung served by one end of an arterial or venous tree."""


@dataclass(frozen=True)
class LungTrees:
    """Everything tubular inside the lungs.

    Attributes:
        arteries: pulmonary arteries.
        veins: pulmonary veins.
        airways: inside of trachea and bronchi.
        walls: the same with their walls.
        forks: positions (mm, z y x) where an artery or vein of 1 to 4 mm radius divides.
    """

    arteries: Tubes
    veins: Tubes
    airways: Tubes
    walls: Tubes
    forks: Float[np.ndarray, "n 3"]


def sample(
    field: Float32[np.ndarray, "z y x"], anatomy: Anatomy, points: Float[np.ndarray, "n 3"]
) -> Float32[np.ndarray, " n"]:
    """Values of a coarse field of the anatomy at points in mm, interpolated linearly."""
    index = (points - np.asarray(anatomy.origin_zyx_mm)).T / CELL_MM
    return np.asarray(ndimage.map_coordinates(field, index, order=1, mode="nearest"), np.float32)


def grow_lung_trees(rng: np.random.Generator, anatomy: Anatomy) -> LungTrees:
    """Grow the vessels and bronchi of both lungs."""
    centre = anatomy.mediastinum
    voxels = np.argwhere(anatomy.lung > 2.5)
    position = voxels * CELL_MM + np.asarray(anatomy.origin_zyx_mm)
    left = position[:, 2] > 0
    arteries: list[Tubes] = []
    veins: list[Tubes] = []
    lumens: list[Tubes] = [polyline(np.array(centre.trachea), np.full(4, centre.airway_radii[0]))]
    walls: list[Tubes] = [polyline(np.array(centre.trachea), np.full(4, centre.airway_radii[0] + 1.4))]
    forks = []
    exponent = rng.uniform(0.36, 0.40)
    for side in (0, 1):
        mine = position[left == bool(side)]
        if len(mine) < 100:
            continue
        n = int(len(mine) * CELL_MM**3 / TIP_VOLUME_MM3)
        tips = [mine[rng.integers(0, len(mine), n)] + rng.uniform(-1, 1, (n, 3)) for _ in range(2)]

        bronchus = np.asarray(centre.bronchi[side])
        heading = _unit(bronchus[-1] - bronchus[-2])
        lobe = _lobes(anatomy, tips[0], side)
        root = np.asarray(centre.artery_roots[side])
        lobes = int(lobe.max()) + 1
        branches = grow_tree(
            rng, tips[0], lobe, np.repeat(root[None], lobes, 0), np.repeat(heading[None], lobes, 0),
            root_radius_mm=rng.uniform(6.0, 7.2), exponent=exponent, tip_radius_mm=0.44,
        )  # fmt: skip
        arteries.append(bend(branches))
        forks.append(_forks(branches))
        air, wall = _bronchi(rng, branches, bronchus[-1])
        radii = np.array(
            [centre.airway_radii[0] * 0.85, centre.airway_radii[1 + side], centre.airway_radii[1 + side] * 0.92]
        )
        main = polyline(bronchus, radii)
        lumens += [main, air]
        walls += [polyline(bronchus, radii + 1.3), wall]

        lower = (sample(anatomy.oblique, anatomy, tips[1]) < 0).astype(int)
        roots = np.asarray(centre.vein_roots[side])
        branches = grow_tree(
            rng, tips[1], lower, roots, _unit(np.tile([[0.0, -0.2, 1.0 if side else -1.0]], (2, 1))),
            root_radius_mm=rng.uniform(6.0, 7.2), exponent=exponent, tip_radius_mm=0.44,
        )  # fmt: skip
        veins.append(bend(branches))
        forks.append(_forks(branches))
    return LungTrees(join(*arteries), join(*veins), join(*lumens), join(*walls), np.concatenate(forks))


def touches(anatomy: Anatomy, trees: LungTrees) -> Float[np.ndarray, "n 3"]:
    """Where an artery and a vein pass within a millimetre of each other, or a vessel touches a fissure, mm (z y x)."""
    a, v = trees.arteries, trees.veins
    big_a, big_v = a.radius_a > 0.7, v.radius_a > 0.7
    mid_a, mid_v = (a.a + a.b)[big_a] / 2, (v.a + v.b)[big_v] / 2
    distance, nearest = map(np.asarray, cKDTree(mid_v).query(mid_a, distance_upper_bound=9.0))
    found = np.isfinite(distance)
    gap = distance[found] - a.radius_a[big_a][found] - v.radius_a[big_v][nearest[found]]
    crossing = ((mid_a[found] + mid_v[nearest[found]]) / 2)[gap < 0.8]
    both = np.concatenate([mid_a, mid_v])
    fissure = np.abs(sample(anatomy.oblique, anatomy, both)) < 1.2
    return np.concatenate([crossing, both[fissure]])


def _unit(vectors: np.ndarray) -> np.ndarray:
    return np.asarray(vectors / np.linalg.norm(vectors, axis=-1, keepdims=True))


def _lobes(anatomy: Anatomy, points: np.ndarray, side: int) -> np.ndarray:
    upper = sample(anatomy.oblique, anatomy, points) > 0
    if side == 1:
        return np.where(upper, 0, 1)
    above = sample(anatomy.horizontal, anatomy, points) > 0
    lobe = np.where(upper, np.where(above, 0, 2), 1)
    return np.unique(lobe, return_inverse=True)[1]


def _forks(branches: Branches) -> np.ndarray:
    radius = branches.radius_mm
    first = np.unique(branches.parent[branches.parent >= 0], return_index=True)[1]
    children = np.flatnonzero(branches.parent >= 0)[first]
    good = (radius[children] > 0.8) & (radius[children] < 3.5)
    return branches.start[children[good]]


def _bronchi(rng: np.random.Generator, arteries: Branches, hilum: Float[np.ndarray, "3"]) -> tuple[Tubes, Tubes]:
    """Bronchi run beside the arteries, a little to one side, as far as their lumen can be seen."""
    lumen = np.clip(arteries.radius_mm * rng.uniform(0.75, 1.0), 0.0, 5.0)
    wall = 0.3 + 0.12 * lumen
    direction = _unit(arteries.end - arteries.start + 1e-6)
    aside = _unit(np.cross(direction, _unit(rng.standard_normal(3))) + 1e-6)
    end = arteries.end + aside * (arteries.radius_mm + lumen + 0.6 * wall)[:, None]
    start = np.where(arteries.parent[:, None] >= 0, end[arteries.parent], np.asarray(hilum)[None])
    keep = lumen > 0.95
    number = np.cumsum(keep) - 1
    parent = np.where(arteries.parent >= 0, number[arteries.parent], -1)
    beside = Branches(
        start[keep], end[keep], arteries.heading[keep], lumen[keep], parent[keep], arteries.generation[keep]
    )
    air = bend(beside)
    thickness = wall[keep][air.branch]
    return air, Tubes(air.a, air.b, air.radius_a + thickness, air.radius_b + thickness, air.branch)

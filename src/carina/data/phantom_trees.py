"""Branching trees that fill a lung, and the rasterising of their tubes.

Arteries, veins and bronchi are all grown in the same way: a cloud of end points is split again and again, and every
branch runs from its parent towards the centre of the points it serves. All branches of one generation are handled
at once, so that ten thousand of them take a fraction of a second.

Must not know HU, organs or nodules. Positions are millimetres in (z, y, x) of the phantom's own frame.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Float32, Int, UInt8

Points = Float[np.ndarray, "n 3"]

_AT_ONCE = 120_000
"""Voxels handled at once while drawing: few enough to stay in the processor's cache."""


@dataclass(frozen=True)
class Branches:
    """The branches of a tree, each from ``start`` to ``end``.

    Attributes:
        start: where the branch begins, mm.
        end: where it ends, mm.
        heading: unit vector in which the parent arrived at ``start``.
        radius_mm: radius along the branch.
        parent: index of the branch that it continues, -1 for a root.
        generation: 0 for the branches at a root.
    """

    start: Points
    end: Points
    heading: Points
    radius_mm: Float[np.ndarray, " n"]
    parent: Int[np.ndarray, " n"]
    generation: Int[np.ndarray, " n"]


@dataclass(frozen=True)
class Tubes:
    """Straight pieces with round ends: from ``a`` to ``b``, their radii, and the branch they belong to."""

    a: Points
    b: Points
    radius_a: Float[np.ndarray, " n"]
    radius_b: Float[np.ndarray, " n"]
    branch: Int[np.ndarray, " n"]


def grow_tree(
    rng: np.random.Generator,
    tips: Points,
    group: Int[np.ndarray, " n"],
    roots: Float[np.ndarray, "roots 3"],
    headings: Float[np.ndarray, "roots 3"],
    *,
    root_radius_mm: float,
    exponent: float,
    tip_radius_mm: float,
) -> Branches:
    """Grow a tree that reaches every tip.

    Args:
        rng: source of all randomness.
        tips: end points to serve, mm.
        group: for each tip the root that serves it; every root serves at least one.
        roots: where the tree enters the lung, mm, one per group.
        headings: unit vector in which the vessel arrives at each root.
        root_radius_mm: radius of a branch that serves all tips.
        exponent: a branch that serves the fraction ``f`` of all tips has ``root_radius_mm * f**exponent``
            (Murray's law would be 1/3).
        tip_radius_mm: no branch is thinner.
    """
    order = np.argsort(group, kind="stable")
    tips = tips[order]
    total = len(tips)
    counts = np.bincount(group, minlength=len(roots))
    start, heading = np.asarray(roots, float), np.asarray(headings, float)
    parent_radius = np.full(len(roots), np.inf)
    parent = np.full(len(roots), -1)
    made: list[tuple[np.ndarray, ...]] = []
    n_made, generation = 0, 0
    while len(counts):
        first = np.concatenate([[0], np.cumsum(counts)[:-1]])
        centre = np.add.reduceat(tips, first, axis=0) / counts[:, None]
        reach = np.where(counts == 1, 1.0, rng.uniform(0.25, 0.5, len(counts)))
        end = start + (centre - start) * reach[:, None]
        length = np.linalg.norm(end - start, axis=1)
        # Off the straight line a little: no two branches of a real tree are mirror images.
        end += rng.normal(0.0, 0.05, end.shape) * length[:, None] * (counts > 1)[:, None]
        radius = np.minimum(
            root_radius_mm * (counts / total) ** exponent * rng.uniform(0.9, 1.1, len(counts)), parent_radius
        )
        radius = np.maximum(radius, tip_radius_mm)
        made.append((start, end, heading, radius, parent, np.full(len(counts), generation)))
        index = n_made + np.arange(len(counts))
        n_made += len(counts)
        generation += 1

        # Tips of branches that serve more than one are cut in two across their longest direction.
        which = np.repeat(np.arange(len(counts)), counts)
        offset = tips - centre[which]
        spread = np.add.reduceat(offset[:, :, None] * offset[:, None, :], first, axis=0)
        # Across the way it came, that is: both children go on outwards, none turns back.
        arrived = (end - start) / np.maximum(length, 1e-6)[:, None]
        across = np.eye(3) - 0.85 * arrived[:, :, None] * arrived[:, None, :]
        axis = np.linalg.eigh(across @ spread @ across)[1][:, :, -1]
        axis += rng.normal(0.0, 0.15, axis.shape)
        along = (offset * axis[which]).sum(1)
        tips = tips[np.lexsort((along, which))]
        tips = tips[np.repeat(counts > 1, counts)]
        alive = counts > 1
        n = counts[alive]
        left = np.clip(np.round(n * rng.uniform(0.25, 0.75, len(n))).astype(int), 1, n - 1)
        counts = np.stack([left, n - left], 1).ravel()
        start, heading = np.repeat(end[alive], 2, 0), np.repeat(arrived[alive], 2, 0)
        parent_radius, parent = np.repeat(radius[alive], 2), np.repeat(index[alive], 2)
    columns = [np.concatenate(column) for column in zip(*made, strict=True)]
    return Branches(columns[0], columns[1], columns[2], columns[3], columns[4], columns[5])


def bend(branches: Branches) -> Tubes:
    """Turn branches into smooth curves that leave in the direction in which the parent arrived, cut into pieces."""
    chord = branches.end - branches.start
    length = np.linalg.norm(chord, axis=1)
    # Short pieces bend well and touch few voxels in vain; thick branches need fewer.
    pieces = np.maximum(1, np.ceil(length / np.clip(2 * branches.radius_mm, 1.6, 4.0))).astype(int)
    branch = np.repeat(np.arange(len(length)), pieces)
    step = np.arange(len(branch)) - np.repeat(np.cumsum(pieces) - pieces, pieces)
    # A child keeps a part of its parent's heading, then turns to its own end.
    leaving = branches.heading * (0.6 * length)[:, None]

    def at(t: np.ndarray) -> np.ndarray:
        t = t[:, None]
        blend = t * t * (3 - 2 * t)
        curve = t * (1 - t) ** 2
        arriving = t * t * (t - 1)
        return np.asarray(branches.start[branch] + chord[branch] * (blend + arriving) + leaving[branch] * curve)

    begin = np.where(
        branches.parent >= 0,
        np.minimum(branches.radius_mm[branches.parent], branches.radius_mm * 1.25),
        branches.radius_mm,
    )[branch]
    t0, t1 = step / pieces[branch], (step + 1) / pieces[branch]
    finish = branches.radius_mm[branch]
    return Tubes(at(t0), at(t1), begin + (finish - begin) * t0, begin + (finish - begin) * t1, branch)


def join(*parts: Tubes) -> Tubes:
    """All pieces of several sets of tubes; the branch numbers lose their meaning."""
    return Tubes(
        np.concatenate([p.a for p in parts]),
        np.concatenate([p.b for p in parts]),
        np.concatenate([p.radius_a for p in parts]),
        np.concatenate([p.radius_b for p in parts]),
        np.concatenate([p.branch for p in parts]),
    )


def polyline(points: Points, radii_mm: Float[np.ndarray, " n"]) -> Tubes:
    """A chain of pieces through ``points`` with the radius given at each."""
    return Tubes(points[:-1], points[1:], radii_mm[:-1], radii_mm[1:], np.zeros(len(points) - 1, int))


def draw_tubes(
    coverage: UInt8[np.ndarray, "z y x"],
    tubes: Tubes,
    spacing_zyx_mm: tuple[float, float, float],
    origin_zyx_mm: tuple[float, float, float],
) -> None:
    """Raise ``coverage`` (0..255 for 0..100 % of a voxel) to what the tubes fill, in place.

    Voxels at the surface are covered in part; a tube thinner than a voxel covers in proportion to its cross-section.

    Args:
        coverage: the grid to draw on.
        tubes: the pieces, mm.
        spacing_zyx_mm: voxel size.
        origin_zyx_mm: position of the centre of voxel (0, 0, 0) in the frame of the tubes.
    """
    spacing = np.asarray(spacing_zyx_mm, np.float32)
    edge = np.float32(spacing.mean())
    origin = np.asarray(origin_zyx_mm)
    a, b = (tubes.a - origin).astype(np.float32), (tubes.b - origin).astype(np.float32)
    axis = b - a
    square = np.maximum((axis * axis).sum(1), 1e-6)
    radius, widen = tubes.radius_a.astype(np.float32), (tubes.radius_b - tubes.radius_a).astype(np.float32)
    middle = np.round((a + b) / (2 * spacing)).astype(np.int32)
    # Pieces of about the same reach share one ball of voxels around their middle.
    reach = np.maximum(tubes.radius_a, tubes.radius_b) + np.sqrt(square) / 2 + 0.5 * edge
    bucket = np.ceil(reach / 0.4).astype(int)
    for size in np.unique(bucket):
        ball = _ball(size * 0.4 + 0.5 * float(np.linalg.norm(spacing)), spacing)
        members = np.flatnonzero(bucket == size)
        for chosen in np.array_split(members, max(1, len(members) * len(ball) // _AT_ONCE)):
            rel = [(middle[chosen, k, None] + ball[:, k]) * spacing[k] - a[chosen, k, None] for k in range(3)]
            t = sum(rel[k] * axis[chosen, k, None] for k in range(3)) / square[chosen, None]
            np.clip(t, 0, 1, out=t)
            away = sum((rel[k] - t * axis[chosen, k, None]) ** 2 for k in range(3))
            r = radius[chosen, None] + widen[chosen, None] * t
            row, column = np.nonzero(away < (r + 0.5 * edge) ** 2)
            r, away = r[row, column], np.sqrt(away[row, column])
            # The soft edge adds to the cross-section, much for a thin tube; the factor takes that away again.
            soft = np.where(r > edge / 2, r**2 + edge**2 / 12, edge**2 * (0.5 + r / edge) ** 3 / 3)
            alpha = np.clip(0.5 + (r - away) / edge, 0, 1) * (r**2 / soft)
            z, y, x = (middle[chosen[row], k] + ball[column, k] for k in range(3))
            keep = np.ones(len(z), bool)
            for index, n in zip((z, y, x), coverage.shape, strict=True):
                keep &= (index >= 0) & (index < n)
            where = np.ravel_multi_index((z[keep], y[keep], x[keep]), coverage.shape)
            np.maximum.at(coverage.reshape(-1), where, (alpha[keep] * 255).astype(np.uint8))


def _ball(radius_mm: float, spacing: Float32[np.ndarray, "3"]) -> Int[np.ndarray, "n 3"]:
    """Voxel offsets within a radius."""
    extent = np.ceil(radius_mm / spacing).astype(int)
    block = np.stack(np.meshgrid(*[np.arange(-e, e + 1) for e in extent], indexing="ij"), -1).reshape(-1, 3)
    return np.asarray(block[np.linalg.norm(block * spacing, axis=1) <= radius_mm], np.int32)

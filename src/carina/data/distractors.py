"""Draw things into a CT that are no nodules: vessels, scars, fissures, plaques, caps, infiltrates.

They are blended exactly as nodules are, so that a network cannot learn "drawn" in place of "nodule". Their centres
serve as hard negatives.

Must not know files or how nodules are inserted.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Float32, Float64
from scipy import ndimage

from carina.data.blend import Canvas, FineGrid, Tissue
from carina.data.random_forms import random_curve, random_rotation, smooth_noise

KINDS = {"tube": 0.6, "plate": 0.19, "plaque": 0.16, "infiltrate": 0.05}
"""Share of each kind of distractor; a plaque high in the lung is an apical cap."""

MIN_CONTRAST_HU = 60.0

LEAST_INSIDE = 0.6
"""Share of a body that the lung must hold: the stump of a vessel that its border cuts off looks like a nodule."""

TUBE_LENGTH_TO_RADIUS = 14.0
"""Vessels are at least seven diameters long; shorter ones are what readers call nodules."""


@dataclass(frozen=True, eq=False)
class _Drawing:
    """A body to draw: its centre, box, sampling and the points at which it may be taken for a nodule."""

    center_zyx: Float64[np.ndarray, "3"]
    low_mm: Float[np.ndarray, "3"]
    high_mm: Float[np.ndarray, "3"]
    step_mm: float
    marks_mm: Float[np.ndarray, "n 3"]


def add_distractors(canvas: Canvas, count: int, rng: np.random.Generator) -> Float64[np.ndarray, "n 3"]:
    """Draw up to ``count`` distractors into a CT, label 0, away from whatever is labelled already.

    Args:
        canvas: the CT; its HU are changed in place, its labels are not.
        count: how many to try.
        rng: source of all randomness.

    Returns:
        Fractional indices (z, y, x) of points on them that a detector may take for nodules.
    """
    depth = canvas.raster.depth_mm
    inside = np.argwhere(depth > 0)
    border = np.argwhere((depth > 0) & (depth <= 3.0))
    marks = []
    for _ in range(count):
        kind = list(KINDS)[rng.choice(len(KINDS), p=list(KINDS.values()))]
        points = border if kind == "plaque" else inside
        if not len(points):
            continue
        chosen = points[rng.integers(len(points))]
        center = canvas.raster.to_zyx(chosen)
        if kind == "tube":
            marks += _tube(canvas, center, rng)
        elif kind == "plate":
            marks += _plate(canvas, center, rng)
        elif kind == "infiltrate":
            marks += _infiltrate(canvas, center, rng)
        else:
            marks += _plaque(canvas, center, _normal(depth, chosen, canvas.spacing * canvas.raster.stride), rng)
    return np.array(marks, float).reshape(-1, 3)


def _paint(
    canvas: Canvas, drawing: _Drawing, grid: FineGrid, distance_mm: Float32[np.ndarray, "z y x"], tissue: Tissue
) -> list[Float64[np.ndarray, "3"]]:
    """Draw one body unless it would touch something labelled or be cut off; the marks that can be seen."""
    blended = canvas.blend(grid, distance_mm, tissue)
    touches = (canvas.label[blended.box][blended.near] > 0).any()
    if touches or not blended.mask.any() or blended.inside < LEAST_INSIDE:
        return []
    before = canvas.hu[blended.box].astype(np.float32)
    canvas.paint(blended)
    rise = ndimage.maximum_filter(blended.hu - before, 3)
    start = np.array([s.start for s in blended.box])
    seen = []
    for offset in drawing.marks_mm:
        place = drawing.center_zyx + offset / canvas.spacing
        index = np.rint(place).astype(int) - start
        if ((index >= 0) & (index < rise.shape)).all() and rise[tuple(index)] > MIN_CONTRAST_HU:
            seen.append(place)
    return seen


def _tube(canvas: Canvas, center: Float64[np.ndarray, "3"], rng: np.random.Generator) -> list[Float64[np.ndarray, "3"]]:
    """A curved, tapering vessel; it may end, swell or branch within the lung."""
    radius = float(np.exp(rng.uniform(np.log(0.7), np.log(3.4))))
    length = max(rng.uniform(14, 50), TUBE_LENGTH_TO_RADIUS * radius)
    line = random_curve(rng, length)
    radii = radius * np.linspace(1, rng.uniform(0.35, 1.0), len(line))
    marks = [line[len(line) // 2], line[0], line[-1]]
    if rng.random() < 0.2:
        swell = rng.integers(3, len(line) - 3)
        radii = radii * (1 + rng.uniform(0.1, 0.35) * np.exp(-0.5 * ((np.arange(len(line)) - swell) / 1.5) ** 2))
    pieces = [(line, radii)]
    if rng.random() < 0.45:
        fork = int(rng.integers(2, len(line) - 2))
        child = random_curve(rng, length * rng.uniform(0.3, 0.6))
        child = child - child[0] + line[fork]
        pieces.append((child, radii[fork] * np.linspace(0.8, 0.4, len(child))))
        marks += [line[fork], child[-1]]
    points = np.concatenate([p for p, _ in pieces])
    drawing = _Drawing(center, points.min(0) - radius, points.max(0) + radius, 0.7, np.array(marks))
    grid = canvas.fine_grid(center, drawing.low_mm, drawing.high_mm, drawing.step_mm)
    if grid is None:
        return []
    distance = np.full(grid.offset_mm.shape[:3], -99.0, np.float32)
    for piece, thickness in pieces:
        for k in range(len(piece) - 1):
            _add_segment(distance, grid, piece[k], piece[k + 1], thickness[k], thickness[k + 1])
    tissue = Tissue(float(rng.normal(30, 60)), rng.uniform(0.12, 0.45))
    return _paint(canvas, drawing, grid, distance, tissue)


def _add_segment(
    distance: Float32[np.ndarray, "z y x"],
    grid: FineGrid,
    start: Float64[np.ndarray, "3"],
    end: Float64[np.ndarray, "3"],
    first_mm: float,
    last_mm: float,
) -> None:
    """Join a tapering piece of tube to a signed distance, in place, looking only at points near it."""
    reach = max(first_mm, last_mm) + 3.0
    low, high = np.minimum(start, end) - reach, np.maximum(start, end) + reach
    lines = (grid.offset_mm[:, 0, 0, 0], grid.offset_mm[0, :, 0, 1], grid.offset_mm[0, 0, :, 2])
    near = tuple(
        slice(int(np.searchsorted(line, a)), int(np.searchsorted(line, b)))
        for line, a, b in zip(lines, low, high, strict=True)
    )
    points = grid.offset_mm[near] - start.astype(np.float32)
    if not points.size:
        return
    way = (end - start).astype(np.float32)
    along = np.clip(points @ way / float(way @ way), 0, 1)
    away = np.linalg.norm(points - along[..., None] * way, axis=-1)
    np.maximum(distance[near], first_mm + (last_mm - first_mm) * along - away, out=distance[near])


def _plate(
    canvas: Canvas, center: Float64[np.ndarray, "3"], rng: np.random.Generator
) -> list[Float64[np.ndarray, "3"]]:
    """A thin, slightly bent sheet: a thickened fissure, a scar, a band of atelectasis."""
    half = rng.uniform(0.4, 1.6)
    radius = rng.uniform(6, 20)
    turn = random_rotation(rng)
    stretch = np.array([1.0, 1.0, rng.uniform(0.3, 1.0)])  # a narrow sheet is a band
    reach = np.abs(turn) @ (np.array([half + 3, radius, radius]))
    marks = np.array([[0.0, 0.0, 0.0], turn[:, 1] * 0.5 * radius])
    drawing = _Drawing(center, -reach, reach, 0.6, marks)
    grid = canvas.fine_grid(center, drawing.low_mm, drawing.high_mm, drawing.step_mm)
    if grid is None:
        return []
    own = grid.offset_mm @ turn.astype(np.float32)
    flat = np.sqrt(np.square(own[..., 1:] / stretch[1:].astype(np.float32)).sum(axis=-1))
    bent = own[..., 0] + flat**2 * rng.uniform(-0.008, 0.008) + smooth_noise(rng, grid, 10.0, 0.6)
    ragged = radius - flat + smooth_noise(rng, grid, 6.0, 1.0)
    distance = np.minimum(half - np.abs(bent), 0.5 * ragged).astype(np.float32)
    tissue = Tissue(float(rng.uniform(-550, 60)), rng.uniform(0.12, 0.4))
    return _paint(canvas, drawing, grid, distance, tissue)


def _plaque(
    canvas: Canvas,
    center: Float64[np.ndarray, "3"],
    normal: Float64[np.ndarray, "3"],
    rng: np.random.Generator,
) -> list[Float64[np.ndarray, "3"]]:
    """A flat thickening along the pleura, four or more times as wide as thick."""
    thick = rng.uniform(0.8, 2.6)
    wide = thick * rng.uniform(4.0, 9.0)
    other = np.cross(normal, random_rotation(rng)[0])
    other /= np.linalg.norm(other)
    turn = np.stack([normal, other, np.cross(normal, other)], axis=1)
    radii = np.array([thick, wide, wide * rng.uniform(0.6, 1.0)])
    reach = np.abs(turn) @ radii
    drawing = _Drawing(center, -reach, reach, 0.6, np.array([normal * 0.5 * thick]))
    grid = canvas.fine_grid(center, drawing.low_mm, drawing.high_mm, drawing.step_mm)
    if grid is None:
        return []
    own = grid.offset_mm @ (turn / radii).astype(np.float32)
    distance = (1 - np.linalg.norm(own, axis=-1)) * np.float32(thick)
    distance = (distance + smooth_noise(rng, grid, 5.0, 0.25 * thick)).astype(np.float32)
    tissue = Tissue(float(rng.normal(20, 60)), rng.uniform(0.12, 0.4))
    return _paint(canvas, drawing, grid, distance, tissue)


def _infiltrate(
    canvas: Canvas, center: Float64[np.ndarray, "3"], rng: np.random.Generator
) -> list[Float64[np.ndarray, "3"]]:
    """A ragged, hazy region, larger than nodules are: ground glass or consolidation as in pneumonia."""
    radius = rng.uniform(24, 44)
    turn = random_rotation(rng)
    stretch = rng.uniform(0.6, 1.0, 3)
    reach = np.abs(turn) @ np.full(3, 1.2 * radius)
    marks = rng.uniform(-0.5, 0.5, (3, 3)) * radius * stretch @ turn.T
    drawing = _Drawing(center, -reach, reach, 1.5, marks)
    grid = canvas.fine_grid(center, drawing.low_mm, drawing.high_mm, drawing.step_mm)
    if grid is None:
        return []
    own = grid.offset_mm @ (turn / stretch).astype(np.float32)
    distance = np.float32(radius) - np.linalg.norm(own, axis=-1)
    distance += smooth_noise(rng, grid, radius / 2, 0.35 * radius) + smooth_noise(rng, grid, radius / 5, 0.12 * radius)
    density = rng.uniform(-720, -100) + smooth_noise(rng, grid, rng.uniform(5, 12), rng.uniform(30, 160))
    return _paint(canvas, drawing, grid, distance.astype(np.float32), Tissue(density, rng.uniform(1.0, 4.0)))


def _normal(
    depth_mm: Float64[np.ndarray, "z y x"],
    index: np.ndarray[tuple[int, ...], np.dtype[np.int64]],
    spacing: np.ndarray[tuple[int, ...], np.dtype[np.float64]],
) -> Float64[np.ndarray, "3"]:
    """Unit vector from the lung's border into the lung, along the array's axes."""
    low = np.maximum(index - 2, 0)
    box = tuple(slice(a, b) for a, b in zip(low, index + 3, strict=True))
    slopes = np.array(
        [
            np.mean(np.diff(depth_mm[box], axis=axis)) / spacing[axis] if depth_mm[box].shape[axis] > 1 else 0.0
            for axis in range(3)
        ]
    )
    size = float(np.linalg.norm(slopes))
    return np.asarray(slopes / size) if size > 1e-6 else np.array([0.0, 1.0, 0.0])

"""Heart, great vessels, airways and gullet of the synthetic thorax as tubes and ellipsoids.

Must not know the grid they end up on, lungs, nodules or files.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float32

Point = tuple[float, float, float]


@dataclass(frozen=True)
class Organ:
    """A chain of tubes, or an ellipsoid where ``semi_axes`` is given.

    Attributes:
        points: centre line, mm (z, y, x); one point for an ellipsoid.
        radii: radius at each point, mm.
        hu: HU of the inside.
        pad_mm: fat between the organ and a lung.
        semi_axes: of the ellipsoid, mm.
        tilt: rotation matrix of the ellipsoid, its columns the directions of the semi-axes.
    """

    points: tuple[Point, ...]
    radii: tuple[float, ...]
    hu: float
    pad_mm: float = 4.0
    semi_axes: Point | None = None
    tilt: tuple[Point, Point, Point] = ((1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0))

    def paint(
        self,
        field: Float32[np.ndarray, "z y x"],
        origin_zyx_mm: Point,
        cell_mm: float,
        *,
        pad_mm: float = 0.0,
        hu: Float32[np.ndarray, "z y x"] | None = None,
    ) -> None:
        """Unite the organ, grown by ``pad_mm``, with a signed distance in place; fill in its HU where given."""
        for i in range(max(1, len(self.points) - 1)):
            a = np.asarray(self.points[i])
            b = np.asarray(self.points[min(i + 1, len(self.points) - 1)])
            ra, rb = self.radii[i] + pad_mm, self.radii[min(i + 1, len(self.radii) - 1)] + pad_mm
            reach = (max(ra, rb) if self.semi_axes is None else max(self.semi_axes) + pad_mm) + 8
            lo = np.floor((np.minimum(a, b) - reach - origin_zyx_mm) / cell_mm).astype(int)
            hi = np.ceil((np.maximum(a, b) + reach - origin_zyx_mm) / cell_mm).astype(int) + 1
            lo, hi = np.maximum(lo, 0), np.minimum(hi, field.shape)
            if (hi <= lo).any():
                continue
            box = tuple(slice(p, q) for p, q in zip(lo, hi, strict=True))
            grid = np.ogrid[box]
            rel = [(g * cell_mm + o - c) for g, o, c in zip(grid, origin_zyx_mm, a, strict=True)]
            if self.semi_axes is None:
                d = b - a
                t = np.clip(sum(r * q for r, q in zip(rel, d, strict=True)) / max(float(d @ d), 1e-6), 0, 1)
                square = sum((r - t * q) ** 2 for r, q in zip(rel, d, strict=True))
                inside = ra + (rb - ra) * t - np.sqrt(square)
            else:
                semi = np.asarray(self.semi_axes) + pad_mm
                turned = [sum(r * q for r, q in zip(rel, column, strict=True)) for column in np.transpose(self.tilt)]
                rho = np.sqrt(sum((r / s) ** 2 for r, s in zip(turned, semi, strict=True)))
                steep = np.sqrt(sum((r / s**2) ** 2 for r, s in zip(turned, semi, strict=True))) + 1e-3
                inside = np.maximum((1 - rho) * rho / steep, -reach)
            inside = np.asarray(inside, np.float32)
            if hu is not None:
                hu[box][inside > -0.6 * cell_mm] = self.hu
            np.maximum(field[box], inside, out=field[box])


@dataclass(frozen=True)
class Mediastinum:
    """Centre lines that the trees of the lungs continue, mm (z, y, x); pairs are (right, left).

    Attributes:
        trachea: from the neck to the carina.
        bronchi: from the carina to each hilum.
        airway_radii: of trachea, right and left main bronchus.
        artery_roots: where the pulmonary arteries enter the lungs.
        vein_roots: for each lung where the upper and the lower pulmonary vein enter.
        blood_hu: HU of blood in the lungs.
    """

    trachea: tuple[Point, ...]
    bronchi: tuple[tuple[Point, ...], tuple[Point, ...]]
    airway_radii: tuple[float, float, float]
    artery_roots: tuple[Point, Point]
    vein_roots: tuple[tuple[Point, Point], tuple[Point, Point]]
    blood_hu: float


def blood_vessels(
    rng: np.random.Generator, carina: float, dome: float, half_depth: float, contrast_hu: float
) -> tuple[Mediastinum, list[Organ]]:
    """Lay out heart, great vessels, airways and gullet.

    Args:
        rng: source of all randomness.
        carina: height of the tracheal bifurcation, mm.
        dome: height of the right dome of the diaphragm, mm.
        half_depth: half of the inner depth of the rib cage, mm; sizes across scale with it.
        contrast_hu: what contrast medium adds to blood, HU.
    """
    down = (carina - dome) / 118
    wide = half_depth / 95

    def at(x: float, y: float, z: float) -> Point:
        """From (x, y, z) relative to the carina of an average patient."""
        sx, sy, sz = x + rng.normal(0, 1.2), y + rng.normal(0, 1.2), z
        return (carina + sz * (down if sz < 0 else 1.0), sy * wide, sx * wide)

    blood = rng.uniform(35, 50)
    right_heart = blood + contrast_hu * rng.uniform(0.5, 1.2)
    left_heart = blood + contrast_hu * rng.uniform(0.6, 1.0)
    vein = blood + contrast_hu * rng.uniform(0.4, 1.3)
    girth = rng.uniform(0.9, 1.15)
    trachea = (at(0, 0, 150), at(0, 4, 100), at(1, 12, 50), at(2, 22, 0))
    right = (trachea[-1], at(-20, 24, -13), at(-40, 26, -27))
    left = (trachea[-1], at(28, 27, -19), at(47, 30, -31))
    airway = rng.uniform(7.5, 9.8)
    radii = (airway, airway * 0.8, airway * 0.7)
    artery = (at(-42, 10, -30), at(50, 22, -24))
    veins = ((at(-44, 0, -38), at(-42, 28, -70)), (at(50, 0, -38), at(50, 30, -68)))

    def tube(points: list[Point], radius: list[float], hu: float, pad: float = 4.0) -> Organ:
        return Organ(tuple(points), tuple(r * girth for r in radius), hu, pad)

    arch = [at(-8, -22, -60), at(-16, -20, -20), at(-14, -14, 10), at(-4, 0, 24), at(10, 16, 28), at(22, 34, 20),
            at(26, 46, 2), at(26, 50, -30), at(24, 54, -90), at(14, 56, -160), at(8, 54, -260)]  # fmt: skip
    tilt = _towards((-0.45, -0.45, 0.77))
    heart_size = rng.uniform(0.95, 1.15)
    apex = at(20, -26, -90)
    organs = [
        # Fat between heart and diaphragm, so that no lung creeps under the heart.
        Organ((_shift(apex, (-26 * down, -6, 6)),), (0.0,), -100.0, 0.0, (34 * down, 42 * wide, 52 * wide)),
        Organ((apex,), (0.0,), 45 + 0.35 * contrast_hu, 4.0,
              (62 * heart_size * wide, 44 * heart_size * down, 42 * heart_size * wide), tilt),
        Organ((_shift(apex, (-5, -5, 13)),), (0.0,), left_heart, 0.0, (38 * wide, 22 * down, 22 * wide), tilt),
        Organ((_shift(apex, (0, -8, -24)),), (0.0,), right_heart, 0.0, (30 * down, 26 * wide, 24 * wide)),
        Organ((at(6, 18, -58),), (0.0,), left_heart, 3.0, (20 * down, 19 * wide, 33 * wide)),
        tube(arch, [15.5, 15, 14.5, 13.5, 13, 12.5, 12, 12, 11.5, 11, 10.5], left_heart),
        tube([at(-30, -10, 52), at(-30, -12, -10), at(-28, -12, -55)], [8.5, 9, 9.5], vein),
        tube([at(-28, -14, 48), at(0, -30, 56), at(25, -28, 64), at(36, -14, 120)], [7, 6.5, 6, 6], vein, 3.0),
        tube([at(-30, -10, 50), at(-38, -10, 120)], [7, 6], vein, 3.0),
        tube([at(-8, -6, 28), at(-14, -8, 60), at(-24, -4, 120)], [6.5, 6, 5], left_heart, 3.0),
        tube([at(6, 8, 30), at(14, 0, 70), at(18, -2, 120)], [4.5, 4, 4], left_heart, 3.0),
        tube([at(18, 24, 28), at(24, 20, 60), at(32, 6, 120)], [5.5, 5, 4.5], left_heart, 3.0),
        tube([at(14, -44, -58), at(16, -20, -26)], [14, 13.5], right_heart),
        tube([at(16, -20, -26), at(-8, -2, -26), artery[0]], [12, 10.5, 8], right_heart, 3.0),
        tube([at(16, -20, -26), at(34, 4, -18), artery[1]], [12, 10.5, 8], right_heart, 3.0),
        tube([at(-14, 8, -48), veins[0][0]], [7, 5.5], left_heart, 2.0),
        tube([at(-18, 22, -62), veins[0][1]], [7, 5.5], left_heart, 2.0),
        tube([at(28, 8, -48), veins[1][0]], [7, 5.5], left_heart, 2.0),
        tube([at(28, 22, -62), veins[1][1]], [7, 5.5], left_heart, 2.0),
        tube([at(-24, 8, -112), at(-24, 14, -190)], [11.5, 12], right_heart),
        tube([at(4, 24, 120), at(5, 42, 0), at(10, 44, -80), at(22, 34, -150)], [6, 6.5, 6.5, 7], 38, 2.0),
        tube([at(-8, 44, -220), at(-9, 47, 2), at(-18, 30, 12), at(-28, 0, 10)], [3.5, 4, 4, 4], vein, 2.0),
        tube([at(-20, -6, 95), at(-20, -4, 130)], [7, 8], 100, 2.0),
        tube([at(20, -6, 95), at(20, -4, 130)], [7, 8], 100, 2.0),
        tube(list(trachea), [airway + 2] * 4, 30, 2.0),
        tube(list(right), [radii[1] + 1.5] * 3, 30, 2.0),
        tube(list(left), [radii[2] + 1.5] * 3, 30, 2.0),
    ]  # fmt: skip
    # Lymph nodes: small, in the fat beside the airways.
    for _ in range(int(rng.integers(3, 9))):
        place = at(float(rng.uniform(-28, 30)), float(rng.uniform(-10, 36)), float(rng.uniform(-45, 40)))
        organs.insert(0, Organ((place,), (float(rng.uniform(2, 5)),), 40.0, 1.0))
    return Mediastinum(trachea, (right, left), radii, artery, veins, vein), organs


def _shift(point: Point, by_xyz_order_zyx: Point) -> Point:
    return (point[0] + by_xyz_order_zyx[0], point[1] + by_xyz_order_zyx[1], point[2] + by_xyz_order_zyx[2])


def _towards(direction: Point) -> tuple[Point, Point, Point]:
    """A rotation matrix whose first column points along ``direction``."""
    first = np.asarray(direction) / np.linalg.norm(direction)
    second = np.cross(first, (0.0, 0.0, 1.0))
    second /= np.linalg.norm(second)
    columns = np.stack([first, second, np.cross(first, second)], 1)
    return (tuple(columns[0]), tuple(columns[1]), tuple(columns[2]))

"""The anatomy of a synthetic thorax as smooth fields on a coarse grid.

Organs are signed distances in mm (positive inside), so that a field of 2.5 mm voxels still gives edges that are
sharp on any finer grid. Proportions follow an average adult in inspiration; every number is drawn anew per phantom.

The phantom's own frame: millimetres in (z, y, x); z = 0 at the lowest slice and grows to the head, y = 0 in the
middle of the chest and grows to the back, x = 0 at the midline and grows to the patient's left.

Must not know scanners (noise, thickness), nodules or files.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float32
from scipy import ndimage

from carina.data.phantom_organs import Mediastinum, blood_vessels

Field = Float32[np.ndarray, "z y x"]

CELL_MM = 2.5
"""Voxel size of the coarse grid."""

FAT_HU, MUSCLE_HU = -100.0, 52.0


@dataclass(frozen=True)
class Frame:
    """The sizes that everything else hangs on, all in mm of the phantom's frame.

    Attributes:
        half_width: of the inside of the rib cage.
        half_depth: of the inside of the rib cage.
        dome: height of the right dome of the diaphragm.
        apex: height of the top of the lungs.
        carina: height of the tracheal bifurcation.
        top: height of the scan.
        fat: thickness of fat under the skin.
        muscle: scale of the muscles of the chest wall.
        breasts: size of the breasts, 0 in men.
        contrast_hu: what contrast medium adds to blood, 0 without.
    """

    half_width: float
    half_depth: float
    dome: float
    apex: float
    carina: float
    top: float
    fat: float
    muscle: float
    breasts: float
    contrast_hu: float

    @property
    def body_half_width(self) -> float:
        """Half of the patient's largest width."""
        return self.half_width + 18 + 10 * self.muscle + self.fat

    @property
    def body_half_depth(self) -> float:
        """Half of the patient's depth; the centre lies 8 mm behind that of the rib cage."""
        return self.half_depth + 24 + 8 * self.muscle + 0.7 * self.fat


@dataclass(frozen=True)
class Anatomy:
    """A thorax on the coarse grid; voxel (0, 0, 0) lies at ``origin_zyx_mm``.

    Attributes:
        frame: the sizes.
        origin_zyx_mm: position of the first voxel.
        body: inside the skin.
        lung: inside either lung.
        soft: inside any organ or muscle (what is left of the body is fat).
        soft_hu: HU of the organ there.
        bone: inside ribs, spine, breastbone, shoulder.
        bone_hu: HU of the inside of the bone there; cartilage has no hard shell.
        oblique: signed distance to the oblique fissure, positive in the upper lobe.
        horizontal: signed distance to the horizontal fissure (right lung), positive above.
        texture: random field of mean 0 and standard deviation 1, fine and coarse grain.
        emphysema: 0..1, share of destroyed lung.
        mediastinum: centre lines of trachea, bronchi and the hilar vessels.
    """

    frame: Frame
    origin_zyx_mm: tuple[float, float, float]
    body: Field
    lung: Field
    soft: Field
    soft_hu: Field
    bone: Field
    bone_hu: Field
    oblique: Field
    horizontal: Field
    texture: Field
    emphysema: Field
    mediastinum: Mediastinum


def draw_frame(rng: np.random.Generator) -> Frame:
    """Draw the size of a patient."""
    size = rng.normal(1.0, 0.06)
    woman = rng.random() < 0.45
    size *= 0.95 if woman else 1.03
    dome = rng.uniform(85, 115)
    lung = float(np.clip(rng.normal(195, 16), 165, 230)) * size
    return Frame(
        half_width=float(np.clip(rng.normal(132, 6) * size, 112, 152)),
        half_depth=float(np.clip(rng.normal(92, 6) * size, 78, 108)),
        dome=dome,
        apex=dome + lung,
        carina=dome + lung * rng.uniform(0.58, 0.64),
        top=dome + lung + rng.uniform(14, 34),
        fat=float(np.clip(rng.lognormal(2.5, 0.5), 5, 34)),
        muscle=rng.uniform(0.6, 1.0) if woman else rng.uniform(0.8, 1.5),
        breasts=rng.uniform(0.5, 1.2) if woman else 0.0,
        contrast_hu=float(rng.uniform(80, 260)) if rng.random() < 0.45 else 0.0,
    )


def smooth_noise(rng: np.random.Generator, shape: tuple[int, ...], cell: float) -> Field:
    """Random field of mean 0 and standard deviation 1 whose grain is about ``cell`` voxels."""
    out = rng.standard_normal([int(np.ceil(n / cell)) + 4 for n in shape], dtype=np.float32)
    for axis, n in enumerate(shape):
        offset = np.arange(n)[:, None] / cell + 1.5 - np.arange(out.shape[axis])[None]
        weights = np.exp(-(offset**2) / (2 * 0.6**2)).astype(np.float32)
        out = np.moveaxis(np.tensordot(weights, out, (1, axis)), 0, axis)
    return np.ascontiguousarray((out - out.mean()) / out.std(), dtype=np.float32)


def grow_anatomy(rng: np.random.Generator) -> Anatomy:
    """Grow a thorax."""
    frame = draw_frame(rng)
    low = (0.0, -frame.body_half_depth - 40.0, -frame.body_half_width - 8.0)
    high = (frame.top, frame.body_half_depth + 14.0, frame.body_half_width + 8.0)
    axes = [np.arange(a - CELL_MM, b + 2 * CELL_MM, CELL_MM, dtype=np.float32) for a, b in zip(low, high, strict=True)]
    z, y, x = np.meshgrid(*axes, indexing="ij", sparse=True)
    shape = (axes[0].size, axes[1].size, axes[2].size)
    origin = (float(axes[0][0]), float(axes[1][0]), float(axes[2][0]))

    cavity = _cavity(rng, frame, z, y, x, shape)
    spine_y = _spine_y(frame, z)
    mediastinum, organs = blood_vessels(rng, frame.carina, frame.dome, frame.half_depth, frame.contrast_hu)
    lung, dome = _lungs(rng, frame, cavity, spine_y, organs, z, y, x, origin)
    body = _body(rng, frame, z, y, x, shape)
    bone, bone_hu = _bones(rng, frame, cavity, body, spine_y, z, y, x)
    soft, soft_hu = _soft_tissue(rng, frame, cavity, dome, spine_y, organs, z, y, x, origin, shape)
    oblique, horizontal = _fissures(rng, frame, z, y, x, shape)
    fine = smooth_noise(rng, shape, 1.2) * 0.7 + smooth_noise(rng, shape, 3) * 0.5 + smooth_noise(rng, shape, 10) * 0.6
    destroyed = smooth_noise(rng, shape, rng.uniform(2.0, 4.0))
    severity = rng.uniform(0.0, 1.4) if rng.random() < 0.3 else -2.0
    upper = 0.6 * (z - frame.carina) / 60
    emphysema = np.clip((destroyed + np.clip(upper, -1, 0.6) + severity - 2.2) * 1.5, 0, 1)
    return Anatomy(
        frame, origin, body, lung, soft, soft_hu, bone, bone_hu, oblique, horizontal,
        fine.astype(np.float32), emphysema.astype(np.float32), mediastinum,
    )  # fmt: skip


def _smoothstep(value: np.ndarray, low: float, high: float) -> np.ndarray:
    t = np.clip((value - low) / (high - low), 0, 1)
    return np.asarray(t * t * (3 - 2 * t))


def _distance(f: np.ndarray) -> np.ndarray:
    """Turn an implicit function into a signed distance near its surface: divide by the length of its gradient."""
    steepness = np.sqrt(sum(g * g for g in np.gradient(f, CELL_MM)))
    return np.asarray(f / np.maximum(steepness, 0.35), np.float32)


def _cavity(rng, frame, z, y, x, shape):  # type: ignore[no-untyped-def]
    """Inside of the rib cage, open downwards; narrows to the apices."""
    u = np.clip((frame.apex - z) / (0.72 * (frame.apex - frame.dome)), 1e-3, 1)
    narrow = np.sqrt(1 - (1 - u) ** rng.uniform(1.7, 2.1))
    wide = 0.12 + 0.88 * narrow
    # The apices lie behind: the front of the cage falls back as it narrows.
    y_centre = 16 * (1 - narrow)
    depth = frame.half_depth * (0.2 + 0.8 * narrow)
    rho = (np.abs(x / (frame.half_width * wide)) ** 2.3 + np.abs((y - y_centre) / depth) ** 2.3) ** (1 / 2.3)
    wobble = smooth_noise(rng, shape, 18) * rng.uniform(0.5, 1.5)
    side = (1 - rho) * 0.8 * frame.half_depth * wide + wobble
    return np.minimum(_distance(side.astype(np.float32)), frame.apex - z)


def _spine_y(frame, z):  # type: ignore[no-untyped-def]
    """Centre of the vertebral bodies: furthest back in the middle of the chest."""
    return 0.74 * frame.half_depth - 18 * ((z - frame.carina + 40) / 130) ** 2


def _lungs(rng, frame, cavity, spine_y, organs, z, y, x, origin):  # type: ignore[no-untyped-def]
    right, left = frame.dome, frame.dome - rng.uniform(6, 18)
    drop = rng.uniform(58, 80)
    centre = 0.5 * frame.half_width
    dome = np.full(np.broadcast_shapes(y.shape, x.shape), -1e3, np.float32)
    for top, x0 in ((right, -centre), (left, centre)):
        rho2 = ((x - x0) / (0.62 * frame.half_width)) ** 2 + ((y + 14) / (1.05 * frame.half_depth)) ** 2
        dome = np.maximum(dome, top - drop * rho2**1.15)
    around = np.full(cavity.shape, -60, np.float32)
    for organ in organs:
        organ.paint(around, origin, CELL_MM, pad_mm=organ.pad_mm)
    # Between the lungs: thin behind the breastbone, broad around trachea and heart.
    half = 7 + rng.uniform(9, 15) * _smoothstep(y, -62, -10) + 14 * _smoothstep(z, frame.carina + 10, frame.apex - 10)
    around = np.maximum(around, half - np.abs(x - 3))
    spine = 23 - np.sqrt((x / 1.05) ** 2 + (y - spine_y) ** 2)
    behind = np.minimum(16 - np.abs(x), y - spine_y)
    around = np.maximum(around, np.maximum(spine, behind))
    around = ndimage.gaussian_filter(around, 1.1)
    lung = np.minimum(np.minimum(cavity - 1.5, -around), _distance(np.broadcast_to(z - dome, cavity.shape)))
    lung = ndimage.gaussian_filter(lung.astype(np.float32), 0.9)
    labels, n = ndimage.label(lung > 0)
    if n > 2:
        sizes = np.bincount(labels.ravel())
        sizes[0] = 0
        small = np.isin(labels, np.argsort(sizes)[:-2]) & (labels > 0)
        lung[ndimage.binary_dilation(small)] = -4.0
    return lung, dome


def _body(rng, frame, z, y, x, shape):  # type: ignore[no-untyped-def]
    shoulder = _smoothstep(z, frame.apex - 50, frame.top + 15)
    width = frame.body_half_width * (1 - 0.1 * shoulder)
    depth = frame.body_half_depth * (1 - 0.22 * shoulder)
    y0 = 8 + 8 * shoulder
    # Lying on the table flattens the back.
    rho = (np.abs(x / width) ** 2.5 + np.abs((y - y0) / depth) ** np.where(y > y0, 2.9, 2.2)) ** 0.4
    body = _distance(((1 - rho) * depth).astype(np.float32))
    if frame.breasts:
        for side in (-1, 1):
            r = 48 * frame.breasts
            centre = (frame.carina - 55, -frame.half_depth - 12, side * 0.55 * frame.half_width)
            q = np.sqrt(((z - centre[0]) / 1.1) ** 2 + ((y - centre[1]) / 0.75) ** 2 + (x - centre[2]) ** 2)
            body = np.maximum(body, 0.8 * (r - q))
    return (ndimage.gaussian_filter(body, 1.2) + smooth_noise(rng, shape, 22) * 1.2).astype(np.float32)


def _bones(rng, frame, cavity, body, spine_y, z, y, x):  # type: ignore[no-untyped-def]
    out = -cavity
    angle = np.arctan2(np.abs(x) / frame.half_width, y / frame.half_depth)  # 0 behind, pi in front
    fall = rng.uniform(95, 125) * (0.45 + 0.55 * _smoothstep(frame.apex - z, 0, 90))
    period = (frame.apex - frame.dome) / rng.uniform(7.6, 8.4)
    phase = (z - frame.apex + 4 + fall * (1 - np.cos(angle)) / 2) / period
    along = (phase - np.round(phase)) * period * 0.86
    rib = (1 - np.sqrt(((out - 5.5) / 3.6) ** 2 + (along / rng.uniform(5.4, 6.6)) ** 2)) * 4.2
    rib = np.where((np.abs(x) < 22) | (phase > 0.5), -6, rib)
    bone = rib.astype(np.float32)
    cartilage = _smoothstep(angle, 2.25, 2.45)
    bone_hu = (rng.uniform(150, 230) - 90 * cartilage).astype(np.float32)

    disc = (z / rng.uniform(22, 25)) % 1.0
    gap = 1 - _smoothstep(np.minimum(disc, 1 - disc), 0.06, 0.14)
    body_r = np.sqrt((x / 18.5) ** 2 + ((y - spine_y) / 14.5) ** 2)
    vertebra = (1 - body_r) * 15
    dy = y - spine_y - 22
    canal = np.sqrt((x / 1.1) ** 2 + dy**2)
    arch = 4.2 - np.abs(canal - 13)
    level = _smoothstep(np.abs(disc - 0.5), 0.36, 0.2)
    spinous = np.minimum(3.2 - np.abs(x), np.minimum(dy - 8, 36 - dy)) - 3 * (1 - level)
    lateral = np.sqrt((dy + 2 - 0.25 * (np.abs(x) - 10)) ** 2 + ((disc - 0.5) * 24) ** 2)
    transverse = np.minimum(5.0 - lateral, np.minimum(np.abs(x) - 9, 34 - np.abs(x)))
    spine = np.maximum(np.maximum(vertebra, arch - 2.5 * (1 - level)), np.maximum(spinous, transverse))
    bone_hu = np.where(spine > -3, rng.uniform(120, 230) * (1 - gap) + 85 * gap, bone_hu)
    spine = np.where(canal < 9, canal - 9, spine) if True else spine
    bone = np.maximum(bone, spine)

    front = out - 8
    plate = np.minimum(5 - np.abs(front), np.where(z > frame.carina + 30, 26, 17) - np.abs(x))
    plate = np.minimum(plate, np.minimum(z - frame.carina + 100, frame.carina + 62 - z))
    bone = np.maximum(bone, np.where(y < 0, plate, -10))
    # Shoulder blades: a thin plate that rides on the muscles behind.
    reach = np.minimum(angle - 0.5, 1.25 - angle) * 90
    height = np.minimum(frame.apex + 5 - z, z - frame.carina + 25)
    blade = np.minimum(2.4 - np.abs(out - 21 - 6 * _smoothstep(z, frame.carina, frame.apex)), np.minimum(reach, height))
    bone = np.maximum(bone, np.minimum(blade, body - 8))
    for side in (-1, 1):
        from_zyx = np.array((frame.apex - 22, -0.62 * frame.half_depth, side * 18.0))
        to_zyx = np.array((frame.apex + 22, -0.25 * frame.half_depth, side * 0.95 * frame.half_width))
        axis = to_zyx - from_zyx
        t = np.clip(
            ((z - from_zyx[0]) * axis[0] + (y - from_zyx[1]) * axis[1] + (x - from_zyx[2]) * axis[2]) / (axis @ axis),
            0,
            1,
        )
        q = (
            (z - from_zyx[0] - t * axis[0]) ** 2
            + (y - from_zyx[1] - t * axis[1]) ** 2
            + (x - from_zyx[2] - t * axis[2]) ** 2
        )
        bone = np.maximum(bone, 6.5 - np.sqrt(q))
    return bone.astype(np.float32), np.broadcast_to(bone_hu, bone.shape).astype(np.float32)


def _soft_tissue(rng, frame, cavity, dome, spine_y, organs, z, y, x, origin, shape):  # type: ignore[no-untyped-def]
    out = -cavity
    angle = np.arctan2(np.abs(x) / frame.half_width, y / frame.half_depth)
    thick = 4 + 16 * np.exp(-(((angle - 0.75) / 0.5) ** 2)) * _smoothstep(z, frame.dome - 60, frame.carina)
    thick = thick + 11 * np.exp(-(((angle - 2.3) / 0.35) ** 2)) * _smoothstep(z, frame.dome + 10, frame.carina + 40)
    thick = (
        thick * frame.muscle + 22 * _smoothstep(z, frame.apex - 40, frame.apex + 20) + smooth_noise(rng, shape, 9) * 2.5
    )
    outer = np.minimum(thick + 11 - out, np.abs(out - 12 - 0.1 * thick) * 1.0 - 0.7)
    planes = np.abs(smooth_noise(rng, shape, 7)) * 9 - 1.2
    muscle = np.maximum(np.minimum(out + 1.5, 10 - out), np.minimum(outer, planes))
    muscle = np.where(out > -2, muscle, -8)
    erector = 1 - np.sqrt(((np.abs(x) - 27) / 22) ** 2 + ((y - spine_y - 44) / 17) ** 2)
    muscle = np.maximum(muscle, np.minimum(erector * 17, planes + 1.5))
    canal = 7 - np.sqrt(x**2 + (y - spine_y - 22) ** 2)
    # Diaphragm, liver, spleen, stomach: what lies inside the cage below the lungs.
    below = np.asarray(dome - z, np.float32)
    depth = _distance(np.broadcast_to(below, cavity.shape))
    diaphragm = np.minimum(1.6 - np.abs(depth - 1.6), cavity)
    liver_edge = 30 - x - 0.5 * (y + 30) + 0.25 * (z - frame.dome)
    liver = np.minimum(np.minimum(depth - 3, cavity - 4), liver_edge)
    spleen = 1 - np.sqrt(
        ((z - frame.dome + 62) / 48) ** 2
        + ((y - 0.5 * frame.half_depth) / 42) ** 2
        + ((x - 0.68 * frame.half_width) / 34) ** 2
    )
    stomach = 1 - np.sqrt(
        ((z - frame.dome + 62) / 46) ** 2 + ((y + 8) / 42) ** 2 + ((x - 0.5 * frame.half_width) / 38) ** 2
    )
    gas = 10 - (y + 26)
    soft = np.maximum.reduce([muscle, canal + 0 * muscle, diaphragm])
    hu = np.full(shape, MUSCLE_HU, np.float32)
    hu[np.broadcast_to(canal > -1, shape)] = 25
    enhanced = frame.contrast_hu
    for organ, value, hollow in (
        (liver, 58 + 0.25 * enhanced, False),
        (np.minimum(np.minimum(spleen * 36, depth - 3), cavity - 4), 48 + 0.35 * enhanced, False),
        (np.minimum(np.minimum(stomach * 38, depth - 3), cavity - 5), rng.uniform(20, 60), True),
    ):
        hu[organ > -CELL_MM] = value
        soft = np.maximum(soft, organ)
        if hollow and rng.random() < 0.75:
            hu[np.broadcast_to((organ > 3) & (gas < 30 - 18), shape) & np.broadcast_to(y < -6, shape)] = -900
    for organ in organs:
        organ.paint(soft, origin, CELL_MM, hu=hu)
    return soft.astype(np.float32), hu + smooth_noise(rng, shape, 4) * 5


def _fissures(rng, frame, z, y, x, shape):  # type: ignore[no-untyped-def]
    wobble = smooth_noise(rng, shape, 16) * 3.0
    side = np.where(x < 0, 0.0, rng.uniform(-6, 14))
    slope = rng.uniform(0.75, 1.05)
    curve = 0.0012 * (np.abs(x) - 0.55 * frame.half_width) ** 2
    level = frame.dome + 0.3 * (frame.apex - frame.dome)
    oblique = ((z - level - side) - slope * (y - 6) + curve) / np.sqrt(1 + slope**2) + wobble
    horizontal = z - frame.carina + rng.uniform(28, 45) - 0.0015 * (y + 30) ** 2 + wobble * 0.8 + 0 * x
    return oblique.astype(np.float32), horizontal.astype(np.float32)

"""The anatomy of a synthetic thorax as smooth fields on a coarse grid.

Organs are signed distances in mm (positive inside), so that a field of 2.5 mm voxels still gives edges that are
sharp on any finer grid. Proportions follow an average adult in inspiration; every number is drawn anew per phantom.

The phantom's own frame: millimetres in (z, y, x); z = 0 at the lowest slice and grows to the head, y = 0 in the
middle of the chest and grows to the back, x = 0 at the midline and grows to the patient's left.

Must not know scanners (noise, thickness), nodules or files.
"""

from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from carina.data.phantom_frame import CELL_MM, Field, Frame, distance, draw_frame, smooth_noise, smoothstep
from carina.data.phantom_organs import Mediastinum, Organ, blood_vessels
from carina.data.phantom_wall import body_surface, bones, cavity_of, soft_tissue, spine_y_of
from carina.geometry import Shape3, Vector3


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
    origin_zyx_mm: Vector3
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


def grow_anatomy(rng: np.random.Generator) -> Anatomy:
    """Grow a thorax."""
    frame = draw_frame(rng)
    low = (0.0, -frame.body_half_depth - 40.0, -frame.body_half_width - 8.0)
    high = (frame.top, frame.body_half_depth + 14.0, frame.body_half_width + 8.0)
    axes = [np.arange(a - CELL_MM, b + 2 * CELL_MM, CELL_MM, dtype=np.float32) for a, b in zip(low, high, strict=True)]
    z, y, x = np.meshgrid(*axes, indexing="ij", sparse=True)
    shape = (axes[0].size, axes[1].size, axes[2].size)
    origin = (float(axes[0][0]), float(axes[1][0]), float(axes[2][0]))

    cavity = cavity_of(rng, frame, z, y, x, shape)
    spine_y = spine_y_of(frame, z)
    mediastinum, organs = blood_vessels(rng, frame.carina, frame.dome, frame.half_depth, frame.contrast_hu)
    lung, dome = _lungs(rng, frame, cavity, spine_y, organs, z, y, x, origin)
    body = body_surface(rng, frame, z, y, x, shape)
    bone, bone_hu = bones(rng, frame, cavity, body, spine_y, z, y, x)
    soft, soft_hu = soft_tissue(rng, frame, cavity, dome, spine_y, organs, z, y, x, origin, shape)
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


def _lungs(
    rng: np.random.Generator,
    frame: Frame,
    cavity: Field,
    spine_y: np.ndarray,
    organs: list[Organ],
    z: np.ndarray,
    y: np.ndarray,
    x: np.ndarray,
    origin: Vector3,
) -> tuple[Field, np.ndarray]:
    right, left = frame.dome, frame.dome - rng.uniform(6, 18)
    drop = rng.uniform(58, 80)
    centre, deepest = 0.5 * frame.half_width, rng.uniform(8, 20)
    dome = np.full(np.broadcast_shapes(y.shape, x.shape), -1e3, np.float32)
    for top, x0 in ((right, -centre), (left, centre)):
        rho2 = ((x - x0) / (0.62 * frame.half_width)) ** 2 + ((y + 14) / (1.05 * frame.half_depth)) ** 2
        # The sulcus ends above the lowest slice: scans show some of what lies below.
        dome = np.maximum(dome, np.maximum(top - drop * rho2**1.15, deepest))
    around = np.full(cavity.shape, -60, np.float32)
    for organ in organs:
        organ.paint(around, origin, CELL_MM, pad_mm=organ.pad_mm)
    # Between the lungs: thin behind the breastbone, broad around trachea and heart.
    front = smoothstep(-y, 0.68 * frame.half_depth, 1.02 * frame.half_depth)
    half = (
        3
        + 22 * front**2
        + rng.uniform(13, 19) * smoothstep(y, -62, -10)
        + 14 * smoothstep(z, frame.carina + 10, frame.apex - 10)
    )
    around = np.maximum(around, half - np.abs(x - 3))
    spine = 23 - np.sqrt((x / 1.05) ** 2 + (y - spine_y) ** 2)
    behind = np.minimum(16 - np.abs(x), y - spine_y)
    around = np.maximum(around, np.maximum(spine, behind))
    around = ndimage.gaussian_filter(around, 1.1)
    lung = np.minimum(np.minimum(cavity - 1.5, -around), distance(np.broadcast_to(z - dome, cavity.shape)))
    lung = ndimage.gaussian_filter(lung.astype(np.float32), 0.9)
    labels, n = ndimage.label(lung > 0)
    if n > 2:
        sizes = np.bincount(labels.ravel())
        sizes[0] = 0
        small = np.isin(labels, np.argsort(sizes)[:-2]) & (labels > 0)
        lung[ndimage.binary_dilation(small)] = -4.0
    return lung, dome


def _fissures(
    rng: np.random.Generator, frame: Frame, z: np.ndarray, y: np.ndarray, x: np.ndarray, shape: Shape3
) -> tuple[Field, Field]:
    wobble = smooth_noise(rng, shape, 16) * 3.0
    side = np.where(x < 0, 0.0, rng.uniform(-6, 14))
    slope = rng.uniform(0.75, 1.05)
    curve = 0.0012 * (np.abs(x) - 0.55 * frame.half_width) ** 2
    level = frame.dome + 0.3 * (frame.apex - frame.dome)
    oblique = ((z - level - side) - slope * (y - 6) + curve) / np.sqrt(1 + slope**2) + wobble
    horizontal = z - frame.carina + rng.uniform(28, 45) - 0.0015 * (y + 30) ** 2 + wobble * 0.8 + 0 * x
    return oblique.astype(np.float32), horizontal.astype(np.float32)

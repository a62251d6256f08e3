"""The walls of the synthetic thorax: rib cage, bones, muscles, skin, and what lies below the diaphragm.

Everything is a signed distance in mm, positive inside. Must not know lungs' contents, scanners or files.
"""

import numpy as np
from scipy import ndimage

from carina.data.phantom_frame import CELL_MM, Field, Frame, distance, smooth_noise, smoothstep
from carina.data.phantom_organs import Organ
from carina.geometry import Shape3, Vector3

FAT_HU, MUSCLE_HU = -100.0, 52.0


def cavity_of(
    rng: np.random.Generator, frame: Frame, z: np.ndarray, y: np.ndarray, x: np.ndarray, shape: Shape3
) -> Field:
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
    return np.asarray(np.minimum(distance(side.astype(np.float32)), frame.apex - z), np.float32)


def spine_y_of(frame: Frame, z: np.ndarray) -> np.ndarray:
    """Centre of the vertebral bodies: furthest back in the middle of the chest."""
    return np.asarray(0.74 * frame.half_depth - 18 * ((z - frame.carina + 40) / 130) ** 2)


def body_surface(
    rng: np.random.Generator, frame: Frame, z: np.ndarray, y: np.ndarray, x: np.ndarray, shape: Shape3
) -> Field:
    """Inside of the skin."""
    shoulder = smoothstep(z, frame.apex - 50, frame.top + 15)
    width = frame.body_half_width * (1 - 0.1 * shoulder)
    depth = frame.body_half_depth * (1 - 0.22 * shoulder)
    y0 = 8 + 8 * shoulder
    # Lying on the table flattens the back.
    rho = (np.abs(x / width) ** 2.5 + np.abs((y - y0) / depth) ** np.where(y > y0, 2.9, 2.2)) ** 0.4
    body = distance(((1 - rho) * depth).astype(np.float32))
    if frame.breasts:
        for side in (-1, 1):
            r = 48 * frame.breasts
            centre = (frame.carina - 55, -frame.half_depth - 12, side * 0.55 * frame.half_width)
            q = np.sqrt(((z - centre[0]) / 1.1) ** 2 + ((y - centre[1]) / 0.75) ** 2 + (x - centre[2]) ** 2)
            body = np.maximum(body, 0.8 * (r - q))
    return (ndimage.gaussian_filter(body, 1.2) + smooth_noise(rng, shape, 22) * 1.2).astype(np.float32)


def bones(
    rng: np.random.Generator,
    frame: Frame,
    cavity: Field,
    body: Field,
    spine_y: np.ndarray,
    z: np.ndarray,
    y: np.ndarray,
    x: np.ndarray,
) -> tuple[Field, Field]:
    """Inside of ribs, spine, breastbone and shoulders, and the HU of the inside of each bone."""
    out = -cavity
    angle = np.arctan2(np.abs(x) / frame.half_width, y / frame.half_depth)  # 0 behind, pi in front
    fall = rng.uniform(95, 125) * (0.45 + 0.55 * smoothstep(frame.apex - z, 0, 90))
    period = (frame.apex - frame.dome) / rng.uniform(7.6, 8.4)
    phase = (z - frame.apex + 4 + fall * (1 - np.cos(angle)) / 2) / period
    along = (phase - np.round(phase)) * period * 0.86
    rib = (1 - np.sqrt(((out - 5.5) / 3.6) ** 2 + (along / rng.uniform(5.4, 6.6)) ** 2)) * 4.2
    rib = np.where((np.abs(x) < 22) | (phase > 0.5), -6, rib)
    bone = rib.astype(np.float32)
    cartilage = smoothstep(angle, 2.25, 2.45)
    bone_hu = (rng.uniform(150, 230) - 90 * cartilage).astype(np.float32)

    disc = (z / rng.uniform(22, 25)) % 1.0
    gap = 1 - smoothstep(np.minimum(disc, 1 - disc), 0.06, 0.14)
    body_r = np.sqrt((x / 18.5) ** 2 + ((y - spine_y) / 14.5) ** 2)
    vertebra = (1 - body_r) * 15
    dy = y - spine_y - 22
    canal = np.sqrt((x / 1.1) ** 2 + dy**2)
    arch = 4.2 - np.abs(canal - 13)
    level = smoothstep(np.abs(disc - 0.5), 0.36, 0.2)
    spinous = np.minimum(3.2 - np.abs(x), np.minimum(dy - 8, 36 - dy)) - 3 * (1 - level)
    lateral = np.sqrt((dy + 2 - 0.25 * (np.abs(x) - 10)) ** 2 + ((disc - 0.5) * 24) ** 2)
    transverse = np.minimum(5.0 - lateral, np.minimum(np.abs(x) - 9, 34 - np.abs(x)))
    spine = np.maximum(np.maximum(vertebra, arch - 2.5 * (1 - level)), np.maximum(spinous, transverse))
    bone_hu = np.where(spine > -3, rng.uniform(120, 230) * (1 - gap) + 85 * gap, bone_hu)
    spine = np.where(canal < 9, canal - 9, spine)
    bone = np.maximum(bone, spine)

    front = out - 8
    plate = np.minimum(5 - np.abs(front), np.where(z > frame.carina + 30, 26, 17) - np.abs(x))
    plate = np.minimum(plate, np.minimum(z - frame.carina + 100, frame.carina + 62 - z))
    plate = np.where(y < 0, plate, -10)
    bone_hu = np.where(plate > -2, rng.uniform(125, 190), bone_hu)
    bone = np.maximum(bone, plate)
    # Shoulder blades: a thin plate that rides on the muscles behind.
    reach = np.minimum(angle - 0.5, 1.25 - angle) * 90
    height = np.minimum(frame.apex + 5 - z, z - frame.carina + 25)
    blade = np.minimum(2.4 - np.abs(out - 21 - 6 * smoothstep(z, frame.carina, frame.apex)), np.minimum(reach, height))
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


def soft_tissue(
    rng: np.random.Generator,
    frame: Frame,
    cavity: Field,
    dome: np.ndarray,
    spine_y: np.ndarray,
    organs: list[Organ],
    z: np.ndarray,
    y: np.ndarray,
    x: np.ndarray,
    origin: Vector3,
    shape: Shape3,
) -> tuple[Field, Field]:
    """Inside of muscles and organs, and the HU of the organ there; the rest of the body is fat."""
    out = -cavity
    angle = np.arctan2(np.abs(x) / frame.half_width, y / frame.half_depth)
    thick = 4 + 16 * np.exp(-(((angle - 0.75) / 0.5) ** 2)) * smoothstep(z, frame.dome - 60, frame.carina)
    thick = thick + 11 * np.exp(-(((angle - 2.3) / 0.35) ** 2)) * smoothstep(z, frame.dome + 10, frame.carina + 40)
    thick = (
        thick * frame.muscle + 22 * smoothstep(z, frame.apex - 40, frame.apex + 20) + smooth_noise(rng, shape, 9) * 2.5
    )
    outer = np.minimum(thick + 11 - out, np.abs(out - 12 - 0.1 * thick) * 1.0 - 0.7)
    planes = np.abs(smooth_noise(rng, shape, 7)) * 9 - 1.2
    muscle = np.maximum(np.minimum(out + 1.5, 10 - out), np.minimum(outer, planes))
    muscle = np.where(out > -2, muscle, -8)
    erector = 1 - np.sqrt(((np.abs(x) - 29) / 27) ** 2 + ((y - spine_y - 40) / 15) ** 2)
    muscle = np.maximum(muscle, np.minimum(erector * 15, planes + 1.5))
    canal = 7 - np.sqrt(x**2 + (y - spine_y - 22) ** 2)
    # Diaphragm, liver, spleen, stomach: what lies inside the cage below the lungs.
    below = np.asarray(dome - z, np.float32)
    depth = distance(np.broadcast_to(below, cavity.shape))
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

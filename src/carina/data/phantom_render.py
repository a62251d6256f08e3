"""Rendering the synthetic thorax: anatomy, vessels, airways and lesions to thin planes of HU, and these to slices.

Must not know how anatomy grows or where lesions come from, nor files.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np
from jaxtyping import Bool, Float32, Int16, UInt8

from carina.data.phantom_anatomy import Anatomy
from carina.data.phantom_frame import CELL_MM, Field
from carina.data.phantom_place import Placed
from carina.data.phantom_scanner import Detector, Plane, Protocol, Upsampler
from carina.data.phantom_wall import FAT_HU


@dataclass(frozen=True)
class Contents:
    """What lies in the lungs, on the grid of thin planes; coverage 0..255.

    Attributes:
        vessels: arteries and veins.
        walls: bronchi with their walls.
        airways: the air in them.
        lesions: nodules and look-alikes.
    """

    vessels: UInt8[np.ndarray, "z y x"]
    walls: UInt8[np.ndarray, "z y x"]
    airways: UInt8[np.ndarray, "z y x"]
    lesions: tuple[Placed, ...]


@dataclass(frozen=True)
class Look:
    """HU that are drawn once per phantom.

    Attributes:
        lung: air-filled lung at mid-height of a lying patient.
        gravity: how much denser it grows towards the back, HU per mm.
        grain: standard deviation of the lung's texture.
        fissure: pleura of a fissure, thinned by partial volume.
        wall: wall of a bronchus.
        cortex: hard shell of bones.
    """

    lung: float
    gravity: float
    grain: float
    fissure: float
    wall: float
    cortex: float


def scan(
    rng: np.random.Generator, anatomy: Anatomy, protocol: Protocol, contents: Contents
) -> tuple[Int16[np.ndarray, "z y x"], Bool[np.ndarray, "z y x"]]:
    """Scan a thorax.

    Returns:
        The HU of the slices, and which voxels lie in the lungs.
    """
    look = Look(
        lung=rng.uniform(-895, -850), gravity=rng.uniform(0.15, 0.55), grain=rng.uniform(14, 26),
        fissure=rng.uniform(-640, -450), wall=rng.uniform(-100, 30), cortex=rng.uniform(500, 800),
    )  # fmt: skip
    n, k = protocol.matrix, protocol.planes
    dz, px, _ = protocol.fine_spacing_zyx_mm
    z0, y0, x0 = protocol.origin_zyx_mm
    y, x = (y0 + np.arange(n) * px).astype(np.float32), (x0 + np.arange(n) * px).astype(np.float32)
    # Only the rows that the patient fills are rendered; the rest is air and table.
    filled = np.flatnonzero((anatomy.body > -CELL_MM).any(axis=(0, 2))) * CELL_MM + anatomy.origin_zyx_mm[1]
    rows = slice(int(np.searchsorted(y, filled[0] - 4)), int(np.searchsorted(y, filled[-1] + 4)))
    up = Upsampler(anatomy.origin_zyx_mm, CELL_MM, anatomy.body.shape, y[rows], x)
    frame = anatomy.frame
    backdrop = np.full((n, n), -1000, np.float32)
    if rng.random() < 0.75:
        backdrop = _table(y, x, frame.body_half_depth + 9)
    middle = np.exp(-((x[None] / (0.8 * frame.half_width)) ** 2) - (y[:, None] / (0.9 * frame.half_depth)) ** 2)
    detector = Detector(protocol, (0.45 + 0.6 * middle).astype(np.float32))
    hu = np.empty((protocol.slices, n, n), np.int16)
    lungs = np.zeros(hu.shape, bool)
    for s in range(protocol.slices):
        mean, depth = backdrop.copy(), np.zeros((rows.stop - rows.start, n), np.float32)
        mean[rows] = 0
        for i in range(s * k, s * k + k):
            plane, lung = _plane(i, z0 + i * dz, up, anatomy, contents, look, rows, y[rows], x, backdrop[rows])
            mean[rows] += plane / k
            depth += lung
        lungs[s, rows] = depth > 0
        # Shoulders take away most of the beam.
        louder = 1.0 + 0.7 * float(np.clip((z0 + s * k * dz - frame.apex + 40) / 40, 0, 1))
        hu[s] = np.clip(np.round(detector.expose(rng, mean, louder)), -1024, 3071)
    return hu, lungs


def _plane(
    i: int, z_mm: float, up: Upsampler, anatomy: Anatomy, contents: Contents, look: Look, rows: slice,
    y_mm: Float32[np.ndarray, " y"], x_mm: Float32[np.ndarray, " x"], backdrop: Plane,
) -> tuple[Plane, Plane]:  # fmt: skip
    """HU of one thin plane, and the depth below the pleura."""
    px = float(x_mm[1] - x_mm[0])

    field = partial(up.plane, z_mm=z_mm)
    texture, body, lung = field(anatomy.texture), field(anatomy.body), field(anatomy.lung)
    hu = FAT_HU + 9 * texture
    hu += (field(anatomy.soft_hu) - hu) * _cover(field(anatomy.soft), px)
    bone, marrow = field(anatomy.bone), field(anatomy.bone_hu)
    shell = np.clip(1.8 - bone, 0, 1) * (marrow > 115)  # cartilage has none
    hu += (marrow + 30 * texture + shell * (look.cortex - marrow) - hu) * _cover(bone, px)
    hu += (30 - hu) * np.clip(1.8 - body, 0, 1)  # skin
    share = np.float32(1 / 255)
    if lung.max() > -10:
        if lung.max() > -1:
            hu += (_parenchyma(field, anatomy, look, texture, y_mm, x_mm) - hu) * _cover(lung, px)
        near = np.clip((lung + 9) / 3, 0, 1) * share
        hu += np.maximum(anatomy.mediastinum.blood_hu - hu, 0) * (contents.vessels[i, rows] * near)
        hu += np.maximum(look.wall - hu, 0) * (contents.walls[i, rows] * near)
    # Below the main bronchi airways belong to the lungs; a bronchus that strays into the heart is not shown.
    if z_mm < anatomy.frame.carina - 30:
        hu += (-1000 - hu) * (contents.airways[i, rows] * np.clip((lung + 4) / 3, 0, 1) * share)
    else:
        hu += (-1000 - hu) * (contents.airways[i, rows] * share)
    for lesion in contents.lesions:
        z, y, x = lesion.start_zyx
        if 0 <= i - z < lesion.coverage.shape[0]:
            part = lesion.coverage[i - z]
            target = hu[y - rows.start : y - rows.start + part.shape[0], x : x + part.shape[1]]
            target += np.maximum(lesion.hu[i - z] - target, 0) * part
    hu += (backdrop - hu) * _cover(-body, px)
    return hu, lung


def _cover(distance: Plane, pixel_mm: float) -> Plane:
    """Share of each pixel that lies inside, from the signed distance of its centre."""
    return np.clip(0.5 + distance / pixel_mm, 0, 1)


def _parenchyma(
    field: Callable[[Field], Plane],
    anatomy: Anatomy,
    look: Look,
    texture: Plane,
    y_mm: Float32[np.ndarray, " y"],
    x_mm: Float32[np.ndarray, " x"],
) -> Plane:
    """HU of lung between the vessels: gravity, grain, emphysema, fissures."""
    px = float(x_mm[1] - x_mm[0])
    air = look.lung + look.gravity * y_mm[:, None] + look.grain * texture
    air += (-975 - air) * field(anatomy.emphysema)
    oblique = field(anatomy.oblique)
    sheet = np.clip(1 - np.abs(oblique) / px, 0, 1)
    right = x_mm < 0
    horizontal = np.clip(1 - np.abs(field(anatomy.horizontal)[:, right]) / px, 0, 1) * (oblique[:, right] > 0)
    sheet[:, right] = np.maximum(sheet[:, right], horizontal)
    return np.asarray(air + (look.fissure - air) * sheet * 0.55, np.float32)


def _table(y_mm: Float32[np.ndarray, " y"], x_mm: Float32[np.ndarray, " x"], back_mm: float) -> Plane:
    """The table the patient lies on: two thin curved shells with foam between."""
    depth = y_mm[:, None] - (back_mm + 3 - 0.00045 * x_mm[None] ** 2)
    shell = np.clip(1.5 - np.abs(depth), 0, 1) + np.clip(1.5 - np.abs(depth - 26), 0, 1)
    foam = np.clip(depth, 0, 1) * np.clip(26 - depth, 0, 1)
    hu = -1000 + 60 * foam + 850 * shell
    return np.where(np.abs(x_mm[None]) < 215, hu, -1000).astype(np.float32)

"""A synthetic chest CT with exact truth, made in seconds on a CPU.

``make_phantom(seed)`` grows a thorax (``phantom_anatomy``), fills its lungs (``phantom_lung``), places nodules
(``phantom_place``) and scans it (``phantom_scanner``). Everything follows from the seed.

Must not know files or networks.
"""

import hashlib
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Float32, UInt8
from scipy import ndimage

from carina.data.phantom_anatomy import CELL_MM, FAT_HU, Anatomy, grow_anatomy
from carina.data.phantom_lung import LungTrees, grow_lung_trees, touches
from carina.data.phantom_nodules import Form, NoduleType, Place
from carina.data.phantom_place import Placed, place_lookalikes, place_nodules
from carina.data.phantom_scanner import Detector, Kernel, Protocol, Upsampler, draw_protocol
from carina.data.phantom_trees import draw_tubes
from carina.geometry import Geometry, Vector3
from carina.volume import Source, Volume


@dataclass(frozen=True)
class PhantomNodule:
    """The truth about one nodule.

    Attributes:
        center_lps: centre of mass, mm.
        diameter_mm: diameter of the sphere of the same volume.
        volume_mm3: volume of the shape within the lung; slice thickness does not change it.
        type: how dense it is.
        label: its value in the label mask, 1, 2, ...
        form: outline.
        place: where it sits.
    """

    center_lps: Vector3
    diameter_mm: float
    volume_mm3: float
    type: NoduleType
    label: int
    form: Form
    place: Place


@dataclass(frozen=True, eq=False)
class Phantom:
    """A synthetic chest CT and the truth about it.

    Attributes:
        volume: the CT.
        label: 0, or the label of the nodule that fills at least half of the voxel.
        nodules: the truth about each nodule.
        negatives: positions (mm, LPS) that look like nodules and are not: forks and crossings of vessels, vessels
            on fissures, scars, plaques.
        lungs: both lungs, with the vessels and nodules inside them.
        seed: what it was made from.
    """

    volume: Volume
    label: UInt8[np.ndarray, "z y x"]
    nodules: tuple[PhantomNodule, ...]
    negatives: Float[np.ndarray, "n 3"]
    lungs: Bool[np.ndarray, "z y x"]
    seed: int


def phantom_uid(seed: int) -> str:
    """A valid DICOM UID that follows from the seed (PS3.5 B.2: ``2.25.`` and a 128-bit number)."""
    digest = hashlib.sha256(f"carina phantom {seed}".encode()).digest()
    return f"2.25.{int.from_bytes(digest[:16], 'big')}"


def make_phantom(
    seed: int,
    *,
    nodules: int | None = None,
    pixel_mm: float | None = None,
    slice_thickness_mm: float | None = None,
    kernel: Kernel | None = None,
) -> Phantom:
    """Make a synthetic chest CT.

    Args:
        seed: the same seed and arguments give the same phantom, voxel for voxel.
        nodules: how many to place, 0 to 6 drawn where None.
        pixel_mm: in-plane voxel size; 0.75 to 1 mm drawn where None.
        slice_thickness_mm: thickness and distance of slices; 1 to 5 mm drawn where None.
        kernel: reconstruction kernel, drawn where None.

    Returns:
        The CT with its truth.
    """
    rng = np.random.default_rng([20_259, seed])
    anatomy = grow_anatomy(rng)
    protocol = draw_protocol(
        rng, anatomy.frame.body_half_width, anatomy.frame.top,
        pixel_mm=pixel_mm, slice_thickness_mm=slice_thickness_mm, kernel=kernel,
    )  # fmt: skip
    drawn = int(rng.choice(7, p=(0.1, 0.22, 0.22, 0.18, 0.13, 0.09, 0.06)))
    trees = grow_lung_trees(rng, anatomy)
    spacing, origin = protocol.fine_spacing_zyx_mm, protocol.origin_zyx_mm
    drawn_tubes = []
    for tubes in ((trees.arteries, trees.veins), (trees.walls,), (trees.airways,)):
        coverage = np.zeros(protocol.fine_shape_zyx, np.uint8)
        for part in tubes:
            draw_tubes(coverage, part, spacing, origin)
        drawn_tubes.append(coverage)
    vessels, walls, airways = drawn_tubes
    placed = place_nodules(rng, drawn if nodules is None else nodules, anatomy, trees, protocol, vessels, walls)
    lookalikes = place_lookalikes(rng, int(rng.integers(0, 5)), anatomy, protocol, placed)
    hu, lungs = _scan(rng, anatomy, protocol, vessels, walls, airways, [*lookalikes, *placed])

    corner = tuple(rng.uniform(-260, -120, 2)) + (float(rng.uniform(-420, -60)),)
    geometry = Geometry.from_axes(
        (protocol.slices, protocol.matrix, protocol.matrix),
        spacing_zyx_mm=(protocol.thickness_mm, protocol.pixel_mm, protocol.pixel_mm),
        origin_lps=corner,
    )
    label = np.zeros(hu.shape, np.uint8)
    truth = []
    for number, nodule in enumerate(placed, 1):
        _mark(label, nodule, number, protocol)
        center = geometry.to_lps(_index(nodule.centre_zyx_mm, protocol))
        truth.append(PhantomNodule(
            (float(center[0]), float(center[1]), float(center[2])), nodule.diameter_mm, nodule.volume_mm3,
            nodule.lesion.type, number, nodule.lesion.form, nodule.place,
        ))  # fmt: skip
    points = _negatives(rng, anatomy, trees, placed, lookalikes)
    index = _index(points, protocol)
    negatives = geometry.to_lps(index[((index > 0) & (index < np.asarray(hu.shape) - 1)).all(1)])
    source = Source(series_uid=phantom_uid(seed), patient_id=f"phantom-{seed}")
    return Phantom(Volume(hu, geometry, source), label, tuple(truth), negatives, lungs, seed)


def _index(points_zyx_mm: np.ndarray, protocol: Protocol) -> np.ndarray:
    """Fractional voxel index in the final volume of positions in the phantom's frame."""
    fine = (points_zyx_mm - np.asarray(protocol.origin_zyx_mm)) / np.asarray(protocol.fine_spacing_zyx_mm)
    fine[..., 0] = (fine[..., 0] + 0.5) / protocol.planes - 0.5
    return np.asarray(fine)


def _mark(label: np.ndarray, nodule: Placed, number: int, protocol: Protocol) -> None:
    """Write ``number`` where the nodule fills at least half of a voxel of the final grid."""
    z0, y0, x0 = nodule.start_zyx
    k = protocol.planes
    first, last = z0 // k, (z0 + nodule.coverage.shape[0] - 1) // k + 1
    depth = np.zeros(((last - first) * k, *nodule.coverage.shape[1:]), np.float32)
    depth[z0 - first * k : z0 - first * k + nodule.coverage.shape[0]] = nodule.coverage
    share = depth.reshape(last - first, k, *depth.shape[1:]).mean(1)
    target = label[first:last, y0 : y0 + share.shape[1], x0 : x0 + share.shape[2]]
    target[share >= 0.5] = number


def _negatives(
    rng: np.random.Generator, anatomy: Anatomy, trees: LungTrees, placed: list[Placed], lookalikes: list[Placed]
) -> np.ndarray:
    from carina.data.phantom_lung import sample

    points = np.concatenate([trees.forks, touches(anatomy, trees)])
    points = points[sample(anatomy.lung, anatomy, points) > 0.5]
    points = points[rng.permutation(len(points))[:80]]
    points = np.concatenate([points, *[p.centre_zyx_mm[None] for p in lookalikes]])
    for nodule in placed:
        away = np.linalg.norm(points - nodule.centre_zyx_mm, axis=1)
        points = points[away > nodule.lesion.reach_mm + 6]
    return points


def _table(
    y_mm: Float32[np.ndarray, " y"], x_mm: Float32[np.ndarray, " x"], back_mm: float
) -> Float32[np.ndarray, "y x"]:
    """The table the patient lies on: two thin curved shells with foam between."""
    depth = y_mm[:, None] - (back_mm + 3 - 0.00045 * x_mm[None] ** 2)
    shell = np.clip(1.5 - np.abs(depth), 0, 1) + np.clip(1.5 - np.abs(depth - 26), 0, 1)
    foam = np.clip(depth, 0, 1) * np.clip(26 - depth, 0, 1)
    hu = -1000 + 60 * foam + 850 * shell
    return np.where(np.abs(x_mm[None]) < 215, hu, -1000).astype(np.float32)


def _scan(
    rng: np.random.Generator,
    anatomy: Anatomy,
    protocol: Protocol,
    vessels: np.ndarray,
    walls: np.ndarray,
    airways: np.ndarray,
    lesions: list[Placed],
) -> tuple[np.ndarray, np.ndarray]:
    """Render thin planes, average them to slices, and reconstruct."""
    n, k = protocol.matrix, protocol.planes
    dz, px, _ = protocol.fine_spacing_zyx_mm
    z0, y0, x0 = protocol.origin_zyx_mm
    y = (y0 + np.arange(n) * px).astype(np.float32)
    x = (x0 + np.arange(n) * px).astype(np.float32)
    frame = anatomy.frame
    up = Upsampler(anatomy.origin_zyx_mm, CELL_MM, anatomy.body.shape, y, x)
    base = rng.uniform(-895, -850)
    gravity = rng.uniform(0.15, 0.55) * (y[:, None] / 1.0)
    grain = rng.uniform(14, 26)
    table = _table(y, x, frame.body_half_depth + 8) if rng.random() < 0.7 else np.full((n, n), -1000, np.float32)
    loud = np.exp(-((x[None] / (0.8 * frame.half_width)) ** 2) - (y[:, None] / (0.9 * frame.half_depth)) ** 2)
    detector = Detector(protocol, (0.45 + 0.6 * loud).astype(np.float32))
    blood = anatomy.mediastinum.blood_hu
    fissure_hu, wall_hu = rng.uniform(-640, -450), rng.uniform(-100, 30)
    cortex = rng.uniform(500, 800)

    def soft_edge(distance: np.ndarray) -> np.ndarray:
        return np.clip(0.5 + distance / px, 0, 1)

    def plane(i: int) -> tuple[np.ndarray, np.ndarray]:
        z = z0 + i * dz
        take = lambda field: up.plane(field, z)  # noqa: E731
        texture, body, lung = take(anatomy.texture), take(anatomy.body), take(anatomy.lung)
        hu = FAT_HU + 9 * texture
        hu += (take(anatomy.soft_hu) - hu) * soft_edge(take(anatomy.soft))
        bone = take(anatomy.bone)
        inner = take(anatomy.bone_hu) + 30 * texture
        hard = np.where(inner > 115, np.clip(1.8 - bone, 0, 1) * (cortex - inner), 0)
        hu += (inner + hard - hu) * soft_edge(bone)
        # Skin
        hu += (30 - hu) * np.clip(1.8 - body, 0, 1)
        air = base + gravity + grain * texture
        air += (-975 - air) * take(anatomy.emphysema)
        oblique, horizontal = take(anatomy.oblique), take(anatomy.horizontal)
        right_front = (x[None] < 0) & (oblique > 0)
        sheet = np.clip(1.0 - np.abs(oblique) / px, 0, 1)
        sheet = np.maximum(sheet, np.where(right_front, np.clip(1.0 - np.abs(horizontal) / px, 0, 1), 0)) * 0.7
        air += (fissure_hu - air) * sheet
        hu += (air - hu) * soft_edge(lung)
        reach = np.clip((lung + 14) / 4, 0, 1) / 255
        for coverage, value in ((vessels, blood), (walls, wall_hu)):
            share = coverage[i] * reach
            hu += np.maximum(value - hu, 0) * share
        hu += (-1000 - hu) * (airways[i] * (reach if z < frame.carina - 30 else np.float32(1 / 255)))
        for lesion in lesions:
            j = i - lesion.start_zyx[0]
            if 0 <= j < lesion.coverage.shape[0]:
                _, ly, lx = lesion.start_zyx
                share = lesion.coverage[j]
                target = hu[ly : ly + share.shape[0], lx : lx + share.shape[1]]
                target += np.maximum(lesion.hu[j] - target, 0) * share
        outside = soft_edge(-body)
        hu += (table - hu) * outside
        return hu, lung

    out = np.empty((protocol.slices, n, n), np.int16)
    lungs = np.empty(out.shape, bool)
    for s in range(protocol.slices):
        planes = [plane(s * k + j) for j in range(k)]
        mean = sum(p[0] for p in planes) / k
        lungs[s] = sum(p[1] for p in planes) > 0
        height = z0 + s * k * dz
        louder = 1.0 + 0.7 * float(np.clip((height - frame.apex + 40) / 40, 0, 1))
        out[s] = np.clip(np.round(detector.expose(rng, mean.astype(np.float32), louder)), -1024, 3071)
    return out, lungs

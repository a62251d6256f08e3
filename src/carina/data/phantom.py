"""A synthetic chest CT with exact truth, made in seconds on a CPU.

``make_phantom(seed)`` grows a thorax (``phantom_anatomy``), fills its lungs (``phantom_lung``), places nodules
(``phantom_place``) and scans it (``phantom_scanner``). Everything follows from the seed.

Must not know files or networks.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, UInt8

from carina.data.phantom_anatomy import Anatomy, grow_anatomy
from carina.data.phantom_lung import LungTrees, grow_lung_trees, sample, touches
from carina.data.phantom_nodules import Form, NoduleType, Place
from carina.data.phantom_place import Placed, place_lookalikes, place_nodules
from carina.data.phantom_render import Contents, scan
from carina.data.phantom_scanner import Kernel, Protocol, draw_protocol
from carina.data.phantom_trees import draw_tubes
from carina.errors import UsageError
from carina.geometry import Geometry, Vector3
from carina.io.uid import made_uid
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
    """The series UID of the phantom of a seed."""
    return made_uid(f"carina phantom {seed}")


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

    Raises:
        UsageError: more nodules than the lungs have room for.
    """
    if nodules is not None and not 0 <= nodules <= 100:
        raise UsageError(f"{nodules} nodules in a phantom; expected 0 to 100")
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
    hu, lungs = scan(rng, anatomy, protocol, Contents(vessels, walls, airways, (*lookalikes, *placed)))

    geometry = Geometry.from_axes(
        (protocol.slices, protocol.matrix, protocol.matrix),
        spacing_zyx_mm=(protocol.thickness_mm, protocol.pixel_mm, protocol.pixel_mm),
        origin_lps=rng.uniform((-260, -260, -420), (-120, -120, -60)),
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
    points = np.concatenate([trees.forks, touches(anatomy, trees)])
    points = points[sample(anatomy.lung, anatomy, points) > 0.5]
    points = points[rng.permutation(len(points))[:80]]
    points = np.concatenate([points, *[p.centre_zyx_mm[None] for p in lookalikes]])
    for nodule in placed:
        away = np.linalg.norm(points - nodule.centre_zyx_mm, axis=1)
        points = points[away > nodule.lesion.reach_mm + 6]
    return points

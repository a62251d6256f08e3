"""Which crops an epoch consists of: pure functions of (seed, epoch) that return index arrays.

Nothing is read but the scans' records and their lists of points; ``data.batches`` cuts the crops. The same arguments
give the same crops in the same order, on every machine and in every process of a distributed run.

Must not know voxels, networks or torch.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float64, Int64, Shaped

from carina.data.store import Scan
from carina.errors import TrainingError, UsageError
from carina.geometry import Vector3

RANDOM, NODULE, NEGATIVE = 0, 1, 2
"""Kinds of crop: anywhere in the lungs, on a nodule, on something that looks like one."""

SIZE_BINS_MM = (4.0, 6.0, 9.0, 14.0)
"""Diameters that part the sizes which ``size_balance`` evens out."""


@dataclass(frozen=True, eq=False)
class CropList:
    """Crops in the order of training.

    Attributes:
        scan: index into the sequence of scans.
        center_zyx: whole index of the crop's centre; may lie outside of the scan.
        kind: ``RANDOM``, ``NODULE`` or ``NEGATIVE``.
        nodule: index into the scan's ``nodules``, -1 for the other kinds.
        target: class of the crop: nodule or not, malignant or not.
    """

    scan: Int64[np.ndarray, " n"]
    center_zyx: Int64[np.ndarray, "n 3"]
    kind: Int64[np.ndarray, " n"]
    nodule: Int64[np.ndarray, " n"]
    target: Int64[np.ndarray, " n"]

    def __len__(self) -> int:
        return len(self.scan)

    def take(self, index: Shaped[np.ndarray, " m"] | slice) -> "CropList":
        """The crops at these places."""
        return type(self)(
            self.scan[index], self.center_zyx[index], self.kind[index], self.nodule[index], self.target[index]
        )


@dataclass(frozen=True, eq=False)
class Mined:
    """What an earlier model marked in a scan.

    Attributes:
        wrong: marks on no nodule, fractional index on the scan's grid.
        right: marks on a nodule; they lie where the pipeline will look, in a large nodule far from its centre.
    """

    wrong: Float64[np.ndarray, "n 3"]
    right: Float64[np.ndarray, "m 3"]


@dataclass(frozen=True, eq=False)
class _Places:
    """Centres of one kind over all scans."""

    scan: Int64[np.ndarray, " n"]
    center_zyx: Float64[np.ndarray, "n 3"]
    nodule: Int64[np.ndarray, " n"]
    kind: int

    def __len__(self) -> int:
        return len(self.scan)

    def crops(
        self,
        chosen: Int64[np.ndarray, " m"],
        jitter: Float64[np.ndarray, "m 3"],
        target: Int64[np.ndarray, " m"],
    ) -> CropList:
        centers = np.rint(self.center_zyx[chosen] + jitter).astype(np.int64)
        kind = np.full(len(chosen), self.kind, np.int64)
        return CropList(self.scan[chosen], centers, kind, self.nodule[chosen], target)


def segmentation_crops(
    scans: Sequence[Scan],
    n: int,
    *,
    seed: int,
    epoch: int,
    mix: tuple[float, float, float] = (0.5, 0.25, 0.25),
    jitter_mm: Vector3 = (6.0, 24.0, 24.0),
    size_balance: float = 0.5,
) -> CropList:
    """Draw an epoch of crops to learn a mask from.

    Args:
        scans: prepared scans, with and without nodules.
        n: number of crops.
        seed: of the run.
        epoch: another epoch has other crops.
        mix: shares of crops near a nodule, near a hard negative, anywhere in the lungs. Scans are equally likely for
            the last two, whether they hold nodules or not; without negatives their share goes to the lungs.
        jitter_mm: nodules and negatives lie up to so far from the crop's centre along each axis.
        size_balance: 0 draws nodules as they come, 1 makes every bin of ``SIZE_BINS_MM`` equally likely.

    Raises:
        TrainingError: nodules are asked for and no scan holds one.
    """
    if min(mix) < 0 or sum(mix) <= 0:
        raise UsageError(f"sampling.mix is {mix}, expected three shares of at least 0")
    rng = np.random.default_rng((seed, epoch, 1))
    nodules, negatives = _nodules(scans), _negatives(scans)
    if mix[0] > 0 and not len(nodules):
        raise TrainingError(f"none of the {len(scans)} scans holds a nodule; set the share of nodules to 0")
    shares = np.array(mix, float) / sum(mix)
    n_nodules, n_both, _ = np.rint(n * shares.cumsum()).astype(int).tolist()
    n_negatives = n_both - n_nodules if len(negatives) else 0
    chosen = rng.choice(len(nodules), n_nodules, p=_size_weights(scans, nodules, size_balance)) if n_nodules else []
    parts = [
        _near(rng, scans, nodules, np.asarray(chosen, np.int64), jitter_mm, 1),
        _near(rng, scans, negatives, _by_scan(rng, negatives, n_negatives), jitter_mm, 0),
        _in_lungs(rng, scans, n - n_nodules - n_negatives),
    ]
    return _shuffled(rng, parts)


def nodule_crops(
    scans: Sequence[Scan],
    n: int,
    *,
    seed: int,
    epoch: int,
    balanced: bool = True,
    jitter_mm: float = 2.0,
    random_share: float = 0.1,
    mined: Mapping[str, Mined] | None = None,
) -> CropList:
    """Draw an epoch of crops to tell nodules from what looks like them.

    Args:
        scans: prepared scans, with and without nodules.
        n: number of crops.
        seed: of the run.
        epoch: another epoch has other crops; every nodule and every right mark comes equally often, up to one.
        balanced: half of the crops are nodules. Otherwise crops come as nodules and negatives do in the scans.
        jitter_mm: the centre is off by up to so much along each axis.
        random_share: share of the crops that are not nodules which is cut anywhere in the lungs.
        mined: what a model marked, by the scan's key.

    Raises:
        TrainingError: no nodule in any scan, or nothing else.
    """
    rng = np.random.default_rng((seed, epoch, 2))
    nodules, negatives = _nodules(scans, mined), _negatives(scans, mined)
    if not len(nodules):
        raise TrainingError(f"none of the {len(scans)} scans holds a nodule; a classifier needs both classes")
    share = 0.5 if balanced else len(nodules) / (len(nodules) + len(negatives))
    n_nodules = round(n * share)
    n_random = round((n - n_nodules) * random_share) if len(negatives) else n - n_nodules
    jitter = (jitter_mm, jitter_mm, jitter_mm)
    parts = [
        _near(rng, scans, nodules, _evenly(rng, len(nodules), n_nodules), jitter, 1),
        _near(rng, scans, negatives, _evenly(rng, len(negatives), n - n_nodules - n_random), jitter, 0),
        _in_lungs(rng, scans, n_random),
    ]
    return _shuffled(rng, parts)


def malignancy_crops(
    scans: Sequence[Scan], n: int, *, seed: int, epoch: int, balanced: bool = True, jitter_mm: float = 2.0
) -> CropList:
    """Draw an epoch of nodules whose malignancy is known; ``target`` 1 is malignant.

    Raises:
        TrainingError: no malignant or no benign nodule.
    """
    rng = np.random.default_rng((seed, epoch, 3))
    nodules = _nodules(scans)
    said = [scans[s].nodules[k].malignancy for s, k in zip(nodules.scan, nodules.nodule, strict=True)]
    classes = [np.flatnonzero([m is not None and (m > 0.5) == bool(c) for m in said]) for c in (0, 1)]
    if not all(len(c) for c in classes):
        raise TrainingError(
            f"{len(classes[1])} malignant and {len(classes[0])} benign nodules in {len(scans)} scans; "
            "a classifier needs both"
        )
    share = 0.5 if balanced else len(classes[1]) / (len(classes[0]) + len(classes[1]))
    counts = (n - round(n * share), round(n * share))
    jitter = (jitter_mm, jitter_mm, jitter_mm)
    parts = [
        _near(rng, scans, nodules, members[_evenly(rng, len(members), count)], jitter, target)
        for target, (members, count) in enumerate(zip(classes, counts, strict=True))
    ]
    return _shuffled(rng, parts)


def every_candidate(scans: Sequence[Scan], negatives_per_scan: int | None = None) -> CropList:
    """All nodules and negatives of the scans, centred, in order: what a classifier is validated on.

    Args:
        scans: prepared scans.
        negatives_per_scan: at most so many negatives of each scan, the same ones every time; None takes all.
    """
    rng = np.random.default_rng(0)
    parts = []
    for places, target in ((_nodules(scans), 1), (_negatives(scans), 0)):
        chosen = np.arange(len(places), dtype=np.int64)
        if target == 0 and negatives_per_scan is not None:
            groups = [np.flatnonzero(places.scan == s) for s in range(len(scans))]
            kept = [g if len(g) <= negatives_per_scan else rng.permutation(g)[:negatives_per_scan] for g in groups]
            chosen = np.sort(np.concatenate([*kept, np.empty(0, np.int64)])).astype(np.int64)
        parts.append(_near(rng, scans, places, chosen, (0.0, 0.0, 0.0), target))
    return _joined(parts)


def _nodules(scans: Sequence[Scan], mined: Mapping[str, Mined] | None = None) -> _Places:
    scan, centers, index = [], [], []
    for s, record in enumerate(scans):
        own = np.array([nodule.center_zyx for nodule in record.nodules], float).reshape(-1, 3)
        marks = mined[record.key].right if mined and record.key in mined and len(own) else own[:0]
        away_mm = np.linalg.norm((marks[:, None] - own) * record.geometry.spacing_zyx_mm, axis=2)
        scan.append(np.full(len(own) + len(marks), s, np.int64))
        centers.append(np.concatenate([own, marks]))
        index.append(np.concatenate([np.arange(len(own)), away_mm.argmin(axis=1) if len(marks) else []]))
    return _Places(
        np.concatenate([*scan, np.empty(0, np.int64)]),
        np.concatenate([*centers, np.empty((0, 3))]),
        np.concatenate([*index, np.empty(0)]).astype(np.int64),
        NODULE,
    )


def _negatives(scans: Sequence[Scan], mined: Mapping[str, Mined] | None = None) -> _Places:
    groups = []
    for record in scans:
        found = mined[record.key].wrong if mined and record.key in mined else np.empty((0, 3))
        groups.append(np.concatenate([record.negatives.astype(float), found[~_on_nodule(record, found)]]))
    scan = np.repeat(np.arange(len(scans), dtype=np.int64), [len(g) for g in groups])
    centers = np.concatenate([*groups, np.empty((0, 3))])
    return _Places(scan, centers, np.full(len(scan), -1, np.int64), NEGATIVE)


def _on_nodule(record: Scan, centers_zyx: Float64[np.ndarray, "n 3"]) -> Bool[np.ndarray, " n"]:
    """Whether a point lies within the radius of a nodule (3 mm at least, as the jitter of crops demands)."""
    hit = np.zeros(len(centers_zyx), bool)
    for nodule in record.nodules:
        offset_mm = (centers_zyx - nodule.center_zyx) * record.geometry.spacing_zyx_mm
        hit |= np.linalg.norm(offset_mm, axis=1) < max(nodule.diameter_mm / 2, 3.0)
    return hit


def _size_weights(scans: Sequence[Scan], nodules: _Places, size_balance: float) -> Float64[np.ndarray, " n"]:
    diameters = [scans[s].nodules[k].diameter_mm for s, k in zip(nodules.scan, nodules.nodule, strict=True)]
    bins = np.digitize(diameters, SIZE_BINS_MM)
    weights = np.bincount(bins)[bins].astype(float) ** -size_balance
    return np.asarray(weights / weights.sum())


def _near(
    rng: np.random.Generator,
    scans: Sequence[Scan],
    places: _Places,
    chosen: Int64[np.ndarray, " m"],
    jitter_mm: Vector3,
    target: int,
) -> CropList:
    spacing = np.array([s.geometry.spacing_zyx_mm for s in scans]).reshape(-1, 3)[places.scan[chosen]]
    jitter = rng.uniform(-1, 1, (len(chosen), 3)) * jitter_mm / spacing
    return places.crops(chosen, jitter, np.full(len(chosen), target, np.int64))


def _in_lungs(rng: np.random.Generator, scans: Sequence[Scan], n: int) -> CropList:
    """Points of the lungs that lie on no nodule and on nothing to be ignored; every scan is equally likely."""
    scan = rng.integers(len(scans), size=n)
    picks = rng.random(n)
    centers = np.empty((n, 3), np.int64)
    for s in np.unique(scan):
        mine = np.flatnonzero(scan == s)
        points = scans[s].free_points.astype(float)
        free = points[~_on_nodule(scans[s], points)]
        free = free if len(free) else scans[s].lung_points.astype(float)
        centers[mine] = free[(picks[mine] * len(free)).astype(np.int64)].astype(np.int64)
    none, zero = np.full(n, -1, np.int64), np.zeros(n, np.int64)
    return CropList(scan.astype(np.int64), centers, np.full(n, RANDOM, np.int64), none, zero)


def _evenly(rng: np.random.Generator, members: int, n: int) -> Int64[np.ndarray, " n"]:
    """``n`` draws in which no member comes twice more often than another."""
    if not n:
        return np.empty(0, np.int64)
    rounds = [rng.permutation(members) for _ in range(-(-n // members))]
    return np.concatenate(rounds)[:n].astype(np.int64)


def _by_scan(rng: np.random.Generator, places: _Places, n: int) -> Int64[np.ndarray, " n"]:
    """``n`` draws in which every scan with such places is equally likely."""
    if not n:
        return np.empty(0, np.int64)
    _, first, count = np.unique(places.scan, return_index=True, return_counts=True)
    group = rng.integers(len(first), size=n)
    return (first[group] + (rng.random(n) * count[group]).astype(np.int64)).astype(np.int64)


def _joined(parts: Sequence[CropList]) -> CropList:
    return CropList(
        np.concatenate([p.scan for p in parts]),
        np.concatenate([p.center_zyx for p in parts]),
        np.concatenate([p.kind for p in parts]),
        np.concatenate([p.nodule for p in parts]),
        np.concatenate([p.target for p in parts]),
    )


def _shuffled(rng: np.random.Generator, parts: Sequence[CropList]) -> CropList:
    joined = _joined(parts)
    return joined.take(rng.permutation(len(joined)))

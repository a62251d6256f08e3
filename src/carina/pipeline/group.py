"""From a probability map to candidates: connected regions with centre, box, volume and score.

Regions connect over faces, edges and corners (26 neighbours): a small nodule of a few voxels, or one whose parts touch
only diagonally on the anisotropic grid, stays one candidate. Nothing is eroded; only ``min_volume_mm3`` removes.

All work after the threshold is done on the voxels above it, never on the whole volume per candidate.

Must not know networks, lungs or findings of other stages.
"""

import numpy as np
from jaxtyping import Bool, Float32, Int32
from scipy import ndimage

from carina.findings import Candidate
from carina.geometry import Geometry

SCORE_VOLUME_MM3 = 60.0
"""A candidate's score is the mean of its highest probabilities over this volume."""

_NEIGHBOURS = np.ones((3, 3, 3), bool)


def group(
    probability: Float32[np.ndarray, "z y x"],
    inside: Bool[np.ndarray, "z y x"],
    geometry: Geometry,
    *,
    threshold: float,
    min_volume_mm3: float,
    split_above: float | None = None,
) -> tuple[list[Candidate], Int32[np.ndarray, "z y x"]]:
    """Group marked voxels into candidates.

    Args:
        probability: per voxel, in [0, 1].
        inside: where voxels may be marked, as a rule the dilated lungs.
        geometry: where the voxels lie in the patient.
        threshold: a voxel is marked if its probability is higher.
        min_volume_mm3: regions smaller than this are left out.
        split_above: when given, a region that falls into two or more parts of at least ``min_volume_mm3`` at this
            higher threshold becomes one candidate per part (neighbours that the lower threshold merged). Every voxel
            stays with a part.

    Returns:
        Candidates, highest score first, and the label map: 0 or the ``label`` of a candidate, which counts from 1
        in the order of the list.
    """
    result = np.zeros(probability.shape, np.int32)
    marked = (probability > threshold) & inside
    box = _bounding_box(marked)
    if box is None:
        return [], result
    probability, start = probability[box], np.array([side.start for side in box])
    labels, n = ndimage.label(marked[box], _NEIGHBOURS)
    fewest = min_volume_mm3 / geometry.voxel_volume_mm3
    if split_above is not None:
        labels, n = _split(labels, n, probability, split_above, fewest)

    voxels = np.nonzero(labels)
    owner, p = labels[voxels], probability[voxels].astype(np.float64)
    count = np.bincount(owner, minlength=n + 1)
    weight = np.maximum(np.bincount(owner, p, minlength=n + 1), 1e-300)
    centers = np.stack([np.bincount(owner, p * index, minlength=n + 1) / weight for index in voxels], 1) + start
    scores = _top_means(owner, p, count, max(round(SCORE_VOLUME_MM3 / geometry.voxel_volume_mm3), 1))

    kept = np.flatnonzero((count >= fewest) & (count > 0))
    kept = kept[np.argsort(-scores[kept], kind="stable")]
    renumber = np.zeros(n + 1, np.int32)
    renumber[kept] = np.arange(1, len(kept) + 1)
    result[box][voxels] = renumber[owner]
    boxes = ndimage.find_objects(labels)
    candidates = []
    for k in kept:
        first = [int(side.start + s) for side, s in zip(boxes[k - 1], start, strict=True)]
        last = [int(side.stop + s) for side, s in zip(boxes[k - 1], start, strict=True)]
        candidates.append(
            Candidate(
                center_zyx=_triple(centers[k]),
                center_lps=_triple(geometry.to_lps(centers[k])),
                box_zyx=((first[0], first[1], first[2]), (last[0], last[1], last[2])),
                volume_mm3=float(count[k] * geometry.voxel_volume_mm3),
                score=float(scores[k]),
                label=int(renumber[k]),
            )
        )
    return candidates, result


def _top_means(owner: np.ndarray, p: np.ndarray, count: np.ndarray, top: int) -> np.ndarray:
    """Mean of the ``top`` highest values of every owner, of all its values where it has fewer."""
    order = np.lexsort((-p, owner))
    rank = np.arange(len(owner)) - (np.cumsum(count) - count)[owner[order]]
    best = order[rank < top]
    return np.bincount(owner[best], p[best], minlength=len(count)) / np.clip(count, 1, top)


def _split(labels: np.ndarray, n: int, probability: np.ndarray, above: float, fewest: float) -> tuple[np.ndarray, int]:
    """Give every region that falls apart above a higher threshold one label per part.

    The parts grow back over their region by a watershed on the probability.
    """
    parts, n_parts = ndimage.label((labels > 0) & (probability > above), _NEIGHBOURS)
    large = np.bincount(parts.ravel(), minlength=n_parts + 1) >= max(fewest, 1)
    large[0] = False
    parts[~large[parts]] = 0
    inside = np.zeros(n_parts + 1, np.int64)
    inside[parts.ravel()] = labels.ravel()
    inside[~large] = 0
    boxes = ndimage.find_objects(labels)
    for k in np.flatnonzero(np.bincount(inside, minlength=n + 1) > 1):
        if k == 0:
            continue
        box = boxes[k - 1]
        region = labels[box] == k
        seeds = np.where(region, parts[box], 0).astype(np.int32)
        names = np.unique(seeds)[1:]
        markers = np.where(region, np.searchsorted(names, seeds) + 1, -1) * ((seeds > 0) | ~region)
        height = np.where(region, np.rint(255 * (1 - probability[box])), 255).astype(np.uint8)
        grown = ndimage.watershed_ift(height, markers.astype(np.int32), _NEIGHBOURS)
        new = np.where(grown > 1, n + grown - 1, k)
        labels[box][region] = new[region]
        n += len(names) - 1
    return labels, n


def _bounding_box(marked: np.ndarray) -> tuple[slice, slice, slice] | None:
    planes = np.flatnonzero(marked.any(axis=(1, 2)))
    if not planes.size:
        return None
    slab = marked[planes[0] : planes[-1] + 1]
    rows, columns = np.flatnonzero(slab.any(axis=(0, 2))), np.flatnonzero(slab.any(axis=(0, 1)))
    return (
        slice(planes[0], planes[-1] + 1),
        slice(rows[0], rows[-1] + 1),
        slice(columns[0], columns[-1] + 1),
    )


def _triple(values: np.ndarray) -> tuple[float, float, float]:
    z, y, x = values
    return float(z), float(y), float(x)

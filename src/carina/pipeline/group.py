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
from carina.geometry import Geometry, Vector3

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
        labels, n = _split(labels, n, probability > split_above, fewest, geometry.spacing_zyx_mm)

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
    means: np.ndarray = np.bincount(owner[best], p[best], minlength=len(count)) / np.clip(count, 1, top)
    return means


def _split(
    labels: np.ndarray, n: int, high: np.ndarray, fewest: float, spacing_zyx_mm: Vector3
) -> tuple[np.ndarray, int]:
    """Give every region that holds several parts of ``high`` one label per part; voxels go to the nearest part."""
    parts, n_parts = ndimage.label(high & (labels > 0), _NEIGHBOURS)
    region_of = np.zeros(n_parts + 1, np.int64)
    region_of[parts] = labels
    region_of[np.bincount(parts.ravel(), minlength=n_parts + 1) < fewest] = 0
    region_of[0] = 0
    boxes = ndimage.find_objects(labels)
    for k in np.flatnonzero(np.bincount(region_of[region_of > 0], minlength=n + 1) > 1):
        box = boxes[k - 1]
        region, names = labels[box] == k, np.zeros(n_parts + 1, np.int32)
        mine = np.flatnonzero(region_of == k)
        names[mine] = [k, *range(n + 1, n + len(mine))]
        seeds = names[parts[box]]
        nearest = ndimage.distance_transform_edt(
            seeds == 0, sampling=spacing_zyx_mm, return_distances=False, return_indices=True
        )
        labels[box][region] = seeds[tuple(nearest)][region]
        n += len(mine) - 1
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


def _triple(values: np.ndarray) -> Vector3:
    z, y, x = values
    return float(z), float(y), float(x)

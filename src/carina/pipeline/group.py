"""From a probability map to candidates: connected regions with centre, box, volume and score.

Regions connect over faces, edges and corners (26 neighbours): a small nodule of a few voxels, or one whose parts touch
only diagonally on the anisotropic grid, stays one candidate. Nothing is eroded; only ``min_volume_mm3`` removes.

Where nothing is marked, lower thresholds may be tried in turn. Cutting once at the lowest would merge neighbours, and
cutting once at the highest would lose what the network is less sure of.

The map is read once, plane by plane; all else is done on the list of marked voxels and of their runs along rows. No
other array of the volume's size is made: clearing one would take longer than everything else here.

Must not know networks, lungs or findings of other stages.
"""

from collections.abc import Iterator, Sequence

import numpy as np
from jaxtyping import Bool, Float32, Int32, Int64
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from carina.findings import Candidate
from carina.geometry import Geometry, Shape3, Vector3

SCORE_VOLUME_MM3 = 60.0
"""A candidate's score is the mean of its highest probabilities over this volume."""


def group(
    probability: Float32[np.ndarray, "z y x"],
    inside: Bool[np.ndarray, "z y x"],
    geometry: Geometry,
    *,
    threshold: float,
    lower_thresholds: Sequence[float] = (),
    min_volume_mm3: float,
) -> tuple[list[Candidate], list[Bool[np.ndarray, "_z _y _x"]]]:
    """Group marked voxels into candidates.

    Args:
        probability: per voxel, in [0, 1].
        inside: where voxels may be marked, as a rule the dilated lungs.
        geometry: where the voxels lie in the patient.
        threshold: a voxel is marked if its probability is higher.
        lower_thresholds: regions of voxels above one of these are candidates too where they hold no candidate that
            is found above a higher one.
        min_volume_mm3: regions smaller than this are left out.

    Returns:
        Candidates, highest score first, and for each the voxels of its box that belong to it.
    """
    marked = _marked(probability, inside, min((threshold, *lower_thresholds)))
    p = probability.reshape(-1)[marked]
    taken = np.zeros(len(marked), bool)
    found: list[tuple[Candidate, Bool[np.ndarray, "_z _y _x"]]] = []
    for cut in sorted((threshold, *lower_thresholds), reverse=True):
        above = np.flatnonzero(p > cut)
        if not above.size:
            continue
        owner = _regions(marked[above], probability.shape)
        large = np.bincount(owner) >= min_volume_mm3 / geometry.voxel_volume_mm3
        new = large & (np.bincount(owner, taken[above]) == 0)
        taken[above] |= large[owner]
        ours = above[new[owner]]
        found += _candidates(marked[ours], p[ours], owner[new[owner]], probability.shape, geometry, cut)
    found.sort(key=lambda pair: -pair[0].score)
    return [candidate for candidate, _ in found], [region for _, region in found]


def _candidates(
    marked: Int64[np.ndarray, " n"],
    probability: Float32[np.ndarray, " n"],
    owner: Int32[np.ndarray, " n"],
    shape: Shape3,
    geometry: Geometry,
    threshold: float,
) -> Iterator[tuple[Candidate, Bool[np.ndarray, "_z _y _x"]]]:
    """Every region's candidate and the voxels of its box that belong to it, in the order of their first voxels."""
    if not marked.size:
        return
    owner = np.unique(owner, return_inverse=True)[1]
    voxels = np.stack(np.unravel_index(marked, shape))
    p = probability.astype(np.float64)
    order = np.lexsort((-p, owner))  # by region, and the highest first within each
    count = np.bincount(owner)
    first = np.cumsum(count) - count
    weight = np.maximum(np.bincount(owner, p), 1e-300)
    centers = np.stack([np.bincount(owner, p * index) / weight for index in voxels], 1)
    low, high = (extreme.reduceat(voxels[:, order], first, axis=1).T for extreme in (np.minimum, np.maximum))
    top = max(round(SCORE_VOLUME_MM3 / geometry.voxel_volume_mm3), 1)
    best = order[np.arange(len(order)) - first[owner[order]] < top]
    scores = np.bincount(owner[best], p[best]) / np.minimum(count, top)
    for k in range(len(count)):
        candidate = Candidate(
            center_zyx=_triple(centers[k]),
            center_lps=_triple(geometry.to_lps(centers[k])),
            box_zyx=(_index(low[k]), _index(high[k] + 1)),
            volume_mm3=float(count[k] * geometry.voxel_volume_mm3),
            score=float(scores[k]),
            threshold=threshold,
        )
        region = np.zeros(high[k] + 1 - low[k], bool)
        region[tuple(voxels[:, order[first[k] : first[k] + count[k]]] - low[k][:, None])] = True
        yield candidate, region


def _marked(
    probability: Float32[np.ndarray, "z y x"], inside: Bool[np.ndarray, "z y x"], threshold: float
) -> Int64[np.ndarray, " n"]:
    """Positions of marked voxels in the flattened volume, in rising order."""
    found = []
    for z, (plane, allowed) in enumerate(zip(probability, inside, strict=True)):
        here = np.flatnonzero(plane > threshold)
        found.append(z * plane.size + here[allowed.reshape(-1)[here]])
    return np.concatenate(found)


def _regions(marked: Int64[np.ndarray, " n"], shape: Shape3) -> Int32[np.ndarray, " n"]:
    """The connected region of every marked voxel, counted from 0 in the order of their first voxels.

    Voxels that follow each other in a row are a run. Two runs in neighbouring rows touch where neither ends more than a
    corner before the other begins; the rows of a sorted list are found by bisection.
    """
    z, y, x = np.unravel_index(marked, shape)
    # An empty column after every row and an empty row after every plane: no run has neighbours beyond an edge.
    row, plane = shape[2] + 1, (shape[1] + 1) * (shape[2] + 1)
    place = z * plane + y * row + x
    begins = np.flatnonzero(np.diff(place, prepend=-2) != 1)
    length = np.diff(begins, append=len(place))
    start = place[begins]
    stop = start + length
    pairs = []
    for offset in (row, plane - row, plane, plane + row):
        low = np.searchsorted(stop, start + offset, "left")
        touching = np.searchsorted(start, stop + offset, "right") - low
        source = np.repeat(np.arange(len(start)), touching)
        within = np.arange(len(source)) - np.repeat(np.cumsum(touching) - touching, touching)
        pairs.append((source, low[source] + within))
    sources, targets = (np.concatenate(side) for side in zip(*pairs, strict=True))
    graph = coo_array((np.ones(len(sources), bool), (sources, targets)), (len(start), len(start)))
    _, region = connected_components(graph, directed=False)
    return np.repeat(region, length)


def _triple(values: np.ndarray) -> Vector3:
    z, y, x = values
    return float(z), float(y), float(x)


def _index(values: np.ndarray) -> Shape3:
    z, y, x = values
    return int(z), int(y), int(x)

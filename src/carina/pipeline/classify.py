"""Classification: the 3-D network looks at every candidate."""

import math
from collections.abc import Callable, Sequence

import numpy as np
from jaxtyping import Float, Float64, Int64
from scipy.special import softmax

from carina.ct.crops import cut_crops
from carina.ct.preprocess import PreparedScan
from carina.geometry import Vector3
from carina.hu import AIR, normalise
from carina.pipeline.flips import FLIPS
from carina.pipeline.runtime import Network


def classify(
    scan: PreparedScan,
    centers_lps: Sequence[Vector3],
    network: Network,
    *,
    flips: int = 1,
    again_above: float = 0.0,
    batch: int | None = None,
    progress: Callable[[float], None] = lambda _: None,
) -> Float[np.ndarray, " candidates"]:
    """The 3-D network's probability that each candidate is a nodule, in their order.

    Args:
        scan: on the network's grid; outside it lies air.
        centers_lps: centre of each candidate in mm.
        network: takes crops (batch, 1, z, y, x), gives two logits.
        flips: over how many mirrored copies of each crop the log-odds are averaged, 1 to 8.
        again_above: mirrored copies are looked at only of candidates whose first look gave at least this probability:
            most candidates are vessels that one look tells.
        batch: crops per call; default: what suits the network's device.
        progress: told the fraction done, in [0, 1].
    """
    if not centers_lps:
        return np.zeros(0)
    centers = np.rint(scan.geometry.to_zyx(centers_lps)).astype(np.int64)
    first = _look(scan, centers, network, FLIPS[:1], batch, lambda done: progress(done if flips == 1 else done / 2))
    p = _nodule(first)
    again = np.flatnonzero(p >= again_above)
    if flips > 1 and again.size:
        copies = FLIPS[1:flips]
        more = _look(scan, centers[again], network, copies, batch, lambda done: progress((1 + done) / 2))
        p[again] = _nodule((first[again] + more) / flips)
    return p


def _look(
    scan: PreparedScan,
    centers_zyx: Int64[np.ndarray, "n 3"],
    network: Network,
    copies: Sequence[tuple[int, ...]],
    batch: int | None,
    progress: Callable[[float], None],
) -> Float64[np.ndarray, "n 2"]:
    """The sum of the network's logits over mirrored copies of crops."""
    shape = network.card.preprocessing.crop_zyx
    batch = batch or network.batch(math.prod(shape))
    total = np.zeros((len(centers_zyx), 2))
    for first in range(0, len(total), batch):
        rows = slice(first, first + batch)
        crops = cut_crops(scan.hu, centers_zyx[rows], shape, AIR).astype(np.float32)
        scaled = normalise(crops, network.card.preprocessing.clip_hu)[:, None]
        for axes in copies:
            total[rows] += network(np.ascontiguousarray(np.flip(scaled, tuple(2 + axis for axis in axes))))
        progress(min(1.0, (first + batch) / len(total)))
    return total


def _nodule(logits: Float64[np.ndarray, "n 2"]) -> Float[np.ndarray, " n"]:
    return np.asarray(softmax(logits, axis=1)[:, 1])

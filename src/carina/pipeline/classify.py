"""Classification: the 3-D network looks at every candidate, and both stages together give ``p_nodule``."""

import math
from collections.abc import Callable, Sequence

import numpy as np
from jaxtyping import Float
from scipy.special import expit, logit, softmax

from carina.ct.crops import cut_crops
from carina.ct.preprocess import PreparedScan
from carina.geometry import Vector3
from carina.hu import AIR, normalise
from carina.models.card import Card
from carina.pipeline.flips import FLIPS
from carina.pipeline.runtime import Network


def classify(
    scan: PreparedScan,
    centers_lps: Sequence[Vector3],
    network: Network,
    *,
    flips: int = 1,
    batch: int | None = None,
    progress: Callable[[float], None] = lambda _: None,
) -> Float[np.ndarray, " candidates"]:
    """The 3-D network's probability that each candidate is a nodule, in their order.

    Args:
        scan: on the network's grid; outside it lies air.
        centers_lps: centre of each candidate in mm.
        network: takes crops (batch, 1, z, y, x), gives two logits.
        flips: over how many mirrored copies of each crop the log-odds are averaged, 1 to 8.
        batch: crops per call; default: what suits the network's device.
        progress: told the fraction done, in [0, 1].
    """
    if not centers_lps:
        return np.zeros(0)
    shape = network.card.preprocessing.crop_zyx
    batch = batch or network.batch(math.prod(shape))
    centers = np.rint(scan.geometry.to_zyx(centers_lps)).astype(np.int64)
    probabilities = []
    for first in range(0, len(centers), batch):
        crops = cut_crops(scan.hu, centers[first : first + batch], shape, AIR).astype(np.float32)
        scaled = normalise(crops, network.card.preprocessing.clip_hu)[:, None]
        copies = (np.flip(scaled, tuple(2 + axis for axis in axes)) for axes in FLIPS[:flips])
        logits = np.stack([network(np.ascontiguousarray(copy)) for copy in copies]).mean(axis=0, dtype=np.float64)
        probabilities.append(softmax(logits, axis=1)[:, 1])
        progress(min(1.0, (first + batch) / len(centers)))
    return np.concatenate(probabilities)


def join(
    segmentation: Float[np.ndarray, " candidates"],
    classification: Float[np.ndarray, " candidates"],
    card: Card,
) -> Float[np.ndarray, " candidates"]:
    """Calibrated probability of a nodule from the scores of both stages.

    A logistic regression on the two log-odds, fitted on held-out scans and kept in the nodule network's card:
    its coefficients say what each stage adds.
    """
    fit = card.calibration
    first = logit(np.clip(segmentation, 1e-4, 1 - 1e-4))
    second = logit(np.clip(classification, 1e-4, 1 - 1e-4))
    return np.asarray(expit(fit.intercept + fit.segmentation * first + fit.classification * second))

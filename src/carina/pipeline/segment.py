"""Segmentation: the 2.5-D U-Net over the slices of the lung box, no farther from the lungs than it must look.

Must not know candidates or reports.
"""

from collections.abc import Callable
from functools import partial

import numpy as np
from jaxtyping import Bool, Float32, Int16
from scipy.special import expit

from carina.hu import normalise
from carina.pipeline.flips import FLIPS
from carina.pipeline.runtime import Network
from carina.pipeline.segment_blocks import segment_blocks

_REACH = 1
"""The answer holds this many voxels beyond the mask too, so that outlines can be interpolated at its edge."""

_STEP = 32
"""Windows grow in steps of this many voxels: runtimes prepare anew for every size that they meet."""


def segment(
    hu: Int16[np.ndarray, "z y x"],
    network: Network,
    *,
    inside: Bool[np.ndarray, "z y x"] | None = None,
    flips: int = 1,
    batch: int | None = None,
    progress: Callable[[float], None] = lambda _: None,
) -> Float32[np.ndarray, "z y x"]:
    """Probability that a voxel belongs to a nodule.

    Args:
        hu: a scan on the network's grid.
        network: takes ``in_channels`` neighbouring slices, gives the logits of the middle one; or a 3-D U-Net.
        inside: where the answer is wanted; the same there, and one voxel beyond, as without it. Elsewhere it may be
            0. Default: everywhere.
        flips: over how many mirrored copies the probability is averaged, 1 to 8.
        batch: slices per call; default: what suits the network's device.
        progress: told the fraction done, in [0, 1].
    """
    wanted = np.ones(hu.shape, bool) if inside is None else inside
    batch = batch or network.batch(hu.shape[1] * hu.shape[2])
    probability: np.ndarray | None = None
    for number, axes in enumerate(FLIPS[:flips]):
        tell = partial(_share, progress, number, flips)
        mirrored, where = np.flip(hu, axes), np.flip(wanted, axes)
        if network.card.spec["kind"] == "unet3d":
            answer = segment_blocks(mirrored, where, network, tell)
        else:
            answer = _one_pass(mirrored, where, network, batch, tell)
        part = np.flip(answer, axes)
        probability = part if probability is None else np.add(probability, part, out=probability)
    assert probability is not None
    return probability if flips == 1 else np.divide(probability, flips, out=probability)


def _share(progress: Callable[[float], None], number: int, of: int, done: float) -> None:
    progress((number + done) / of)


def _one_pass(
    hu: Int16[np.ndarray, "z y x"],
    wanted: Bool[np.ndarray, "z y x"],
    network: Network,
    batch: int,
    progress: Callable[[float], None],
) -> Float32[np.ndarray, "z y x"]:
    n_slices, height, width = hu.shape
    spec = network.card.spec
    channels, levels = int(spec["in_channels"]), int(spec["depth"])
    context = channels // 2
    probability = np.zeros(hu.shape, np.float32)
    for first in range(0, n_slices, batch):
        stop = min(n_slices, first + batch)
        here = wanted[max(first - _REACH, 0) : stop + _REACH]
        if here.any():
            rows = _window(np.logical_or.reduce(here, axis=(0, 2)), levels)
            columns = _window(np.logical_or.reduce(here, axis=(0, 1)), levels)
            # Beyond the edges the outermost voxels are repeated: tissue that air cuts off looks like a nodule.
            near = np.ix_(
                np.arange(first - context, stop + context).clip(0, n_slices - 1),
                np.arange(rows.start, rows.stop).clip(0, height - 1),
                np.arange(columns.start, columns.stop).clip(0, width - 1),
            )
            scaled = normalise(hu[near].astype(np.float32), network.card.preprocessing.clip_hu)
            logits = network(np.stack([scaled[k : k + channels] for k in range(stop - first)]))
            out = probability[first:stop, rows, columns]
            expit(logits[:, 0, : out.shape[1], : out.shape[2]], out=out)
        progress(stop / n_slices)
    return probability


def _window(wanted: Bool[np.ndarray, " n"], levels: int) -> slice:
    """The part of an axis that the network must see for its answer in ``wanted`` to be that of the whole axis.

    Two 3 x 3 convolutions on every level on the way down, and on all but the deepest on the way up, see
    2 (3 * cell - 2) voxels to each side of the coarsest level's cell of 2^(levels - 1) voxels that holds the voxel.
    Windows begin where a cell begins, and may reach beyond the axis to end where one ends.
    """
    cell = 2 ** (levels - 1)
    margin = 2 * (3 * cell - 2) + cell - 1 + _REACH
    whole = _up(len(wanted), cell)
    where = np.flatnonzero(wanted)
    start = max(int(where[0]) - margin, 0) // cell * cell
    stop = min(_up(int(where[-1]) + 1 + margin, cell), whole)
    stop = min(start + _up(stop - start, max(_STEP, cell)), whole)
    return slice(max(stop - _up(stop - start, max(_STEP, cell)), 0), stop)


def _up(n: int, multiple: int) -> int:
    return -(-n // multiple) * multiple

"""What a segmentation marked, counted and drawn. Must not know networks, losses or data."""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int64, UInt8
from torch import Tensor

from carina.learn.log import RunLog
from carina.learn.metrics import BinaryMetrics

SIZE_LIMITS_MM = (6.0, 9.0, 13.0)
"""Diameters that part the sizes of nodules."""

SIZES = ("below_6mm", "6_to_9mm", "9_to_13mm", "from_13mm")
"""Their names in metrics."""

FALSE_MARK_VOXELS = 8
"""A crop without a nodule counts as marked wrongly from so many voxels on."""


@dataclass(frozen=True, eq=False)
class Marked:
    """What a batch came to.

    Attributes:
        logits: of the mask.
        truth: 1 on nodules.
        weight: 0 where the truth is unknown.
        size: size of the nodule that a voxel belongs to, counted from 1 as in ``SIZES``; 0 for none.
        middle: the slices that were marked, scaled to [-1, 1].
        crops: how many crops the stacks come from.
    """

    logits: Float[Tensor, "n 1 y x"]
    truth: Float[Tensor, "n 1 y x"]
    weight: Float[Tensor, "n 1 y x"]
    size: UInt8[Tensor, "n 1 y x"]
    middle: Float[Tensor, "n y x"]
    crops: int


class MarkingMetrics:
    """Voxels counted by probability and truth, and crops by whether anything in their nodule was marked."""

    def __init__(self) -> None:
        self._voxels = BinaryMetrics()
        self._crops = torch.zeros(4 + 2 * len(SIZES), dtype=torch.float64)
        self._shown: Marked | None = None

    @property
    def state(self) -> Float[Tensor, " counts"]:
        """All counts in a row."""
        return torch.cat([self._voxels.state.flatten(), self._crops])

    @state.setter
    def state(self, counts: Float[Tensor, " counts"]) -> None:
        voxels = self._voxels.state
        self._voxels.state, self._crops = counts[: voxels.numel()].view(voxels.shape), counts[voxels.numel() :]

    def update(self, marked: Marked) -> None:
        """Count a batch; voxels that hardly weigh are left out."""
        counted = marked.weight >= 0.1
        truth = marked.truth > 0.5
        self._voxels.count(marked.logits[counted], truth[counted])
        called = (marked.logits > 0) & counted
        with_nodule = truth.view(marked.crops, -1).any(1)
        touched = (called & truth).view(marked.crops, -1).any(1)
        wrong = (called & ~truth).view(marked.crops, -1).sum(1) >= FALSE_MARK_VOXELS
        counts = [with_nodule.sum(), touched.sum(), (~with_nodule).sum(), (wrong & ~with_nodule).sum()]
        for size in range(1, len(SIZES) + 1):
            of_size = (marked.size == size) & counted
            counts += [part.view(marked.crops, -1).any(1).sum() for part in (of_size, of_size & called)]
        self._crops += torch.stack(counts).to(self._crops)
        if self._shown is None:
            self._shown = marked

    def compute(self) -> dict[str, float]:
        """Dice, recall and precision of voxels; share of nodules touched, also by size; share of empty crops marked."""
        voxels = self._voxels.compute()
        nodules, touched, empty, wrong, *by_size = self._crops.tolist()
        pairs = zip(SIZES, by_size[::2], by_size[1::2], strict=True)
        return {
            "dice": voxels["f1"],
            "recall": voxels["recall"],
            "precision": voxels["precision"],
            "touched": touched / nodules if nodules else float("nan"),
            "false_crops": wrong / empty if empty else float("nan"),
            **{f"touched_{name}": hit / there if there else float("nan") for name, there, hit in pairs},
        }

    def draw(self, log: RunLog, tag: str, epoch: int) -> None:
        """Curves, and the slice with most nodule of the first batch with truth and answer painted on it."""
        self._voxels.draw(log, tag, epoch)
        if self._shown is not None:
            log.picture(f"marked/{tag}", epoch, overlay(self._shown))


def crop_overlaps(marked: Marked) -> Int64[Tensor, "crops 3"]:
    """Voxels of each crop that are marked and true, marked, and true; those that hardly weigh are left out."""
    counted = marked.weight >= 0.1
    truth, called = (marked.truth > 0.5) & counted, (marked.logits > 0) & counted
    return torch.stack([part.view(marked.crops, -1).sum(1) for part in (called & truth, called, truth)], dim=1)


def overlay(marked: Marked) -> Float[np.ndarray, "y x 3"]:
    """The slice with most nodule: truth in green, answer in red, both in yellow."""
    best = int(marked.truth.flatten(1).sum(1).argmax())
    grey = (marked.middle[best].float().cpu().numpy() + 1) / 2
    truth = marked.truth[best, 0].cpu().numpy()
    answer = marked.logits[best, 0].float().sigmoid().cpu().numpy()
    rgb = np.stack([grey, grey, grey], axis=-1)
    rgb[..., 0] += 0.5 * answer
    rgb[..., 1] += 0.5 * truth
    return np.clip(rgb, 0, 1)

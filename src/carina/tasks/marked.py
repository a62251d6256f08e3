"""What a segmentation marked, counted and drawn. Must not know networks, losses or data."""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from carina.learn.log import RunLog
from carina.learn.metrics import BinaryMetrics


@dataclass(frozen=True, eq=False)
class Marked:
    """What a batch came to.

    Attributes:
        logits: of the mask.
        truth: 1 on nodules.
        weight: 0 where the truth is unknown.
        middle: the slices that were marked, scaled to [-1, 1].
        crops: how many crops the stacks come from.
    """

    logits: Float[Tensor, "n 1 y x"]
    truth: Float[Tensor, "n 1 y x"]
    weight: Float[Tensor, "n 1 y x"]
    middle: Float[Tensor, "n y x"]
    crops: int


class MarkingMetrics:
    """Voxels counted by probability and truth, and crops by whether anything in their nodule was marked."""

    def __init__(self) -> None:
        self._voxels = BinaryMetrics()
        self._crops = torch.zeros(4, dtype=torch.float64)
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
        wrong = (called & ~truth).view(marked.crops, -1).sum(1) >= 8
        counts = [with_nodule.sum(), touched.sum(), (~with_nodule).sum(), (wrong & ~with_nodule).sum()]
        self._crops += torch.stack(counts).to(self._crops)
        if self._shown is None:
            self._shown = marked

    def compute(self) -> dict[str, float]:
        """Dice, recall and precision of voxels; share of nodules touched; share of crops without one that got marks."""
        voxels = self._voxels.compute()
        nodules, touched, empty, wrong = self._crops.tolist()
        return {
            "dice": voxels["f1"],
            "recall": voxels["recall"],
            "precision": voxels["precision"],
            "touched": touched / nodules if nodules else float("nan"),
            "false_crops": wrong / empty if empty else float("nan"),
        }

    def draw(self, log: RunLog, tag: str, epoch: int) -> None:
        """Curves, and the slice with most nodule of the first batch with truth and answer painted on it."""
        self._voxels.draw(log, tag, epoch)
        if self._shown is not None:
            log.picture(f"marked/{tag}", epoch, overlay(self._shown))


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

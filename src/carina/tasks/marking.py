"""What a segmentation learns from: its settings, and batches of crops with what their voxels weigh.

Must not know losses or networks beyond their form.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float, Int64, UInt8
from torch import Tensor

from carina.data.augment import AugmentSettings, Parameters, draw
from carina.data.batches import Batch, cut_batch
from carina.data.sampling import CropList, segmentation_crops
from carina.data.store import Scan
from carina.errors import UsageError
from carina.geometry import Shape3, Vector3
from carina.io.luna import IGNORE
from carina.learn import Batches, FitSettings
from carina.learn.batches import generator_of
from carina.models.build import Spec
from carina.tasks.marked import SIZE_LIMITS_MM
from carina.tasks.runs import RunSettings

SLICES = 7
"""Neighbouring slices that the network sees at once."""


@dataclass(frozen=True)
class SegmentationSettings(RunSettings):
    """What is particular to this experiment.

    Attributes:
        network: "unet", the 2.5-D network on stacks of slices, or "unet3d" on whole crops.
        batch: crops per step; each gives ``crop_zyx[0]`` stacks of slices.
        crop_zyx: marked voxels of a crop; multiples of 8 for the 3-D network, and of 4 in a slice for the other.
        mix: shares of crops on nodules, on hard negatives, and anywhere in the lungs.
        outside_weight: weight of voxels outside the dilated lungs.
        size_power: voxels of a nodule weigh (volume / 500 mm3) to this power, between 0.3 and 6.
        loss: "marking" (Dice, cross entropy of positives and of all negatives) or "missed-dice" (the textbook's).
        filters: channels of the network at full resolution.
        threshold: of the pipeline on the network's answer, for the card.
        lower_thresholds: tried by the pipeline where nothing is marked, for the card.
        min_volume_mm3: smallest region that the pipeline takes for a candidate, for the card.
        flips: over how many mirrored copies the pipeline averages, for the card.
        fit: how to train.
    """

    network: Literal["unet", "unet3d"] = "unet"
    batch: int = 12
    crops_per_epoch: int = 200
    crop_zyx: Shape3 = (8, 48, 48)
    mix: tuple[float, float, float] = (0.5, 0.25, 0.25)
    outside_weight: float = 0.05
    size_power: float = -0.6
    loss: Literal["marking", "missed-dice"] = "marking"
    filters: int = 16
    threshold: float = 0.5
    lower_thresholds: tuple[float, ...] = ()
    min_volume_mm3: float = 0.0
    flips: int = 1
    monitor: str = "dice"
    fit: FitSettings = field(
        default_factory=lambda: FitSettings(
            epochs=20,
            lr=3e-3,
            weight_decay=0.01,
            schedule="cosine",
            warmup=0.03,
            clip_norm=5.0,
            ema=0.99,
            channels_last=True,
        )
    )

    @property
    def beyond(self) -> int:
        """Slices of a crop that are seen and not marked."""
        return SLICES - 1 if self.network == "unet" else 0

    def spec(self) -> Spec:
        """The network.

        Raises:
            UsageError: its crops cannot be halved as often as it does.
        """
        spec: Spec = {"kind": "unet", "in_channels": SLICES, "depth": 3, "first_filters": self.filters}
        if self.network == "unet3d":
            spec = {"kind": "unet3d", "depth": 4, "first_filters": self.filters}
        multiple = 2 ** (spec["depth"] - 1)
        halved = self.crop_zyx if self.network == "unet3d" else self.crop_zyx[1:]
        if any(side % multiple for side in halved):
            raise UsageError(f"crop_zyx is {self.crop_zyx}; the network {self.network!r} takes multiples of {multiple}")
        return spec


@dataclass(frozen=True, eq=False)
class MarkingBatch:
    """Crops as stored, how they shall be changed, and what their voxels weigh.

    Attributes:
        crops: larger than what is marked where they shall be changed.
        parameters: of augmentation, None for none.
        weights: what voxels of each label weigh.
        sizes: the size of the nodule behind each label, counted from 1 as in ``SIZES``; 0 for other labels.
        series_uids: the series of each crop.
    """

    crops: Batch
    parameters: Parameters | None
    weights: Float[Tensor, "b 256"]
    sizes: UInt8[Tensor, "b 256"]
    series_uids: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.crops)

    def to(self, device: torch.device) -> "MarkingBatch":
        """The batch on another device; the parameters follow when they are applied."""
        return replace(self, crops=self.crops.to(device), weights=self.weights.to(device), sizes=self.sizes.to(device))


def voxel_weights(scan: Scan, power: float) -> Float[np.ndarray, "256"]:
    """What voxels of each label of a scan weigh: small nodules more, what is to be ignored nothing."""
    weights = np.ones(256, np.float32)
    weights[IGNORE] = 0.0
    for nodule in scan.nodules:
        weights[nodule.label] = np.clip((nodule.volume_mm3 / 500.0) ** power, 0.3, 6.0)
    return weights


def nodule_sizes(scan: Scan) -> UInt8[np.ndarray, "256"]:
    """For each label of a scan the size of its nodule, counted from 1 as in ``SIZES``; 0 where there is none."""
    sizes = np.zeros(256, np.uint8)
    for nodule in scan.nodules:
        sizes[nodule.label] = 1 + np.digitize(nodule.diameter_mm, SIZE_LIMITS_MM)
    return sizes


def segmentation_batches(
    scans: Sequence[Scan],
    settings: SegmentationSettings,
    spacing_zyx_mm: Vector3,
    *,
    crops: int,
    seed: int,
    augment: AugmentSettings | None,
    every_crop: bool = False,
) -> Batches[MarkingBatch]:
    """Batches of crops, each a pure function of seed, epoch and index.

    Args:
        scans: what to cut from.
        settings: of the experiment.
        spacing_zyx_mm: of the scans' grid.
        crops: per epoch.
        seed: of the draws.
        augment: how crops are changed; None leaves them as they are.
        every_crop: crops that do not fill a batch make a smaller one, and are not left out.
    """
    weights = torch.from_numpy(np.stack([voxel_weights(scan, settings.size_power) for scan in scans]))
    sizes = torch.from_numpy(np.stack([nodule_sizes(scan) for scan in scans]))
    depth, height, width = settings.crop_zyx
    shape = (depth + settings.beyond, height, width)
    if augment is not None:
        # Rotated, shrunk and shifted crops are filled with what lies around them.
        shape = (shape[0] + 6, height + 24, width + 24)

    @lru_cache(maxsize=2)
    def epoch_crops(epoch: int) -> CropList:
        jitter = (0.3 * depth * spacing_zyx_mm[0], 0.3 * height * spacing_zyx_mm[1], 0.3 * width * spacing_zyx_mm[2])
        return segmentation_crops(scans, crops, seed=seed, epoch=epoch, mix=settings.mix, jitter_mm=jitter)

    def make(epoch: int, index: int) -> MarkingBatch:
        chosen = epoch_crops(epoch).take(slice(index * settings.batch, (index + 1) * settings.batch))
        parameters = None
        if augment is not None:
            parameters = draw(generator_of(seed, epoch, index), len(chosen), augment)
        batch = cut_batch(scans, chosen, shape)
        uids = tuple(scans[s].series_uid for s in chosen.scan.tolist())
        return MarkingBatch(batch, parameters, weights[_index(chosen)], sizes[_index(chosen)], uids)

    return Batches(-(-crops // settings.batch) if every_crop else crops // settings.batch, make)


def _index(chosen: CropList) -> Int64[Tensor, " n"]:
    return torch.from_numpy(chosen.scan)

"""The segmentation experiment: a 2.5-D U-Net learns to mark nodules, from a prepared store to weights with a card.

Three-dimensional crops are cut on nodules, on things that look like them, and anywhere in the lungs; each is changed
at random, parted into stacks of neighbouring slices, and the network marks the middle slice of every stack.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor, nn
from torch.nn import functional

from carina.data.augment import AugmentSettings, Parameters, apply, draw
from carina.data.batches import Batch, cut_batch
from carina.data.sampling import CropList, segmentation_crops
from carina.data.store import IGNORE, Scan, Store
from carina.errors import TrainingError
from carina.geometry import Shape3, Vector3
from carina.hu import normalise
from carina.learn import Batches, FitResult, FitSettings, fit
from carina.learn.batches import move
from carina.learn.losses import marking_loss, missed_dice_loss
from carina.models.build import Spec, build
from carina.models.card import Card, save_model
from carina.tasks.held_out import HeldOut, series_of
from carina.tasks.marked import Marked, MarkingMetrics, crop_overlaps
from carina.tasks.runs import RunSettings, split_scans, training_of

SLICES = 7
"""Neighbouring slices that the network sees at once."""

LUNG_MARGIN_VOXELS = (2, 3, 3)
"""Voxels outside the lungs dilated by this (3 mm on the analysis grid) hardly count."""


@dataclass(frozen=True)
class SegmentationSettings(RunSettings):
    """What is particular to this experiment.

    Attributes:
        batch: crops per step; each gives ``crop_zyx[0]`` stacks of slices.
        crop_zyx: marked voxels of a crop.
        mix: shares of crops on nodules, on hard negatives, and anywhere in the lungs.
        outside_weight: weight of voxels outside the dilated lungs.
        size_power: voxels of a nodule weigh (volume / 500 mm3) to this power, between 0.3 and 6.
        loss: "marking" (Dice, positives, hardest negatives) or "missed-dice" (the textbook's).
        filters: channels of the network at full resolution.
        fit: how to train.
    """

    batch: int = 16
    crops_per_epoch: int = 200
    crop_zyx: Shape3 = (4, 64, 64)
    mix: tuple[float, float, float] = (0.5, 0.25, 0.25)
    outside_weight: float = 0.05
    size_power: float = -0.6
    loss: str = "marking"
    filters: int = 16
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


@dataclass(frozen=True, eq=False)
class MarkingBatch:
    """Crops as stored, how they shall be changed, and what their voxels weigh.

    Attributes:
        crops: larger than what is marked where they shall be changed.
        parameters: of augmentation, None for none.
        weights: what voxels of each label weigh.
        series_uids: the series of each crop.
    """

    crops: Batch
    parameters: Parameters | None
    weights: Float[Tensor, "b 256"]
    series_uids: tuple[str, ...]

    def to(self, device: torch.device) -> "MarkingBatch":
        """The batch on another device; the parameters follow when they are applied."""
        return replace(self, crops=self.crops.to(device), weights=self.weights.to(device))


@dataclass(frozen=True)
class Segmentation:
    """The task: stacks of slices, the loss of their masks, and Dice as what counts.

    Attributes:
        settings: of the experiment.
        clip_hu: of the preprocessing.
        spacing_zyx_mm: of the store's grid.
    """

    settings: SegmentationSettings
    clip_hu: tuple[float, float]
    spacing_zyx_mm: Vector3

    @property
    def monitor(self) -> str:
        """What chooses the best epoch."""
        return self.settings.monitor

    @property
    def higher_is_better(self) -> bool:
        """Of all metrics but two."""
        return self.monitor not in ("loss", "false_crops")

    def loss(self, model: nn.Module, batch: MarkingBatch) -> tuple[Tensor, Marked]:
        """Loss over all stacks of all crops."""
        with torch.no_grad():
            slabs, truth, weight = self.stacks(batch)
        logits = model(slabs)
        loss = (missed_dice_loss if self.settings.loss == "missed-dice" else marking_loss)(logits, truth, weight)
        middle = slabs[:, SLICES // 2]
        return loss, Marked(logits.detach(), truth, weight, middle, len(batch.series_uids))

    def stacks(
        self, batch: MarkingBatch
    ) -> tuple[Float[Tensor, "n 7 y x"], Float[Tensor, "n 1 y x"], Float[Tensor, "n 1 y x"]]:
        """From stored crops to stacks of slices, the truth of their middle slices, and the weights of its voxels."""
        depth, height, width = self.settings.crop_zyx
        hu = batch.crops.hu.float()
        maps = torch.cat([batch.crops.label, batch.crops.lung], dim=1)
        if batch.parameters is not None:
            shape = (depth + SLICES - 1, height, width)
            hu, moved = apply(hu, maps, batch.parameters, spacing_zyx_mm=self.spacing_zyx_mm, shape_zyx=shape)
            maps = maps if moved is None else moved
        slabs = normalise(hu[:, 0], self.clip_hu).unfold(1, SLICES, 1).flatten(0, 1)
        # unfold leaves the slices in the last dimension: copied as it is, this is the channels-last layout.
        slabs = slabs.contiguous().permute(0, 3, 1, 2)
        inside = slice(SLICES // 2, SLICES // 2 + depth)
        label = maps[:, :1, inside]
        truth = (label > 0) & (label != IGNORE)
        weight = batch.weights.gather(1, label.flatten(1).long()).view(label.shape)
        near_lung = _dilate(maps[:, 1:] == 1)[:, :, inside]
        weight = torch.where(near_lung | truth, weight, weight * self.settings.outside_weight)
        return slabs, _by_slice(truth.float()), _by_slice(weight)

    def metrics(self) -> MarkingMetrics:
        """Dice, recall and precision of voxels, and which nodules were touched."""
        return MarkingMetrics()


def _by_slice(maps: Tensor) -> Float[Tensor, "n 1 y x"]:
    return maps.transpose(1, 2).flatten(0, 1)


def _dilate(mask: Bool[Tensor, "b 1 z y x"]) -> Bool[Tensor, "b 1 z y x"]:
    """By ``LUNG_MARGIN_VOXELS``, as a box."""
    dilated = mask.float()
    for axis, margin in enumerate(LUNG_MARGIN_VOXELS):
        size = [2 * margin + 1 if k == axis else 1 for k in range(3)]
        padding = [margin if k == axis else 0 for k in range(3)]
        dilated = functional.max_pool3d(dilated, size, 1, padding)
    return dilated > 0


def voxel_weights(scan: Scan, power: float) -> Float[np.ndarray, "256"]:
    """What voxels of each label of a scan weigh: small nodules more, what is to be ignored nothing."""
    weights = np.ones(256, np.float32)
    weights[IGNORE] = 0.0
    for nodule in scan.nodules:
        weights[nodule.label] = np.clip((nodule.volume_mm3 / 500.0) ** power, 0.3, 6.0)
    return weights


def segmentation_batches(
    scans: Sequence[Scan],
    settings: SegmentationSettings,
    spacing_zyx_mm: Vector3,
    *,
    crops: int,
    seed: int,
    augment: AugmentSettings | None,
) -> Batches[MarkingBatch]:
    """Batches of crops, each a pure function of seed, epoch and index.

    Args:
        scans: what to cut from.
        settings: of the experiment.
        spacing_zyx_mm: of the scans' grid.
        crops: per epoch.
        seed: of the draws.
        augment: how crops are changed; None leaves them as they are.
    """
    weights = torch.from_numpy(np.stack([voxel_weights(scan, settings.size_power) for scan in scans]))
    depth, height, width = settings.crop_zyx
    shape = (depth + SLICES - 1, height, width)
    if augment is not None:
        # Rotated, shrunk and shifted crops are filled with what lies around them.
        shape = (shape[0] + 6, height + 32, width + 32)

    @lru_cache(maxsize=2)
    def epoch_crops(epoch: int) -> CropList:
        jitter = (0.3 * depth * spacing_zyx_mm[0], 0.3 * height * spacing_zyx_mm[1], 0.3 * width * spacing_zyx_mm[2])
        return segmentation_crops(scans, crops, seed=seed, epoch=epoch, mix=settings.mix, jitter_mm=jitter)

    def make(epoch: int, index: int) -> MarkingBatch:
        chosen = epoch_crops(epoch).take(slice(index * settings.batch, (index + 1) * settings.batch))
        parameters = None
        if augment is not None:
            generator = torch.Generator().manual_seed((seed * 1_000_003 + epoch) * 100_003 + index)
            parameters = draw(generator, len(chosen), augment)
        batch = cut_batch(scans, chosen, shape)
        uids = tuple(scans[s].series_uid for s in chosen.scan.tolist())
        return MarkingBatch(batch, parameters, weights[_index(chosen)], uids)

    return Batches(crops // settings.batch, make)


def _index(chosen: CropList) -> Int64[Tensor, " n"]:
    return torch.from_numpy(chosen.scan)


@torch.no_grad()
def overlaps(
    task: Segmentation, model: nn.Module, batches: Batches[MarkingBatch], device: torch.device
) -> Int64[np.ndarray, "crops 3"]:
    """Voxels of each crop that are marked and true, marked, and true; those that hardly weigh are left out."""
    counts = []
    for index in range(batches.count):
        _, marked = task.loss(model, move(batches.make(0, index), device))
        counts.append(crop_overlaps(marked))
    return torch.cat(counts).cpu().numpy()


def train_segmentation(
    store: Store, run_dir: Path, settings: SegmentationSettings, *, resume: bool = False, progress: bool = False
) -> tuple[FitResult, Card]:
    """Run the experiment; writes ``model.safetensors`` and ``model.json`` beside log and checkpoint.

    Raises:
        TrainingError: no nodules to learn from, or a loss that is not finite.
    """
    training, validation = split_scans(store, settings)
    if not any(scan.nodules for scan in training):
        raise TrainingError(f"none of the {len(training)} training scans holds a nodule: there is nothing to mark")
    pre = store.preprocessing
    spec: Spec = {"kind": "unet", "in_channels": SLICES, "depth": 3, "first_filters": settings.filters}
    torch.manual_seed(settings.fit.seed)
    model = build(spec)
    # Hardly any voxel is nodule: begin with a small probability everywhere instead of learning that first.
    nn.init.constant_(model.get_parameter("head.bias"), -4.0)
    settings.load_initial(model)
    task = Segmentation(settings, pre.clip_hu, pre.spacing_zyx_mm)
    held_out = None
    if validation:
        crops = settings.validation_crops
        held_out = segmentation_batches(
            validation, settings, pre.spacing_zyx_mm, crops=crops, seed=10_007, augment=None
        )
    result = fit(
        task,
        model,
        segmentation_batches(
            training,
            settings,
            pre.spacing_zyx_mm,
            crops=settings.crops_per_epoch,
            seed=settings.fit.seed,
            augment=settings.augment,
        ),
        held_out,
        settings=settings.fit,
        run_dir=run_dir,
        resume=resume,
        config=settings.described(),
        progress=progress,
    )
    if held_out is not None:
        counts = overlaps(task, model, held_out, next(model.parameters()).device)
        HeldOut.marked(series_of(held_out), counts).write(run_dir)
    card = Card(
        name=settings.name or "segmentation",
        task="segmentation",
        spec=spec,
        preprocessing=pre,
        training=training_of(training, settings, result),
        metrics=result.metrics,
        measured_on=f"crops of {len(validation)} held-out scans" if validation else "the training crops",
        threshold=0.5,
        summary="2.5-D U-Net: marks voxels of nodules",
        limits="Trained and measured on the data named above only.",
    )
    return result, save_model(run_dir / "model", model, card)

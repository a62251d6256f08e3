"""The segmentation experiment: a U-Net learns to mark nodules, from a prepared store to weights with a card.

Three-dimensional crops are cut on nodules, on things that look like them, and anywhere in the lungs; each is changed
at random. The 2.5-D network gets them parted into stacks of neighbouring slices and marks the middle slice of every
stack; the 3-D network marks them whole.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Bool, Float, Int64, UInt8
from torch import Tensor, nn
from torch.nn import functional

from carina.data.augment import apply
from carina.data.store import Store
from carina.errors import TrainingError
from carina.geometry import Vector3
from carina.hu import normalise
from carina.io.luna import IGNORE
from carina.learn import Batches, FitResult, fit
from carina.learn.batches import move
from carina.learn.losses import marking_loss, missed_dice_loss
from carina.learn.processes import first_process
from carina.models.build import build
from carina.models.card import Card, save_model
from carina.tasks.held_out import HeldOut, series_of
from carina.tasks.marked import Marked, MarkingMetrics, crop_overlaps
from carina.tasks.marking import SLICES, MarkingBatch, SegmentationSettings, segmentation_batches
from carina.tasks.runs import LOWER_IS_BETTER, held_out_words, split_scans, training_of

LUNG_MARGIN_MM = 3.0
"""Voxels outside the lungs dilated by this hardly count."""


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
        """Of most metrics."""
        return self.monitor not in LOWER_IS_BETTER

    def loss(self, model: nn.Module, batch: MarkingBatch) -> tuple[Tensor, Marked]:
        """Loss over all stacks of all crops, or over the crops."""
        with torch.no_grad():
            if self.settings.network == "unet":
                inputs, truth, weight, size = self.stacks(batch)
            else:
                inputs, truth, weight, size = self.blocks(batch)
        logits = model(inputs)
        loss = (missed_dice_loss if self.settings.loss == "missed-dice" else marking_loss)(logits, truth, weight)
        logits, middle = logits.detach(), inputs[:, SLICES // 2 : SLICES // 2 + 1]
        if self.settings.network == "unet3d":
            logits, truth, weight, size, middle = map(_by_slice, (logits, truth, weight, size, inputs))
        return loss, Marked(logits, truth, weight, size, middle[:, 0], len(batch.series_uids))

    def stacks(
        self, batch: MarkingBatch
    ) -> tuple[Float[Tensor, "n 7 y x"], Float[Tensor, "n 1 y x"], Float[Tensor, "n 1 y x"], UInt8[Tensor, "n 1 y x"]]:
        """From stored crops to stacks of slices; truth, weights and nodules' sizes of their middle slices."""
        hu, *maps = self.blocks(batch)
        slabs = hu[:, 0].unfold(1, SLICES, 1).flatten(0, 1)
        # unfold leaves the slices in the last dimension: copied as it is, this is the channels-last layout.
        slabs = slabs.contiguous().permute(0, 3, 1, 2)
        truth, weight, size = map(_by_slice, maps)
        return slabs, truth, weight, size

    def blocks(
        self, batch: MarkingBatch
    ) -> tuple[
        Float[Tensor, "b 1 seen y x"],
        Float[Tensor, "b 1 z y x"],
        Float[Tensor, "b 1 z y x"],
        UInt8[Tensor, "b 1 z y x"],
    ]:
        """From stored crops to what is seen; the truth of what is marked, its weights, and its nodules' sizes."""
        depth, height, width = self.settings.crop_zyx
        hu = batch.crops.hu.float()
        maps = torch.cat([batch.crops.label, batch.crops.lung], dim=1)
        if batch.parameters is not None:
            shape = (depth + self.settings.beyond, height, width)
            hu, moved = apply(hu, maps, batch.parameters, spacing_zyx_mm=self.spacing_zyx_mm, shape_zyx=shape)
            maps = maps if moved is None else moved
        inside = slice(self.settings.beyond // 2, self.settings.beyond // 2 + depth)
        label = maps[:, :1, inside]
        truth = (label > 0) & (label != IGNORE)
        index = label.flatten(1).long()
        weight, size = (table.gather(1, index).view(label.shape) for table in (batch.weights, batch.sizes))
        near_lung = _dilate(maps[:, 1:] == 1, self.spacing_zyx_mm)[:, :, inside]
        weight = torch.where(near_lung | truth, weight, weight * self.settings.outside_weight)
        return normalise(hu, self.clip_hu), truth.float(), weight, size

    def metrics(self) -> MarkingMetrics:
        """Dice, recall and precision of voxels, and which nodules were touched."""
        return MarkingMetrics()


def _by_slice(maps: Tensor) -> Tensor:
    """[b 1 z y x] to [b*z 1 y x]."""
    return maps.transpose(1, 2).flatten(0, 1)


def _dilate(mask: Bool[Tensor, "b 1 z y x"], spacing_zyx_mm: Vector3) -> Bool[Tensor, "b 1 z y x"]:
    """By ``LUNG_MARGIN_MM`` rounded to whole voxels, as a box."""
    dilated = mask.float()
    for axis, spacing in enumerate(spacing_zyx_mm):
        margin = round(LUNG_MARGIN_MM / spacing)
        size = [2 * margin + 1 if k == axis else 1 for k in range(3)]
        padding = [margin if k == axis else 0 for k in range(3)]
        dilated = functional.max_pool3d(dilated, size, 1, padding)
    return dilated > 0


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
    spec = settings.spec()
    torch.manual_seed(settings.fit.seed)
    model = build(spec)
    settings.load_initial(model)
    task = Segmentation(settings, pre.clip_hu, pre.spacing_zyx_mm)
    held_out = None
    if validation:
        crops = settings.validation_crops
        held_out = segmentation_batches(
            validation, settings, pre.spacing_zyx_mm, crops=crops, seed=10_007, augment=None, every_crop=True
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
        config=settings.described(store, training, validation),
        progress=progress,
    )
    if held_out is not None and first_process():
        counts = overlaps(task, model, held_out, next(model.parameters()).device)
        HeldOut.marked(series_of(held_out), counts).write(run_dir)
    card = Card(
        name=settings.name or "segmentation",
        task="segmentation",
        spec=spec,
        preprocessing=pre,
        training=training_of(training, settings, result),
        metrics=result.metrics,
        measured_on=f"crops of {held_out_words(validation, settings)}" if validation else "the training crops",
        threshold=settings.threshold,
        lower_thresholds=settings.lower_thresholds,
        min_volume_mm3=settings.min_volume_mm3,
        flips=settings.flips,
        summary=f"{'2.5-D' if settings.network == 'unet' else '3-D'} U-Net: marks voxels of nodules",
        limits="Trained and measured on the data named above only.",
    )
    return result, save_model(run_dir / "model", model, card) if first_process() else card

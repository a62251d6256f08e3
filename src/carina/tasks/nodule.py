"""The nodule experiment: a 3-D network learns to tell nodules from what looks like them.

Crops on nodules and crops on hard negatives come in equal numbers; what a segmentation marked wrongly can be added
to the negatives. After training the answers are calibrated on the held-out candidates.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn import functional

from carina.data.augment import Parameters, apply, draw
from carina.data.batches import Batch, cut_batch
from carina.data.sampling import CropList, every_candidate, nodule_crops
from carina.data.store import Scan, Store
from carina.geometry import Shape3, Vector3
from carina.hu import normalise
from carina.io.luna import read_candidates
from carina.learn import Batches, FitResult, FitSettings, fit
from carina.learn.batches import move
from carina.learn.calibrate import expected_calibration_error, fit_temperature
from carina.learn.metrics import BinaryMetrics
from carina.models.build import Spec, build
from carina.models.card import Calibration, Card, save_model
from carina.tasks.runs import RunSettings, split_scans, training_of


@dataclass(frozen=True)
class NoduleSettings(RunSettings):
    """What is particular to this experiment.

    Attributes:
        batch: crops per step.
        balanced: as many nodules as negatives; otherwise as they come.
        jitter_mm: how far the crop's centre may be off.
        smoothing: of the labels: 0.02 asks for probabilities of 0.99 and 0.01.
        mined: candidates of an earlier model in LUNA16's format; those of class 0 become negatives.
        first_filters: channels of the network's first block.
        fit: how to train.
    """

    batch: int = 16
    crops_per_epoch: int = 480
    validation_crops: int = 400
    balanced: bool = True
    jitter_mm: float = 2.0
    smoothing: float = 0.02
    mined: Path | None = None
    first_filters: int = 8
    monitor: str = "auc"
    fit: FitSettings = field(
        default_factory=lambda: FitSettings(
            epochs=20,
            lr=1e-3,
            weight_decay=0.01,
            schedule="cosine",
            warmup=0.03,
            clip_norm=5.0,
            ema=0.99,
            channels_last=True,
        )
    )


@dataclass(frozen=True, eq=False)
class CandidateBatch:
    """Crops as stored, how they shall be changed, and their series."""

    crops: Batch
    parameters: Parameters | None
    series_uids: tuple[str, ...]

    def to(self, device: torch.device) -> "CandidateBatch":
        """The batch on another device; the parameters follow when they are applied."""
        return replace(self, crops=self.crops.to(device))


@dataclass(frozen=True)
class Candidates:
    """The task: cross entropy of two classes, and the area under the ROC curve as what counts.

    Attributes:
        settings: of the experiment.
        clip_hu: of the preprocessing.
        spacing_zyx_mm: of the store's grid.
        crop_zyx: what the network sees.
    """

    settings: NoduleSettings
    clip_hu: tuple[float, float]
    spacing_zyx_mm: Vector3
    crop_zyx: Shape3

    @property
    def monitor(self) -> str:
        """What chooses the best epoch."""
        return self.settings.monitor

    @property
    def higher_is_better(self) -> bool:
        """Of all metrics but the loss."""
        return self.monitor != "loss"

    def loss(self, model: nn.Module, batch: CandidateBatch) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """Cross entropy, smoothed while training; log-odds and truth for the metrics."""
        smoothing = self.settings.smoothing if model.training else 0.0
        logits = model(self.inputs(batch)).float()
        loss = functional.cross_entropy(logits, batch.crops.target, label_smoothing=smoothing)
        return loss, (log_odds(logits), batch.crops.target == 1)

    @torch.no_grad()
    def inputs(self, batch: CandidateBatch) -> Float[Tensor, "b 1 z y x"]:
        """From stored crops to what the network sees."""
        hu = batch.crops.hu.float()
        if batch.parameters is not None:
            hu, _ = apply(hu, None, batch.parameters, spacing_zyx_mm=self.spacing_zyx_mm, shape_zyx=self.crop_zyx)
        return normalise(hu, self.clip_hu)

    def metrics(self) -> BinaryMetrics:
        """Accuracy by class, precision, recall, F1, area under the ROC curve."""
        return BinaryMetrics()


def log_odds(logits: Float[Tensor, "b 2"]) -> Float[Tensor, " b"]:
    """Of the positive class."""
    return (logits[:, 1] - logits[:, 0]).detach()


def candidate_batches(
    scans: Sequence[Scan],
    settings: NoduleSettings,
    crop_zyx: Shape3,
    mined: Mapping[str, np.ndarray],
) -> Batches[CandidateBatch]:
    """Training batches, each a pure function of seed, epoch and index."""
    seed, augment, shape = settings.fit.seed, settings.augment, crop_zyx
    if augment is not None:
        # Rotated, shrunk and shifted crops are filled with what lies around them.
        shape = (crop_zyx[0] + 8, crop_zyx[1] + 20, crop_zyx[2] + 20)

    @lru_cache(maxsize=2)
    def epoch_crops(epoch: int) -> CropList:
        return nodule_crops(
            scans,
            settings.crops_per_epoch,
            seed=seed,
            epoch=epoch,
            balanced=settings.balanced,
            jitter_mm=settings.jitter_mm,
            mined=mined,
        )

    def make(epoch: int, index: int) -> CandidateBatch:
        chosen = epoch_crops(epoch).take(slice(index * settings.batch, (index + 1) * settings.batch))
        parameters = None
        if augment is not None:
            generator = torch.Generator().manual_seed((seed * 1_000_003 + epoch) * 100_003 + index)
            parameters = draw(generator, len(chosen), augment)
        return _cut(scans, chosen, shape, parameters)

    return Batches(settings.crops_per_epoch // settings.batch, make)


def held_out_batches(scans: Sequence[Scan], settings: NoduleSettings, crop_zyx: Shape3) -> Batches[CandidateBatch]:
    """Every nodule of the held-out scans and up to ``validation_crops`` negatives, centred and unchanged."""
    crops = every_candidate(scans, negatives_per_scan=max(1, settings.validation_crops // len(scans)))

    def make(epoch: int, index: int) -> CandidateBatch:
        del epoch
        return _cut(scans, crops.take(slice(index * settings.batch, (index + 1) * settings.batch)), crop_zyx, None)

    return Batches(-(-len(crops) // settings.batch), make)


def _cut(scans: Sequence[Scan], chosen: CropList, shape: Shape3, parameters: Parameters | None) -> CandidateBatch:
    batch = cut_batch(scans, chosen, shape, masks=False)
    return CandidateBatch(batch, parameters, tuple(scans[s].series_uid for s in chosen.scan.tolist()))


def mined_negatives(path: Path, scans: Sequence[Scan]) -> dict[str, np.ndarray]:
    """Wrong candidates of an earlier model, by scan.

    Args:
        path: in LUNA16's candidates format; rows of class 0 count.
        scans: candidates of other series are left out.

    Returns:
        Scan key to centres (index on the scan's grid).
    """
    wrong = [candidate for candidate in read_candidates(path) if not candidate.is_nodule]
    by_series: dict[str, list[Vector3]] = {}
    for candidate in wrong:
        by_series.setdefault(candidate.series_uid, []).append(candidate.center_lps)
    return {
        scan.key: scan.geometry.to_zyx(by_series[scan.series_uid]) for scan in scans if scan.series_uid in by_series
    }


@torch.no_grad()
def answers(
    task: Candidates, model: nn.Module, batches: Batches[CandidateBatch], device: torch.device
) -> tuple[Float[np.ndarray, " n"], Bool[np.ndarray, " n"]]:
    """Log-odds and truth of every candidate."""
    found, truth = [], []
    for index in range(batches.count):
        batch = move(batches.make(0, index), device)
        found.append(log_odds(model(task.inputs(batch)).float()).cpu())
        truth.append((batch.crops.target == 1).cpu())
    return torch.cat(found).double().numpy(), torch.cat(truth).numpy()


def train_nodule(
    store: Store, run_dir: Path, settings: NoduleSettings, *, resume: bool = False, progress: bool = False
) -> tuple[FitResult, Card]:
    """Run the experiment; writes ``model.safetensors`` and ``model.json`` beside log and checkpoint.

    Raises:
        TrainingError: one of the classes is missing, or a loss is not finite.
    """
    training, validation = split_scans(store, settings)
    pre = store.preprocessing
    spec: Spec = {"kind": "nodule", "first_filters": settings.first_filters, "crop_zyx": list(pre.crop_zyx)}
    torch.manual_seed(settings.fit.seed)
    model = build(spec)
    settings.load_initial(model)
    task = Candidates(settings, pre.clip_hu, pre.spacing_zyx_mm, pre.crop_zyx)
    mined = {} if settings.mined is None else mined_negatives(settings.mined, training)
    held_out = held_out_batches(validation, settings, pre.crop_zyx) if validation else None
    result = fit(
        task,
        model,
        candidate_batches(training, settings, pre.crop_zyx, mined),
        held_out,
        settings=settings.fit,
        run_dir=run_dir,
        resume=resume,
        config=settings.described(),
        progress=progress,
    )
    metrics, calibration = dict(result.metrics), Calibration()
    if held_out is not None:
        found, truth = answers(task, model, held_out, next(model.parameters()).device)
        temperature = fit_temperature(found, truth)
        calibration = Calibration(
            f"temperature {temperature:.3f}, fitted on {len(truth)} candidates of {len(validation)} held-out scans",
            classification=1 / temperature,
        )
        for name, scale in (("raw", 1.0), ("calibrated", temperature)):
            metrics[f"ece_{name}"] = expected_calibration_error(1 / (1 + np.exp(-found / scale)), truth)
    card = Card(
        name=settings.name or "nodule",
        task="nodule",
        spec=spec,
        preprocessing=pre,
        training=training_of(training, settings, result),
        metrics=metrics,
        measured_on=f"candidates of {len(validation)} held-out scans" if validation else "the training crops",
        calibration=calibration,
        summary="3-D network: probability that a candidate is a nodule",
        limits="Trained and measured on the data named above only.",
    )
    return result, save_model(run_dir / "model", model, card)

"""The nodule experiment: a 3-D network learns to tell nodules from what looks like them.

Crops on nodules and crops on hard negatives come in equal numbers; what a segmentation marked wrongly can be added
to the negatives. After training the answers are calibrated on the held-out candidates.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch

from carina.data.sampling import CropList, Mined, every_candidate, nodule_crops
from carina.data.store import Scan, Store
from carina.geometry import Shape3, Vector3
from carina.io.luna import read_candidates
from carina.learn import Batches, FitResult, FitSettings, fit
from carina.learn.calibrate import expected_calibration_error, fit_temperature
from carina.learn.processes import first_process
from carina.models.build import Spec, build
from carina.models.card import Calibration, Card, save_model
from carina.tasks.candidates import (
    CandidateBatch,
    Candidates,
    CandidateSettings,
    answers,
    changed_batches,
    need_both,
    unchanged_batches,
)
from carina.tasks.held_out import HeldOut, series_of
from carina.tasks.runs import held_out_words, split_scans, training_of


@dataclass(frozen=True)
class NoduleSettings(CandidateSettings):
    """What is particular to this experiment.

    Attributes:
        mined: what an earlier model marked, in LUNA16's format; class 0 become negatives, class 1 nodules.
        first_filters: channels of the network's first block.
        flips: over how many mirrored copies the pipeline averages, for the card.
        again_above: what the first look must give for the other copies to be looked at, for the card.
        fit: how to train.
    """

    mined: Path | None = None
    first_filters: int = 8
    flips: int = 1
    again_above: float = 0.0
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


def candidate_batches(
    scans: Sequence[Scan],
    settings: NoduleSettings,
    crop_zyx: Shape3,
    mined: Mapping[str, Mined],
) -> Batches[CandidateBatch]:
    """Training batches, each a pure function of seed, epoch and index."""

    def draw_crops(epoch: int) -> CropList:
        return nodule_crops(
            scans,
            settings.crops_per_epoch,
            seed=settings.fit.seed,
            epoch=epoch,
            balanced=settings.balanced,
            jitter_mm=settings.jitter_mm,
            mined=mined,
        )

    return changed_batches(scans, settings, crop_zyx, draw_crops)


def held_out_batches(scans: Sequence[Scan], settings: NoduleSettings, crop_zyx: Shape3) -> Batches[CandidateBatch]:
    """Every nodule of the held-out scans and up to ``validation_crops`` negatives, centred and unchanged.

    Raises:
        TrainingError: one of the classes is missing.
    """
    crops = every_candidate(scans, negatives_per_scan=max(1, settings.validation_crops // len(scans)))
    need_both(crops, "candidates are nodules")
    return unchanged_batches(scans, crops, settings.batch, crop_zyx)


def read_mined(path: Path, scans: Sequence[Scan]) -> dict[str, Mined]:
    """What an earlier model marked, by the key of the scan.

    Args:
        path: in LUNA16's candidates format.
        scans: candidates of other series are left out, and wrong marks on what their masks label.
    """
    marks: dict[str, tuple[list[Vector3], list[Vector3]]] = {}
    for candidate in read_candidates(path):
        marks.setdefault(candidate.series_uid, ([], []))[candidate.is_nodule].append(candidate.center_lps)
    mined = {}
    for scan in scans:
        if scan.series_uid in marks:
            wrong, right = (scan.geometry.to_zyx(np.reshape(found, (-1, 3))) for found in marks[scan.series_uid])
            mined[scan.key] = Mined(wrong[scan.label_at(wrong) == 0], right)
    return mined


def train_nodule(
    store: Store, run_dir: Path, settings: NoduleSettings, *, resume: bool = False, progress: bool = False
) -> tuple[FitResult, Card]:
    """Run the experiment; writes ``model.safetensors`` and ``model.json`` beside log and checkpoint.

    Raises:
        TrainingError: one of the classes is missing, among the held-out candidates too, or a loss is not finite.
    """
    training, validation = split_scans(store, settings)
    pre = store.preprocessing
    spec: Spec = {"kind": "nodule", "first_filters": settings.first_filters, "crop_zyx": list(pre.crop_zyx)}
    torch.manual_seed(settings.fit.seed)
    model = build(spec)
    settings.load_initial(model)
    task = Candidates(settings, pre.clip_hu, pre.spacing_zyx_mm, pre.crop_zyx)
    mined = {} if settings.mined is None else read_mined(settings.mined, training)
    held_out = held_out_batches(validation, settings, pre.crop_zyx) if validation else None
    result = fit(
        task,
        model,
        candidate_batches(training, settings, pre.crop_zyx, mined),
        held_out,
        settings=settings.fit,
        run_dir=run_dir,
        resume=resume,
        config=settings.described(store, training, validation),
        progress=progress,
    )
    metrics, calibration = dict(result.metrics), Calibration()
    if held_out is not None:
        found, truth = answers(task, model, held_out, next(model.parameters()).device)
        if first_process():
            HeldOut.classified(series_of(held_out), truth, 1 / (1 + np.exp(-found))).write(run_dir)
        temperature = fit_temperature(found, truth)
        calibration = Calibration(
            f"temperature {temperature:.3f}, fitted on {len(truth)} candidates of {len(validation)} held-out scans",
            classification=1 / temperature,
        )
        for name, scale in (("raw", 1.0), ("calibrated_in_sample", temperature)):
            metrics[f"ece_{name}"] = expected_calibration_error(1 / (1 + np.exp(-found / scale)), truth)
    card = Card(
        name=settings.name or "nodule",
        task="nodule",
        spec=spec,
        preprocessing=pre,
        training=training_of(training, settings, result),
        metrics=metrics,
        measured_on=f"candidates of {held_out_words(validation, settings)}" if validation else "the training crops",
        calibration=calibration,
        flips=settings.flips,
        again_above=settings.again_above,
        summary="3-D network: probability that a candidate is a nodule",
        limits="Trained and measured on the data named above only.",
    )
    return result, save_model(run_dir / "model", model, card) if first_process() else card

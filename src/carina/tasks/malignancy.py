"""The malignancy experiment: the nodule network is fine-tuned to tell malignant nodules from benign ones.

The network keeps what it knows of nodules: its head is drawn anew, the first ``freeze_depth`` blocks stay as they
are, bit for bit, running statistics too, and the rest learns. What the diameter alone answers on the same held-out
nodules stands beside the network's figures, since a network that is no better than a ruler is of no use.
"""

import csv
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Bool, Float
from scipy.special import expit, logit

from carina.data.made_up_malignancy import RULE
from carina.data.sampling import NODULE, CropList, malignancy_crops
from carina.data.store import Nodule, Scan, Store
from carina.errors import UsageError
from carina.learn import FitResult, FitSettings, fit
from carina.learn.calibrate import expected_calibration_error, fit_logistic
from carina.learn.processes import first_process
from carina.learn.ranking import auc
from carina.models.build import Spec, build
from carina.models.card import LEAST, Calibration, Card, load_model, save_model
from carina.models.nodule import NoduleNet
from carina.replacing import replacing
from carina.tasks.candidates import (
    Candidates,
    CandidateSettings,
    answers,
    changed_batches,
    need_both,
    unchanged_batches,
)
from carina.tasks.held_out import HeldOut, series_of
from carina.tasks.runs import held_out_words, split_scans, training_of

RATED = "rated.csv"
"""Table of the held-out nodules with outcome and answer, for ``carina evaluate malignancy``."""

LARGEST_LOG_ODDS = float(logit(1 - LEAST))
"""The pipeline knows no probability that is more certain."""


@dataclass(frozen=True)
class MalignancySettings(CandidateSettings):
    """What is particular to this experiment.

    Attributes:
        crops_per_epoch: nodules learned from in an epoch.
        init_from: weights of a nodule network to start from.
        freeze_depth: blocks from the input on that do not learn, 0 to 4; 4 trains the head alone.
        outcome: where malignant and benign come from, in words for the card; "" for what the scans' origin tells.
        fit: how to train.
    """

    crops_per_epoch: int = 240
    freeze_depth: int = 3
    outcome: str = ""
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
class Rated:
    """Nodules of which the outcome is known, with the network's answer.

    Attributes:
        series_uids: the scan of each.
        center_lps: its centre in mm.
        diameter_mm: its diameter.
        malignant: the outcome.
        p_malignant: the calibrated answer.
    """

    series_uids: tuple[str, ...]
    center_lps: Float[np.ndarray, "n 3"]
    diameter_mm: Float[np.ndarray, " n"]
    malignant: Bool[np.ndarray, " n"]
    p_malignant: Float[np.ndarray, " n"]

    def write(self, path: Path) -> None:
        """Write a table that serves ``carina evaluate malignancy`` both as outcomes and as predictions."""
        with replacing(path) as draft, draft.open("w", newline="") as file:
            writer = csv.writer(file, lineterminator="\n")
            place = ["coordX", "coordY", "coordZ"]
            writer.writerow(["seriesuid", *place, "diameter_mm", "mal_bool", "probability", "p_malignant"])
            for uid, center, diameter, malignant, p in zip(
                self.series_uids, self.center_lps, self.diameter_mm, self.malignant, self.p_malignant, strict=True
            ):
                place = [f"{c:.4f}" for c in center]
                writer.writerow([uid, *place, f"{diameter:.4f}", bool(malignant), 1, f"{p:.6f}"])


def freeze(network: NoduleNet, depth: int) -> None:
    """Keep the input's normalisation and the first ``depth`` blocks from learning; 0 freezes nothing.

    The training loop keeps parts without anything to learn in evaluation mode, so that running statistics stay.

    Raises:
        UsageError: the network has not so many blocks.
    """
    if not 0 <= depth <= len(network.blocks):
        raise UsageError(f"freeze_depth is {depth}, expected 0 to {len(network.blocks)}, the blocks of the network")
    if depth:
        network.input_norm.requires_grad_(False)
        network.blocks[:depth].requires_grad_(False)


def start(settings: MalignancySettings, store: Store) -> tuple[NoduleNet, Spec]:
    """The network before it learns: that of ``init_from`` with a new head, or a fresh one.

    Raises:
        UsageError: blocks shall be frozen and nothing is given to start from, or it is no nodule network of this grid.
    """
    spec: Spec = {"kind": "nodule", "first_filters": 8, "crop_zyx": list(store.preprocessing.crop_zyx)}
    torch.manual_seed(settings.fit.seed)
    if settings.init_from is None:
        if settings.freeze_depth:
            raise UsageError("frozen blocks need weights to start from: give --init-from, or --freeze-depth 0")
        model = build(spec)
    else:
        other, card = load_model(settings.init_from)
        if card.spec.get("kind") != "nodule" or card.preprocessing != store.preprocessing:
            raise UsageError(
                f"{settings.init_from} holds {card.spec} for {card.preprocessing}; expected a nodule network for "
                f"the store's {store.preprocessing}"
            )
        spec = card.spec
        model = build(spec)
        kept = {name: tensor for name, tensor in other.state_dict().items() if not name.startswith("head.")}
        model.load_state_dict(kept, strict=False)
    assert isinstance(model, NoduleNet)
    freeze(model, settings.freeze_depth)
    return model, spec


def every_rated(scans: Sequence[Scan]) -> CropList:
    """All nodules of known outcome, centred, in order."""
    found = [(s, k, n) for s, scan in enumerate(scans) for k, n in enumerate(scan.nodules) if n.malignancy is not None]
    centers = np.rint(np.array([n.center_zyx for _, _, n in found], float).reshape(-1, 3))
    return CropList(
        np.array([s for s, _, _ in found], np.int64),
        centers.astype(np.int64),
        np.full(len(found), NODULE, np.int64),
        np.array([k for _, k, _ in found], np.int64),
        np.array([_is_malignant(n) for _, _, n in found], np.int64),
    )


def _is_malignant(nodule: Nodule) -> bool:
    return nodule.malignancy is not None and nodule.malignancy > 0.5


def train_malignancy(
    store: Store, run_dir: Path, settings: MalignancySettings, *, resume: bool = False, progress: bool = False
) -> tuple[FitResult, Card]:
    """Run the experiment; writes ``model.safetensors``, ``model.json`` and the held-out nodules beside the log.

    Raises:
        TrainingError: one of the classes is missing, among the held-out nodules too, or a loss is not finite.
        UsageError: nothing fit to start from.
    """
    training, validation = split_scans(store, settings)
    pre = store.preprocessing
    model, spec = start(settings, store)
    task = Candidates(settings, pre.clip_hu, pre.spacing_zyx_mm, pre.crop_zyx)

    def draw_crops(epoch: int) -> CropList:
        return malignancy_crops(
            training,
            settings.crops_per_epoch,
            seed=settings.fit.seed,
            epoch=epoch,
            balanced=settings.balanced,
            jitter_mm=settings.jitter_mm,
        )

    held_out, crops = None, every_rated(validation)
    if validation:
        need_both(crops, "nodules are malignant")
        held_out = unchanged_batches(validation, crops, settings.batch, pre.crop_zyx)
    result = fit(
        task,
        model,
        changed_batches(training, settings, pre.crop_zyx, draw_crops),
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
            HeldOut.classified(series_of(held_out), truth, expit(found)).write(run_dir)
        # They are calibrated as the pipeline will see them.
        seen = np.clip(found, -LARGEST_LOG_ODDS, LARGEST_LOG_ODDS)
        intercept, (slope,) = fit_logistic(seen[:, None], truth)
        rated = _rated(validation, crops, truth, expit(intercept + slope * seen))
        if first_process():
            rated.write(run_dir / RATED)
        by_size = auc(truth, rated.diameter_mm)
        metrics["auc_of_diameter"] = by_size
        metrics["auc_gain_over_diameter"] = auc(truth, seen) - by_size
        metrics["ece_calibrated_in_sample"] = expected_calibration_error(rated.p_malignant, truth)
        calibration = Calibration(
            f"logistic, fitted on {len(truth)} nodules of {len(validation)} held-out scans",
            intercept,
            0.0,
            float(slope),
        )
    outcome = settings.outcome or _outcome(training)
    card = Card(
        name=settings.name or "malignancy",
        task="malignancy",
        spec=spec,
        preprocessing=pre,
        training=training_of(training, settings, result),
        metrics=metrics,
        measured_on=f"nodules of {held_out_words(validation, settings)}" if validation else "the training crops",
        calibration=calibration,
        summary=f"3-D network: probability that a nodule is malignant. Outcomes: {outcome}",
        limits=f"Knows nothing but these outcomes: {outcome}.",
    )
    return result, save_model(run_dir / "model", model, card) if first_process() else card


def _rated(
    scans: Sequence[Scan], crops: CropList, truth: Bool[np.ndarray, " n"], p_malignant: Float[np.ndarray, " n"]
) -> Rated:
    chosen = [(scans[s], scans[s].nodules[k]) for s, k in zip(crops.scan, crops.nodule, strict=True)]
    return Rated(
        tuple(scan.series_uid for scan, _ in chosen),
        np.array([scan.geometry.to_lps(nodule.center_zyx) for scan, nodule in chosen]),
        np.array([nodule.diameter_mm for _, nodule in chosen]),
        truth,
        p_malignant,
    )


def _outcome(scans: Sequence[Scan]) -> str:
    """Where outcomes come from: readers who are on record, or, on phantoms, the rule."""
    if any(nodule.reader_malignancy for scan in scans for nodule in scan.nodules):
        return "ratings of radiologists, no pathology"
    return RULE if any(scan.origin == "phantom" for scan in scans) else "as the table of the scans says"

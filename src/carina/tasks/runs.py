"""What the CT experiments share: settings of a run, the split, initial weights, and the card's record of training.

Must not know losses or batches.
"""

import hashlib
import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from torch import nn

from carina.data.augment import AugmentSettings
from carina.data.split import every_nth, patient_fraction, split_by_patient, split_by_subset
from carina.data.store import Scan, Store
from carina.errors import TrainingError, UsageError
from carina.learn import FitResult, FitSettings
from carina.learn.provenance import command_line, hardware, source_revision
from carina.models.card import DataSource, Training, load_card, load_model

logger = logging.getLogger(__name__)
SUBSETS = tuple(f"subset{k}" for k in range(10))
"""LUNA16's ten, for cross-validation."""
LOWER_IS_BETTER = ("loss", "false_crops")
"""Metrics of which less is better; of all others more is."""


@dataclass(frozen=True)
class RunSettings:
    """Settings of every CT experiment.

    Attributes:
        name: of the weights, in card and reports; "" for the task's name.
        split: "patient" (a share of the patients validates), "tenth" (every 10th series by UID), "subset0" to
            "subset9" (that subset of LUNA16), or "none".
        validation_share: share of the patients that validate.
        batch: crops per step.
        crops_per_epoch: crops learned from in an epoch.
        validation_crops: crops measured after an epoch.
        augment: how training crops are changed; None leaves them as they are.
        monitor: the metric that chooses the best epoch; ``loss`` where few nodules are held out.
        init_from: weights to start from, of the same network.
        licences: licence by origin of the scans, for the card.
        fit: how to train.
    """

    name: str = ""
    split: str = "patient"
    validation_share: float = 0.15
    batch: int = 16
    crops_per_epoch: int = 200
    validation_crops: int = 64
    augment: AugmentSettings | None = field(default_factory=AugmentSettings)
    monitor: str = "loss"
    init_from: Path | None = None
    licences: Mapping[str, str] = field(default_factory=dict)
    fit: FitSettings = field(default_factory=FitSettings)

    def __post_init__(self) -> None:
        """Raises UsageError for numbers that nothing can be trained with."""
        for name in ("batch", "crops_per_epoch", "validation_crops"):
            if getattr(self, name) < 1:
                raise UsageError(f"{name} is {getattr(self, name)}; expected at least 1")
        if not 0 <= self.validation_share <= 1:
            raise UsageError(f"validation_share is {self.validation_share:g}; expected 0 to 1")

    def load_initial(self, model: nn.Module) -> None:
        """Start from the weights of ``init_from``.

        Raises:
            UsageError: they belong to another network.
        """
        if self.init_from is None:
            return
        other, card = load_model(self.init_from)
        try:
            model.load_state_dict(other.state_dict())
        except RuntimeError as error:
            raise UsageError(f"{self.init_from} holds {card.spec}, which is another network: {error}") from error

    def described(self, store: Store, training: Sequence[Scan], validation: Sequence[Scan]) -> dict[str, Any]:
        """Everything but ``fit``, and what is learned from, as JSON values, for log and checkpoint."""
        values = {name: value for name, value in asdict(self).items() if name != "fit"}
        values |= {"preprocessing": asdict(store.preprocessing)}
        values |= {"training_series": _digest(training), "validation_series": _digest(validation)}
        return {name: str(value) if isinstance(value, Path) else value for name, value in values.items()}


def _digest(scans: Sequence[Scan]) -> str:
    """Few words that differ when the series do."""
    uids = "\n".join(sorted(scan.series_uid for scan in scans))
    return f"{len(scans)} with digest {hashlib.sha256(uids.encode()).hexdigest()[:12]}"


def split_scans(store: Store, settings: RunSettings) -> tuple[list[Scan], list[Scan]]:
    """Scans to learn from and scans to validate with.

    Raises:
        TrainingError: no scan to learn from.
    """
    match settings.split:
        case "patient":
            share = settings.validation_share
            parts = split_by_patient(store.scans, {"train": 1 - share, "validation": share})
            training, validation = parts["train"], parts["validation"]
            if share > 0 and not validation:
                training, validation = _one_patient_apart(training)
        case "tenth":
            training, validation = every_nth(sorted(store.scans, key=lambda scan: scan.series_uid))
        case "none":
            training, validation = list(store.scans), []
        case subset if subset in SUBSETS:
            training, validation = split_by_subset(store.scans, SUBSETS.index(subset))
        case other:
            raise UsageError(f"split {other!r} is none of 'patient', 'tenth', 'subset0' to 'subset9', 'none'")
    if not training:
        raise TrainingError(f"the split {settings.split!r} leaves none of {len(store)} scans to learn from")
    if seen := _seen_before(validation, settings):
        logger.warning(
            "%d of %d held-out scans trained the weights of %s already, so figures on them promise too much; use the "
            "split of that training, or other scans", seen, len(validation), settings.init_from
        )  # fmt: skip
    return training, validation


def held_out_words(validation: Sequence[Scan], settings: RunSettings) -> str:
    """How many scans were held out, for the card; and how many of them the first weights had learned from."""
    seen = _seen_before(validation, settings)
    words = f"{len(validation)} held-out scans"
    return f"{words}, {seen} of which trained the weights it began with" if seen else words


def _seen_before(scans: Sequence[Scan], settings: RunSettings) -> int:
    if settings.init_from is None:
        return 0
    known = set(load_card(settings.init_from).training.series_uids)
    return sum(not known.isdisjoint({scan.series_uid, scan.background_uid}) for scan in scans)


def _one_patient_apart(scans: Sequence[Scan]) -> tuple[list[Scan], list[Scan]]:
    """Of few patients the hash may hold out nobody: then the one whom a larger share would hold out first validates."""
    patients = {scan.patient_id for scan in scans}
    if len(patients) < 2:
        logger.warning("all scans are of one patient: nothing is held out, and figures are of what was learned from")
        return list(scans), []
    first = max(patients, key=patient_fraction)
    logger.warning("the hash of their names holds out none of %d patients: one is held out all the same", len(patients))
    return [s for s in scans if s.patient_id != first], [s for s in scans if s.patient_id == first]


def training_of(scans: Sequence[Scan], settings: RunSettings, result: FitResult) -> Training:
    """The card's record: command, revision, hardware, time, seed, and every series that was learned from.

    Of ``init_from`` too: what the first weights saw, these have seen.
    """
    before = Training() if settings.init_from is None else load_card(settings.init_from).training
    seen = set(before.series_uids)
    scans_of = Counter({source.name: source.scans for source in before.data})
    scans_of.update(scan.origin or "not stated" for scan in scans if scan.series_uid not in seen)
    licences = {source.name: source.licence for source in before.data} | dict(settings.licences)
    return Training(
        command=" && ".join(filter(None, (before.command, command_line()))),
        revision=source_revision(),
        hardware=hardware(settings.fit.device),
        seconds=round(before.seconds + result.seconds, 1),
        seed=settings.fit.seed,
        epochs=before.epochs + result.epochs,
        data=tuple(
            DataSource(origin, licences.get(origin, "not stated"), count) for origin, count in sorted(scans_of.items())
        ),
        series_uids=tuple(sorted(seen | {uid for s in scans for uid in (s.series_uid, s.background_uid) if uid})),
    )

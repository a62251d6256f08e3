"""``carina train``: from scans to weights with a card."""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro

if TYPE_CHECKING:
    from carina.data.store import Store


@dataclass
class _Common:
    """Options of every task; those left out keep the task's own values."""

    data: Path
    """A prepared store, or a cohort in LUNA16's layout, which is prepared into RUN/store first."""
    output: Annotated[Path, tyro.conf.arg(aliases=["-o"])]
    """Folder of the run: log, checkpoint, and at the end model.safetensors with model.json."""
    epochs: int | None = None
    """Passes over ``crops_per_epoch`` crops."""
    minutes: float | None = None
    """Time budget instead of epochs; the learning rate follows the clock. The last look at held-out scans is extra."""
    batch: int | None = None
    """Crops per step of one process."""
    crops_per_epoch: int | None = None
    """Crops learned from between two looks at the held-out scans."""
    validation_crops: int | None = None
    """Crops (nodule: negatives) measured each time."""
    lr: float | None = None
    """Highest learning rate."""
    optimizer: Literal["sgd", "adam", "adamw"] | None = None
    """Which rule moves the weights."""
    schedule: Literal["constant", "cosine", "one-cycle"] | None = None
    """How the learning rate changes."""
    accumulate: int | None = None
    """Batches per step of the optimizer, over all processes."""
    precision: Literal["fp32", "bf16", "fp16"] | None = None
    """Mixed precision, for graphics cards."""
    patience: int | None = None
    """Stop after so many epochs without a better result."""
    seed: int | None = None
    """Source of all randomness; the same seed gives the same weights."""
    device: str = "auto"
    """auto, cpu, cuda or mps; several cards through torchrun."""
    prefetch: int | None = None
    """Batches made ahead in threads."""
    split: Literal["patient", "tenth", "none"] | None = None
    """What is held out: a share of the patients, every tenth series, or nothing."""
    init_from: Path | None = None
    """Weights to start from."""
    monitor: str | None = None
    """Metric that chooses the best epoch: dice (segmentation), auc (nodule); loss where few nodules are held out."""
    augment: bool = True
    """Change crops at random."""
    name: str | None = None
    """Name of the weights in card and reports."""
    licence: tuple[str, ...] = ()
    """ORIGIN=LICENCE of the scans, for the card; origins are those of scans.csv."""
    resume: bool = False
    """Go on from the checkpoint in the run's folder, if there is one."""
    quiet: Annotated[bool, tyro.conf.arg(aliases=["-q"])] = False
    """Show no progress."""

    def _changes(self) -> dict[str, Any]:
        """Settings of the task that were given."""
        from carina.errors import UsageError

        wrong = [entry for entry in self.licence if "=" not in entry]
        if wrong:
            raise UsageError(f"--licence {wrong[0]!r}: expected ORIGIN=LICENCE")
        changes: dict[str, Any] = {
            "batch": self.batch,
            "crops_per_epoch": self.crops_per_epoch,
            "validation_crops": self.validation_crops,
            "split": self.split,
            "init_from": self.init_from,
            "name": self.name,
            "monitor": self.monitor,
            "licences": dict(entry.split("=", 1) for entry in self.licence),
        }
        given = {name: value for name, value in changes.items() if value is not None}
        return given if self.augment else {**given, "augment": None}

    def _fit_changes(self) -> dict[str, Any]:
        from carina.learn.settings import FitSettings

        given = {name: value for name, value in asdict(self).items() if name in FitSettings.__dataclass_fields__}
        changes = {name: value for name, value in given.items() if value is not None}
        if self.minutes is not None and self.epochs is None:
            changes["epochs"] = 1_000_000
        changes["device"] = _device(self.device)
        if changes["device"] != "cpu":
            changes.setdefault("prefetch", 4)
        return changes

    def _store(self) -> "Store":
        from carina.data.store import MANIFEST, Store

        if (self.data / MANIFEST).is_file():
            return Store(self.data)
        from carina.data.prepare import prepare

        print(f"Preparing {self.data} into {self.output / 'store'} ...")
        return prepare([self.data], self.output / "store", progress=not self.quiet)


def _device(name: str) -> str:
    import torch

    if name != "auto":
        return name
    if torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else "cpu"


def _finish(run: Callable[[], Any], output: Path, quiet: bool) -> None:
    import logging

    from carina.learn.memory import keep_freed_memory

    keep_freed_memory()
    if not quiet:
        logging.getLogger("carina.learn").setLevel(logging.INFO)
    result, card = run()
    shown = ", ".join(f"{name} {value:.3f}" for name, value in sorted(card.metrics.items()))
    print(f"{output / 'model.safetensors'}: best epoch {result.best_epoch} of {result.epochs}, {shown}")


@dataclass
class Segmentation(_Common):
    """Learn to mark nodules."""

    loss: Literal["marking", "missed-dice"] | None = None
    """Dice with positives and hardest negatives, or Dice with extra weight on missed voxels."""
    filters: int | None = None
    """Channels of the network at full resolution; the shipped pipeline expects 16."""

    def run(self) -> None:
        """Prepare where needed, train, write the weights."""
        from dataclasses import replace

        from carina.tasks.segmentation import SegmentationSettings, train_segmentation

        own = {name: value for name in ("loss", "filters") if (value := getattr(self, name)) is not None}
        settings = replace(SegmentationSettings(), **self._changes(), **own)
        settings = replace(settings, fit=replace(settings.fit, **self._fit_changes()))
        store = self._store()
        _finish(
            lambda: train_segmentation(store, self.output, settings, resume=self.resume, progress=not self.quiet),
            self.output,
            self.quiet,
        )


@dataclass
class Nodule(_Common):
    """Learn to tell nodules from what looks like them."""

    balanced: bool = True
    """As many nodules as negatives in every epoch."""
    mined: Path | None = None
    """Candidates of an earlier model (LUNA16's candidates format); rows of class 0 become negatives."""

    def run(self) -> None:
        """Prepare where needed, train, calibrate, write the weights."""
        from dataclasses import replace

        from carina.tasks.nodule import NoduleSettings, train_nodule

        settings = replace(NoduleSettings(), **self._changes(), balanced=self.balanced, mined=self.mined)
        settings = replace(settings, fit=replace(settings.fit, **self._fit_changes()))
        store = self._store()
        _finish(
            lambda: train_nodule(store, self.output, settings, resume=self.resume, progress=not self.quiet),
            self.output,
            self.quiet,
        )


@dataclass
class Train:
    """Train a network: segmentation or nodule."""

    task: tyro.conf.OmitSubcommandPrefixes[
        Annotated[Segmentation, tyro.conf.subcommand("segmentation")]
        | Annotated[Nodule, tyro.conf.subcommand("nodule")]
    ]
    """What to learn."""

    def run(self) -> None:
        """Train the chosen task."""
        self.task.run()

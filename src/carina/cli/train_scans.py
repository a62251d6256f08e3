"""``carina train segmentation|nodule|malignancy``: from scans to weights with a card."""

import logging
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeVar

import tyro

if TYPE_CHECKING:
    from carina.data.store import Store
    from carina.learn import FitResult
    from carina.models.card import Card
    from carina.tasks.runs import RunSettings

    S = TypeVar("S", bound=RunSettings)


@dataclass
class _Common:
    """Options of every task; those left out keep the preset's values, and those the task's own."""

    data: Path
    """A prepared store, or a cohort in LUNA16's layout, which is prepared into RUN/store first."""
    output: Annotated[Path, tyro.conf.arg(aliases=["-o"])]
    """Folder of the run: log, checkpoint, and at the end model.safetensors with model.json."""
    preset: str | None = None
    """A shipped preset (laptop, gpu) or a TOML file; other options given here count more."""
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
    precision: Literal["auto", "fp32", "bf16", "fp16"] | None = None
    """Mixed precision; auto is bf16 where the processor or card has units for it, else fp32."""
    patience: int | None = None
    """Stop after so many epochs without a better result."""
    seed: int | None = None
    """Source of all randomness; the same seed gives the same weights."""
    device: str = "auto"
    """auto, cpu, cuda or mps; several cards through torchrun."""
    prefetch: int | None = None
    """Batches made ahead in threads."""
    split: str | None = None
    """What is held out: patient (a share of them), tenth (every tenth series), subset0 to subset9 (LUNA16's), none."""
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
            "licences": dict(entry.split("=", 1) for entry in self.licence) or None,
        }
        given = {name: value for name, value in changes.items() if value is not None}
        return given if self.augment else {**given, "augment": None}

    def _settled(self, settings: "S", **own: Any) -> "S":
        """The preset's settings with everything that was given here."""
        from carina.learn.settings import FitSettings
        from carina.pipeline.runtime import choose_device

        given = {name: value for name, value in own.items() if value is not None}
        settings = replace(settings, **self._changes(), **given)
        options = {name: value for name, value in asdict(self).items() if name in FitSettings.__dataclass_fields__}
        changes = {name: value for name, value in options.items() if value is not None}
        if self.minutes is not None and self.epochs is None:
            changes["epochs"] = 1_000_000
        changes["device"] = str(choose_device(self.device))
        if changes["device"] != "cpu" and not settings.fit.prefetch:
            changes.setdefault("prefetch", 4)
        return replace(settings, fit=replace(settings.fit, **changes))

    def _train(
        self, experiment: "Callable[..., tuple[FitResult, Card]]", settings: "S"
    ) -> "tuple[FitResult, Card] | None":
        """Prepare where needed, run the experiment and show the figures; among several processes, the first does."""
        from carina.learn.memory import keep_freed_memory
        from carina.learn.processes import join_processes

        keep_freed_memory()
        if not self.quiet:
            logging.getLogger("carina.learn").setLevel(logging.INFO)
        with join_processes(settings.fit.device) as processes:
            store = processes.first_then_all(self._store)
            shown = not self.quiet and processes.rank == 0
            result, card = experiment(store, self.output, settings, resume=self.resume, progress=shown)
            if processes.rank > 0:
                return None
        figures = ", ".join(f"{name} {value:.3f}" for name, value in sorted(card.metrics.items()))
        print(f"{self.output / 'model.safetensors'}: best epoch {result.best_epoch} of {result.epochs}, {figures}")
        return result, card

    def _store(self, *, first: bool) -> "Store":
        """The prepared store; the first process makes it where it is not there."""
        from carina.data.store import MANIFEST, Store

        if (self.data / MANIFEST).is_file():
            return Store(self.data)
        if not first:
            return Store(self.output / "store")
        from carina.data.prepare import prepare

        print(f"Preparing {self.data} into {self.output / 'store'} ...")
        return prepare([self.data], self.output / "store", progress=not self.quiet)


@dataclass
class Segmentation(_Common):
    """Learn to mark nodules."""

    network: Literal["unet", "unet3d"] | None = None
    """The 2.5-D network on stacks of slices, or the 3-D network on whole crops."""
    loss: Literal["marking", "missed-dice"] | None = None
    """Dice with cross entropy of positives and of all negatives, or Dice with extra weight on missed voxels."""
    filters: int | None = None
    """Channels of the network at full resolution."""

    def run(self) -> None:
        """Prepare where needed, train, write the weights."""
        from carina.tasks.preset import load_preset
        from carina.tasks.segmentation import train_segmentation

        settings = load_preset(self.preset).segmentation
        self._train(
            train_segmentation, self._settled(settings, network=self.network, loss=self.loss, filters=self.filters)
        )


@dataclass
class Nodule(_Common):
    """Learn to tell nodules from what looks like them."""

    balanced: bool = True
    """As many nodules as negatives in every epoch."""
    mined: Path | None = None
    """What an earlier model marked (LUNA16's candidates format): class 0 become negatives, class 1 nodules."""

    def run(self) -> None:
        """Prepare where needed, train, calibrate, write the weights."""
        from carina.tasks.nodule import train_nodule
        from carina.tasks.preset import load_preset

        settings = load_preset(self.preset).nodule
        self._train(
            train_nodule, self._settled(settings, balanced=False if not self.balanced else None, mined=self.mined)
        )


@dataclass
class Malignancy(_Common):
    """Fine-tune the nodule network to tell malignant nodules from benign ones.

    The scans need outcomes: annotations_with_malignancy.csv, or LIDC-IDRI's ratings. Those of phantoms
    (`carina phantom --malignancy-rule`) follow a made-up rule that shows the mechanism and is no medicine.
    """

    freeze_depth: int | None = None
    """Blocks from the input on that stay as they are, 0 to 4; 4 trains the head alone."""
    outcome: str | None = None
    """Where malignant and benign come from, in words for the card."""
    balanced: bool = True
    """As many malignant nodules as benign ones in every epoch."""

    def run(self) -> None:
        """Prepare where needed, fine-tune, calibrate, write the weights, and compare with the diameter alone."""
        from carina.evaluate.malignancy import MalignancyTable, compare_with_size
        from carina.evaluate.tables import read_detections_with
        from carina.io.luna import read_malignancy
        from carina.models.card import save_card
        from carina.tasks.malignancy import RATED, train_malignancy
        from carina.tasks.preset import load_preset

        settings = self._settled(
            load_preset(self.preset).malignancy,
            freeze_depth=self.freeze_depth,
            outcome=self.outcome,
            balanced=False if not self.balanced else None,
        )
        done = self._train(train_malignancy, settings)
        if done is None or not (self.output / RATED).is_file():
            return
        table = MalignancyTable.of(read_malignancy(self.output / RATED, any_name=True))
        against = compare_with_size(table, table.series_uid, *read_detections_with(self.output / RATED, "p_malignant"))
        low, high = against.gain_interval
        gain = {"auc_gain_low": low, "auc_gain_high": high}
        save_card(self.output / "model", replace(done[1], metrics={**done[1].metrics, **gain}))
        print(
            f"{against.n_hit} held-out nodules: AUC {against.network.auc:.3f}, of the diameter alone "
            f"{against.size.auc:.3f}; gain {against.gain:+.3f} (95 % interval {low:+.3f} to {high:+.3f})"
        )

"""``carina recipe``: from nothing to a folder of weights, by one preset.

Reads top to bottom as the weights come to be. Every step that is done is left out when the command runs again.
"""

import os
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from carina.replacing import replacing

if TYPE_CHECKING:
    from carina.geometry import Vector3
    from carina.tasks.preset import Preset


@dataclass
class Recipe:
    """Make weights from nothing: synthesize, prepare, train both stages, calibrate.

    OUTPUT/weights is what `carina detect --weights` takes. Malignancy stays the shipped rule of size; with
    --malignancy the network is fine-tuned too, to outcomes of a made-up rule, and laid beside, not into the weights.
    """

    output: Annotated[Path, tyro.conf.arg(aliases=["-o"])]
    """Folder for everything that is made; the same command goes on where it was stopped."""
    preset: str = "laptop"
    """A shipped preset (laptop, gpu) or a TOML file."""
    backgrounds: tuple[Path, ...] = ()
    """CTs to insert nodules into, beside phantoms."""
    ignore: tuple[Path, ...] = ()
    """Known lesions of these CTs, as for `carina synthesize`."""
    real: tuple[Path, ...] = ()
    """Folders of your own annotated scans, as for `carina prepare`; they train beside the synthetic ones."""
    malignancy: bool = False
    """Fine-tune the nodule network to the made-up rule of malignancy, to show how it is done."""
    name: str = ""
    """Of the weights, in cards and reports: NAME-segmentation and so on."""
    licence: tuple[str, ...] = ("phantom=made by Carina",)
    """ORIGIN=LICENCE of the scans, for the cards."""
    device: str = "auto"
    """auto, cpu, cuda or mps."""
    jobs: int = field(default_factory=lambda: os.cpu_count() or 1)
    """Processes that make and prepare scans."""
    quiet: Annotated[bool, tyro.conf.arg(aliases=["-q"])] = False
    """Show no progress."""

    def run(self) -> None:
        """Make the weights."""
        from carina.ct.preprocess import Preprocessing
        from carina.pipeline.runtime import choose_device
        from carina.tasks.preset import load_preset

        choose_device(self.device)  # one that is not there is refused now, not after the scans are made
        preset = load_preset(self.preset)
        weights = self.output / "weights"
        train, held_out = self.output / "train", self.output / "held-out"
        self._synthesize(preset, train, held_out)
        coarse = self._prepare(train, "store-segmentation", preset.cohort.segmentation_spacing_mm)
        self._train("segmentation", coarse)
        self._ship("segmentation", weights)
        mined = self._mine(preset, train, weights)
        store = self._prepare(train, "store", Preprocessing().spacing_zyx_mm)
        self._train("nodule", store, "--mined", str(mined))
        self._ship("nodule", weights)
        if self.malignancy:
            self._train("malignancy", store, "--init-from", str(weights / "nodule.safetensors"))
        self._calibrate(held_out, weights)
        print(f"{weights}: ready for `carina detect --weights {weights}`; the cards say what made them")

    def _synthesize(self, preset: "Preset", train: Path, held_out: Path) -> None:
        """Two cohorts; shapes and phantoms of the second train nothing, its CTs are those of the first anew."""
        from carina.cli.synthesize import Synthesize

        chosen = preset.cohort
        for folder, shapes, scans, phantoms in (
            (train, "train", chosen.per_background * len(self.backgrounds), chosen.phantoms),
            (held_out, "test", chosen.held_out_per_background * len(self.backgrounds), chosen.held_out_phantoms),
        ):
            if folder.is_dir():
                continue
            # Named at last, so that a cohort that was broken off is made anew.
            draft = folder.with_name(f".{folder.name}.part")
            shutil.rmtree(draft, ignore_errors=True)
            self._say(f"{folder}: synthesize {scans + phantoms} scans")
            Synthesize(
                output=draft,
                backgrounds=self.backgrounds if scans else (),
                ignore=self.ignore if scans else (),
                scans=scans,
                phantoms=phantoms,
                nodules_per_scan=chosen.nodules_per_scan,
                distractors_per_scan=chosen.distractors_per_scan,
                shapes="train" if shapes == "train" else "test",
                seed=chosen.seed + (folder == held_out),
                jobs=self.jobs,
                quiet=self.quiet,
            ).run()
            draft.rename(folder)

    def _prepare(self, train: Path, name: str, spacing_zyx_mm: "Vector3") -> Path:
        from carina.ct.preprocess import Preprocessing
        from carina.data.made_up_malignancy import label_cohort
        from carina.data.prepare import prepare

        folder = self.output / name
        self._say(f"{folder}: prepare")
        if self.malignancy and not (train / "annotations_with_malignancy.csv").is_file():
            label_cohort(train)
        store = prepare(
            [train, *self.real],
            folder,
            preprocessing=Preprocessing(spacing_zyx_mm=spacing_zyx_mm),
            jobs=self.jobs,
            progress=not self.quiet,
        )
        for name, reason in store.failed.items():
            print(f"left out: {name}: {reason}")
        return folder

    def _train(self, task: str, store: Path, *more: str) -> None:
        """``carina train`` with this preset, unless its weights are there."""
        from carina.cli.train_scans import Malignancy, Nodule, Segmentation

        run = self.output / task
        if (run / "model.json").is_file():
            return
        self._say(f"{run}: train")
        commands = {"segmentation": Segmentation, "nodule": Nodule, "malignancy": Malignancy}
        words = [
            "--data",
            store,
            "-o",
            run,
            "--preset",
            self.preset,
            "--device",
            self.device,
            "--resume",
        ]
        words += ["--licence", *self.licence] if self.licence else []
        words += ["--name", f"{self.name}-{task}"] if self.name else []
        words += ["--quiet"] if self.quiet else []
        tyro.cli(commands[task], args=[*map(str, words), *more]).run()

    def _ship(self, task: str, weights: Path) -> None:
        """Copy weights and card of a run under the name that the pipeline looks for; the rule of size beside them."""
        from importlib.resources import as_file, files

        weights.mkdir(parents=True, exist_ok=True)
        with as_file(files("carina") / "weights" / "malignancy.json") as rule:
            copies = {rule: weights / "malignancy.json"}
        copies |= {self.output / task / f"model{end}": weights / f"{task}{end}" for end in (".safetensors", ".json")}
        for source, target in copies.items():
            if not target.is_file():
                with replacing(target) as draft:
                    shutil.copyfile(source, draft)

    def _mine(self, preset: "Preset", train: Path, weights: Path) -> Path:
        """What the segmentation marks wrongly on scans that it was trained with: hard negatives."""
        from carina.cli.tune import Mine

        mined = self.output / "mined.csv"
        if not mined.is_file():
            found = self._detect(train, weights, self.output / "mined", preset.cohort.mined_scans)
            Mine(results=(found,), cohorts=(train,), output=mined).run()
        return mined

    def _calibrate(self, held_out: Path, weights: Path) -> None:
        """The probability of both stages together, and its thresholds, from the second cohort."""
        from carina.cli.tune import Calibrate
        from carina.io.luna import LunaCohort

        found = self._detect(held_out, weights, self.output / "held-out-found", None)
        n_scans = len(LunaCohort(held_out).scans)
        made_of = "scans of held-out phantoms and of the training CTs" if self.backgrounds else "held-out phantoms"
        Calibrate(
            results=(found,),
            cohorts=(held_out,),
            weights=weights,
            measured_on=f"{n_scans} {made_of} with inserted nodules of held-out shapes",
            output=self.output / "operating-point",
        ).run()

    def _detect(self, cohort: Path, weights: Path, found: Path, at_most: int | None) -> Path:
        """``carina detect`` on so many scans of a cohort with every candidate kept; stage two if it is there."""
        from carina.cli.detect import Detect
        from carina.io.luna import LunaCohort

        scans = [str(path) for path in LunaCohort(cohort).scans.values()]
        # Neighbours in the list are of one patient: an even choice has all of them.
        scans = scans[:: -(-len(scans) // (at_most or len(scans)))]
        self._say(f"{found}: detect in {len(scans)} scans")
        Detect(
            input=(tuple(scans),),
            output=found,
            format="json,csv",
            threshold=0.0,
            device=self.device,
            weights=weights,
            first_stage_only=not (weights / "nodule.json").is_file(),
            resume=True,
            quiet=self.quiet,
        ).run()
        return found

    def _say(self, line: str) -> None:
        if not self.quiet:
            print(line, flush=True)

"""``carina train thermometer`` and ``carina train birds``: the small problems, on the loop that trains the networks."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import tyro

if TYPE_CHECKING:
    from carina.tasks.thermometer import Solution


@dataclass
class Thermometer:
    """Learn how an unknown thermometer relates to Celsius, in seven ways."""

    method: Literal["numeric", "analytic", "autograd", "sgd", "adam", "linear", "network"] = "sgd"
    """Gradient from differences, on paper or by autograd; steps by SGD or Adam; a linear layer; a small network."""
    output: Annotated[Path | None, tyro.conf.arg(aliases=["-o"])] = None
    """Folder for log, checkpoint, TensorBoard files and the plot fit.svg; nothing is written without it."""
    epochs: int = 5000
    """Passes over the eleven readings."""
    lr: float | None = None
    """Learning rate; default 0.01 (adam 0.1, network 0.001)."""
    scale: float = 0.1
    """What the unknown readings are multiplied with before they are learned from."""
    held_out: float | None = None
    """Share of the readings that only validates; default none for lines, 0.2 for linear and network."""
    hidden: int = 8
    """Units of the network."""
    seed: int = 0
    """Of the shuffled split and of fresh weights."""
    resume: bool = False
    """Go on from the checkpoint in the folder, if there is one."""

    def run(self) -> None:
        """Train, print what was learned, draw it."""
        from carina.tasks.thermometer import ThermometerSettings, train_thermometer

        settings = ThermometerSettings(
            self.method, self.epochs, self.lr, self.scale, self.held_out, self.hidden, self.seed
        )
        solution = train_thermometer(settings, self.output, resume=self.resume)
        print("\n".join(_lines(solution)))
        if self.output is not None:
            from carina.tasks.thermometer_plot import draw_fit

            print(f"The readings and the fit: {draw_fit(solution, self.output / 'fit.svg')}")


def _lines(solution: "Solution") -> list[str]:
    lines = []
    for record in solution.result.history[:: max(1, len(solution.result.history) // 5)]:
        held_out = f", held out {record['val_loss']:.4f}" if "val_loss" in record else ""
        passes = (record["epoch"] + 1) * solution.settings.passes()
        lines.append(f"epoch {passes:5d}: loss {record['train_loss']:.4f}{held_out}")
    lines.append("parameters: " + ", ".join(f"{name} {list(shape)}" for name, shape in solution.parameters.items()))
    if (line := solution.line()) is not None:
        lines.append(f"Celsius = {line[0]:.4f} * ({solution.settings.scale:g} * reading) {line[1]:+.4f}")
    held_out = f", held out ({len(solution.held_out)} readings): {solution.val_loss:.4f}" if solution.held_out else ""
    lines.append(f"loss {solution.loss:.4f}{held_out}")
    return lines


@dataclass
class Birds:
    """Learn to tell small pictures apart, birds from airplanes; one network or the table of all."""

    data: Path
    """Folder with train/CLASS/*.jpg and test/CLASS/*.jpg, or one with torchvision's CIFAR-10."""
    output: Annotated[Path, tyro.conf.arg(aliases=["-o"])]
    """Folder for runs, weights, the table (birds.json, birds.md) and the wrong pictures (wrong.html)."""
    model: Literal["mlp", "cnn", "wide", "deep", "residual", "dropout", "batchnorm", "l2", "combined", "all"] = "cnn"
    """Which network; "all" makes the whole table."""
    seeds: int = 1
    """How many trainings of each, from seed 0 on."""
    epochs: int | None = None
    """Passes over the training pictures; default: the network's own."""
    penalty_l1: float | None = None
    """Weight of the sum of absolute weights in the loss; default: the network's own."""
    penalty_l2: float | None = None
    """Weight of the sum of squared weights in the loss; default: the network's own."""
    device: Literal["auto", "cpu", "cuda", "mps"] = "cpu"
    """Where to train."""
    resume: bool = False
    """Go on with what the folder holds; finished trainings are not repeated."""
    quiet: Annotated[bool, tyro.conf.arg(aliases=["-q"])] = False
    """Show no progress."""

    def run(self) -> None:
        """Train, measure on the test pictures, write table and page."""
        from carina.learn.memory import keep_freed_memory
        from carina.models.birds import VARIANTS
        from carina.pipeline.runtime import choose_device
        from carina.tasks.birds_data import read_birds
        from carina.tasks.birds_table import compare_birds

        keep_freed_memory()
        train, test = read_birds(self.data)
        table = compare_birds(
            train,
            test,
            list(VARIANTS) if self.model == "all" else [self.model],
            range(self.seeds),
            self.output,
            epochs=self.epochs,
            penalty_l1=self.penalty_l1,
            penalty_l2=self.penalty_l2,
            device=str(choose_device(self.device)),
            resume=self.resume,
            progress=not self.quiet,
        )
        print(table)
        print(f"Wrong answers of the best network: {self.output / 'wrong.html'}")

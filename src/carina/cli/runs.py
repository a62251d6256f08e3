"""``carina runs``: what became of trainings."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from carina.cli.seed import Seed
from carina.errors import InputError, UsageError


@dataclass
class Compare:
    """Say which run is better, and whether the difference is larger than chance."""

    runs: tyro.conf.Positional[tuple[Path, ...]]
    """Folders that `carina train` wrote."""
    by: str | None = None
    """Metric that decides; default: the one that chose the best epoch."""
    bootstraps: int = 1000
    """Resamples of the held-out scans behind the intervals."""
    seed: Seed = 0
    """Of the resamples."""
    output: Annotated[Path | None, tyro.conf.arg(aliases=["-o"])] = None
    """Folder for summary.json, summary.txt and index.html."""
    json: bool = False
    """Print the figures as JSON instead of a table."""

    def run(self) -> None:
        """Read, compare and show."""
        from carina.evaluate.present_runs import present_runs
        from carina.evaluate.runs import compare_runs, read_run

        if not self.runs:
            raise UsageError("no RUN given: name folders that `carina train` wrote")
        if self.bootstraps < 1:
            raise UsageError(f"--bootstraps {self.bootstraps}: expected a number of resamples")
        names = short_names(self.runs)
        runs = [read_run(path, name) for path, name in zip(self.runs, names, strict=True)]
        summary = present_runs(compare_runs(runs, metric=self.by, bootstraps=self.bootstraps, seed=self.seed))
        print(summary.to_json() if self.json else summary.to_text())
        if self.output is not None:
            summary.write(self.output)


@dataclass
class List:
    """One line per run in a folder and below it."""

    folder: tyro.conf.Positional[Path]
    """Where to look."""

    def run(self) -> None:
        """Print the table."""
        from carina.evaluate.runs import read_run
        from carina.learn.log import LOG

        folders = sorted(path.parent for path in self.folder.rglob(LOG))
        if not folders:
            raise InputError(f"{self.folder} holds no {LOG} of a training, nor do the folders below it")
        for folder in folders:
            try:
                run = read_run(folder)
            except InputError as error:
                print(f"{folder}: {error}")
                continue
            state = "" if run.finished else ", running or broken off"
            figure = f"{run.monitor} {run.logged(run.monitor):.4f}"
            print(f"{folder}: {figure}, best epoch {run.best_epoch} of {run.epochs}{state}, {run.seconds / 60:.1f} min")


@dataclass
class Runs:
    """List and compare trainings."""

    what: tyro.conf.OmitSubcommandPrefixes[
        Annotated[Compare, tyro.conf.subcommand("compare")] | Annotated[List, tyro.conf.subcommand("list")]
    ]
    """What to do."""

    def run(self) -> None:
        """Run the chosen subcommand."""
        self.what.run()


def short_names(paths: tuple[Path, ...]) -> list[str]:
    """The shortest ends of the paths that are all different; whole paths where they are not."""
    parts = [path.resolve().parts for path in paths]
    for length in range(1, max(map(len, parts)) + 1):
        names = ["/".join(part[-length:]) for part in parts]
        if len(set(names)) == len(names):
            return names
    return [str(path) for path in paths]

"""All networks for small pictures side by side: several seeds each, one table with intervals, one page of mistakes.

Must not know the command line.
"""

import json
import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool

from carina.data.pictures import Pictures
from carina.errors import UsageError
from carina.learn.provenance import command_line, hardware, source_revision
from carina.replacing import replacing
from carina.tasks.birds import BirdsResult, settings_of, train_birds
from carina.tasks.birds_page import write_wrong

RESULT = "result.json"
"""File in a run's folder with what it came to."""


@dataclass(frozen=True)
class Row:
    """One network in the table.

    Attributes:
        model: which.
        parameters: how many it has.
        epochs: passes over the training pictures.
        train: mean accuracy on the pictures learned from, in the chosen epoch.
        validation: mean accuracy on the held-out training pictures, in the chosen epoch.
        test: mean accuracy on the test pictures.
        low: lower end of the 95 % interval of ``test``.
        high: upper end.
        runs: test accuracy of each seed.
        cpu_seconds: mean processor time of a training.
    """

    model: str
    parameters: int
    epochs: int
    train: float
    validation: float
    test: float
    low: float
    high: float
    runs: tuple[float, ...]
    cpu_seconds: float


def compare_birds(
    train: Pictures,
    test: Pictures,
    variants: Sequence[str],
    seeds: Sequence[int],
    output: Path,
    *,
    epochs: int | None = None,
    penalty_l1: float | None = None,
    penalty_l2: float | None = None,
    device: str = "cpu",
    resume: bool = False,
    progress: bool = False,
) -> str:
    """Train every network with every seed; the runs lie in ``output/MODEL/seed-N``.

    The table is written after each network, as ``birds.json`` and ``birds.md``; ``wrong.html`` shows the wrong answers
    of the network with the best validation accuracy.

    Args:
        train: pictures to learn from.
        test: pictures to measure with.
        variants: which networks.
        seeds: of weights, splits and shuffles.
        output: folder.
        epochs: instead of the networks' own.
        penalty_l1: likewise.
        penalty_l2: likewise.
        device: where to train.
        resume: go on with what the folder holds.
        progress: show bars and a line per run.

    Returns:
        The table in Markdown.

    Raises:
        UsageError: no seeds or no epochs, a penalty below 0, or a run to go on with that was begun with other settings.
    """
    if not seeds or (epochs is not None and epochs < 1):
        raise UsageError(f"{len(seeds)} seeds, {'default' if epochs is None else epochs} epochs: both start at 1")
    given = {"penalty_l1": penalty_l1, "penalty_l2": penalty_l2}
    penalties: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
    rows: list[Row] = []
    best: tuple[float, BirdsResult] | None = None
    text = ""
    for variant in variants:
        results = []
        for seed in seeds:
            settings = settings_of(variant, seed)
            changes: dict[str, Any] = {"device": device} | ({} if epochs is None else {"epochs": epochs})
            settings = replace(settings, fit=replace(settings.fit, **changes), **penalties)
            folder = output / variant / f"seed-{seed}"
            _, result = train_birds(train, test, settings, folder, resume=resume, progress=progress)
            results.append(_with_known_time(result, folder / RESULT))
            if best is None or result.val_accuracy > best[0]:
                best = (result.val_accuracy, result)
        rows.append(row_of(results))
        text = table_of(rows, len(seeds), len(test))
        _write(output / "birds.md", text)
        _write(output / "birds.json", json.dumps(_document(rows, train, test, device), indent=2) + "\n")
    if best is not None:
        write_wrong(test, best[1], output / "wrong.html")
    return text


def row_of(results: Sequence[BirdsResult]) -> Row:
    """The runs of one network as a row."""
    low, high = interval(torch.stack([result.right for result in results]).numpy())
    return Row(
        model=results[0].variant,
        parameters=results[0].parameters,
        epochs=results[0].fit.epochs,
        train=statistics.mean(result.train_accuracy for result in results),
        validation=statistics.mean(result.val_accuracy for result in results),
        test=statistics.mean(result.test_accuracy for result in results),
        low=low,
        high=high,
        runs=tuple(result.test_accuracy for result in results),
        cpu_seconds=statistics.mean(result.cpu_seconds for result in results),
    )


def interval(right: Bool[np.ndarray, "seeds pictures"], draws: int = 2000) -> tuple[float, float]:
    """95 % interval of the mean accuracy, by drawing seeds and pictures anew (percentile bootstrap).

    It covers both what another training and what other test pictures would change.
    """
    generator = np.random.default_rng(0)
    seeds, pictures = right.shape
    means = np.empty(draws)
    for draw in range(draws):
        # Which pictures are drawn how often is one multinomial draw; only the drawn seeds are looked at.
        of_seeds = generator.multinomial(seeds, np.full(seeds, 1 / seeds)) / seeds
        of_pictures = generator.multinomial(pictures, np.full(pictures, 1 / pictures)) / pictures
        means[draw] = of_seeds @ right @ of_pictures
    low, high = np.quantile(means, [0.025, 0.975])
    return float(low), float(high)


def table_of(rows: Sequence[Row], seeds: int, pictures: int) -> str:
    """The rows in Markdown."""
    header = (
        f"| model | parameters | train | validation | test ({pictures} pictures), mean of {seeds} | 95 % interval "
        "| runs | epochs | processor seconds |\n|---|---:|---:|---:|---:|---|---|---:|---:|\n"
    )
    lines = [
        f"| {row.model} | {row.parameters:,} | {row.train:.3f} | {row.validation:.3f} | {row.test:.4f} "
        f"| {row.low:.3f} to {row.high:.3f} | {', '.join(f'{run:.4f}' for run in row.runs)} | {row.epochs} "
        f"| {row.cpu_seconds:.0f} |\n"
        for row in rows
    ]
    return header + "".join(lines)


def _document(rows: Sequence[Row], train: Pictures, test: Pictures, device: str) -> dict[str, Any]:
    return {
        "command": command_line(),
        "revision": source_revision(),
        "hardware": hardware(device),
        "classes": list(train.classes),
        "training_pictures": len(train),
        "test_pictures": len(test),
        "rows": [row.__dict__ for row in rows],
    }


def _with_known_time(result: BirdsResult, path: Path) -> BirdsResult:
    """A run that was finished before took the time that its file remembers."""
    if math.isnan(result.cpu_seconds) and path.exists():
        result = replace(result, cpu_seconds=json.loads(path.read_text())["cpu_seconds"])
    names = ("variant", "seed", "parameters", "train_accuracy", "val_accuracy", "test_accuracy", "best_epoch")
    told = {name: getattr(result, name) for name in (*names, "cpu_seconds")}
    _write(path, json.dumps(told, indent=2) + "\n")
    return result


def _write(path: Path, text: str) -> None:
    with replacing(path) as draft:
        draft.write_text(text, encoding="utf-8")

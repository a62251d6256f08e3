"""The log of a run: one JSON object per epoch, and TensorBoard files where it is installed.

Must not know tasks; they hand over numbers, curves and pictures.
"""

import importlib.util
import json
import logging
import math
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from jaxtyping import Float

logger = logging.getLogger(__name__)
Record = dict[str, Any]
"""What is known after an epoch: ``epoch``, ``step``, ``lr``, ``seconds``, ``best``, ``throughput`` (samples per
second of the first process while training), ``idle`` (share of that time spent waiting for batches), and metrics."""

LOG = "log.jsonl"


class RunLog:
    """Writes to a run's folder; with ``None`` for a folder it keeps silent.

    Args:
        run_dir: ``log.jsonl`` and TensorBoard's files go here.
        settings: the configuration of the run.
        history: records of epochs that were made before; what else an interrupted run wrote is dropped.
    """

    def __init__(self, run_dir: Path | None, settings: Record, history: list[Record]) -> None:
        self._path = None if run_dir is None else run_dir / LOG
        self.board: Any = None
        if run_dir is None:
            return
        run_dir.mkdir(parents=True, exist_ok=True)
        (run_dir / LOG).unlink(missing_ok=True)
        for line in ({"settings": settings}, *history):
            self._line(line)
        if importlib.util.find_spec("tensorboard"):
            from torch.utils.tensorboard.writer import SummaryWriter

            self.board = SummaryWriter(str(run_dir), purge_step=len(history))

    def __enter__(self) -> "RunLog":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.board is not None:
            self.board.close()

    def epoch(self, record: Record) -> None:
        """What an epoch measured."""
        self._line(record)
        numbers = {k: v for k, v in record.items() if isinstance(v, float)}
        logger.info("%s", describe(record))
        if self.board is not None:
            for name, value in numbers.items():
                part, _, metric = name.partition("_")
                self.board.add_scalar(f"{metric}/{part}" if metric else name, value, record["epoch"])

    def curves(
        self,
        tag: str,
        epoch: int,
        edges: Float[np.ndarray, " edges"],
        positives: Float[np.ndarray, " bins"],
        negatives: Float[np.ndarray, " bins"],
    ) -> None:
        """ROC and precision-recall curves and histograms, from counts of each class per bin of probability.

        Args:
            tag: part of the names.
            epoch: when.
            edges: limits of the bins in [0, 1], one more than bins.
            positives: positives in each bin.
            negatives: likewise.
        """
        if self.board is None or positives.sum() == 0 or negatives.sum() == 0:
            return
        for name, counts in (("positives", positives), ("negatives", negatives)):
            self._histogram(f"probability/{tag}_{name}", epoch, edges, counts)
        # Counts at or above each edge; TensorBoard draws its curve over equally spaced thresholds.
        true, false = (np.append(np.cumsum(counts[::-1])[::-1], 0.0) for counts in (positives, negatives))
        at = np.searchsorted(edges, np.linspace(0, 1, 128)).clip(0, len(edges) - 1)
        called = np.maximum(true + false, 1)
        self.board.add_pr_curve_raw(
            f"precision_recall/{tag}",
            true_positive_counts=true[at],
            false_positive_counts=false[at],
            true_negative_counts=(false[0] - false)[at],
            false_negative_counts=(true[0] - true)[at],
            precision=(true / called)[at],
            recall=(true / true[0])[at],
            global_step=epoch,
            num_thresholds=len(at),
        )
        if importlib.util.find_spec("matplotlib"):
            from matplotlib.figure import Figure

            figure = Figure(figsize=(4, 4))
            axes = figure.add_subplot()
            axes.plot(false / false[0], true / true[0])
            axes.set(xlabel="false positive rate", ylabel="true positive rate", xlim=(0, 1), ylim=(0, 1))
            self.board.add_figure(f"roc/{tag}", figure, epoch, close=False)

    def _histogram(
        self, tag: str, epoch: int, edges: Float[np.ndarray, " edges"], counts: Float[np.ndarray, " bins"]
    ) -> None:
        centers = (edges[1:] + edges[:-1]) / 2
        self.board.add_histogram_raw(
            tag,
            min=0.0,
            max=1.0,
            num=int(counts.sum()),
            sum=float((counts * centers).sum()),
            sum_squares=float((counts * centers**2).sum()),
            bucket_limits=edges[1:].tolist(),
            bucket_counts=counts.tolist(),
            global_step=epoch,
        )

    def picture(self, tag: str, epoch: int, rgb: Float[np.ndarray, "h w 3"]) -> None:
        """A picture with values in [0, 1]."""
        if self.board is not None:
            self.board.add_image(tag, rgb, epoch, dataformats="HWC")

    def final(self, settings: Record, metrics: dict[str, float]) -> None:
        """The configuration with the metrics of the best epoch, for tables that compare runs."""
        self._line({"final": metrics})
        if self.board is not None:
            plain = {k: v if isinstance(v, (bool, int, float, str)) else str(v) for k, v in settings.items()}
            self.board.add_hparams(plain, {f"best/{k}": v for k, v in metrics.items()}, run_name=".")

    def _line(self, record: Record) -> None:
        if self._path is not None:
            with self._path.open("a") as file:
                file.write(json.dumps(_without_nan(record)) + "\n")


def describe(record: Record) -> str:
    """One line for people."""
    numbers = [f"{k} {v:.4g}" for k, v in record.items() if isinstance(v, float) and k != "seconds"]
    best = "  (best)" if record["best"] else ""
    return f"epoch {record['epoch']}, {record['seconds']:.0f} s: " + ", ".join(numbers) + best


def _without_nan(value: Any) -> Any:
    """JSON has no NaN; a metric without data is null."""
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, dict):
        return {name: _without_nan(part) for name, part in value.items()}
    return value

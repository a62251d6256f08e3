"""The training loop: one function, ``fit``, that trains any task and that a person can read.

A task brings the loss and the metrics, ``Batches`` the data as a pure function of epoch and index. Because batches and
the learning rate depend on nothing else, a run that was interrupted and resumed ends with the same weights as one
that was not, and two processes that share the micro-batches learn what one process learns by accumulating them.

Must not know CT, files of data, or any particular network.
"""

import copy
import math
import time
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from tqdm import tqdm

from carina.errors import TrainingError, UsageError
from carina.learn.batches import Batches, Timed, made_ahead, move
from carina.learn.checkpoint import read_checkpoint, to_cpu, write_checkpoint
from carina.learn.log import Record, RunLog
from carina.learn.optimise import (
    autocast,
    average,
    channels_last,
    make_optimizer,
    resolved_precision,
    trained,
    training_mode,
)
from carina.learn.processes import Processes, join_processes
from carina.learn.schedule import learning_rate_factor
from carina.learn.settings import MAY_CHANGE, FitResult, FitSettings
from carina.learn.task import Pass, Task

B = TypeVar("B")

CHECKPOINT = "checkpoint.pt"
"""Name of the file in the run's folder that holds everything needed to go on."""


def fit(
    task: Task[B],
    model: nn.Module,
    train: Batches[B],
    val: Batches[B] | None = None,
    *,
    settings: FitSettings,
    run_dir: Path | None = None,
    resume: bool = False,
    config: Mapping[str, Any] | None = None,
    progress: bool = False,
) -> FitResult:
    """Train a model in place; afterwards it holds the best weights, on the training device, in evaluation mode.

    Among several processes all end with the weights and running statistics of the first.

    Only parameters that require gradients are trained. A part of the model of which no parameter does is kept in
    evaluation mode, so that its batch-norm statistics stay as they are.

    Args:
        task: loss, metrics and monitor.
        model: its initial weights are the start.
        train: micro-batches that are learned from; the last ones of an epoch that do not fill a step are left out.
        val: micro-batches of epoch 0 that are measured; without them the training metrics choose the best epoch.
        settings: see ``FitSettings``.
        run_dir: where checkpoint, JSONL log and TensorBoard files go. None: nothing is written.
        resume: go on from the checkpoint in ``run_dir`` if there is one.
        config: what else describes the run, stored in log and checkpoint (JSON values only).
        progress: show a bar per epoch.

    Raises:
        TrainingError: a loss or gradient that is not finite; the message names the batch.
        UsageError: settings that cannot work, or a checkpoint of another run.
    """
    with join_processes(settings.device) as processes:
        run = _Run(task, model, settings, processes, run_dir, dict(config or {}))
        per_step = max(settings.accumulate, processes.count)
        if per_step % processes.count:
            raise UsageError(f"accumulate={per_step} cannot be shared by {processes.count} processes")
        steps_per_epoch = train.count // per_step
        if steps_per_epoch < 1:
            raise UsageError(f"{train.count} micro-batches an epoch do not fill one step of {per_step}")
        if resume:
            run.restore()
        elif run_dir is not None and (run_dir / CHECKPOINT).exists():
            raise UsageError(f"{run_dir} holds a run already; resume it or choose another folder")
        with RunLog(run_dir if processes.rank == 0 else None, run.described(), run.result.history) as log:
            while not run.finished():
                epoch = run.result.epochs
                measured, pace = run.train_epoch(train, steps_per_epoch, per_step, progress)
                metrics = {f"train_{name}": value for name, value in measured.compute().items()}
                watched, prefix = measured, "train_"
                validate = (epoch + 1) % settings.validate_every == 0 or run.finished()
                if val is not None and validate:
                    watched, prefix = run.validate(val), "val_"
                    metrics |= {f"val_{name}": value for name, value in watched.compute().items()}
                better = (val is None or validate) and run.judge(epoch, metrics, prefix + task.monitor)
                record: Record = {"epoch": epoch, "step": run.result.steps, "lr": run.lr(), **metrics}
                record |= {**pace, "seconds": round(run.elapsed_s(), 3), "best": better}
                run.result.history.append(record)
                run.save()
                log.epoch(record)
                if prefix == "val_" or val is None:
                    watched.metrics.draw(log, prefix.rstrip("_"), epoch)
            log.final(run.described(), run.result.metrics)
        return run.close()


class _Run:
    """The state of one training: what a checkpoint holds."""

    def __init__(
        self,
        task: Task[Any],
        model: nn.Module,
        settings: FitSettings,
        processes: Processes,
        run_dir: Path | None,
        config: dict[str, Any],
    ) -> None:
        self.task, self.settings, self.processes, self.run_dir = task, settings, processes, run_dir
        self.config = config
        self.judged = {"monitor": task.monitor, "higher_is_better": task.higher_is_better}
        self.result = FitResult()
        self.device = processes.device
        torch.manual_seed(settings.seed)
        self.model = model.to(self.device)
        if settings.channels_last:
            channels_last(self.model)
        self.averaged = None if settings.ema is None else copy.deepcopy(self.model).requires_grad_(False)
        self.best_weights = to_cpu(self.model.state_dict())
        self.optimizer = make_optimizer(self.model, settings)
        self.precision = resolved_precision(self.device, settings.precision)
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=self.precision == "fp16")
        self.wrapped: nn.Module = self.model
        if processes.count > 1:
            self.wrapped = DistributedDataParallel(self.model)
        self.stop = False
        self._since = time.monotonic()

    def elapsed_s(self) -> float:
        return self.result.seconds + time.monotonic() - self._since

    def budget_used(self) -> float:
        """Fraction of the time budget, the same for all processes; 0 without one."""
        if self.settings.minutes is None:
            return 0.0
        return self.processes.largest(self.elapsed_s()) / (60 * self.settings.minutes)

    def described(self) -> dict[str, Any]:
        return {**asdict(self.settings), "precision": self.precision, **self.judged, **self.config}

    def lr(self) -> float:
        return float(self.optimizer.param_groups[0]["lr"])

    def finished(self) -> bool:
        return self.stop or self.result.epochs >= self.settings.epochs

    def train_epoch(
        self, train: Batches[Any], steps: int, per_step: int, progress: bool
    ) -> tuple[Pass, dict[str, float]]:
        """One pass over the data; what was measured, and how fast it went."""
        epoch, settings, processes = self.result.epochs, self.settings, self.processes
        # torch takes no seed of more than 64 bits.
        torch.manual_seed(((settings.seed * 1_000_003 + epoch) * 1_009 + processes.rank) % 2**63)
        training_mode(self.model)
        measured = Pass(self.task, processes)
        mine = per_step // processes.count
        indices = [step * per_step + k * processes.count + processes.rank for step in range(steps) for k in range(mine)]
        batches = Timed(made_ahead(train, epoch, indices, settings.prefetch))
        bar = tqdm(range(steps), desc=f"epoch {epoch}", leave=False, disable=not progress or processes.rank > 0)
        for step in bar:
            done = (epoch * steps + step) / (settings.epochs * steps)
            done = max(done, self.budget_used())
            if done >= 1.0 and step > 0:
                break
            factor = learning_rate_factor(settings.schedule, settings.warmup, done)
            for group in self.optimizer.param_groups:
                group["lr"] = settings.lr * factor
            for k in range(mine):
                index, batch = next(batches)
                last = k == mine - 1
                with nullcontext() if last else self._unshared():
                    self._backward(batch, index, mine, measured)
            self._step(index)
            bar.set_postfix(loss=f"{measured.mean_loss():.4f}", refresh=False)
        self.result.epochs += 1
        self.stop = self.budget_used() >= 1.0
        return measured, batches.pace()

    def _unshared(self) -> AbstractContextManager[None]:
        """Gradients of micro-batches before the last one of a step need not travel between processes."""
        return self.wrapped.no_sync() if isinstance(self.wrapped, DistributedDataParallel) else nullcontext()

    def _backward(self, batch: Any, index: int, mine: int, measured: Pass) -> None:
        batch = move(batch, self.device)
        with autocast(self.device, self.precision):
            loss, outputs = self.task.loss(self.wrapped, batch)
        value = self._finite(loss, "loss", batch, index)
        self.scaler.scale(loss / mine).backward()
        measured.add(value, outputs)

    def _step(self, index: int) -> None:
        self.scaler.unscale_(self.optimizer)
        longest = math.inf if self.settings.clip_norm is None else self.settings.clip_norm
        norm = nn.utils.clip_grad_norm_(trained(self.model), longest)
        # A scaler leaves such a step out and goes on with a smaller scale.
        if not self.scaler.is_enabled() and not bool(norm.isfinite()):
            raise TrainingError(self._blame(f"the gradient has length {float(norm)}", None, index))
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.optimizer.zero_grad(set_to_none=True)
        self.result.steps += 1
        if self.averaged is not None and self.settings.ema is not None:
            # Early on the average is short, so that it forgets the initial weights.
            decay = min(self.settings.ema, (1 + self.result.steps) / (10 + self.result.steps))
            average(self.averaged, self.model, decay)

    def _finite(self, loss: Tensor, name: str, batch: Any, index: int) -> float:
        value = float(loss.detach())
        if not math.isfinite(value):
            raise TrainingError(self._blame(f"the {name} is {value}", batch, index))
        return value

    def _blame(self, what: str, batch: Any, index: int) -> str:
        series = getattr(batch, "series_uids", ())
        named = f" (series {', '.join(dict.fromkeys(series))})" if series else ""
        return (
            f"{what} in epoch {len(self.result.history)}, batch {index}{named}: training diverged or the batch holds "
            f"values that are not finite; look at the batch, or lower the learning rate (now {self.lr():.3g})"
        )

    @torch.no_grad()
    def validate(self, val: Batches[Any]) -> Pass:
        model = (self.averaged if self.averaged is not None else self.model).eval()
        measured = Pass(self.task, self.processes)
        indices = list(range(self.processes.rank, val.count, self.processes.count))
        for index, batch in made_ahead(val, 0, indices, self.settings.prefetch):
            with autocast(self.device, self.precision):
                loss, outputs = self.task.loss(model, move(batch, self.device))
            measured.add(self._finite(loss, "validation loss", batch, index), outputs)
        return measured

    def judge(self, epoch: int, metrics: dict[str, float], monitor: str) -> bool:
        if monitor not in metrics:
            raise UsageError(f"the monitor {monitor!r} is none of the metrics {', '.join(sorted(metrics))}")
        value, result = metrics[monitor], self.result
        sign = 1 if self.task.higher_is_better else -1
        # Where nothing can be measured yet, the last weights stand in until there is something.
        better = not math.isfinite(result.best) or (math.isfinite(value) and sign * value > sign * result.best)
        if better:
            result.best_epoch, result.best, result.metrics = epoch, value, dict(metrics)
            self.best_weights = to_cpu((self.averaged if self.averaged is not None else self.model).state_dict())
        elif self.settings.patience is not None and epoch - result.best_epoch >= self.settings.patience:
            self.stop = True
        return better

    def save(self) -> None:
        if self.run_dir is None or self.processes.rank > 0:
            return
        state = {
            "settings": asdict(self.settings),
            "judged": self.judged,
            "config": self.config,
            "result": {**asdict(self.result), "seconds": self.elapsed_s()},
            "stop": self.stop,
            "model": self.model.state_dict(),
            "averaged": None if self.averaged is None else self.averaged.state_dict(),
            "best_weights": self.best_weights,
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict(),
        }
        write_checkpoint(self.run_dir / CHECKPOINT, state)

    def restore(self) -> None:
        if self.run_dir is None or not (self.run_dir / CHECKPOINT).exists():
            return
        state = read_checkpoint(self.run_dir / CHECKPOINT)
        now = {**asdict(self.settings), **self.judged, **self.config}
        # What an older checkpoint does not hold cannot be compared, and does not keep it from going on.
        before = {**state["settings"], **state.get("judged", {}), **state["config"]}
        changed = [f"{k} {v} -> {now.get(k)}" for k, v in before.items() if k not in MAY_CHANGE and now.get(k) != v]
        if changed:
            raise UsageError(f"{self.run_dir} was begun with other settings: {', '.join(changed)}")
        self.model.load_state_dict(state["model"])
        if self.averaged is not None:
            self.averaged.load_state_dict(state["averaged"])
        self.best_weights = state["best_weights"]
        self.optimizer.load_state_dict(state["optimizer"])
        self.scaler.load_state_dict(state["scaler"])
        self.result = FitResult(**state["result"])
        self.stop = bool(state["stop"]) and not self._extended(state["settings"])
        self._since = time.monotonic()

    def _extended(self, before: Mapping[str, Any]) -> bool:
        minutes, patience = self.settings.minutes, self.settings.patience
        return minutes != before.get("minutes") or patience != before.get("patience")

    def close(self) -> FitResult:
        self.model.load_state_dict(self.best_weights)
        # Each process has seen other batches, so that their running statistics differ.
        self.processes.as_the_first(self.model.state_dict().values())
        self.model.eval()
        self.result.seconds = self.elapsed_s()
        return self.result

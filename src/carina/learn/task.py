"""What the training loop asks of a problem. Must not know any particular one."""

from typing import Any, Protocol, TypeVar, runtime_checkable

import torch
from torch import Tensor, nn

from carina.learn.log import RunLog
from carina.learn.processes import Processes

B_contra = TypeVar("B_contra", contravariant=True)


@runtime_checkable
class Metrics(Protocol):
    """What accumulates over the batches of one pass.

    Attributes:
        state: everything counted so far in one tensor; the states of two parts of the data add up.
    """

    state: Tensor

    def update(self, outputs: Any) -> None:
        """Add what the task's ``loss`` returned for one batch."""

    def compute(self) -> dict[str, float]:
        """The metrics by name."""

    def draw(self, log: RunLog, tag: str, epoch: int) -> None:
        """Write curves, histograms and pictures to the log, if there are any."""


@runtime_checkable
class Task(Protocol[B_contra]):
    """A loss and metrics with a monitor: all that the loop knows of a problem."""

    @property
    def monitor(self) -> str:
        """The metric (of the validation data; of the training data without any) that chooses the best epoch."""

    @property
    def higher_is_better(self) -> bool:
        """Whether a larger value of the monitor is better."""

    def loss(self, model: nn.Module, batch: B_contra) -> tuple[Tensor, Any]:
        """The mean loss of a batch, and whatever ``Metrics.update`` takes, without gradients."""

    def metrics(self) -> Metrics:
        """Fresh accumulators for one pass."""


class Pass:
    """Mean loss and metrics of one pass, added up over all processes."""

    def __init__(self, task: Task[Any], processes: Processes) -> None:
        self.metrics = task.metrics()
        self._processes = processes
        self._loss = torch.zeros(2, dtype=torch.float64)
        self._done: dict[str, float] | None = None

    def add(self, loss: float, outputs: Any) -> None:
        """Count a micro-batch."""
        self._loss += torch.tensor([loss, 1.0], dtype=torch.float64)
        self.metrics.update(outputs)

    def mean_loss(self) -> float:
        """Over the micro-batches of this process so far."""
        return float(self._loss[0] / self._loss[1])

    def compute(self) -> dict[str, float]:
        """Loss and metrics over all processes; to be called by all of them, after the last batch."""
        if self._done is None:
            total = self._processes.add_up(self._loss)
            self.metrics.state = self._processes.add_up(self.metrics.state)
            self._done = {"loss": float(total[0] / total[1]), **self.metrics.compute()}
        return self._done

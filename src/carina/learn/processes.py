"""Training by several processes, started by ``torchrun``: who am I, and how do we add up.

Must not know models or data. One process is the ordinary case and costs nothing.
"""

import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

T = TypeVar("T")


@dataclass(frozen=True)
class Processes:
    """This process among those that train together.

    Attributes:
        rank: its number, from 0.
        count: how many there are.
        device: where it computes.
    """

    rank: int
    count: int
    device: torch.device

    def add_up(self, tensor: Tensor) -> Tensor:
        """The sum of everybody's tensor."""
        return self._together(tensor, dist.ReduceOp.SUM)

    def largest(self, value: float) -> float:
        """The largest of everybody's values, so that all take the same decision."""
        return float(self._together(torch.tensor(value, dtype=torch.float64), dist.ReduceOp.MAX))

    def as_the_first(self, tensors: Iterable[Tensor]) -> None:
        """Give everybody the values that the first process has, in place."""
        if self.count == 1:
            return
        for tensor in tensors:
            shared = tensor.detach().contiguous()
            dist.broadcast(shared, 0)
            tensor.detach().copy_(shared)

    def first_then_all(self, work: Callable[..., T]) -> T:
        """Let the first process do something, then the others, which find it done.

        Args:
            work: told by the keyword ``first`` whether this is the first process. May take long: preparing hundreds
                of scans, say.
        """
        if self.rank == 0:
            result = work(first=True)
        if self.count > 1:
            # A group of its own, since the usual one gives up after half an hour.
            patient = dist.new_group(backend="gloo", timeout=timedelta(days=7))
            dist.barrier(patient)
        return result if self.rank == 0 else work(first=False)

    def _together(self, tensor: Tensor, operation: dist.ReduceOp.RedOpType) -> Tensor:
        if self.count == 1:
            return tensor
        shared = tensor.to(self.device, copy=True)
        dist.all_reduce(shared, operation)
        return shared.to(tensor.device)


def first_process() -> bool:
    """Whether this is the first of the processes that ``torchrun`` started, or the only one: who writes results."""
    return int(os.environ.get("RANK", "0")) == 0


@contextmanager
def join_processes(device: str) -> Iterator[Processes]:
    """Join the others that ``torchrun`` started (it says so in the environment); alone, do nothing.

    Args:
        device: "cpu", "cuda", ...; among several processes "cuda" becomes the card of this one.
    """
    count = int(os.environ.get("WORLD_SIZE", "1"))
    if count == 1:
        yield Processes(0, 1, torch.device(device))
        return
    here = torch.device(device)
    if here.type == "cuda":
        here = torch.device("cuda", int(os.environ["LOCAL_RANK"]))
        torch.cuda.set_device(here)
    mine = not dist.is_initialized()
    if mine:
        dist.init_process_group("nccl" if here.type == "cuda" else "gloo")
    try:
        yield Processes(dist.get_rank(), dist.get_world_size(), here)
    finally:
        if mine:
            dist.destroy_process_group()

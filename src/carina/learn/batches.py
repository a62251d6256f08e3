"""Data on the way into the loop: batches as a pure function, made ahead in threads, moved to a device.

Must not know what is in them.
"""

import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import torch

B = TypeVar("B")


@dataclass(frozen=True)
class Batches(Generic[B]):
    """Data as a pure function, so that any batch of any epoch can be made again.

    Attributes:
        count: micro-batches in one epoch.
        make: (epoch, index) to a batch: tensors, a tuple or dict of them, or an object with ``to(device)``. All batches
            of one accumulated step should hold the same number of samples. It may run in a thread.
    """

    count: int
    make: Callable[[int, int], B]


def generator_of(seed: int, epoch: int, index: int) -> torch.Generator:
    """The randomness of one batch, the same whenever it is made."""
    # torch takes no seed of more than 64 bits.
    return torch.Generator().manual_seed(((seed * 1_000_003 + epoch) * 100_003 + index) % 2**63)


def move(batch: Any, device: torch.device) -> Any:
    """A batch on a device: a tensor, a tuple, list or dict of them, or an object with ``to(device)``."""
    if isinstance(batch, (tuple, list)):
        return type(batch)(move(part, device) for part in batch)
    if isinstance(batch, dict):
        return {name: move(part, device) for name, part in batch.items()}
    return batch.to(device) if hasattr(batch, "to") else batch


def samples(batch: Any) -> int:
    """How many samples a batch holds: the length of its first tensor, or what the batch itself says."""
    if isinstance(batch, (tuple, list)):
        return samples(batch[0])
    if isinstance(batch, dict):
        return samples(next(iter(batch.values())))
    return len(batch) if hasattr(batch, "__len__") else 1


class Timed(Generic[B]):
    """Passes batches on and keeps the time: how many samples come per second, and how long the trainer waits for them.

    Args:
        batches: each with its index.
    """

    def __init__(self, batches: Iterator[tuple[int, B]]) -> None:
        self._batches = batches
        self._samples, self._waited, self._since = 0, 0.0, time.perf_counter()

    def __next__(self) -> tuple[int, B]:
        asked = time.perf_counter()
        index, batch = next(self._batches)
        self._waited += time.perf_counter() - asked
        self._samples += samples(batch)
        return index, batch

    def pace(self) -> dict[str, float]:
        """``throughput``: samples per second of this process; ``idle``: share of the time spent waiting for batches."""
        passed = max(time.perf_counter() - self._since, 1e-9)
        return {"throughput": round(self._samples / passed, 3), "idle": round(self._waited / passed, 4)}


def made_ahead(batches: Batches[B], epoch: int, indices: Sequence[int], ahead: int) -> Iterator[tuple[int, B]]:
    """The batches of ``indices`` in order, each with its index, ``ahead`` of them in the making."""
    if ahead == 0:
        yield from ((index, batches.make(epoch, index)) for index in indices)
        return
    pool = ThreadPoolExecutor(ahead, thread_name_prefix="carina-batches")
    try:
        waiting = deque(pool.submit(batches.make, epoch, index) for index in indices[:ahead])
        for position, index in enumerate(indices):
            batch = waiting.popleft().result()
            if position + ahead < len(indices):
                waiting.append(pool.submit(batches.make, epoch, indices[position + ahead]))
            yield index, batch
    finally:
        pool.shutdown(wait=True, cancel_futures=True)

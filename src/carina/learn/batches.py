"""Data on the way into the loop: batches as a pure function, made ahead in threads, moved to a device.

Must not know what is in them.
"""

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


def move(batch: Any, device: torch.device) -> Any:
    """A batch on a device: a tensor, a tuple, list or dict of them, or an object with ``to(device)``."""
    if isinstance(batch, (tuple, list)):
        return type(batch)(move(part, device) for part in batch)
    if isinstance(batch, dict):
        return {name: move(part, device) for name, part in batch.items()}
    return batch.to(device) if hasattr(batch, "to") else batch


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

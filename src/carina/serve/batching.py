"""Crops of many requests classified together: one queue, one thread that computes.

While a batch is computed the next one gathers, so that waiting costs only where the machine is idle. Must not know HTTP
or what the network is.
"""

import asyncio
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float32, Float64

from carina.serve import metrics
from carina.serve.problems import ProblemError

Predict = Callable[[Float32[np.ndarray, "crops z y x"]], Float64[np.ndarray, " crops"]]


@dataclass(eq=False)
class _Waiting:
    crop: Float32[np.ndarray, "z y x"]
    answer: asyncio.Future[float]
    since: float


class Batcher:
    """Gathers crops across connections.

    Args:
        predict: one number per crop; called from one thread, one call at a time.
        size: most crops of a batch.
        wait_s: how long a batch waits for more crops.
        queue: crops that may wait.
        deadline_s: how long a request may take before it is given up.
    """

    def __init__(self, predict: Predict, *, size: int, wait_s: float, queue: int, deadline_s: float) -> None:
        self._predict = predict
        self._size = size
        self._wait_s = wait_s
        self._queue = queue
        self._deadline_s = deadline_s
        self._waiting: deque[_Waiting] = deque()
        self._arrived = asyncio.Event()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="classify")
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin; inside a running event loop."""
        self._task = asyncio.get_running_loop().create_task(self._run())

    async def stop(self) -> None:
        """Answer what waits, then end."""
        while self._waiting:
            await asyncio.sleep(0.01)
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        self._thread.shutdown()

    async def classify(self, crops: Sequence[Float32[np.ndarray, "z y x"]]) -> list[float]:
        """One number per crop. If the caller is cancelled, its crops leave the queue.

        Raises:
            ProblemError: the queue is full, or the answer did not come in time.
        """
        if len(self._waiting) + len(crops) > self._queue:
            raise ProblemError(
                "busy", f"{len(self._waiting)} crops wait, at most {self._queue} may; try again later", retry_after_s=1
            )
        loop = asyncio.get_running_loop()
        mine = [_Waiting(crop, loop.create_future(), time.perf_counter()) for crop in crops]
        self._waiting.extend(mine)
        metrics.QUEUE.set(len(self._waiting))
        self._arrived.set()
        together = asyncio.gather(*(one.answer for one in mine))
        try:
            return await asyncio.wait_for(together, self._deadline_s)
        except TimeoutError:
            raise ProblemError("deadline", f"no answer within {self._deadline_s:g} s", retry_after_s=1) from None
        finally:
            if any(one.answer.cancelled() for one in mine):
                self._waiting = deque(one for one in self._waiting if not one.answer.cancelled())
                metrics.QUEUE.set(len(self._waiting))

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            batch = await self._gather()
            begin = time.perf_counter()
            try:
                answers = await loop.run_in_executor(self._thread, self._predict, np.stack([one.crop for one in batch]))
            except Exception as error:
                for one in batch:
                    if not one.answer.done():
                        one.answer.set_exception(error)
                continue
            metrics.BATCH_SIZE.observe(len(batch))
            metrics.COMPUTE_SECONDS.observe(time.perf_counter() - begin)
            for one, answer in zip(batch, answers, strict=True):
                metrics.WAIT_SECONDS.observe(begin - one.since)
                if not one.answer.done():
                    one.answer.set_result(float(answer))

    async def _gather(self) -> list[_Waiting]:
        """The next batch: full, or the oldest crop has waited long enough."""
        while True:
            if not self._waiting:
                self._arrived.clear()
                await self._arrived.wait()
            while len(self._waiting) < self._size:
                left = self._waiting[0].since + self._wait_s - time.perf_counter() if self._waiting else 0.0
                if left <= 0:
                    break
                self._arrived.clear()
                try:
                    await asyncio.wait_for(self._arrived.wait(), left)
                except TimeoutError:
                    break
            batch = [self._waiting.popleft() for _ in range(min(self._size, len(self._waiting)))]
            metrics.QUEUE.set(len(self._waiting))
            if batch := [one for one in batch if not one.answer.done()]:
                return batch

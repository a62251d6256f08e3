"""What all handlers of one server process share: settings, the job list behind a thread, the classifier, counters.

Must not know routes.
"""

import asyncio
import logging
import threading
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, TypeVar

import numpy as np

from carina.serve import metrics
from carina.serve.batching import Batcher
from carina.serve.crops import CropClassifier
from carina.serve.folder import StateFolder
from carina.serve.jobs import JobStore
from carina.serve.problems import ProblemError
from carina.serve.settings import Settings

log = logging.getLogger("carina.serve")

T = TypeVar("T")

_STALE_S = 15.0
"""A detector that was not heard of for longer is not ready."""


class Service:
    """One server process.

    Attributes:
        settings: the server's.
        folder: its files.
        closing: set when the server stops, so that event streams end.
    """

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.folder = StateFolder(settings.folder)
        self.closing = asyncio.Event()
        self._database = ThreadPoolExecutor(1, thread_name_prefix="database")
        self._local = threading.local()
        self._classifier: CropClassifier | None = None
        self._batcher: Batcher | None = None
        self._warming: asyncio.Task[None] | None = None
        self._counts = {"uploads": 0, "crops": 0, "streams": 0}

    async def start(self) -> None:
        """Open the job list, and load the classifier without keeping anybody waiting."""
        await self.jobs(lambda store: store.counts())
        if self.settings.report is None:
            self._warming = asyncio.get_running_loop().create_task(self._warm())

    async def stop(self) -> None:
        """Finish what is being computed."""
        self.closing.set()
        if self._warming is not None:
            self._warming.cancel()
        if self._batcher is not None:
            await self._batcher.stop()
        self._database.shutdown()

    async def jobs(self, ask: Callable[[JobStore], T]) -> T:
        """Ask the job list, off the event loop."""

        def run() -> T:
            if not hasattr(self._local, "store"):
                self._local.store = JobStore(self.folder.database)
            return ask(self._local.store)

        return await asyncio.get_running_loop().run_in_executor(self._database, run)

    def classifier(self) -> tuple[CropClassifier, Batcher]:
        """The classifier and its queue.

        Raises:
            ProblemError: it is not loaded yet, or never will be.
        """
        if self.settings.report is not None:
            raise ProblemError("not-found", "this server shows one finished report; it has no models")
        if self._classifier is None or self._batcher is None:
            raise ProblemError("not-ready", "the models are being loaded; try again soon", retry_after_s=2)
        return self._classifier, self._batcher

    async def readiness(self) -> dict[str, str]:
        """State of each part; ``ready`` where it can work."""
        if self.settings.report is not None:
            return {"report": "ready"}
        detector, age_s = await self.jobs(lambda store: store.detector())
        return {
            "detector": detector if age_s < _STALE_S else "down",
            "classifier": "warming" if self._classifier is None else "ready",
        }

    @contextmanager
    def slot(self, name: str, most: int, count: int = 1) -> Iterator[None]:
        """Some of ``most`` places for ``uploads``, ``crops`` that are received, or ``streams``.

        Raises:
            ProblemError: too few are left.
        """
        if self._counts[name] + count > most:
            raise ProblemError(
                "busy", f"{most} {name} at the same time are all that this server takes", retry_after_s=2
            )
        self._counts[name] += count
        metrics.UPLOADS.set(self._counts["uploads"])
        try:
            yield
        finally:
            self._counts[name] -= count
            metrics.UPLOADS.set(self._counts["uploads"])

    async def _warm(self) -> None:
        try:
            classifier = await asyncio.to_thread(_load, self.settings)
        except Exception as error:
            log.error("the classifier cannot be loaded: %s", error)
            return
        limits = self.settings.limits
        self._batcher = Batcher(
            classifier.predict,
            size=self.settings.batch_size,
            wait_s=self.settings.batch_wait_s,
            queue=limits.queued_crops,
            deadline_s=limits.deadline_s,
        )
        self._batcher.start()
        self._classifier = classifier
        log.info("the classifier is warm")


def _load(settings: Settings) -> CropClassifier:
    from carina.pipeline import Detector

    classifier = CropClassifier(Detector.load(settings.weights, device=settings.device, runtime=settings.runtime))
    for size in range(1, settings.batch_size + 1):
        classifier.predict(np.zeros((size, *classifier.shape_zyx), np.float32))
    return classifier


async def in_thread(work: Callable[[], T]) -> T:
    """Run something that blocks. If the caller is cancelled the work is waited for, so that nothing runs behind."""
    future = asyncio.get_running_loop().run_in_executor(None, work)
    try:
        return await asyncio.shield(future)
    except asyncio.CancelledError:
        await asyncio.wait([future])
        raise


async def within(seconds: float, what: Awaitable[T]) -> T:
    """Wait for a client, but not for ever.

    Raises:
        ProblemError: it took longer.
    """
    try:
        return await asyncio.wait_for(what, seconds)
    except TimeoutError:
        raise ProblemError("timeout", f"nothing came for {seconds:g} s") from None


Json = dict[str, Any]

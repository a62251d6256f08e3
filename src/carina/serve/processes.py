"""Several processes that answer requests on one socket; one that ends is replaced. Must not know what they answer.

Sanic's own manager is not used: where a process does not come up in time it kills the whole process group, and with it
whatever script started the server.
"""

import logging
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable
from multiprocessing.connection import wait
from multiprocessing.process import BaseProcess

from prometheus_client.multiprocess import mark_process_dead

from carina.parent import end_with_parent

log = logging.getLogger("carina.serve")

_TICK_S = 0.5
_SHORT_LIFE_S = 10.0
"""A process that ended sooner is replaced only after so long, so that a lasting fault does not spin."""


def keep_running(work: Callable[[], None], count: int, *, patience_s: float) -> None:
    """Run ``work`` in so many processes until SIGINT or SIGTERM, which is passed on as SIGTERM.

    Args:
        work: what each process does; it ends on SIGTERM.
        count: processes.
        patience_s: how long they may take to end before they are killed.
    """
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    running = [_start(work) for _ in range(count)]
    while not stop.is_set():
        wait([process.sentinel for process, _ in running], _TICK_S)
        for place, (process, since) in enumerate(running):
            if not process.is_alive() and not stop.is_set():
                log.error("a process that answers requests ended with code %s; another follows", process.exitcode)
                _forget(process)
                stop.wait(_SHORT_LIFE_S - min(time.monotonic() - since, _SHORT_LIFE_S))
                running[place] = _start(work)
    for process, _ in running:
        process.terminate()
    end = time.monotonic() + patience_s
    for process, _ in running:
        process.join(max(0.0, end - time.monotonic()))
        process.kill()
        process.join()


def _start(work: Callable[[], None]) -> tuple[BaseProcess, float]:
    process = multiprocessing.get_context("spawn").Process(target=_run, args=(work,), name="carina-answers")
    process.start()
    return process, time.monotonic()


def _run(work: Callable[[], None]) -> None:
    os.setpgid(0, 0)  # a terminal's Ctrl-C is for the main process, which tells this one
    end_with_parent()
    work()


def _forget(process: BaseProcess) -> None:
    """Take what the process was doing out of the metrics that count the living."""
    if "PROMETHEUS_MULTIPROC_DIR" in os.environ and process.pid is not None:
        mark_process_dead(process.pid)  # type: ignore[no-untyped-call]

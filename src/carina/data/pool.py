"""Processes that work on one scan each.

Must not know what they do.
"""

import multiprocessing
import os
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager

from carina.parent import end_with_parent

_LIMITS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS")


@contextmanager
def scan_pool(jobs: int) -> Iterator[ProcessPoolExecutor]:
    """Fresh processes with one thread each, which end with this one however it ends.

    Several processes with several threads each wait for each other: on two cores, two with two threads each made
    phantoms three times slower than two with one. Forking a process that has threads (a progress bar's, a numerical
    library's) may hang, so they are spawned. Libraries read how many threads they may have when they are loaded; the
    environment says so while processes are started.

    Args:
        jobs: how many.
    """
    before = {name: os.environ.get(name) for name in _LIMITS}
    os.environ.update(dict.fromkeys(_LIMITS, "1"))
    try:
        context = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(jobs, mp_context=context, initializer=end_with_parent) as pool:
            yield pool
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value

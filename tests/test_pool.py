"""Processes for scans: one thread each, and the parent's environment as it was."""

import os
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

from carina.data.pool import scan_pool

NAMES = ("OMP_NUM_THREADS", "ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS")


def test_processes_have_one_thread_each_and_the_parent_keeps_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(NAMES[0], "7")
    monkeypatch.delenv(NAMES[1], raising=False)
    with scan_pool(2) as pool:
        assert list(pool.map(os.getenv, NAMES)) == ["1", "1"]
    assert (os.getenv(NAMES[0]), os.getenv(NAMES[1])) == ("7", None)


def test_processes_end_with_a_parent_that_is_killed() -> None:
    program = """
        import os, time
        from carina.data.pool import scan_pool
        if __name__ == "__main__":
            with scan_pool(1) as pool:
                print(pool.submit(os.getpid).result(), flush=True)
                time.sleep(60)
    """
    with subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(program)], stdout=subprocess.PIPE, text=True
    ) as parent:
        assert parent.stdout is not None
        child = int(parent.stdout.readline())
        parent.kill()
    alive, until = Path(f"/proc/{child}"), time.monotonic() + 20
    while alive.exists() and time.monotonic() < until:
        time.sleep(0.1)
    assert not alive.exists()

"""Free ports, and waiting for what other processes do."""

import signal
import socket
import time
from collections.abc import Callable
from typing import Any


def free_port() -> int:
    """A port of the loopback address that is free now."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


def heed_ctrl_c() -> None:
    """For ``preexec_fn``: what a shell starts in the background ignores SIGINT, and so does what that starts."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def until(happens: Callable[[], Any], seconds: float = 120.0) -> Any:
    """Wait for something to become true; what it became."""
    end = time.monotonic() + seconds
    while not (found := happens()):
        assert time.monotonic() < end, f"did not happen within {seconds:g} s"
        time.sleep(0.05)
    return found

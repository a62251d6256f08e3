"""What compiled decoders write to the process's standard error, caught and given to Python.

GDCM's JPEG decoder and ITK report damaged data there, some of it nowhere else. Must not know formats.
"""

import os
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager

_ONE_AT_A_TIME = threading.RLock()


@contextmanager
def caught_stderr() -> Iterator[list[str]]:
    """Catch what is written to file descriptor 2 meanwhile instead of showing it.

    The descriptor belongs to the whole process, so lines of other threads can be among those caught: look for
    words of the library in question, and keep the block short.

    Yields:
        A list that holds the lines once the block has ended, also when it ended with an exception.
    """
    lines: list[str] = []
    with _ONE_AT_A_TIME, tempfile.TemporaryFile() as file:
        if sys.stderr is not None:
            sys.stderr.flush()
        terminal = os.dup(2)
        os.dup2(file.fileno(), 2)
        try:
            yield lines
        finally:
            os.dup2(terminal, 2)
            os.close(terminal)
            file.seek(0)
            lines.extend(line.strip() for line in file.read().decode(errors="replace").splitlines())

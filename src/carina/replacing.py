"""Files that appear whole or not at all. Must not know what they hold."""

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def replacing(path: Path, *, durable: bool = False) -> Iterator[Path]:
    """Write a file under another name beside ``path``, which it replaces when the block ends.

    Where the block fails nothing is left of it, and what stood at ``path`` still does. Two writers do not meet: the
    last one to end wins.

    Args:
        path: the file to be; its folder exists.
        durable: return only when the file is on the disk, so that not even a power cut leaves half of it.

    Yields:
        The name to write to, of a file that does not exist yet.

    Raises:
        OSError: the folder cannot be written.
    """
    draft = path.with_name(f".{path.name}.{secrets.token_hex(4)}.part")
    try:
        yield draft
        if durable:
            _to_disk(draft, os.O_RDWR)
        draft.replace(path)
        if durable and os.name == "posix":  # elsewhere a folder cannot be opened
            _to_disk(path.parent, os.O_RDONLY)
    finally:
        draft.unlink(missing_ok=True)


def _to_disk(path: Path, mode: int) -> None:
    opened = os.open(path, mode)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)

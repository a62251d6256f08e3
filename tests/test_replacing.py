"""A file is there whole or as it was before, whatever happens to its writer."""

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from carina.replacing import replacing

KILLED_WHILE_WRITING = """
import os, sys
from pathlib import Path
from carina.replacing import replacing

with replacing(Path(sys.argv[1])) as draft, draft.open("wb", buffering=0) as file:
    file.write(b"half")
    os.kill(os.getpid(), 9)
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "file.txt"
    path.write_text("before")
    return path


@pytest.mark.parametrize("durable", [False, True])
def test_the_file_is_replaced_when_the_block_ends(path: Path, durable: bool) -> None:
    with replacing(path, durable=durable) as draft:
        draft.write_text("after")
        assert path.read_text() == "before"
    assert path.read_text() == "after"
    assert list(path.parent.iterdir()) == [path]


def test_a_block_that_fails_leaves_what_was_there_and_nothing_else(path: Path) -> None:
    def write_half(draft: Path) -> None:
        draft.write_text("half")
        raise ValueError("halfway")

    with pytest.raises(ValueError, match="halfway"), replacing(path) as draft:
        write_half(draft)
    assert path.read_text() == "before"
    assert list(path.parent.iterdir()) == [path]


def test_a_killed_writer_leaves_what_was_there(path: Path) -> None:
    ended = subprocess.run([sys.executable, "-c", KILLED_WHILE_WRITING, path], timeout=60)
    assert ended.returncode == -signal.SIGKILL
    assert path.read_text() == "before"


def test_of_two_writers_at_once_the_last_to_end_wins(path: Path) -> None:
    with replacing(path) as one:
        one.write_text("one")
        with replacing(path) as other:
            other.write_text("other")
        assert path.read_text() == "other"
    assert path.read_text() == "one"

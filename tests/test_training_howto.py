"""Every command of the pages on training and evaluation is one that exists, with options that exist."""

import re
import shlex
from pathlib import Path

import pytest

from carina.cli import parse
from carina.tasks.preset import load_preset

DOCS = Path(__file__).parents[1] / "docs"
PAGES = ("how-to/train.md", "how-to/evaluate.md", "how-to/luna16.md", "tutorials/train-from-nothing.md")


def blocks(page: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", (DOCS / page).read_text(), re.DOTALL | re.MULTILINE)


COMMANDS = [
    line.partition("carina ")[2]
    for page in PAGES
    for block in blocks(page, "bash")
    for line in block.splitlines()
    if re.match(r"(torchrun .*-m )?carina ", line)
]


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_of_the_pages_is_understood(command: str) -> None:
    parse(shlex.split(command))


def test_the_pages_show_commands() -> None:
    assert len(COMMANDS) > 30


def test_the_preset_of_the_page_is_one(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(blocks("how-to/train.md", "toml")[0])
    preset = load_preset(str(path)).nodule
    assert (preset.batch, preset.augment, preset.fit.schedule) == (32, None, "one-cycle")

"""The site that `make docs` has built: it loads nothing from elsewhere, search works, a failing block stops a build."""

import functools
import http.server
import json
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path

import pytest

from carina.cli import COMMANDS, parse
from chromium import chromium
from waiting import until

ROOT = Path(__file__).parents[1]
SITE = ROOT / "site"
sys.path.insert(0, str(ROOT / "docs" / "executed"))
built = pytest.mark.skipif(not (SITE / "index.html").exists(), reason="make docs has not built the site")

BUILD = """
import logging
import sys
from mkdocs.commands.build import build
from mkdocs.config import load_config
logging.basicConfig(level=logging.WARNING)
build(load_config(sys.argv[1], docs_dir=sys.argv[2], site_dir=sys.argv[3]))
"""


class Loads(HTMLParser):
    """Addresses that a browser fetches by itself when it shows a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        if tag in ("script", "img", "iframe", "source", "video"):
            self.found.append(given.get("src") or "")
        if tag == "link" and given.get("rel") not in ("canonical", "prev", "next"):
            self.found.append(given.get("href") or "")


@built
def test_no_page_loads_anything_from_elsewhere() -> None:
    pages = list(SITE.rglob("*.html"))
    assert len(pages) > 30
    away = {
        address for page in pages for address in Loads(page.read_text()).found if re.match(r"(https?:)?//", address)
    }
    styles = [style.read_text() for style in SITE.rglob("*.css")]
    away |= {
        address
        for style in styles
        for address in re.findall(r"(?:url\(|@import\s)[\"']?((?:https?:)?//[^\"')]+)", style)
    }
    assert away == set()


@built
def test_every_page_of_the_guide_shows_what_its_code_gave() -> None:
    pages = sorted((ROOT / "docs" / "guide").glob("*.md"))
    assert len(pages) == 13
    for page in pages:
        if page.stem == "index":
            continue
        text = page.read_text(encoding="utf-8")
        html = (SITE / "guide" / f"{page.stem}.html").read_text(encoding="utf-8")
        assert re.search(r"Rows? M\d+", text), page.name
        assert html.count('class="figure"') == text.count("print(svg(figure))"), page.name
        assert "Traceback" not in html, page.name


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=SITE)
    handler.log_message = lambda *_: None  # type: ignore[attr-defined]
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()


@built
def test_the_search_index_holds_the_pages() -> None:
    index = json.loads((SITE / "search" / "search_index.json").read_text(encoding="utf-8"))
    found = {entry["location"].split("#")[0] for entry in index["docs"] if "thermometer" in entry["text"].lower()}
    assert "guide/thermometer.html" in found


@built
def test_a_browser_asks_nobody_else(address: str, tmp_path: Path) -> None:
    with chromium(tmp_path / "profile") as page:
        page.open(f"{address}/guide/tensors.html")
        names = "performance.getEntriesByType('resource').map(entry => entry.name)"
        until(lambda: page.value("document.readyState") == "complete" and page.value(names), 120)
        assert [name for name in page.value(names) if not name.startswith((address, "data:", "blob:"))] == []


@pytest.mark.parametrize(("code", "succeeds"), [("print(6 * 7)", True), ("print(1 / 0)", False)])
def test_a_block_that_fails_stops_the_build(code: str, succeeds: bool, tmp_path: Path) -> None:
    pytest.importorskip("mkdocs", reason="pip install 'carina-ct[docs]'")
    (tmp_path / "docs" / "assets").mkdir(parents=True)
    (tmp_path / "docs" / "index.md").write_text(f'# A page\n\n```python exec="on" result="text"\n{code}\n```\n')
    command = [sys.executable, "-c", BUILD, str(ROOT / "mkdocs.yml"), str(tmp_path / "docs"), str(tmp_path / "site")]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False)
    assert (done.returncode == 0) is succeeds, done.stderr
    if succeeds:
        assert "42" in (tmp_path / "site" / "index.html").read_text()
    else:
        assert "ZeroDivisionError" in done.stderr


def options_of_help(words: list[str], capsys: pytest.CaptureFixture[str]) -> set[str]:
    with pytest.raises(SystemExit):
        parse([*words, "--help"])
    helped = re.sub(r"\x1b\[[0-9;]*m", "", capsys.readouterr().out)
    # Options stand at the left edge of their box; what is further right explains them.
    left = re.findall(r"^[^\w\n-]{1,4}(-\S.*?)(?:  |$)", helped, re.MULTILINE)
    return {option for row in left for option in re.findall(r"(?<![\w-])--[a-z][a-z0-9.-]*", row)} - {"--help"}


def test_the_reference_of_the_command_line_lists_what_the_program_takes(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("griffe", reason="pip install 'carina-ct[docs]'")
    from cli_reference import reference

    monkeypatch.setenv("COLUMNS", "100")  # wider, and boxes stand side by side
    sections = re.split(r"^#+ carina (.*)\n", reference(), flags=re.MULTILINE)[1:]
    assert {command.split()[0] for command in sections[::2]} == set(COMMANDS)
    for command, text in zip(sections[::2], sections[1::2], strict=True):
        rows = [line.split("|")[1] for line in text.splitlines() if line.startswith("| `")]
        written = {option for row in rows for option in re.findall(r"--[a-z][a-z0-9.-]*", row)}
        assert written == options_of_help(command.split(), capsys), command

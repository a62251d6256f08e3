"""A real headless Chromium through Playwright, for tests of the viewer; it never leaves the loopback address."""

import contextlib
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from carina.serve.routes_pages import VIEWER

sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")

AXE = Path(__file__).parents[1] / "viewer" / "node_modules" / "axe-core" / "axe.min.js"
"""The accessibility checker that comes with the viewer's tools."""

_OPTIONS = (
    "--no-sandbox",
    "--disable-dev-shm-usage",
    # WebGL without a graphics card
    "--use-gl=angle",
    "--use-angle=swiftshader",
    "--enable-unsafe-swiftshader",
    "--ignore-gpu-blocklist",
    # nothing but the page that is asked for
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)

_WAIT_MS = 120_000


@contextlib.contextmanager
def chromium() -> Iterator["sync_api.Browser"]:
    """The browser; the test is skipped where it or the viewer is not there."""
    program = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if program is None:
        pytest.skip("chromium is not installed (Debian: chromium)")
    if "index.html" not in VIEWER:
        pytest.skip("the viewer is not built (make viewer; it needs Node.js with npm)")
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=_OPTIONS)
        yield browser
        browser.close()


@contextlib.contextmanager
def window(browser: "sync_api.Browser", url: str, *, width: int = 1440, height: int = 900) -> Iterator["sync_api.Page"]:
    """A window of its own without memory. Afterwards: no errors in the page, nothing asked of another server."""
    context = browser.new_context(viewport={"width": width, "height": height}, accept_downloads=True)
    page = context.new_page()
    page.set_default_timeout(_WAIT_MS)
    server = url.partition("#")[0].rstrip("/") + "/"
    wrong: list[str] = []

    def refused(said: "sync_api.ConsoleMessage") -> bool:
        """Whether it is an answer of the API that a test asks for: Chromium reports refusals as errors, too."""
        return "Failed to load resource" in said.text and said.location["url"].startswith(f"{server}v1/")

    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.on(
        "console",
        lambda said: wrong.append(said.text) if said.type in ("error", "warning") and not refused(said) else None,
    )
    page.on(
        "request", lambda asked: None if asked.url.startswith((server, "data:", "blob:")) else wrong.append(asked.url)
    )
    page.goto(url)
    yield page
    context.close()
    assert wrong == []


def barriers(page: "sync_api.Page") -> list[str]:
    """What of WCAG 2.1 A and AA the page fails, as axe-core sees it."""
    page.evaluate(AXE.read_text(encoding="utf-8"))
    found = page.evaluate("axe.run({runOnly: ['wcag2a', 'wcag2aa', 'wcag21a', 'wcag21aa']})")
    return [f"{one['id']}: {node['html'][:120]}" for one in found["violations"] for node in one["nodes"]]

"""The how-to's commands, run as they stand there, but for the ports, and for what changes the machine.

From the phantom to the findings in the viewer it is what a reader of the page gets, with the shipped weights.
"""

import contextlib
import os
import re
import shutil
import signal
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import httpx
import numpy as np
import pytest
from PIL import Image

from chromium import Page, chromium
from pacs_samples import need, tool
from waiting import free_port, until

pytestmark = pytest.mark.slow

PAGE = Path(__file__).parents[1] / "docs" / "how-to" / "pacs.md"
BLOCKS = re.findall(r"^```sh\n(.*?)^```", PAGE.read_text(), re.M | re.S)

# Changes the machine; CI has installed the same packages from .ci/packages, and the extra `pacs` is part of `test`.
LEFT_OUT = ("sudo ", "pip install", "python3 -m venv", ". carina-env")

NO_NETWORK = r"npm error code (ENOTFOUND|EAI_AGAIN|ECONNREFUSED|ECONNRESET|ENETUNREACH|ETIMEDOUT)"


class Machine:
    """A shell in an empty folder, with other ports than the page's."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.ports = {page: free_port() for page in (8042, 4242, 3000, 11112)}
        self._groups: list[int] = []

    def run(self, block: str, **replaced: str) -> str:
        lines = [line for line in block.splitlines() if not line.startswith(LEFT_OUT)]
        script = "\n".join(lines)
        for page, ours in self.ports.items():
            script = re.sub(rf"\b{page}\b", str(ours), script)
        for name, value in replaced.items():
            script = script.replace(name, value)
        script = script.replace("python3 ", f"{sys.executable} ")
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        process = subprocess.Popen(
            ["bash", "-euo", "pipefail", "-c", script],
            cwd=self.folder,
            env=os.environ | {"PATH": path, "OMP_NUM_THREADS": "1"},
            stdout=(out := (self.folder / "out").open("w+")),
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        self._groups.append(process.pid)
        code = process.wait(300)
        out.seek(0)
        said = out.read()
        out.close()
        assert code == 0, f"{script}\n{said}"
        return said

    def end(self) -> None:
        for group in self._groups:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(group, signal.SIGKILL)


@pytest.fixture(scope="module")
def machine(tmp_path_factory) -> Iterator[Machine]:
    need("Orthanc", "storescu", "curl")
    folder = tmp_path_factory.mktemp("machine")
    shutil.copy(PAGE.with_name("ohif.py"), folder)
    machine = Machine(folder)
    yield machine
    machine.end()


def block(word: str) -> str:
    (found,) = [one for one in BLOCKS if word in one]
    return found


def says(log: Path, word: str) -> bool:
    return log.exists() and word in log.read_text()


def answers(url: str) -> bool:
    try:
        return httpx.get(url, timeout=30).is_success
    except httpx.HTTPError:
        return False


def test_the_page_installs_what_ci_installs():
    (packages,) = re.findall(r"apt-get install --yes (.*)", block("apt-get"))
    installed = (PAGE.parents[2] / ".ci" / "packages").read_text().split()
    assert set(packages.split()) - set(installed) == {"npm", "python3-venv"}
    extras = tomllib.loads((PAGE.parents[2] / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    assert re.findall(r"carina-ct\[(\w+)\]", block("apt-get")) == ["pacs"]
    assert "pacs" in extras


def test_every_block_of_the_page_is_run_here():
    known = ("apt-get", "Orthanc orthanc.json", "pacs watch", "storescu", "pacs status", "curl --silent", "npm pack")
    known += ("pacs serve", "pacs pull")
    assert len(BLOCKS) == len(known)
    assert all(block(word) for word in known)


def test_the_page_leads_to_findings_in_the_pacs(machine):
    orthanc = f"http://127.0.0.1:{machine.ports[8042]}"
    machine.run(block("Orthanc orthanc.json"))
    until(lambda: answers(f"{orthanc}/system"))
    machine.run(block("pacs watch"))
    until(lambda: says(machine.folder / "carina-pacs.log", "following"))
    machine.run(block("storescu"))
    until(lambda: (machine.folder / "carina-pacs" / "studies").is_dir())
    until(lambda: " done " in machine.run(block("pacs status")), 300)
    assert '"event": "done"' in machine.run(block("pacs status"))
    assert re.findall(r'"(CT|SEG|SR|OT)"', machine.run(block("curl --silent"))) == ["CT", "OT", "SEG", "SR"]


def test_the_page_starts_a_node(machine):
    machine.run(block("pacs serve"))
    until(lambda: says(machine.folder / "node.log", "CARINA@"))
    said = subprocess.run([tool("echoscu"), "-aec", "CARINA", "127.0.0.1", str(machine.ports[11112])], check=False)
    assert said.returncode == 0


def test_the_page_pulls_a_study(machine):
    (study,) = httpx.get(f"http://127.0.0.1:{machine.ports[8042]}/dicom-web/studies", timeout=60).json()
    uid = study["0020000D"]["Value"][0]
    assert "done" in machine.run(block("pacs pull"), STUDY_INSTANCE_UID=uid)


def test_the_viewer_shows_the_segmentation(machine, tmp_path):
    need("npm", "chromium")
    try:
        machine.run(block("npm pack"))
    except AssertionError as error:
        if re.search(NO_NETWORK, str(error)):
            pytest.skip("npm's registry does not answer")
        raise
    viewer = f"http://127.0.0.1:{machine.ports[3000]}"
    until(lambda: answers(viewer))
    web = f"http://127.0.0.1:{machine.ports[8042]}/dicom-web/studies"
    uid = httpx.get(web, timeout=60).json()[0]["0020000D"]["Value"][0]
    found = httpx.get(f"{web}/{uid}/series", params={"Modality": "SEG"}, timeout=60).json()
    screenshot = Path(os.environ.get("CARINA_SCREENSHOT", tmp_path / "ohif.png"))
    with chromium(tmp_path / "profile") as page:
        series = found[0]["0020000E"]["Value"][0]
        page.open(f"{viewer}/viewer?StudyInstanceUIDs={uid}&initialSeriesInstanceUID={series}")
        try:
            until(lambda: "open this Segmentation" in (page.value("document.body.innerText") or ""), 240)
            until(lambda: page.click("Skip all"), 60)
            until(lambda: page.click("Yes"), 60)
            until(lambda: "open this Segmentation" not in page.value("document.body.innerText"), 120)
            until(lambda: coloured(page, screenshot) > 60, 120)
        finally:
            page.screenshot(screenshot)


def coloured(page: Page, screenshot: Path) -> int:
    """Pixels in the middle of the window that have a colour, as the CT has none."""
    page.screenshot(screenshot)
    with Image.open(screenshot) as image:
        pixels = np.asarray(image.convert("RGB"))[150:800, 330:1300].astype(int)
    return int((np.ptp(pixels, axis=-1) > 30).sum())

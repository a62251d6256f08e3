"""What the tests of the loop with a PACS share: the real programs, started on free ports of this machine."""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import httpx
import pytest

from carina.io import write_dicom
from carina.volume import Source
from serve_samples import small_chest
from waiting import free_port, until

DICOMWEB = Path("/usr/share/orthanc/plugins/libOrthancDicomWeb.so")
PATIENT_ID, PATIENT_NAME = "SECRET-77", "Doe^Jane"


# pynetdicom has programs of the same names as dcmtk, in the virtual environment.
SYSTEM = os.pathsep.join(
    folder for folder in os.environ["PATH"].split(os.pathsep) if folder != str(Path(sys.executable).parent)
)


def tool(name: str) -> str:
    """The path of a program of the system; the test is skipped where it is not installed."""
    found = shutil.which(name, path=SYSTEM)
    if found is None:
        pytest.skip(f"{name} is not installed; .ci/packages lists what CI takes from Debian")
    return found


def need(*programs: str) -> None:
    """Skip where a program is not installed."""
    for program in programs:
        tool(program)


def series(folder: Path, seed: int) -> list[Path]:
    """A small chest as 46 DICOM files; another seed is another patient's study."""
    chest = small_chest(seed)
    chest = replace(chest, source=Source(series_uid=f"2.25.{1000 + seed}"))
    return write_dicom(
        chest, folder, patient_id=PATIENT_ID, patient_name=PATIENT_NAME, study_uid=study_uid(seed), description="Thorax"
    )


def study_uid(seed: int) -> str:
    return f"2.25.{900 + seed}"


@dataclass
class RunningOrthanc:
    url: str
    port: int

    def find(self, path: str, **query: str) -> list[dict[str, Any]]:
        """QIDO-RS."""
        wanted = {"Accept": "application/dicom+json"}
        answer = httpx.get(f"{self.url}/dicom-web/{path}", params=query, headers=wanted, timeout=60)
        return answer.raise_for_status().json()

    def modalities(self, seed: int) -> list[str]:
        found = self.find(f"studies/{study_uid(seed)}/series")
        return sorted(one["00080060"]["Value"][0] for one in found)


@contextlib.contextmanager
def running_orthanc(
    folder: Path, *, movers: dict[str, int] | None = None, script: str | None = None
) -> Iterator[RunningOrthanc]:
    """Debian's Orthanc with DICOMweb, with an empty database; ``script`` is Lua."""
    need("Orthanc")
    if not DICOMWEB.exists():
        pytest.skip("Orthanc's DICOMweb is not installed (Debian: orthanc-dicomweb)")
    http, dicom = free_port(), free_port()
    folder.mkdir(parents=True)
    (folder / "script.lua").write_text(script or "")
    settings = {
        "StorageDirectory": str(folder / "db"),
        "IndexDirectory": str(folder / "db"),
        "HttpPort": http,
        "HttpBindAddresses": ["127.0.0.1"],
        "DicomPort": dicom,
        "DicomAet": "ORTHANC",
        "RemoteAccessAllowed": False,
        "AuthenticationEnabled": False,
        "Plugins": [str(DICOMWEB)],
        "DicomWeb": {"Enable": True, "Root": "/dicom-web/"},
        "LuaScripts": [str(folder / "script.lua")],
        "StableAge": 3,
        "DicomAlwaysAllowStore": True,
        "DicomAlwaysAllowFind": True,
        "DicomAlwaysAllowMove": True,
        "DicomModalities": {name: [name, "127.0.0.1", port] for name, port in (movers or {}).items()},
    }
    (folder / "orthanc.json").write_text(json.dumps(settings))
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen([tool("Orthanc"), str(folder / "orthanc.json")], stdout=log, stderr=log)
    try:
        running = RunningOrthanc(f"http://127.0.0.1:{http}", dicom)
        until(lambda: process.poll() is None and _answers(f"{running.url}/system"), 60)
        yield running
    finally:
        process.terminate()
        process.wait(30)


def _answers(url: str) -> bool:
    try:
        return httpx.get(url).is_success
    except httpx.HTTPError:
        return False


class RunningPacs:
    """``carina pacs`` in a process of its own; ``port`` is the first one that it names."""

    def __init__(self, folder: Path, *arguments: str) -> None:
        self.folder = folder
        command = [sys.executable, "-m", "carina", "pacs", *arguments, "-f", str(folder)]
        environment = os.environ | {"OMP_NUM_THREADS": "1"}
        self._log = folder.with_suffix(".log")
        with self._log.open("ab") as log:
            start = log.tell()
            self.process = subprocess.Popen(command, stdout=log, stderr=log, env=environment)
        try:
            until(lambda: b"carina pacs: " in self._log.read_bytes()[start:] or self.process.poll() is not None)
            assert self.process.poll() is None, self.log()
        except AssertionError:
            self.kill()
            raise

    def log(self) -> str:
        return self._log.read_text()

    def events(self, name: str | None = None) -> list[dict[str, Any]]:
        lines = (self.folder / "audit.jsonl").read_text().splitlines()
        return [one for one in map(json.loads, lines) if name in (None, one["event"])]

    def wait_for(self, name: str, count: int = 1, seconds: float = 240) -> list[dict[str, Any]]:
        def there() -> list[dict[str, Any]]:
            assert self.process.poll() is None, self.log()
            assert name == "failed" or not self.events("failed"), self.events("failed")
            found = self.events(name)
            return found if len(found) >= count else []

        return until(there, seconds)

    def kill(self) -> None:
        """As ``kill -9``."""
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()

    def stop(self) -> int:
        self.process.terminate()
        return self.process.wait(60)


@contextlib.contextmanager
def running_pacs(folder: Path, *arguments: str) -> Iterator[RunningPacs]:
    pacs = RunningPacs(folder, *arguments)
    try:
        yield pacs
    finally:
        if pacs.process.poll() is None:
            pacs.kill()


def storescu(port: int, *files: Path, called: str = "CARINA", calling: str = "STORESCU") -> int:
    """Send files as dcmtk does; its exit code."""
    command = [tool("storescu"), "-aec", called, "-aet", calling, "127.0.0.1", str(port), *map(str, files)]
    return subprocess.run(command, capture_output=True, timeout=120, check=False).returncode

"""What the tests of serving share: a small chest, networks that answer at once, and servers that really run."""

import contextlib
import os
import signal
import subprocess
import sys
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path

import httpx
import numpy as np
import torch

from carina.ct.preprocess import Preprocessing
from carina.geometry import Geometry
from carina.io import write_dicom, write_image
from carina.models import Card, build, save_model
from carina.models.malignancy import DiameterRule, RuleEvidence
from carina.volume import Volume
from waiting import free_port

GRID = Geometry.from_axes((46, 46, 64), spacing_zyx_mm=(4.0,) * 3, origin_lps=(-126, -90, -90))
CROP_ZYX = (16, 16, 16)


def small_chest(seed: int = 0, *, lungs: bool = True) -> Volume:
    """A body of fat with two lungs (or without) and a ball in each; quick to analyse."""
    position = GRID.to_lps(np.stack(np.indices(GRID.shape_zyx), -1))

    def ellipsoid(center, radii):
        return (((position - np.array(center)) / radii) ** 2).sum(-1) < 1

    hu = np.full(GRID.shape_zyx, -1000.0)
    hu[((position[..., :2] / (118, 82)) ** 2).sum(-1) < 1] = -200
    if lungs:
        hu[ellipsoid((-55.0, 0, 0), (45, 60, 75)) | ellipsoid((55.0, 0, 0), (45, 60, 75))] = -850
    hu[ellipsoid((-55.0, 0, 10), (10, 10, 10))] = 60
    hu[ellipsoid((55.0, 20, -10), (9, 9, 9))] = 60
    hu += np.random.default_rng(seed).normal(0, 15, GRID.shape_zyx)
    return Volume(np.rint(hu).clip(-1024).astype(np.int16), GRID)


def write_weights(folder: Path) -> Path:
    """Networks small enough to load and run at once: the first stage marks what is dense, the second is random."""
    folder.mkdir(parents=True, exist_ok=True)
    preprocessing = Preprocessing(spacing_zyx_mm=(4.0, 4.0, 4.0), crop_zyx=CROP_ZYX)
    spec = {"kind": "unet", "in_channels": 1, "depth": 1, "first_filters": 1}
    unet = build(spec)
    with torch.no_grad():
        for module in unet.modules():
            if isinstance(module, torch.nn.Conv2d):
                module.weight.zero_()
                middle = module.kernel_size[0] // 2
                module.weight[..., middle, middle] = 1.0
                module.bias.zero_()
        unet.head.weight.fill_(20.0)
        unet.head.bias.fill_(-6.0)
    save_model(
        folder / "segmentation", unet, Card("test-marks", "segmentation", spec, preprocessing, min_volume_mm3=500.0)
    )
    spec = {"kind": "nodule", "first_filters": 2, "crop_zyx": list(CROP_ZYX)}
    torch.manual_seed(0)
    save_model(folder / "nodule", build(spec), Card("test-nodule", "nodule", spec, preprocessing, threshold=0.0))
    evidence = RuleEvidence("none", "none", (), 1, 1, 0.5, (0.4, 0.6), 0.1, 0.1, "made up for tests")
    DiameterRule(-5.0, 2.0, "log", evidence).save(folder / "malignancy.json")
    return folder


def write_samples(folder: Path) -> Path:
    """The small chest as ``chest.mha``, ``.mhd`` with ``.zraw``, ``.nii.gz``, ``.nrrd``, and ``.zip`` of DICOM."""
    folder.mkdir(parents=True, exist_ok=True)
    chest = small_chest()
    for name in ("chest.mha", "chest.mhd", "chest.nii.gz", "chest.nrrd"):
        write_image(chest.hu, chest.geometry, folder / name)
    write_dicom(chest, folder / "dicom", patient_id="DOE^JANE-SECRET")
    with zipfile.ZipFile(folder / "chest.zip", "w") as archive:
        for number, file in enumerate(sorted((folder / "dicom").iterdir())):
            archive.write(file, f"../../JANE DOE/slice {number}")
    return folder


class Server:
    """``carina serve`` in a process of its own on a free port of the loopback address."""

    def __init__(
        self, folder: Path, weights: Path | None, *options: str, scheme: str = "http", **environment: str
    ) -> None:
        self.port = free_port()
        self.url = f"{scheme}://127.0.0.1:{self.port}"
        self.folder = folder
        self.log = folder.with_name(f"{folder.name}-{self.port}.log")
        command = [sys.executable, "-m", "carina", "serve", "--port", str(self.port), "--folder", str(folder)]
        if "--runtime" not in options:
            options += ("--runtime", "torch")  # ready sooner than the faster ones
        if weights is not None:
            options += ("--weights", str(weights))
        with self.log.open("w") as log:
            self.process = subprocess.Popen(
                [*command, "--verbose", "--limits.free-bytes", "0", *options],
                stdout=log,
                stderr=log,
                env=os.environ | {"OMP_NUM_THREADS": "1"} | environment,
            )
        self.client = httpx.Client(base_url=self.url, timeout=60, verify=False)

    def wait_ready(self, seconds: float = 300.0) -> None:
        """Until ``/readyz`` says so."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            assert self.process.poll() is None, self.log.read_text()
            with contextlib.suppress(httpx.TransportError):
                if self.client.get("/readyz").status_code == 200:
                    return
            time.sleep(0.2)
        raise AssertionError(f"not ready after {seconds} s: {self.log.read_text()}")

    def upload(self, path: Path, **more) -> httpx.Response:
        """Upload one file as the body."""
        return self.client.post("/v1/studies", content=path.read_bytes(), **more)

    def wait_ended(self, job_id: str, seconds: float = 300.0) -> dict:
        """The job once nothing more will happen to it."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            job = self.client.get(f"/v1/jobs/{job_id}").json()
            if job["state"] in ("done", "failed", "cancelled"):
                return job
            time.sleep(0.25)
        raise AssertionError(f"job {job} not ended after {seconds} s: {self.log.read_text()}")

    def detector_pid(self) -> int:
        """Process id of the detection process."""
        (detector,) = (pid for pid in self._spawned() if os.getpgid(pid) != pid)
        return detector

    def answering_pids(self) -> set[int]:
        """Process ids of those that answer requests, where there are several."""
        return {pid for pid in self._spawned() if os.getpgid(pid) == pid}

    def _spawned(self) -> set[int]:
        children = {int(p) for t in Path(f"/proc/{self.process.pid}/task").iterdir() for p in _children(t)}
        return {pid for pid in children if b"spawn_main" in _command(pid)}

    def stop(self, how: int = signal.SIGTERM, seconds: float = 180.0) -> int:
        """End the server; its exit code."""
        self.client.close()
        if self.process.poll() is None:
            self.process.send_signal(how)
        try:
            return self.process.wait(seconds)
        finally:
            if self.process.poll() is None:
                self.process.kill()
                self.process.wait()


def _children(task: Path) -> list[str]:
    return (task / "children").read_text().split()


def _command(pid: int) -> bytes:
    return Path(f"/proc/{pid}/cmdline").read_bytes()


@contextlib.contextmanager
def running(folder: Path, weights: Path | None, *options: str, **more: str) -> Iterator[Server]:
    """A server that is ready, ended afterwards."""
    server = Server(folder, weights, *options, **more)
    try:
        server.wait_ready()
        yield server
    finally:
        server.stop()

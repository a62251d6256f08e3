"""``carina pacs``: receive or fetch studies, analyse them, bring the results back."""

import re
import signal
import threading
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from carina.errors import UsageError
from carina.findings import check_threshold
from carina.serve.settings import LOOPBACK

if TYPE_CHECKING:
    from carina.pacs.queue import Origin, Queue
    from carina.pacs.worker import Deliver, Plan, Worker


@dataclass
class _Common:
    """What every way of getting studies shares."""

    folder: Annotated[Path, tyro.conf.arg(aliases=["-f"])] = Path("carina-pacs")
    """Folder of the queue: images, results, audit log. Only one process may use it."""
    to: str | None = None
    """Where results go: AETITLE@HOST:PORT, or the address of a DICOMweb service; default: where the study came from."""
    node: Annotated[tuple[str, ...], tyro.conf.UseAppendAction] = ()
    """AETITLE@HOST:PORT of a sender, so that results can be sent back to it; may be given several times."""
    ae_title: str = "CARINA"
    """Our name as a DICOM node."""
    format: str = "json,html,seg,sr,keyimages"
    """What is written; the DICOM formats among it are sent."""
    images: bool = False
    """Send the CT images that were analysed too."""
    deidentify: bool = False
    """Send de-identified copies only (PS3.15 basic profile); needs --to."""
    weights: Path | None = None
    """Folder of other models than the shipped ones."""
    threshold: float | None = None
    """Lowest probability of a finding; default: the operating point in the model's card."""
    device: str = "auto"
    """auto, cpu, cuda, cuda:N or mps."""
    timeout_s: float = 3600.0
    """Longest time of one analysis."""
    keep_hours: float = 24.0
    """Images and results of finished studies are deleted after that time."""

    def _plan(self, queue: "Queue", *, quiet_s: float, patience_s: float) -> "Plan":
        from carina.pacs.deidentify import deidentify_files
        from carina.pacs.worker import Plan

        options = ["--device", self.device]
        if self.weights is not None:
            options += ["--weights", str(self.weights.absolute())]
        if self.threshold is not None:
            options += ["--threshold", str(self.threshold)]
        return Plan(
            timeout_s=self.timeout_s,
            formats=tuple(self._formats()),
            options=tuple(options),
            keep_s=self.keep_hours * 3600,
            images=self.images,
            prepare=(lambda files, folder: deidentify_files(files, folder, queue.secret)) if self.deidentify else None,
            quiet_s=quiet_s,
            patience_s=patience_s,
        )

    def _formats(self) -> list[str]:
        return ["json", *(f.strip() for f in self.format.split(",") if f.strip() not in ("", "json"))]

    def _open(self) -> "tuple[Queue, Callable[[Origin], tuple[str, Deliver] | None]]":
        """The queue, and the way from an origin to the place of its results; refuses what cannot be carried out."""
        _check_extra()
        from carina.pacs.queue import Queue
        from carina.pacs.send import Node, destination, send
        from carina.report import check_formats

        check_formats(self._formats())
        check_threshold(self.threshold)
        if not self.keep_hours >= 0:
            raise UsageError(f"--keep-hours {self.keep_hours:g}: expected 0 or more")
        if not self.timeout_s > 0:
            raise UsageError(f"--timeout-s {self.timeout_s:g}: expected more than 0")
        if self.deidentify and self.to is None:
            raise UsageError("--deidentify needs --to: de-identified results fit no study of the sender")
        chosen = None if self.to is None else destination(self.to)
        nodes = {node.ae_title: node for node in map(Node.parse, self.node)}
        self._check_models()

        def route(origin: "Origin") -> "tuple[str, Deliver] | None":
            to = chosen or origin.url or nodes.get(origin.ae_title)
            if to is None:
                return None
            return str(to), lambda files, sent: send(files, to, ae_title=self.ae_title, sent=sent)

        return Queue(self.folder), route

    def _check_models(self) -> None:
        """Refuse models and devices that every analysis would fail with; the shipped models on any device run."""
        if self.weights is None and self.device == "auto":
            return
        if self.weights is not None and not self.weights.is_dir():
            raise UsageError(f"--weights {self.weights} is no folder")
        from carina.data.pool import scan_pool

        # In a process that ends: this one lives for months and never needs the networks.
        with scan_pool(1) as pool:
            pool.submit(_load_models, self.weights, self.device).result()


@dataclass
class Serve(_Common):
    """Be a DICOM node: take CT images in, analyse each study, send the results back."""

    host: str = "127.0.0.1"
    """Address to listen on; others than this machine's own need --allow."""
    port: int = 11112
    """Port to listen on; 0 takes a free one."""
    allow: Annotated[tuple[str, ...], tyro.conf.UseAppendAction] = ()
    """AE title that may connect; may be given several times. Default: all, which only works on this machine's own
    address."""
    quiet_s: float = 15.0
    """A study is analysed when nothing has come for that long ..."""
    patience_s: float = 90.0
    """... and has failed when it is still not whole after that long."""

    def run(self) -> int:
        """Listen until SIGTERM or SIGINT."""
        if self.host not in LOOPBACK and not self.allow:
            raise UsageError(f"--host {self.host} is open to others; name the AE titles that may connect with --allow")
        queue, route = self._open()
        from carina.pacs.receiver import Receiver
        from carina.pacs.worker import Worker

        with closing(queue):
            worker = Worker(queue, self._plan(queue, quiet_s=self.quiet_s, patience_s=self.patience_s), route)
            receiver = Receiver(queue, host=self.host, port=self.port, ae_title=self.ae_title, allowed=self.allow)
            queue.audit.write("started", ae_title=self.ae_title, address=f"{self.host}:{receiver.port}")
            print(f"carina pacs: {self.ae_title}@{self.host}:{receiver.port}, queue in {self.folder}", flush=True)
            try:
                _until_signal(worker)
            finally:
                receiver.close()
                queue.audit.write("stopped")
        return 0


@dataclass
class Watch(_Common):
    """Follow an Orthanc: fetch every study with CT images that has become stable, analyse it, store the results."""

    url: Annotated[str, tyro.conf.Positional] = "http://127.0.0.1:8042"
    """Address of the Orthanc; user and password come from CARINA_PACS_AUTH=user:password."""
    every_s: float = 5.0
    """How often to ask what is new."""
    from_start: bool = False
    """Begin with the studies that are there already."""
    webhook: str | None = None
    """HOST:PORT on which a POST makes us ask at once."""

    def run(self) -> int:
        """Follow until SIGTERM or SIGINT."""
        address = _address(self.webhook) if self.webhook else None
        queue, route = self._open()
        from carina.pacs.follow import Follower, Webhook
        from carina.pacs.http import Http
        from carina.pacs.orthanc import Orthanc
        from carina.pacs.queue import Origin
        from carina.pacs.worker import Worker

        with closing(queue), Http(self.url) as http:
            worker = Worker(queue, self._plan(queue, quiet_s=0.0, patience_s=90.0), route)
            origin = Origin(url=f"orthanc+{self.url}")
            follower = Follower(queue, Orthanc(http), origin, every_s=self.every_s, from_start=self.from_start)
            webhook = Webhook(follower, *address) if address else None
            thread = threading.Thread(target=follower.run, name="follower")
            queue.audit.write("started", url=self.url)
            hook = f", webhook on port {webhook.port}" if webhook else ""
            thread.start()
            # Whoever sends a study after this line knows that it will be seen.
            follower.asked.wait(60)
            print(f"carina pacs: following {self.url}{hook}, queue in {self.folder}", flush=True)
            try:
                _until_signal(worker)
            finally:
                follower.stop()
                if webhook:
                    webhook.close()
                thread.join()
                queue.audit.write("stopped")
        return 0


@dataclass
class Pull(_Common):
    """Fetch one study by DICOMweb, analyse it, store the results where it came from."""

    url: Annotated[str, tyro.conf.Positional] = "http://127.0.0.1:8042/dicom-web"
    """Address of the service; user and password come from CARINA_PACS_AUTH=user:password."""
    study: str = ""
    """StudyInstanceUID."""

    def run(self) -> int:
        """Handle the study; 1 if it failed."""
        from carina.io.uid import is_uid

        if not is_uid(self.study):
            raise UsageError(f"--study {self.study!r} is no StudyInstanceUID (digits and dots)")
        queue, route = self._open()
        from carina.pacs.dicomweb import DicomWeb
        from carina.pacs.http import Http
        from carina.pacs.pull import pull
        from carina.pacs.queue import Origin
        from carina.pacs.worker import Worker

        with closing(queue):
            with Http(self.url) as http:
                study = pull(queue, DicomWeb(http), self.study, Origin(url=self.url))
            worker = Worker(queue, self._plan(queue, quiet_s=0.0, patience_s=0.0), route)
            _until_signal(worker, lambda: study.entry().state in ("done", "failed"))
            entry = study.entry()
            print(f"carina pacs: {entry.state} {entry.reason}".strip())
            return 0 if entry.state == "done" else 1


@dataclass
class Status:
    """List the studies of a queue."""

    folder: Annotated[Path, tyro.conf.arg(aliases=["-f"])] = Path("carina-pacs")
    """Folder of the queue; it may be in use."""

    def run(self) -> int:
        """One line for each study."""
        from carina.pacs.queue import studies_of

        if not (self.folder / "studies").is_dir():
            raise UsageError(f"{self.folder} is no queue of carina pacs")
        for study in studies_of(self.folder):
            entry = study.entry()
            result = study.result(entry.result) if entry.result else ""
            print(f"{study.key} {entry.state:9s} {study.count():5d} images  {entry.reason or result}")
        return 0


@dataclass
class Pacs:
    """Receive or fetch studies, analyse them, bring the results back."""

    way: tyro.conf.OmitSubcommandPrefixes[
        Annotated[Serve, tyro.conf.subcommand("serve")]
        | Annotated[Watch, tyro.conf.subcommand("watch")]
        | Annotated[Pull, tyro.conf.subcommand("pull")]
        | Annotated[Status, tyro.conf.subcommand("status")]
    ]

    def run(self) -> int:
        """Do what the subcommand says."""
        return self.way.run()


def _until_signal(worker: "Worker", done: Callable[[], bool] | None = None) -> None:
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: worker.stop())
    worker.run(done)


def _load_models(weights: Path | None, device: str) -> None:
    from carina.pipeline import Detector

    Detector.load(weights, device=device)


def _address(text: str) -> tuple[str, int]:
    match = re.fullmatch(r"(.+):(\d{1,5})", text)
    if match is None:
        raise UsageError(f"--webhook {text!r} is no HOST:PORT")
    if match[1] not in LOOPBACK:
        raise UsageError(
            f"--webhook {text!r} is open to others; use an address of this machine, such as 127.0.0.1:8099"
        )
    port = int(match[2])
    if port > 65535:
        raise UsageError(f"--webhook {text!r}: there is no port {port}; they run from 0 (any free one) to 65535")
    return match[1], port


def _check_extra() -> None:
    from importlib.util import find_spec

    for module in ("pynetdicom", "httpx", "highdicom", "dicomanonymizer"):
        if find_spec(module) is None:
            raise UsageError("carina pacs needs the extra pacs: pip install 'carina-ct[pacs]'")

"""``carina serve``: the HTTP API and the viewer."""

import logging
import math
import os
from dataclasses import dataclass, field
from pathlib import Path

from carina.errors import UsageError
from carina.findings import check_threshold
from carina.serve.limits import GIB, Limits
from carina.serve.settings import LOOPBACK, Settings


def _default_folder() -> Path:
    return Path(os.environ.get("XDG_STATE_HOME", Path.home() / ".local" / "state")) / "carina"


@dataclass
class Serve:
    """Serve detection and classification over HTTP, with a viewer for browsers."""

    host: str = "127.0.0.1"
    """Address to listen on; others than the loopback address need a token or --allow-anonymous."""
    port: int = 8000
    """Port to listen on."""
    folder: Path = field(default_factory=_default_folder)
    """Where jobs and results are kept; they survive a restart."""
    workers: int = 1
    """Processes that answer requests; detection always runs in one of its own."""
    weights: Path | None = None
    """Folder of other models than the shipped ones."""
    device: str = "auto"
    """auto, cpu, cuda, cuda:N or mps."""
    runtime: str = "auto"
    """What computes the networks: auto (the fastest installed), openvino, onnxruntime or torch."""
    threshold: float | None = None
    """Lowest probability of a finding; default: the operating point in the model's card."""
    token_file: Path | None = None
    """File with the bearer token that clients must send; else CARINA_SERVE_TOKEN is taken from the environment."""
    allow_anonymous: bool = False
    """Listen on other addresses than the loopback one without a token."""
    certificate: Path | None = None
    """PEM certificate for TLS."""
    key: Path | None = None
    """PEM private key for TLS."""
    hosts: tuple[str, ...] = ()
    """Names under which clients reach this server, for example behind a proxy; others are refused."""
    batch_size: int = 8
    """Most crops that are classified together."""
    batch_wait_ms: float = 2.0
    """How long a batch waits for more crops."""
    keep_days: float = 7.0
    """Ended jobs are deleted after so many days."""
    keep_gib: float = 50.0
    """The oldest ended jobs are deleted while all take more."""
    grace_s: float = 120.0
    """How long a stopping server waits for the job that runs."""
    log_identifiers: bool = False
    """Write series UIDs into the log as they are; otherwise they are hashed."""
    verbose: bool = False
    """Log every job and request."""
    limits: Limits = field(default_factory=Limits)
    """What clients may ask for."""

    def run(self) -> None:
        """Serve until told to stop."""
        try:
            from carina.serve.run import run
        except ModuleNotFoundError as error:
            raise UsageError(f"serving needs {error.name}; install carina-ct[serve]") from error
        logging.getLogger("carina.serve").setLevel(logging.DEBUG if self.verbose else logging.INFO)
        run(self.settings())

    def settings(self) -> Settings:
        """The settings that the arguments ask for.

        Raises:
            UsageError: values out of range, or an open address without a token.
        """
        check_threshold(self.threshold)
        token = self._token()
        if self.host not in LOOPBACK and token is None and not self.allow_anonymous:
            raise UsageError(
                f"--host {self.host} lets others in; set --token-file (or CARINA_SERVE_TOKEN), or --allow-anonymous"
            )
        if not (1 <= self.workers <= 64 and 1 <= self.batch_size <= 256 and 0 <= self.batch_wait_ms <= 1000):
            raise UsageError("--workers must be 1 to 64, --batch-size 1 to 256, --batch-wait-ms 0 to 1000")
        if not (self.keep_days >= 0 and 0 <= self.keep_gib < math.inf):
            raise UsageError("--keep-days and --keep-gib must be numbers from 0, the second finite")
        return Settings(
            folder=self.folder.expanduser().absolute(),
            host=self.host,
            port=self.port,
            workers=self.workers,
            weights=self.weights,
            device=self.device,
            runtime=self.runtime,
            threshold=self.threshold,
            token=token,
            certificate=self.certificate,
            key=self.key,
            hosts=self.hosts,
            batch_size=self.batch_size,
            batch_wait_s=self.batch_wait_ms / 1000,
            keep_s=self.keep_days * 86400,
            keep_bytes=int(self.keep_gib * GIB),
            grace_s=self.grace_s,
            log_identifiers=self.log_identifiers,
            limits=self.limits,
        )

    def _token(self) -> str | None:
        if self.token_file is None:
            where, text = "CARINA_SERVE_TOKEN", os.environ.get("CARINA_SERVE_TOKEN", "")
            if not text:
                return None
        else:
            where = f"--token-file {self.token_file}"
            try:
                text = self.token_file.read_text(encoding="utf-8")
            except OSError as error:
                raise UsageError(f"{where}: {error.strerror}") from error
        token = text.strip()
        if len(token) < 16:
            raise UsageError(f"{where}: a token of at least 16 characters is needed")
        return token

"""How a server is set up. Must not know what is done with it."""

from dataclasses import dataclass, field
from pathlib import Path

from carina.serve.limits import GIB, Limits

LOOPBACK = ("127.0.0.1", "::1", "localhost")


@dataclass(frozen=True)
class Settings:
    """Everything that an operator chooses.

    Attributes:
        folder: where jobs and their files are kept.
        host: address to listen on.
        port: port to listen on; 0 takes a free one.
        workers: processes that answer requests.
        weights: folder of models; None: those shipped with Carina.
        device: where the networks run.
        runtime: what computes them.
        threshold: lowest ``p_nodule`` of a finding; None: the models' own.
        token: bearer token that clients must send; None: none is asked for.
        certificate: PEM file for TLS; with ``key``.
        key: PEM file of the certificate's private key.
        hosts: names by which clients may reach a server on the loopback address, besides its own.
        batch_size: most crops that are classified together.
        batch_wait_s: how long a batch waits for more crops.
        keep_s: ended jobs are deleted after that time.
        keep_bytes: the oldest ended jobs are deleted while all take more.
        grace_s: how long a stopping server waits for the job that runs.
        report: folder of the one report that is shown; then nothing else is taken in, nothing is deleted, and the
            review is kept in that folder.
        log_identifiers: write series UIDs into the log as they are, not hashed.
        limits: what clients may ask for.
    """

    folder: Path
    host: str = "127.0.0.1"
    port: int = 8000
    workers: int = 1
    weights: Path | None = None
    device: str = "auto"
    runtime: str = "auto"
    threshold: float | None = None
    token: str | None = None
    certificate: Path | None = None
    key: Path | None = None
    hosts: tuple[str, ...] = ()
    batch_size: int = 8
    batch_wait_s: float = 0.002
    keep_s: float = 7 * 86400.0
    keep_bytes: int = 50 * GIB
    grace_s: float = 120.0
    report: Path | None = None
    log_identifiers: bool = False
    limits: Limits = field(default_factory=Limits)

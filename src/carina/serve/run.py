"""A whole server: the folder's lock, the socket, the supervisor of detection, and Sanic.

Must not know the command line.
"""

import contextlib
import logging
import multiprocessing
import os
import shutil
import signal
import socket
import ssl
from functools import partial

from carina.errors import UsageError, WeightsError
from carina.serve.folder import StateFolder
from carina.serve.settings import LOOPBACK, Settings

log = logging.getLogger("carina.serve")

_SHUTDOWN_S = 30.0
"""What a process may take to end, beyond the requests that it answers."""


def run(settings: Settings) -> None:
    """Serve until told to stop (SIGINT or SIGTERM); the job that runs is finished first.

    Raises:
        UsageError: settings that do not go together, or an address that cannot be had.
        WeightsError: the models cannot be loaded.
    """
    _check_certificate(settings)
    # Threads and forks do not go together.
    multiprocessing.set_start_method("spawn", force=True)
    # Until the server is up and takes signals itself, they end what has begun in order.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    folder = StateFolder(settings.folder)
    folder.make()
    with folder.own(), listen(settings) as listener:
        _share_metrics(settings, folder)
        # Only now, since metrics look at the environment when they are imported.
        from carina.serve.supervise import Supervisor

        supervisor = Supervisor(settings, folder)
        supervisor.start()
        try:
            with contextlib.suppress(KeyboardInterrupt):
                serve(settings, listener)
        finally:
            supervisor.stop()
        if supervisor.fatal is not None:
            raise WeightsError(supervisor.fatal)


def listen(settings: Settings) -> socket.socket:
    """Take the address; whoever connects from now on waits until requests are answered.

    Raises:
        UsageError: it cannot be had.
    """
    if not 0 <= settings.port <= 65535:
        raise UsageError(f"there is no port {settings.port}; they run from 0 (any free one) to 65535")
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    try:
        listener = socket.create_server((settings.host, settings.port), family=family, backlog=1024)
    except OSError as error:
        raise UsageError(f"cannot listen on {settings.host}, port {settings.port}: {error.strerror}") from error
    scheme = "http" if settings.certificate is None else "https"
    host = f"[{settings.host}]" if family == socket.AF_INET6 else settings.host
    log.info("serving on %s://%s:%d", scheme, host, listener.getsockname()[1])
    if settings.host not in LOOPBACK and settings.token is None:
        log.warning("anybody who reaches this address can read and delete all jobs: no token is set")
    return listener


def _share_metrics(settings: Settings, folder: StateFolder) -> None:
    if settings.workers > 1:
        shared = folder.root / "metrics"
        shutil.rmtree(shared, ignore_errors=True)
        shared.mkdir(mode=0o700)
        os.environ["PROMETHEUS_MULTIPROC_DIR"] = str(shared)


def _check_certificate(settings: Settings) -> None:
    if (settings.certificate is None) != (settings.key is None):
        raise UsageError("TLS needs both a certificate and its key")
    context = _tls(settings)
    if context is None:
        return
    from sanic.http.tls.context import process_to_context

    try:
        ssl.create_default_context(ssl.Purpose.CLIENT_AUTH).load_cert_chain(context["cert"], context["key"])
        process_to_context(context)
    except OSError as error:
        raise UsageError(f"{settings.certificate} and {settings.key} are no certificate and its key") from error
    except KeyError as error:
        raise UsageError(f"{settings.certificate} has no {error.args[0]}, which browsers ask for too") from error


def _tls(settings: Settings) -> dict[str, str] | None:
    if settings.certificate is None or settings.key is None:
        return None
    return {"cert": str(settings.certificate), "key": str(settings.key)}


def serve(settings: Settings, listener: socket.socket) -> None:
    """Answer requests until told to stop; nothing is detected."""
    if settings.workers == 1:
        _answer(settings, listener)
        return
    from carina.serve.processes import keep_running

    work = partial(_answer, settings, listener)
    keep_running(work, settings.workers, patience_s=settings.limits.deadline_s + _SHUTDOWN_S)


def _answer(settings: Settings, listener: socket.socket) -> None:
    """Answer requests in this process until it is told to stop."""
    from sanic import Sanic

    from carina.serve.app import create_app

    app = create_app(settings)
    app.prepare(sock=listener, ssl=_tls(settings), single_process=True, access_log=False, debug=False, motd=False)
    Sanic.serve_single(primary=app)

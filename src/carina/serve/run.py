"""A whole server: the folder's lock, the supervisor of detection, and Sanic. Must not know the command line."""

import logging
import multiprocessing
import os
import shutil
import ssl
from collections.abc import Callable
from functools import partial

from carina.errors import UsageError, WeightsError
from carina.serve.folder import StateFolder
from carina.serve.settings import LOOPBACK, Settings

log = logging.getLogger("carina.serve")


def run(settings: Settings) -> None:
    """Serve until told to stop (SIGINT or SIGTERM); the job that runs is finished first.

    Raises:
        UsageError: settings that do not go together.
        WeightsError: the models cannot be loaded.
    """
    if (settings.certificate is None) != (settings.key is None):
        raise UsageError("TLS needs both a certificate and its key")
    # Threads and forks do not go together, and Sanic insists.
    multiprocessing.set_start_method("spawn", force=True)
    folder = StateFolder(settings.folder)
    folder.make()
    with folder.own():
        _share_metrics(settings, folder)
        # Only now, since metrics look at the environment when they are imported.
        from carina.serve.supervise import Supervisor

        supervisor = Supervisor(settings, folder)
        supervisor.start()
        try:
            serve(settings)
        finally:
            supervisor.stop()
        if supervisor.fatal is not None:
            raise WeightsError(supervisor.fatal)


def _share_metrics(settings: Settings, folder: StateFolder) -> None:
    if settings.workers > 1:
        shared = folder.root / "metrics"
        shutil.rmtree(shared, ignore_errors=True)
        shared.mkdir(mode=0o700)
        os.environ["PROMETHEUS_MULTIPROC_DIR"] = str(shared)


def serve(settings: Settings, *, started: Callable[[], None] | None = None) -> None:
    """Answer requests until told to stop; nothing is detected.

    Args:
        settings: the server's.
        started: called once, when requests are answered.

    Raises:
        UsageError: settings that do not go together.
    """
    from sanic import Sanic
    from sanic.worker.loader import AppLoader

    from carina.serve.app import create_app

    context = None
    if settings.certificate is not None and settings.key is not None:
        context = {"cert": str(settings.certificate), "key": str(settings.key)}
        try:
            ssl.create_default_context(ssl.Purpose.CLIENT_AUTH).load_cert_chain(settings.certificate, settings.key)
        except OSError as error:
            raise UsageError(f"{settings.certificate} and {settings.key} are no certificate and its key") from error
    scheme = "https" if context else "http"
    log.info("serving on %s://%s:%d", scheme, settings.host, settings.port)
    if settings.host not in LOOPBACK and settings.token is None:
        log.warning("anybody who reaches this address can read and delete all jobs: no token is set")
    loader = AppLoader(factory=partial(create_app, settings))
    app = loader.load()
    if started is not None:
        app.register_listener(lambda *_: started(), "after_server_start")
    try:
        app.prepare(
            host=settings.host,
            port=settings.port,
            ssl=context,
            workers=settings.workers,
            single_process=settings.workers == 1,
            access_log=False,
            debug=False,
            motd=False,
        )
    except KeyError as error:
        raise UsageError(f"{settings.certificate} has no {error.args[0]}, which browsers ask for too") from error
    if settings.workers == 1:
        Sanic.serve_single(primary=app)
    else:
        Sanic.START_METHOD_SET = True  # by ``run``; a second time is an error
        Sanic.serve(primary=app, app_loader=loader)

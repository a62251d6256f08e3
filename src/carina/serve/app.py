"""The Sanic application: routes, who may use them, and what every answer carries.

Must not know jobs, crops or models.
"""

import logging
import time
from typing import Any, cast

import peewee
from sanic import HTTPResponse, Request, Sanic
from sanic.constants import HTTP_METHODS
from sanic.exceptions import SanicException

from carina.serve import metrics
from carina.serve.jobs import UnknownJobError
from carina.serve.limits import MIB
from carina.serve.present import problem_response
from carina.serve.problems import ProblemError, is_no_space
from carina.serve.routes_classify import classification
from carina.serve.routes_jobs import jobs
from carina.serve.routes_pages import pages
from carina.serve.routes_studies import studies
from carina.serve.security import DATA_POLICY, HEADERS, check, check_shown_only
from carina.serve.service import Service
from carina.serve.settings import Settings

App = Sanic[Any, Any]

log = logging.getLogger("carina.serve")

_DRAIN_BYTES = 32 * MIB
"""Of a refused request so much is still read, so that its sender sees the answer; then the connection is closed."""

_METHODS = frozenset(map(str, HTTP_METHODS))
"""Clients make up others, and every label is kept for good."""

_BY_STATUS = {
    400: "bad-request",
    401: "unauthorized",
    403: "forbidden",
    404: "not-found",
    405: "method-not-allowed",
    408: "timeout",
    413: "too-large",
    417: "bad-request",
    503: "busy",
}


def create_app(settings: Settings) -> App:
    """The application of one server process."""
    app = Sanic("carina", configure_logging=False)
    limits = settings.limits
    app.config.update(
        {
            "ACCESS_LOG": False,
            "MOTD": False,
            "FALLBACK_ERROR_FORMAT": "json",
            "REQUEST_MAX_SIZE": limits.upload_bytes,
            "REQUEST_BUFFER_SIZE": 2**18,
            "REQUEST_TIMEOUT": limits.idle_s,
            "RESPONSE_TIMEOUT": max(600.0, limits.deadline_s * 2),
            "KEEP_ALIVE_TIMEOUT": 30,
            "GRACEFUL_SHUTDOWN_TIMEOUT": max(15.0, limits.deadline_s),
        }
    )
    app.blueprint([studies, jobs, classification, pages])
    app.register_middleware(_admit, "request")
    app.register_middleware(cast(Any, _finish), "response")
    app.error_handler.add(Exception, _failed)

    async def start(app: App) -> None:
        app.ctx.service = Service(settings)
        await app.ctx.service.start()

    async def close(app: App) -> None:
        app.ctx.service.closing.set()

    async def stop(app: App) -> None:
        await app.ctx.service.stop()

    app.register_listener(start, "before_server_start")
    app.register_listener(close, "before_server_stop")
    app.register_listener(stop, "after_server_stop")
    return app


async def _admit(request: Request) -> None:
    request.ctx.begin = time.perf_counter()
    service: Service = request.app.ctx.service
    check(request.path, dict(request.headers), service.settings)
    if service.settings.report is not None:
        check_shown_only(request.method, request.path)


async def _finish(request: Request, response: HTTPResponse) -> None:
    for name, value in HEADERS.items():
        response.headers.setdefault(name, value)
    response.headers.setdefault("Content-Security-Policy", DATA_POLICY)
    if not request.path.startswith("/assets/"):
        response.headers.setdefault("Cache-Control", "no-store")
    route = request.route.path if request.route is not None else "none"
    seconds = time.perf_counter() - getattr(request.ctx, "begin", time.perf_counter())
    method = request.method if request.method in _METHODS else "other"
    metrics.REQUESTS.labels(route, method, response.status).inc()
    metrics.REQUEST_SECONDS.labels(route).observe(seconds)
    log.debug("%s /%s %d %.0f ms", method, route, response.status, seconds * 1000)


async def _failed(request: Request, error: Exception) -> HTTPResponse:
    problem = _problem(error)
    if problem.kind == "internal":
        log.error("%s %s failed", request.method, request.path, exc_info=error)
    if request.stream is not None:
        request.stream.request_max_size = min(request.stream.request_max_size, _DRAIN_BYTES)
    return problem_response(problem)


def _problem(error: Exception) -> ProblemError:
    if isinstance(error, ProblemError):
        return error
    if isinstance(error, UnknownJobError):
        return ProblemError("not-found", "there is no such job; it may have been deleted")
    if is_no_space(error):
        return ProblemError("no-space", "the server's disk is full; delete jobs, or tell its operator")
    if isinstance(error, peewee.OperationalError):
        return ProblemError("busy", "the job list is busy; try again", retry_after_s=2)
    if isinstance(error, SanicException) and error.status_code in _BY_STATUS:
        return ProblemError(_BY_STATUS[error.status_code], str(error) or "refused")
    return ProblemError("internal", "an unexpected failure; the server's log has the trace")

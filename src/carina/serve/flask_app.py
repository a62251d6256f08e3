"""A small synchronous server for people who embed Carina in a WSGI site: a CT in, its report out, one after the other.

``create_flask_app(Detector.load())`` is a WSGI application for any WSGI server, for example
``waitress-serve --call my_site:make_app``. For uploads that outlast a proxy's patience, jobs and batches there is
``carina serve``.
"""

import logging
import tempfile
import threading
from dataclasses import replace
from pathlib import Path

import msgspec
from flask import Flask, Response, request
from werkzeug.exceptions import HTTPException

from carina.errors import InputError
from carina.io import read_ct
from carina.io.uid import is_uid
from carina.pipeline import Detector
from carina.serve.limits import PIECE, Limits
from carina.serve.problems import MEDIA_TYPE, ProblemError, is_no_space
from carina.serve.receive import Receiver, too_many_bytes
from carina.serve.security import DATA_POLICY, HEADERS
from carina.serve.unpack import unpack
from carina.serve.worker import check_size

log = logging.getLogger("carina.serve")


def create_flask_app(detector: Detector, limits: Limits | None = None) -> Flask:
    """A WSGI application with ``POST /detect`` and ``GET /healthz``.

    The body is what ``carina serve`` takes: a zip of DICOM, an image, or a form with files. The answer is the report's
    JSON. One CT is analysed at a time; a request that comes meanwhile is answered 503.

    Args:
        detector: models, loaded once.
        limits: bounds on uploads.
    """
    bounds = limits or Limits()
    app = Flask("carina")
    busy = threading.Lock()

    @app.get("/healthz")
    def healthz() -> Response:
        return Response(b'{"status":"ok"}', content_type="application/json")

    @app.post("/detect")
    def detect() -> Response:
        if (request.content_length or 0) > bounds.upload_bytes:
            raise too_many_bytes(bounds.upload_bytes)
        series_uid = request.args.get("series_uid")
        if series_uid is not None and not is_uid(series_uid):
            raise ProblemError("invalid", "series_uid must be digits and dots, at most 64 characters")
        if not busy.acquire(blocking=False):
            raise ProblemError("busy", "another CT is being analysed; try again later", retry_after_s=10)
        try:
            with tempfile.TemporaryDirectory(prefix="carina-") as name:
                study = _receive(Path(name), bounds)
                return Response(_report(study, series_uid, detector, bounds), content_type="application/json")
        finally:
            busy.release()

    @app.errorhandler(ProblemError)
    def refused(problem: ProblemError) -> Response:
        return Response(msgspec.json.encode(problem.body()), problem.status, problem.headers(), content_type=MEDIA_TYPE)

    @app.errorhandler(Exception)
    def failed(error: Exception) -> Response | HTTPException:
        if isinstance(error, HTTPException):
            return error
        if isinstance(error, OSError) and is_no_space(error):
            return refused(ProblemError("no-space", "the server's disk is full"))
        log.error("detection failed", exc_info=error)
        return refused(ProblemError("internal", "an unexpected failure; the server's log has the trace"))

    @app.after_request
    def finish(response: Response) -> Response:
        for header, value in HEADERS.items():
            response.headers.setdefault(header, value)
        response.headers.setdefault("Content-Security-Policy", DATA_POLICY)
        response.headers.setdefault("Cache-Control", "no-store")
        return response

    return app


def _receive(folder: Path, limits: Limits) -> Path:
    parts, study = folder / "parts", folder / "study"
    parts.mkdir()
    study.mkdir()
    receiver = Receiver(request.content_type or "", parts, limits)
    try:
        while piece := request.stream.read(PIECE):
            receiver.feed(piece)
        received = receiver.finish()
    finally:
        receiver.close()
    unpack(received, study, limits)
    return study


def _report(study: Path, series_uid: str | None, detector: Detector, limits: Limits) -> bytes:
    try:
        check_size(study, series_uid, limits)
        volume = read_ct(study, series_uid=series_uid)
        volume = replace(volume, source=replace(volume.source, path="upload"))
        return detector.detect(volume).report.to_json().encode()
    except InputError as error:
        detail = str(error).replace(str(study), "upload")
        raise ProblemError("invalid", detail) from error

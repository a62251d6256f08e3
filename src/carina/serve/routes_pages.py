"""Pages, probes and metrics. Must not know jobs beyond their number."""

import mimetypes
from importlib.resources import files
from pathlib import Path

import msgspec
from sanic import Blueprint, HTTPResponse, Request, response

import carina
from carina.findings import RESEARCH_USE
from carina.serve import metrics
from carina.serve.openapi import docs_page, document
from carina.serve.present import json_response
from carina.serve.problems import ProblemError
from carina.serve.security import PAGE_POLICY
from carina.serve.service import Service

pages = Blueprint("pages")

STATIC = Path(str(files("carina.serve") / "static"))
"""The viewer's files, where they were built."""

_POLICY = {"Content-Security-Policy": PAGE_POLICY}

NOT_BUILT = f"""<!doctype html><html lang="en"><meta charset="utf-8"><title>Carina</title>
<style>body {{ font: 1rem/1.5 system-ui, sans-serif; max-width: 40rem; margin: 4rem auto; padding: 0 1rem }}</style>
<h1>Carina is running, its viewer is not built</h1>
<p>The API works without it: see <a href="/docs">its documentation</a>. To get the viewer in a checkout of the source,
install Node.js 20.19 or newer, run <code>make viewer</code> (or <code>npm install &amp;&amp; npm run build</code> in
<code>viewer/</code>) and start <code>carina serve</code> again. Installed packages carry the viewer.</p>
<p>{RESEARCH_USE}</p></html>"""


def _viewer_files() -> dict[str, Path]:
    """What may be served, by path: only these names exist for clients."""
    return {file.relative_to(STATIC).as_posix(): file for file in STATIC.rglob("*") if file.is_file()}


VIEWER = _viewer_files()


@pages.get("/healthz")
async def healthz(_: Request) -> HTTPResponse:
    """Whether the process answers."""
    return json_response({"status": "ok"})


@pages.get("/readyz")
async def readyz(request: Request) -> HTTPResponse:
    """Whether the models are warm."""
    service: Service = request.app.ctx.service
    state = await service.readiness()
    if any(part != "ready" for part in state.values()):
        raise ProblemError("not-ready", "the models are being loaded; try again soon", retry_after_s=2, parts=state)
    return json_response({"status": "ready", "parts": state})


@pages.get("/metrics")
async def get_metrics(request: Request) -> HTTPResponse:
    """Figures for Prometheus."""
    service: Service = request.app.ctx.service
    counts = await service.jobs(lambda store: store.counts())
    return HTTPResponse(metrics.render(counts), content_type=metrics.CONTENT_TYPE)


@pages.get("/v1/server")
async def server(request: Request) -> HTTPResponse:
    """What this server takes, for programs that talk to it."""
    settings = request.app.ctx.service.settings
    return json_response(
        {
            "version": carina.__version__,
            "notice": RESEARCH_USE,
            "uploads": settings.report is None,
            "upload_bytes": settings.limits.upload_bytes,
            "comment_chars": settings.limits.comment_chars,
        }
    )


@pages.get("/openapi.json")
async def openapi(request: Request) -> HTTPResponse:
    """The API as an OpenAPI document."""
    service: Service = request.app.ctx.service
    return HTTPResponse(msgspec.json.encode(document(service.settings)), content_type="application/json")


@pages.get("/docs")
async def docs(request: Request) -> HTTPResponse:
    """The API for people."""
    service: Service = request.app.ctx.service
    return response.html(docs_page(document(service.settings)), headers=_POLICY)


@pages.get("/")
async def index(_: Request) -> HTTPResponse:
    """The viewer, or how to build it."""
    if "index.html" not in VIEWER:
        return response.html(NOT_BUILT, headers=_POLICY)
    return await response.file(VIEWER["index.html"], headers=_POLICY)


@pages.get("/<name:path>")
async def viewer_file(_: Request, name: str) -> HTTPResponse:
    """A file of the viewer."""
    if name not in VIEWER:
        raise ProblemError("not-found", "no such page")
    kind = mimetypes.guess_type(name)[0] or "application/octet-stream"
    return await response.file(VIEWER[name], mime_type=kind, headers=_POLICY)

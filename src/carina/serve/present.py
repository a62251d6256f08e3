"""Jobs, problems and files as responses. Must not know what they mean."""

import asyncio
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
from sanic import HTTPResponse, Request

from carina.serve.folder import RESULTS
from carina.serve.jobs import Job
from carina.serve.limits import PIECE
from carina.serve.problems import MEDIA_TYPE, ProblemError, describe
from carina.serve.service import Json


def json_response(body: Any, status: int = 200, headers: dict[str, str] | None = None) -> HTTPResponse:
    """A JSON response."""
    return HTTPResponse(msgspec.json.encode(body), status, headers, "application/json")


def problem_response(problem: ProblemError) -> HTTPResponse:
    """A problem as RFC 9457 has it."""
    return HTTPResponse(msgspec.json.encode(problem.body()), problem.status, problem.headers(), MEDIA_TYPE)


def job_json(job: Job) -> Json:
    """A job as clients see it."""
    here = f"/v1/jobs/{job.id}"
    links = {"self": here, "events": f"{here}/events", "cancel": f"{here}/cancel"}
    if job.state == "done":
        links |= {key: f"{here}/{name}" for key, name in RESULTS.items()}
        links |= {"report": f"{here}/report", "review": f"{here}/review", "export": f"{here}/export.zip"}
    return {
        "id": job.id,
        "number": job.number,
        "state": job.state,
        "stage": job.stage or None,
        "progress": round(job.progress, 4),
        "created": _time(job.created),
        "started": _time(job.started),
        "finished": _time(job.finished),
        "attempts": job.attempts,
        "cancelling": job.cancel and job.state == "running",
        "series_uid": job.series_uid,
        "error": describe(job.problem, job.detail or "") if job.problem else None,
        "findings": job.findings,
        "p_malignant": job.p_malignant,
        "bytes": job.bytes,
        "links": links,
    }


async def send_file(request: Request, path: Path, content_type: str, headers: dict[str, str]) -> None:
    """Stream a file from disk.

    Raises:
        ProblemError: it is not there.
    """
    try:
        file = await asyncio.to_thread(path.open, "rb")
    except FileNotFoundError:
        raise ProblemError("not-found", "the file has been deleted") from None
    with file:
        size = path.stat().st_size
        response = await request.respond(headers={**headers, "content-length": str(size)}, content_type=content_type)
        if response is None:
            return
        while piece := await asyncio.to_thread(file.read, PIECE):
            await response.send(piece)


def _time(seconds: float | None) -> str | None:
    return None if seconds is None else datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds")

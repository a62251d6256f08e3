"""``/v1/jobs``: list, watch, cancel, delete, review, and take the results. Must not know how jobs run."""

import asyncio
import re
import time
import zipfile
from tempfile import TemporaryFile
from typing import IO

import msgspec
from sanic import Blueprint, HTTPResponse, Request

from carina.serve.folder import RESULTS
from carina.serve.jobs import STATES, Job, UnknownJobError
from carina.serve.limits import MIB, PIECE
from carina.serve.present import job_json, json_response, send_file
from carina.serve.problems import ProblemError
from carina.serve.reading import read_body, whole_number
from carina.serve.reviews import Review, keep_review, parse_review
from carina.serve.security import REPORT_POLICY
from carina.serve.service import Service

jobs = Blueprint("jobs")

_POLL_S = 0.25
_KEEP_ALIVE_S = 10.0
_REVIEW_BYTES = MIB

_CONTENT_TYPES = {
    "report": "application/json",
    "report_html": "text/html; charset=utf-8",
    "findings_csv": "text/csv; charset=utf-8",
    "mask": "application/gzip",
    "volume": "application/gzip",
}

_FILES = {"report": "report", **{name: key for key, name in RESULTS.items()}}
"""What may stand in a file's address, and which result it is."""


def _service(request: Request) -> Service:
    service: Service = request.app.ctx.service
    return service


async def _job(request: Request, job_id: str) -> Job:
    if not re.fullmatch(r"[0-9a-f]{32}", job_id):
        raise ProblemError("not-found", "a job's id is 32 hexadecimal digits")
    return await _service(request).jobs(lambda store: store.get(job_id))


async def _done(request: Request, job_id: str) -> Job:
    job = await _job(request, job_id)
    if job.state != "done":
        raise ProblemError("conflict", f"the job is {job.state}; results are there once it is done", state=job.state)
    return job


@jobs.get("/v1/jobs")
async def list_jobs(request: Request) -> HTTPResponse:
    """Jobs, the latest first."""
    state = request.args.get("state")
    if state is not None and state not in STATES:
        raise ProblemError("invalid", f"state must be one of {', '.join(STATES)}")
    limit = whole_number(request, "limit", 100, 1, 500)
    before = whole_number(request, "before", 0, 0, 2**53) or None
    found = await _service(request).jobs(lambda store: store.latest(state=state, limit=limit, before=before))
    following = found[-1].number if len(found) == limit else None
    return json_response({"jobs": [job_json(job) for job in found], "before": following})


@jobs.get("/v1/jobs/<job_id:str>")
async def get_job(request: Request, job_id: str) -> HTTPResponse:
    """One job."""
    return json_response(job_json(await _job(request, job_id)))


@jobs.post("/v1/jobs/<job_id:str>/cancel", ignore_body=True)
async def cancel_job(request: Request, job_id: str) -> HTTPResponse:
    """Stop a job; one that has ended stays as it is."""
    service = _service(request)
    await _job(request, job_id)
    job = await service.jobs(lambda store: store.cancel(job_id))
    if job.state == "cancelled":  # it waited, so that no process works on its files
        await asyncio.to_thread(service.folder.drop, job_id)
    return json_response(job_json(job), 202)


@jobs.delete("/v1/jobs/<job_id:str>")
async def delete_job(request: Request, job_id: str) -> HTTPResponse:
    """Stop a job if need be, and delete it with all its files."""
    service = _service(request)
    await _job(request, job_id)
    await service.jobs(lambda store: store.cancel(job_id))
    for _ in range(200):
        if (await _job(request, job_id)).ended:
            break
        await asyncio.sleep(0.05)
    else:
        raise ProblemError("busy", "the job is still being stopped; try again", retry_after_s=2)
    await service.jobs(lambda store: store.remove(job_id))
    await asyncio.to_thread(service.folder.drop, job_id)
    return HTTPResponse(status=204)


@jobs.get("/v1/jobs/<job_id:str>/events")
async def job_events(request: Request, job_id: str) -> None:
    """Server-sent events: the job whenever it changes, until it has ended or is deleted."""
    service = _service(request)
    job = await _job(request, job_id)
    with service.slot("streams", service.settings.limits.streams):
        response = await request.respond(content_type="text/event-stream", headers={"X-Accel-Buffering": "no"})
        if response is None:
            return
        last, said = None, time.monotonic()
        while not service.closing.is_set():
            shown = job_json(job)
            if shown != last:
                await response.send(b"event: job\ndata: " + msgspec.json.encode(shown) + b"\n\n")
                last, said = shown, time.monotonic()
            elif time.monotonic() - said > _KEEP_ALIVE_S:
                await response.send(b": still here\n\n")
                said = time.monotonic()
            if job.ended:
                break
            await asyncio.sleep(_POLL_S)
            try:
                job = await _job(request, job_id)
            except UnknownJobError:
                break
        await response.eof()


@jobs.get(f"/v1/jobs/<job_id:str>/<name:{'|'.join(_FILES)}>")
async def get_file(request: Request, job_id: str, name: str) -> None:
    """A file of the result."""
    job = await _done(request, job_id)
    key = _FILES[name]
    content_type = _CONTENT_TYPES[key]
    headers = {"Content-Security-Policy": REPORT_POLICY} if key == "report_html" else {}
    if content_type == "application/gzip":
        headers["Content-Disposition"] = f'attachment; filename="{RESULTS[key]}"'
    await send_file(request, _service(request).folder.result(job.id, key), content_type, headers)


@jobs.get("/v1/jobs/<job_id:str>/review")
async def get_review(request: Request, job_id: str) -> HTTPResponse:
    """What was said about the findings; empty where nobody said anything."""
    job = await _done(request, job_id)
    body = await _service(request).jobs(lambda store: store.review(job.id))
    return HTTPResponse(body or msgspec.json.encode(Review()), content_type="application/json")


@jobs.put("/v1/jobs/<job_id:str>/review", stream=True)
async def put_review(request: Request, job_id: str) -> HTTPResponse:
    """Keep what is said about the findings, in place of what was said before."""
    service = _service(request)
    job = await _done(request, job_id)
    body = await read_body(request, _REVIEW_BYTES, service.settings.limits)
    chars = service.settings.limits.comment_chars
    review = msgspec.json.encode(parse_review(body, findings=job.findings or 0, comment_chars=chars))
    await service.jobs(lambda store: store.set_review(job.id, review))
    if service.settings.report is not None:
        await asyncio.to_thread(keep_review, review, service.settings.report)
    return HTTPResponse(review, content_type="application/json")


@jobs.get("/v1/jobs/<job_id:str>/export.zip")
async def export(request: Request, job_id: str) -> None:
    """Report, table, mask and review in one archive."""
    service = _service(request)
    job = await _done(request, job_id)
    review = await service.jobs(lambda store: store.review(job.id)) or msgspec.json.encode(Review())
    with await asyncio.to_thread(_archive, service, job.id, review) as file:
        size = file.seek(0, 2)
        file.seek(0)
        headers = {"Content-Disposition": 'attachment; filename="carina.zip"', "content-length": str(size)}
        response = await request.respond(headers=headers, content_type="application/zip")
        while response is not None and (piece := await asyncio.to_thread(file.read, PIECE)):
            await response.send(piece)


def _archive(service: Service, job_id: str, review: bytes) -> IO[bytes]:
    file: IO[bytes] = TemporaryFile(dir=service.folder.root)  # noqa: SIM115 - the caller closes it
    try:
        with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
            for key in ("report", "report_html", "findings_csv", "mask"):
                path = service.folder.result(job_id, key)
                if key != "mask" or path.exists():  # a report of the command line may have none
                    archive.write(path, RESULTS[key])
            archive.writestr("review.json", msgspec.json.format(review, indent=2))
    except FileNotFoundError:
        file.close()
        raise ProblemError("not-found", "the job has been deleted") from None
    return file

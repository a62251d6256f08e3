"""``POST /v1/studies``: an upload becomes a job. Must not know how jobs run."""

import secrets
import shutil
from functools import partial
from pathlib import Path

from sanic import Blueprint, HTTPResponse, Request

from carina.io.uid import is_uid
from carina.serve.limits import PIECE
from carina.serve.present import job_json, json_response
from carina.serve.problems import ProblemError
from carina.serve.reading import claimed_bytes, next_piece, time_to_send
from carina.serve.receive import Receiver
from carina.serve.service import Service, in_thread
from carina.serve.unpack import unpack

studies = Blueprint("studies")


@studies.post("/v1/studies", stream=True)
async def post_study(request: Request) -> HTTPResponse:
    """Receive a study and queue it."""
    service: Service = request.app.ctx.service
    limits = service.settings.limits
    series_uid = request.args.get("series_uid")
    if series_uid is not None and not is_uid(series_uid):
        raise ProblemError("invalid", "series_uid must be digits and dots, at most 64 characters")
    claimed_bytes(request, limits.upload_bytes)
    with service.slot("uploads", limits.uploads):
        if (await service.jobs(lambda store: store.counts()))["queued"] >= limits.queued_jobs:
            raise ProblemError("busy", f"{limits.queued_jobs} jobs wait already; try again later", retry_after_s=30)
        service.folder.check_space(limits.free_bytes)
        job_id = secrets.token_hex(16)
        incoming = service.folder.incoming(job_id)
        try:
            async with time_to_send(limits):
                await _receive(request, incoming, service)
            size = await in_thread(lambda: _move(incoming / "study", service.folder.job(job_id)))
            job = await service.jobs(lambda store: store.add(job_id, series_uid=series_uid, size=size))
        except BaseException:
            shutil.rmtree(service.folder.job(job_id), ignore_errors=True)
            raise
        finally:
            shutil.rmtree(incoming, ignore_errors=True)
    return json_response(job_json(job), 202, {"Location": f"/v1/jobs/{job.id}"})


async def _receive(request: Request, incoming: Path, service: Service) -> None:
    limits = service.settings.limits
    parts, study = incoming / "parts", incoming / "study"
    for folder in (incoming, parts, study):
        folder.mkdir(mode=0o700)
    receiver = Receiver(request.headers.get("content-type", ""), parts, limits)
    try:
        gathered = bytearray()
        while (piece := await next_piece(request, limits.idle_s)) is not None:
            gathered += piece
            if len(gathered) >= PIECE:
                await in_thread(partial(receiver.feed, bytes(gathered)))
                gathered.clear()
        await in_thread(partial(receiver.feed, bytes(gathered)))
        received = await in_thread(receiver.finish)
    finally:
        receiver.close()
    await in_thread(lambda: unpack(received, study, limits))


def _move(study: Path, job: Path) -> int:
    """Make the study a job's input; returns its size in bytes."""
    job.mkdir(mode=0o700)
    study.rename(job / "input")
    return sum(file.stat().st_size for file in (job / "input").iterdir())

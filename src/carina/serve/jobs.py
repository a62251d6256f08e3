"""The list of jobs, on disk: SQLite in WAL mode, so that jobs and reviews survive the end of any process.

Every process opens its own store on the same file. Must not know HTTP, or what a job computes.
"""

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, cast, get_args

import msgspec
from peewee import SQL, SqliteDatabase, Table, fn

from carina.errors import CarinaError

State = Literal["queued", "running", "done", "failed", "cancelled"]
STATES: tuple[str, ...] = get_args(State)

MOST_ATTEMPTS = 2
"""A job that has ended the detector this often is not tried again."""

_TABLES = """
create table if not exists job (
    id text primary key, number integer not null unique, state text not null, stage text not null,
    progress real not null, created real not null, started real, finished real, attempts integer not null,
    cancel integer not null, series_uid text, problem text, detail text, findings integer, p_malignant real,
    bytes integer not null
);
create index if not exists job_state on job (state, number);
create table if not exists review (job text primary key references job (id) on delete cascade, body text not null);
create table if not exists beat (name text primary key, state text not null, at real not null);
"""


class Job(msgspec.Struct, frozen=True):
    """One study on its way.

    Attributes:
        id: 32 hexadecimal digits, not to be guessed; also the name of the job's folder.
        number: counts up in order of arrival.
        state: queued, running, done, failed or cancelled.
        stage: the pipeline's stage, "" before it runs.
        progress: of all stages, in [0, 1].
        created: seconds since 1970; likewise ``started`` and ``finished``.
        attempts: how often it was begun.
        cancel: whether somebody asked to stop it.
        series_uid: which DICOM series to take; None: the best one.
        problem: kind of the problem of a failed job.
        detail: the problem in words.
        findings: how many the report lists, once done.
        p_malignant: the patient's answer, once done.
        bytes: what the job's files take on disk.
    """

    id: str
    number: int
    state: State
    stage: str
    progress: float
    created: float
    started: float | None
    finished: float | None
    attempts: int
    cancel: bool
    series_uid: str | None
    problem: str | None
    detail: str | None
    findings: int | None
    p_malignant: float | None
    bytes: int

    @property
    def ended(self) -> bool:
        """Whether nothing more will happen."""
        return self.state in ("done", "failed", "cancelled")


class UnknownJobError(CarinaError):
    """No job has that id (any more)."""


class JobStore:
    """Jobs, reviews, and the detector's sign of life.

    Args:
        path: the database file; made where it is missing.
    """

    def __init__(self, path: Path) -> None:
        pragmas = {"journal_mode": "wal", "synchronous": "full", "busy_timeout": 10_000, "foreign_keys": 1}
        self._database = cast(Any, SqliteDatabase(str(path), pragmas=pragmas))
        with self._database.atomic():
            for statement in filter(str.strip, _TABLES.split(";")):
                self._database.execute_sql(statement)
        self._job = cast(Any, Table("job", Job.__struct_fields__).bind(self._database))
        self._review = cast(Any, Table("review", ("job", "body")).bind(self._database))
        self._beat = cast(Any, Table("beat", ("name", "state", "at")).bind(self._database))

    def close(self) -> None:
        """Close this thread's connection."""
        self._database.close()

    def add(self, job_id: str, *, series_uid: str | None, size: int) -> Job:
        """A new job, queued."""
        with self._database.atomic("IMMEDIATE"):
            last = self._job.select(fn.MAX(self._job.number)).scalar() or 0
            self._job.insert(
                id=job_id,
                number=last + 1,
                state="queued",
                stage="",
                progress=0.0,
                created=time.time(),
                attempts=0,
                cancel=0,
                series_uid=series_uid,
                bytes=size,
            ).execute()
        return self.get(job_id)

    def get(self, job_id: str) -> Job:
        """One job.

        Raises:
            UnknownJobError: there is none of that id.
        """
        rows = self._jobs(self._job.select().where(self._job.id == job_id))
        if not rows:
            raise UnknownJobError(f"no job {job_id}")
        return rows[0]

    def latest(self, *, state: str | None = None, limit: int = 100, before: int | None = None) -> list[Job]:
        """Jobs, the latest first.

        Args:
            state: only jobs in that state.
            limit: at most so many.
            before: only jobs with a smaller ``number``.
        """
        query = self._job.select().order_by(self._job.number.desc()).limit(limit)
        if state is not None:
            query = query.where(self._job.state == state)
        if before is not None:
            query = query.where(self._job.number < before)
        return self._jobs(query)

    def counts(self) -> dict[str, int]:
        """Number of jobs by state."""
        rows = self._job.select(self._job.state, fn.COUNT(SQL("*"))).group_by(self._job.state).tuples()
        return dict.fromkeys(STATES, 0) | dict(rows)

    def claim(self) -> Job | None:
        """The longest waiting job, now running; None where nothing waits."""
        with self._database.atomic("IMMEDIATE"):
            waiting = self._jobs(
                self._job.select().where(self._job.state == "queued").order_by(self._job.number).limit(1)
            )
            if not waiting:
                return None
            job = waiting[0]
            self._update(
                job.id, state="running", stage="", progress=0.0, started=time.time(), attempts=job.attempts + 1
            )
        return self.get(job.id)

    def progress(self, job_id: str, stage: str, progress: float) -> None:
        """Note how far a running job is."""
        self._update(job_id, stage=stage, progress=progress)

    def done(self, job_id: str, *, findings: int, p_malignant: float | None, size: int) -> None:
        """Note that the result stands on disk, whole."""
        self._end(job_id, "done", stage="", progress=1.0, findings=findings, p_malignant=p_malignant, bytes=size)

    def failed(self, job_id: str, problem: str, detail: str) -> None:
        """Note why there will be no result."""
        self._end(job_id, "failed", problem=problem, detail=detail, bytes=0)

    def cancelled(self, job_id: str) -> None:
        """Note that the job was stopped."""
        self._end(job_id, "cancelled", bytes=0)

    def try_again(self, job_id: str, why: str) -> bool:
        """Queue a job whose run was cut off; after ``MOST_ATTEMPTS`` it has failed. Whether it was queued."""
        job = self.get(job_id)
        if job.cancel:
            self.cancelled(job_id)
            return False
        if job.attempts >= MOST_ATTEMPTS:
            self.failed(job_id, "crashed", f"{why}; tried {job.attempts} times")
            return False
        self._update(job_id, state="queued", stage="", progress=0.0)
        return True

    def cancel(self, job_id: str) -> Job:
        """Ask to stop a job: one that waits is cancelled at once, one that runs soon after, an ended one stays."""
        with self._database.atomic("IMMEDIATE"):
            job = self.get(job_id)
            if job.state == "queued":
                self.cancelled(job_id)
            elif job.state == "running":
                self._update(job_id, cancel=1)
        return self.get(job_id)

    def remove(self, job_id: str) -> None:
        """Forget a job and its review."""
        self._job.delete().where(self._job.id == job_id).execute()

    def running(self) -> Sequence[Job]:
        """Jobs marked as running; after a start these were cut off."""
        return self.latest(state="running")

    def states(self) -> dict[str, str]:
        """The state of every job by id."""
        return dict(self._job.select(self._job.id, self._job.state).tuples())

    def expired(self, *, keep_s: float, keep_bytes: int) -> Sequence[str]:
        """Ended jobs that are older than ``keep_s``, and the oldest ones while all take more than ``keep_bytes``."""
        ended = self._jobs(
            self._job.select()
            .where(self._job.state.in_(["done", "failed", "cancelled"]))
            .order_by(self._job.finished.desc())
        )
        total, gone = 0, []
        for job in ended:
            total += job.bytes
            if total > keep_bytes or (job.finished or 0.0) < time.time() - keep_s:
                gone.append(job.id)
        return gone

    def review(self, job_id: str) -> bytes | None:
        """The review of a job as JSON; None where nobody wrote one."""
        body = self._review.select(self._review.body).where(self._review.job == job_id).scalar()
        return None if body is None else str(body).encode()

    def set_review(self, job_id: str, body: bytes) -> None:
        """Keep a review; the last one counts."""
        self._review.insert(job=job_id, body=body.decode()).on_conflict_replace().execute()

    def beat(self, state: str) -> None:
        """The detector's sign of life: ``warming``, ``ready`` or ``down``."""
        self._beat.insert(name="detector", state=state, at=time.time()).on_conflict_replace().execute()

    def detector(self) -> tuple[str, float]:
        """What the detector said last, and how many seconds ago."""
        row = self._beat.select(self._beat.state, self._beat.at).where(self._beat.name == "detector").tuples().first()
        return ("down", float("inf")) if row is None else (str(row[0]), max(0.0, time.time() - row[1]))

    def _end(self, job_id: str, state: str, **columns: Any) -> None:
        self._update(job_id, state=state, finished=time.time(), **columns)

    def _update(self, job_id: str, **columns: Any) -> None:
        self._job.update(**columns).where(self._job.id == job_id).execute()

    @staticmethod
    def _jobs(query: Any) -> list[Job]:
        return [Job(**{**row, "cancel": bool(row["cancel"])}) for row in cast(list[dict[str, Any]], query.dicts())]

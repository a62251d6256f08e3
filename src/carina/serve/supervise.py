"""Keeps one detection process alive, gives it jobs, and notes what becomes of them.

A thread of the server's main process, the only one that starts, ends or restarts jobs. Must not know HTTP.
"""

import hashlib
import logging
import multiprocessing
import os
import signal
import threading
import time
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnProcess
from typing import Any

import msgspec

from carina.pipeline.progress import overall
from carina.serve import metrics, worker
from carina.serve.folder import StateFolder
from carina.serve.jobs import Job, JobStore
from carina.serve.settings import Settings

log = logging.getLogger("carina.serve")

_TICK_S = 0.1
_BEAT_S = 1.0
_HOUSEKEEPING_S = 30.0
_LONGEST_PAUSE_S = 30.0


@dataclass
class _Child:
    """The detection process and the job that it works on."""

    process: SpawnProcess
    pipe: Connection
    ready: bool = False
    job: Job | None = None
    outcome: worker.Done | worker.Failed | None = None
    noted: float = field(default_factory=time.monotonic)


class Supervisor:
    """Runs jobs until it is stopped.

    Args:
        settings: the server's.
        folder: its files; nobody else may use them.

    Attributes:
        fatal: why the server cannot work at all: its models cannot be loaded. It then stops itself.
    """

    def __init__(self, settings: Settings, folder: StateFolder) -> None:
        self.fatal: str | None = None
        self._settings = settings
        self._folder = folder
        self._stopping = threading.Event()
        self._deadline = float("inf")
        self._thread = threading.Thread(target=self._run, name="supervisor")
        self._child: _Child | None = None
        self._crashes = 0
        self._not_before = 0.0

    def start(self) -> None:
        """Put right what a crash left behind, then begin."""
        store = JobStore(self._folder.database)
        for job in store.running():
            store.try_again(job.id, "the server ended while the job ran")
        self._folder.tidy(store.states())
        store.beat("warming")
        store.close()
        self._thread.start()

    def stop(self) -> None:
        """Let the running job finish, for as long as the settings allow; what is not finished runs again later."""
        self._deadline = time.monotonic() + self._settings.grace_s
        self._stopping.set()
        self._thread.join()

    def _run(self) -> None:
        store = JobStore(self._folder.database)
        beat = housekeeping = 0.0
        try:
            while not self._finished():
                now = time.monotonic()
                try:
                    self._step(store)
                    if now - beat > _BEAT_S:
                        beat = now
                        store.beat("ready" if self._child is not None and self._child.ready else "warming")
                    if now - housekeeping > _HOUSEKEEPING_S:
                        housekeeping = now
                        self._delete_expired(store)
                except Exception as error:  # a full disk must not end the service
                    log.error("the job list cannot be written: %s", error)
                    self._stopping.wait(1.0)
        finally:
            self._end_child()
            try:
                store.beat("down")
            finally:
                store.close()

    def _finished(self) -> bool:
        if not self._stopping.is_set():
            return False
        idle = self._child is None or self._child.job is None
        return idle or time.monotonic() > self._deadline

    def _step(self, store: JobStore) -> None:
        child = self._child or self._start_child()
        if child is None:
            self._stopping.wait(_TICK_S)
            return
        if child.ready and child.job is None and not self._stopping.is_set():
            self._give_job(child, store)
        try:
            while child.pipe.poll(_TICK_S if child.job is None else 0.02):
                self._hear(child, store, msgspec.json.decode(child.pipe.recv_bytes(), type=worker.Message))
        except (EOFError, OSError):
            self._lost(child, store)
            return
        if child.job is not None and child.outcome is not None:
            self._settle(child, child.job, store)
        elif child.job is not None:
            self._watch(child, child.job, store)

    def _start_child(self) -> _Child | None:
        if time.monotonic() < self._not_before:
            return None
        context = multiprocessing.get_context("spawn")
        ours, theirs = context.Pipe()
        process = context.Process(target=worker.main, args=(theirs, self._settings), name="carina-detector")
        process.start()
        theirs.close()
        self._child = _Child(process, ours)
        return self._child

    def _end_child(self) -> None:
        if self._child is not None:
            self._child.process.kill()
            self._child.process.join()
            self._child.pipe.close()
            self._child = None

    def _give_job(self, child: _Child, store: JobStore) -> None:
        job = store.claim()
        if job is None:
            return
        child.job, child.noted = job, time.monotonic()
        order = worker.Order(job.id, str(self._folder.job(job.id)), job.series_uid)
        child.pipe.send_bytes(msgspec.json.encode(order))

    def _hear(self, child: _Child, store: JobStore, message: Any) -> None:
        if isinstance(message, worker.Ready):
            child.ready, self._crashes = True, 0
            store.beat("ready")
        elif child.job is not None and isinstance(message, worker.Progress):
            if time.monotonic() - child.noted > 0.2 or message.done in (0.0, 1.0):
                child.noted = time.monotonic()
                store.progress(child.job.id, message.stage, overall(message.stage, message.done))
        elif isinstance(message, worker.Failed) and not child.ready:
            self.fatal = message.detail
            self._stopping.set()
            os.kill(os.getpid(), signal.SIGTERM)
        elif isinstance(message, worker.Done | worker.Failed):
            child.outcome = message

    def _settle(self, child: _Child, job: Job, store: JobStore) -> None:
        """Note the outcome of a job; where the list cannot be written this is tried again.

        What failed is deleted before it is noted, so that whoever hears of it finds no files, and a full disk has space
        for the note. A result is noted before the upload is deleted, so that a crash between the two loses nothing.
        """
        if isinstance(child.outcome, worker.Done):
            done = child.outcome
            size = self._folder.size(job.id)
            store.done(job.id, findings=done.findings, p_malignant=done.p_malignant, size=size)
            self._folder.drop_input(job.id)
            for stage, seconds in done.seconds.items():
                metrics.STAGE_SECONDS.labels(stage).observe(seconds)
            shown, total = self._shown(done.series_uid), sum(done.seconds.values())
            log.info("job %s done, series %s, %d findings, %.1f s", job.id, shown, done.findings, total)
        elif isinstance(child.outcome, worker.Failed):
            self._folder.drop(job.id)
            store.failed(job.id, child.outcome.problem, child.outcome.detail)
            log.warning("job %s failed: %s %s", job.id, child.outcome.problem, child.outcome.trace)
        child.job = child.outcome = None

    def _watch(self, child: _Child, job: Job, store: JobStore) -> None:
        """End a job that was cancelled or takes too long; the process ends with it, and a new one starts."""
        row = store.get(job.id)
        seconds = time.time() - (row.started or time.time())
        if not row.cancel and seconds <= self._settings.limits.job_s:
            return
        child.process.kill()
        child.process.join()
        self._folder.drop(job.id)
        if row.cancel:
            store.cancelled(job.id)
        else:
            store.failed(job.id, "job-timeout", f"the analysis took longer than {self._settings.limits.job_s:g} s")
        store.beat("warming")
        self._end_child()

    def _lost(self, child: _Child, store: JobStore) -> None:
        """The process ended by itself: killed, out of memory, or its models cannot be loaded."""
        child.process.join()
        log.error("the detection process ended with code %s", child.process.exitcode)
        store.beat("warming")
        if child.job is not None and not store.try_again(child.job.id, "the detection process ended unexpectedly"):
            self._folder.drop(child.job.id)
        self._end_child()
        if not child.ready:
            self._crashes += 1
            self._not_before = time.monotonic() + min(_LONGEST_PAUSE_S, 2.0**self._crashes)

    def _delete_expired(self, store: JobStore) -> None:
        for job_id in store.expired(keep_s=self._settings.keep_s, keep_bytes=self._settings.keep_bytes):
            store.remove(job_id)
            self._folder.drop(job_id)
            log.info("job %s deleted, as retention asks", job_id)

    def _shown(self, identifier: str | None) -> str:
        if identifier is None or self._settings.log_identifiers:
            return identifier or "without UID"
        return "#" + hashlib.sha256(identifier.encode()).hexdigest()[:12]

"""What becomes of a study: wait until it is whole, analyse it in a process of its own, bring the results back.

One thread does this for all studies, one after the other; it alone writes their entries. Must not know networks, nor
how studies arrive.
"""

import logging
import os
import shutil
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from carina.errors import CarinaError
from carina.findings import Report
from carina.io import list_series
from carina.io.series import why_none
from carina.pacs.queue import Entry, Origin, Queue, Study
from carina.pacs.secret import Secret

log = logging.getLogger("carina.pacs")

Deliver = Callable[[Sequence[Path], Callable[[Path], None]], None]
"""Brings files somewhere, and tells each one that has arrived."""

TICK_S = 0.5
MOST_ATTEMPTS = 3
"""An analysis that was cut off this often by the end of the program is not tried again."""

_FIRST_PAUSE_S = 5.0
_LONGEST_PAUSE_S = 1800.0


@dataclass(frozen=True)
class Plan:
    """How studies are handled.

    Attributes:
        quiet_s: a study is looked at when nothing has arrived for that long ...
        patience_s: ... and given up when it is still not whole after that long.
        timeout_s: longest time of one analysis.
        formats: what is written of each.
        options: further arguments of ``carina detect``.
        keep_s: finished studies are deleted after that time.
        most_tries: a delivery is given up after so many failures.
        images: deliver the images that were analysed too.
        prepare: turns files into those that may leave, in a given folder; None: they leave as they are.
    """

    quiet_s: float = 15.0
    patience_s: float = 90.0
    timeout_s: float = 3600.0
    formats: tuple[str, ...] = ("json", "html", "seg", "sr", "keyimages")
    options: tuple[str, ...] = ()
    keep_s: float = 86400.0
    most_tries: int = 100
    images: bool = False
    prepare: Callable[[Sequence[Path], Path], list[Path]] | None = None


class Worker:
    """Handles the studies of a queue until it is stopped.

    Args:
        queue: where they are.
        plan: how they are handled.
        route: finds how results get to where a study came from; None where that is not known.
    """

    def __init__(self, queue: Queue, plan: Plan, route: Callable[[Origin], tuple[str, Deliver] | None]) -> None:
        self._queue = queue
        self._plan = plan
        self._route = route
        self._stop = threading.Event()
        self._waiting: dict[str, int] = {}
        self._settled: dict[str, tuple[float, bool]] = {}
        self._next_purge = 0.0

    def stop(self) -> None:
        """Make ``run`` return soon; what was not finished goes on after the next start."""
        self._stop.set()

    def run(self, done: Callable[[], bool] | None = None) -> None:
        """Handle studies until ``stop``, or until ``done`` says so."""
        while not self._stop.wait(TICK_S):
            self.step()
            if done is not None and done():
                return
            if time.monotonic() > self._next_purge:
                self._next_purge = time.monotonic() + 60
                try:
                    self._queue.purge(self._plan.keep_s)
                except OSError as error:  # such as a folder that may not be deleted; studies that come matter more
                    log.error("finished studies cannot be deleted: %s", error)

    def step(self) -> None:
        """Look at every study once."""
        for study in self._queue.studies():
            if self._stop.is_set():
                break
            entry = study.entry()
            try:
                self._handle(study, entry)
            except OSError as error:
                # Such as a full disk: nothing can be noted now, and nothing is lost by trying again.
                log.error("study %s: %s", study.key, error)
                self._stop.wait(_FIRST_PAUSE_S)

    def _handle(self, study: Study, entry: Entry) -> None:
        try:
            if entry.state in ("receiving", "done", "failed"):
                self._judge(study, entry)
            if entry.state == "analysing":
                self._analyse(study, entry)
            if entry.state == "sending" and time.time() >= entry.next_try:
                self._send(study, entry)
        except CarinaError as error:
            # Such as an image that may not leave as it is: it concerns this study alone.
            self._fail(study, entry, str(error))

    def _judge(self, study: Study, entry: Entry) -> None:
        arrival, unfinished = study.last_arrival(), study.unfinished
        if self._settled.get(study.key) == (arrival, unfinished):
            return
        count = study.count()
        taken_up = entry.state == "failed" and entry.cut_off and not unfinished
        if count == entry.judged and not taken_up:
            self._settled[study.key] = (arrival, unfinished)
            return
        age = time.time() - arrival
        if age < self._plan.quiet_s:
            return
        impatient = age >= self._plan.patience_s
        if unfinished and not impatient:
            return
        if self._waiting.get(study.key) == count and not impatient:
            return
        series, verdict = (
            ("", "the transfer was cut off and not taken up again")
            if unfinished
            else _choose(study, self._queue.secret)
        )
        if not series and not impatient:
            self._waiting[study.key] = count
            self._queue.audit.write("waiting", study=study.key, instances=count, reason=verdict)
            return
        self._waiting.pop(study.key, None)
        entry.judged, entry.cut_off = count, unfinished
        if not series:
            self._fail(study, entry, verdict)
            return
        result = study.result_name(series)
        if result == entry.result and entry.state == "done":
            study.save(entry)
            return
        entry.state, entry.series, entry.result = "analysing", series, result
        entry.attempts, entry.tries, entry.next_try, entry.sent, entry.reason = 0, 0, 0.0, [], ""
        study.save(entry)
        self._queue.audit.write("chosen", study=study.key, series=series, instances=count, reason=verdict)

    def _analyse(self, study: Study, entry: Entry) -> None:
        if not study.result(entry.result).exists():
            if entry.attempts >= MOST_ATTEMPTS:
                self._fail(study, entry, f"the program ended {entry.attempts} times during the analysis")
                return
            entry.attempts += 1
            study.save(entry)
            work = study.folder / "work" / uuid.uuid4().hex
            begin = time.monotonic()
            try:
                problem = self._detect(study, entry, work)
                if self._stop.is_set():
                    entry.attempts -= 1
                    study.save(entry)
                    return
                if problem:
                    self._fail(study, entry, problem)
                    return
                self._publish(study, entry, work, time.monotonic() - begin)
            finally:
                shutil.rmtree(work, ignore_errors=True)
        entry.state = "sending"
        study.save(entry)

    def _detect(self, study: Study, entry: Entry, work: Path) -> str:
        """Run the analysis; returns what went wrong, in words, or nothing."""
        images = work / "images"
        images.mkdir(parents=True)
        # Links, so that what arrives meanwhile changes nothing.
        for file in (study.images / entry.series).glob("*.dcm"):
            os.link(file, images / file.name)
        command = [sys.executable, "-m", "carina", "detect", "-i", str(images), "-o", str(work / "out"), "--quiet"]
        command += ["--format", ",".join(self._plan.formats), *self._plan.options]
        with (work / "errors").open("w+b") as errors:
            process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=errors)
            end = time.monotonic() + self._plan.timeout_s
            try:
                while process.poll() is None and time.monotonic() < end and not self._stop.wait(0.1):
                    pass
            finally:
                late = process.poll() is None
                if late:
                    process.kill()
                process.wait()
            if late:
                return f"the analysis took more than {self._plan.timeout_s:g} s"
            errors.seek(max(0, errors.seek(0, os.SEEK_END) - 4000))
            said = errors.read().decode(errors="replace").strip().splitlines() or [""]
        return "" if process.returncode == 0 else f"{said[-1]} (exit code {process.returncode})".strip()

    def _publish(self, study: Study, entry: Entry, work: Path, seconds: float) -> None:
        (case,) = (folder for folder in (work / "out").iterdir() if folder.is_dir())
        report = Report.read(case / "report.json")
        target = study.result(entry.result)
        target.parent.mkdir(exist_ok=True)
        files = [file for file in sorted(case.rglob("*.dcm")) if file.is_file()]
        if self._plan.images:
            files += sorted((work / "images").glob("*.dcm"))
        if self._plan.prepare:
            self._plan.prepare(files, case / "outgoing")
        elif self._plan.images:
            (work / "images").rename(case / "images")
        case.rename(target)
        self._queue.audit.write(
            "analysed",
            study=study.key,
            series=entry.series,
            findings=len(report.findings),
            seconds=round(seconds, 1),
            carina=report.carina_version,
            models={model.role: model.sha256[:16] for model in report.models},
        )

    def _send(self, study: Study, entry: Entry) -> None:
        way = self._route(study.origin)
        if way is None:
            entry.reason = f"not sent: no address is known of {study.origin.ae_title or 'the sender'}"
            self._finish(study, entry, 0)
            return
        name, deliver = way
        folder = study.result(entry.result)
        leaving = folder / "outgoing" if self._plan.prepare else folder
        files = sorted(leaving.rglob("*.dcm"))
        left = [file for file in files if str(file.relative_to(folder)) not in entry.sent]

        def arrived(file: Path) -> None:
            entry.sent.append(str(file.relative_to(folder)))
            study.save(entry)

        try:
            if left:
                deliver(left, arrived)
        except CarinaError as error:
            entry.tries += 1
            pause = min(_LONGEST_PAUSE_S, _FIRST_PAUSE_S * 2 ** (entry.tries - 1))
            entry.next_try = time.time() + pause
            self._queue.audit.write("not delivered", study=study.key, to=name, tries=entry.tries, reason=str(error))
            log.warning("study %s: not delivered, next try in %.0f s: %s", study.key, pause, error)
            if entry.tries >= self._plan.most_tries:
                self._fail(study, entry, f"not delivered: {error}")
            else:
                study.save(entry)
            return
        self._queue.audit.write("delivered", study=study.key, to=name, instances=len(files))
        self._finish(study, entry, len(files))

    def _finish(self, study: Study, entry: Entry, count: int) -> None:
        entry.state = "done"
        study.save(entry)
        self._queue.audit.write("done", study=study.key, reason=entry.reason)
        log.info("study %s: done, %d objects delivered %s", study.key, count, entry.reason)

    def _fail(self, study: Study, entry: Entry, reason: str) -> None:
        entry.state, entry.reason = "failed", reason
        study.save(entry)
        self._queue.audit.write("failed", study=study.key, reason=reason)
        log.error("study %s: failed: %s", study.key, reason)


def _choose(study: Study, secret: Secret) -> tuple[str, str]:
    """Folder name of the series to analyse, or nothing, and why in words."""
    try:
        series = list_series(study.images)
    except CarinaError as error:  # what has arrived so far cannot be read; more may come
        return "", str(error)
    for one in series:
        if one.chosen and one.series_uid:
            return secret.key(one.series_uid), one.reason
    return "", why_none(series)

"""Follow an Orthanc: every study that has become stable there goes into the queue, exactly as it is there.

Must not know what becomes of a study. Needs the extra ``pacs``.
"""

import logging
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import msgspec

from carina.errors import UsageError
from carina.pacs.http import PacsError
from carina.pacs.orthanc import Orthanc
from carina.pacs.queue import NoSpaceError, Origin, Queue, write_whole

log = logging.getLogger("carina.pacs")

_LONGEST_PAUSE_S = 300.0


class Follower:
    """Follows until it is stopped.

    Args:
        queue: where studies go.
        orthanc: which one.
        origin: what the queue is to know of it.
        every_s: how often to ask.
        from_start: begin with the oldest change that it knows; else with what comes from now on. Only matters the
            first time, for the place is kept in the queue's folder.

    Attributes:
        asked: set once Orthanc was asked for the first time, whether or not it answered.
    """

    def __init__(self, queue: Queue, orthanc: Orthanc, origin: Origin, *, every_s: float, from_start: bool) -> None:
        self._queue = queue
        self._orthanc = orthanc
        self._origin = origin
        self._every_s = every_s
        self._from_start = from_start
        self._stop = threading.Event()
        self._wake = threading.Event()
        self.asked = threading.Event()
        self._place = queue.root / f"orthanc-{queue.secret.key(origin.url)}.json"

    def stop(self) -> None:
        """Make ``run`` return soon."""
        self._stop.set()
        self._wake.set()

    def wake(self) -> None:
        """Ask now."""
        self._wake.set()

    def run(self) -> None:
        """Ask again and again until ``stop``; where Orthanc does not answer, more and more seldom."""
        pause_s = self._every_s
        while not self._stop.is_set():
            try:
                self.poll()
                pause_s = self._every_s
            except (PacsError, NoSpaceError, OSError) as error:
                pause_s = min(_LONGEST_PAUSE_S, 2 * max(1.0, pause_s))
                self._queue.audit.write("not reached", reason=str(error))
                log.warning("next try in %.0f s: %s", pause_s, error)
            self.asked.set()
            self._wake.wait(pause_s)
            self._wake.clear()

    def poll(self) -> None:
        """Take in what has become stable since the last time.

        Raises:
            PacsError: Orthanc does not answer; nothing is left out the next time.
            NoSpaceError: the disk is too full; likewise.
        """
        last = self._orthanc.last_change()
        since = self._since(last)
        if since > last:  # its database was made anew
            self._queue.audit.write("begun anew", reason=f"Orthanc counts {last} changes, {since} were seen")
            since = 0
        done = False
        while not done and not self._stop.is_set():
            changes, since, done = self._orthanc.changes(since)
            for change in changes:
                if change.kind == "StableStudy":
                    self._take(change.resource)
            write_whole(self._place, msgspec.json.encode(since))

    def _since(self, last: int) -> int:
        try:
            return int(msgspec.json.decode(self._place.read_bytes()))
        except FileNotFoundError:
            since = 0 if self._from_start else last
            write_whole(self._place, msgspec.json.encode(since))
            return since

    def _take(self, study: str) -> None:
        try:
            instances = self._orthanc.ct_instances(study)
            new = [i for i in instances if not self._queue.has(i.study_uid, i.series_uid, i.sop_uid)]
            for one in new:
                file = self._orthanc.file(one.id)
                self._queue.add(one.study_uid, one.series_uid, one.sop_uid, file, self._origin)
        except PacsError as error:
            if error.status != 404:
                raise
            self._queue.audit.write("gone", reason="the study was deleted before it could be fetched")
            return
        if new:
            uid = new[0].study_uid
            self._queue.finished(uid)
            self._queue.audit.write("fetched", study=self._queue.study(uid).key, url=self._origin.url, new=len(new))


class Webhook:
    """Listens for POST requests, whatever they say, and wakes a follower.

    Args:
        follower: whom to wake.
        host: address to listen on.
        port: port to listen on; 0 takes a free one.

    Raises:
        UsageError: the port cannot be had.
    """

    def __init__(self, follower: Follower, host: str, port: int) -> None:
        class Handler(BaseHTTPRequestHandler):
            timeout = 5

            def do_POST(self) -> None:
                follower.wake()
                self.send_response(204)
                self.end_headers()

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002
                """Say nothing."""

        try:
            self._server = ThreadingHTTPServer((host, port), Handler)
        except OSError as error:
            raise UsageError(f"cannot listen on {host}:{port} ({error.strerror or error})") from error
        self._thread = threading.Thread(target=self._server.serve_forever, name="webhook", daemon=True)
        self._thread.start()

    @property
    def port(self) -> int:
        """The port that it listens on."""
        return self._server.server_port

    def close(self) -> None:
        """Stop listening."""
        self._server.shutdown()
        self._server.server_close()

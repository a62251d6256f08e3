"""Studies on disk, from the first instance that arrives to the results that are delivered.

    FOLDER/lock  secret.key  audit.jsonl
    FOLDER/studies/STUDY/
        images/SERIES/INSTANCE.dcm   as received
        origin.json                  who sent it
        unfinished                   there while a transfer runs, and after one that was cut off
        entry.json                   how far the study is; written by the worker alone
        results/RESULT/              reports; RESULT names the instances that were analysed
        work/                        of no value after a crash

Names are hashes of UIDs; nothing that a sender writes becomes a path. Every file appears whole, by renaming, and is on
disk before the sender hears of success; so ``kill -9`` at any moment leaves a queue that can go on. Must not know
networks, nor what is done with a study.
"""

import fcntl
import hashlib
import os
import shutil
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import msgspec

from carina.errors import CarinaError, UsageError
from carina.pacs.audit import Audit
from carina.pacs.secret import Secret
from carina.replacing import replacing

State = Literal["receiving", "analysing", "sending", "done", "failed"]


class NoSpaceError(CarinaError):
    """The disk is too full to take more in."""


class Origin(msgspec.Struct, frozen=True):
    """Where a study came from, and so where its results belong.

    Attributes:
        ae_title: of the node that sent it.
        address: of that node.
        url: of the server that it was fetched from.
    """

    ae_title: str = ""
    address: str = ""
    url: str = ""


class Entry(msgspec.Struct):
    """How far a study is.

    Attributes:
        state: receiving (waiting for more), analysing, sending, done or failed.
        judged: how many instances there were when it was decided what to do.
        cut_off: whether the transfer was cut off then.
        series: folder name of the series that was chosen.
        result: folder name of the result.
        attempts: how often the analysis was begun.
        sent: files of the result that were delivered.
        tries: how often the delivery failed in a row.
        next_try: when to try again, in seconds since 1970.
        reason: why it failed, or why nothing was sent.
    """

    state: State = "receiving"
    judged: int = 0
    cut_off: bool = False
    series: str = ""
    result: str = ""
    attempts: int = 0
    sent: list[str] = []
    tries: int = 0
    next_try: float = 0.0
    reason: str = ""


@dataclass(frozen=True)
class Study:
    """One study of the queue; ``key`` is its folder's name."""

    folder: Path

    @property
    def key(self) -> str:
        """The hash that stands for the study in logs."""
        return self.folder.name

    @property
    def images(self) -> Path:
        """Received instances, a folder for each series."""
        return self.folder / "images"

    @property
    def unfinished(self) -> bool:
        """Whether a transfer runs, or was cut off."""
        return (self.folder / "unfinished").exists()

    @property
    def origin(self) -> Origin:
        """Who sent it last."""
        return msgspec.json.decode((self.folder / "origin.json").read_bytes(), type=Origin)

    def entry(self) -> Entry:
        """How far it is."""
        try:
            return msgspec.json.decode((self.folder / "entry.json").read_bytes(), type=Entry)
        except FileNotFoundError:
            return Entry()

    def save(self, entry: Entry) -> None:
        """Note how far it is."""
        write_whole(self.folder / "entry.json", msgspec.json.encode(entry))

    def count(self) -> int:
        """Number of instances."""
        return sum(1 for _ in self.images.glob("*/*.dcm"))

    def last_arrival(self) -> float:
        """When an instance arrived last, new or once more, in seconds since 1970."""
        folders = (self.images, *self.images.iterdir())
        return max(folder.stat().st_mtime for folder in folders)

    def result_name(self, series: str) -> str:
        """Names the result of a series by the instances that it holds now."""
        names = sorted(file.name for file in (self.images / series).glob("*.dcm"))
        return hashlib.sha256("\n".join(names).encode()).hexdigest()[:16]

    def result(self, name: str) -> Path:
        """Folder of a result; there only when it is whole."""
        return self.folder / "results" / name


class Queue:
    """The studies of one folder, which belongs to this process until ``close``.

    Args:
        root: the folder; made where it is missing, for its owner only.
        free_bytes: nothing more is taken in when less than this would be free.

    Raises:
        UsageError: another process has it.
    """

    def __init__(self, root: Path, *, free_bytes: int = 2 << 30) -> None:
        self.root = root
        self._studies = root / "studies"
        for folder in (root, self._studies):
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._lock_file = (root / "lock").open("wb")
        try:
            fcntl.flock(self._lock_file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            self._lock_file.close()
            raise UsageError(f"{root} belongs to another running carina pacs; give this one another folder") from None
        self.secret = Secret.of(root / "secret.key")
        self.audit = Audit(root / "audit.jsonl", self.secret)
        self._free_bytes = free_bytes
        self._lock = threading.Lock()
        for study in self.studies():
            shutil.rmtree(study.folder / "work", ignore_errors=True)
            for part in study.folder.rglob("*.part"):
                part.unlink()

    def close(self) -> None:
        """Give the folder back."""
        self._lock_file.close()

    def studies(self) -> Iterator[Study]:
        """All studies, in the order in which they began to arrive."""
        return studies_of(self.root)

    def study(self, study_uid: str) -> Study:
        """The study of that UID, whether or not there is one yet."""
        return Study(self._studies / self.secret.key(study_uid))

    def has(self, study_uid: str, series_uid: str, sop_uid: str) -> bool:
        """Whether an instance is there."""
        return self._path(study_uid, series_uid, sop_uid).exists()

    def add(self, study_uid: str, series_uid: str, sop_uid: str, data: bytes, origin: Origin) -> bool:
        """Take an instance in; it is on disk when this returns.

        Args:
            study_uid: StudyInstanceUID.
            series_uid: SeriesInstanceUID.
            sop_uid: SOPInstanceUID. An instance that is there already is left as it is, for a UID never names two.
            data: a DICOM file.
            origin: who sent it.

        Returns:
            Whether it is new.

        Raises:
            NoSpaceError: the disk is too full.
        """
        if shutil.disk_usage(self.root).free < self._free_bytes + len(data):
            raise NoSpaceError(f"less than {self._free_bytes >> 20} MiB would be free in {self.root}")
        study, path = self.study(study_uid), self._path(study_uid, series_uid, sop_uid)
        folder = path.parent
        with self._lock:
            for one in (study.folder, study.images, folder):
                one.mkdir(exist_ok=True, mode=0o700)
            (study.folder / "unfinished").touch()
            if not (study.folder / "origin.json").exists() or study.origin != origin:
                write_whole(study.folder / "origin.json", msgspec.json.encode(origin))
            if path.exists():
                os.utime(folder)
                return False
            write_whole(path, data)
            return True

    def finished(self, study_uid: str) -> None:
        """Note that a transfer came to its proper end."""
        with self._lock:
            (self.study(study_uid).folder / "unfinished").unlink(missing_ok=True)

    def purge(self, keep_s: float) -> None:
        """Delete studies that are done or failed and to which nothing was added for ``keep_s``."""
        for study in list(self.studies()):
            with self._lock:
                old = time.time() - max(study.last_arrival(), study.folder.stat().st_mtime) > keep_s
                if old and study.entry().state in ("done", "failed"):
                    shutil.rmtree(study.folder)
                    self.audit.write("deleted", study=study.key)

    def _path(self, study_uid: str, series_uid: str, sop_uid: str) -> Path:
        folder = self.study(study_uid).images / self.secret.key(series_uid)
        return folder / f"{self.secret.key(sop_uid)}.dcm"


def studies_of(root: Path) -> Iterator[Study]:
    """The studies of a folder, which may belong to another process."""
    known = [Study(f) for f in (root / "studies").iterdir() if (f / "origin.json").exists()]
    yield from sorted(known, key=lambda study: ((study.folder / "origin.json").stat().st_mtime, study.key))


def write_whole(path: Path, data: bytes) -> None:
    """Write a file that appears whole and is on disk when this returns."""
    with replacing(path, durable=True) as draft:
        draft.write_bytes(data)

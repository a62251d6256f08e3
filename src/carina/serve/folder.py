"""Where a server keeps its files: one folder, one owner.

    FOLDER/jobs.sqlite          the list of jobs
    FOLDER/incoming/ID/         an upload that is not complete
    FOLDER/jobs/ID/input/       a study that waits
    FOLDER/jobs/ID/result/      a finished one: it appears with all its files at once

Every name in it is made here; none comes from a client.
"""

import fcntl
import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from carina.errors import UsageError
from carina.serve.problems import ProblemError

RESULTS = {
    "report": "report.json",
    "report_html": "report.html",
    "findings_csv": "findings.csv",
    "mask": "mask.nii.gz",
    "volume": "volume.nii.gz",
}
"""Files of a finished job by the name that links give them.

All but the volume are named as in ``carina.report.FORMATS``; importing that would load all that draws and reads images.
"""


@dataclass(frozen=True)
class StateFolder:
    """The folder of one server."""

    root: Path

    @property
    def database(self) -> Path:
        """The list of jobs."""
        return self.root / "jobs.sqlite"

    def make(self) -> None:
        """Make what is missing; only the owner may look in, since it holds images of patients."""
        for folder in (self.root, self.root / "incoming", self.root / "jobs"):
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)

    def incoming(self, job_id: str) -> Path:
        """Folder of an upload that is not complete."""
        return self.root / "incoming" / job_id

    def job(self, job_id: str) -> Path:
        """Folder of a job."""
        return self.root / "jobs" / job_id

    def result(self, job_id: str, name: str) -> Path:
        """A file of a finished job; ``name`` is a key of ``RESULTS``."""
        return self.job(job_id) / "result" / RESULTS[name]

    def drop(self, job_id: str) -> None:
        """Delete all files of a job."""
        for folder in (self.incoming(job_id), self.job(job_id)):
            shutil.rmtree(folder, ignore_errors=True)

    def drop_input(self, job_id: str) -> None:
        """Delete the uploaded files of a job."""
        shutil.rmtree(self.job(job_id) / "input", ignore_errors=True)

    def tidy(self, states: dict[str, str]) -> None:
        """Delete what a crash left behind.

        Args:
            states: of all jobs by id. Uploads that never became a job go, whatever jobs have that the list does not
                know or that have no result, and the uploaded files of those that are done.
        """
        for folder in (self.root / "incoming").iterdir():
            shutil.rmtree(folder, ignore_errors=True)
        for folder in (self.root / "jobs").iterdir():
            state = states.get(folder.name)
            if state == "done":
                self.drop_input(folder.name)
            elif state not in ("queued", "running"):
                self.drop(folder.name)

    def size(self, job_id: str) -> int:
        """Bytes that the result of a job takes."""
        return sum(file.stat().st_size for file in (self.job(job_id) / "result").iterdir())

    def check_space(self, free_bytes: int) -> None:
        """Refuse new work while the disk is nearly full.

        Raises:
            ProblemError: less than ``free_bytes`` are free.
        """
        free = shutil.disk_usage(self.root).free
        if free < free_bytes:
            raise ProblemError("no-space", "the server's disk is nearly full; delete jobs, or tell its operator")

    def own(self) -> IO[bytes]:
        """Take the folder for this process, until the file that is returned is closed or the process ends.

        Raises:
            UsageError: another server has it.
        """
        file = (self.root / "lock").open("wb")
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            file.close()
            raise UsageError(f"{self.root} belongs to another running server; give this one another folder") from None
        os.set_inheritable(file.fileno(), False)
        return file

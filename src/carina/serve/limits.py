"""What a client may ask for: every bound on sizes, counts and times, in one place.

Must not know how requests arrive or what is done with them.
"""

from dataclasses import dataclass

MIB = 2**20
GIB = 2**30

PIECE = MIB
"""Bodies and files pass through memory in pieces of so many bytes."""


@dataclass(frozen=True)
class Limits:
    """Bounds on what one client, and all of them together, may use.

    Attributes:
        upload_bytes: largest body of a study.
        uploads: studies that are received at the same time by one server process; more are answered 503.
        upload_s: longest time that one upload may take.
        idle_s: longest silence of a client in the middle of a request.
        files: most files in a study, parts and members of archives counted together.
        unpacked_bytes: largest study after unpacking.
        unpack_ratio: most bytes that one byte of an archive may become.
        voxels: largest CT, as its header claims, before anything of it is read.
        slices: most slices of a CT.
        queued_jobs: jobs that may wait; more studies are answered 503.
        job_s: a job that runs longer is ended and counts as failed.
        crops: most crops in one request for classification.
        queued_crops: crops that may wait for a batch in one server process; more are answered 503.
        deadline_s: a request for classification that waited longer is answered 504.
        streams: event streams open at the same time in one server process.
        free_bytes: disk space that stays free; below it studies are answered 507.
        comment_chars: longest comment of a review.
    """

    upload_bytes: int = 2 * GIB
    uploads: int = 16
    upload_s: float = 1800.0
    idle_s: float = 30.0
    files: int = 20_000
    unpacked_bytes: int = 6 * GIB
    unpack_ratio: float = 200.0
    voxels: int = 800_000_000
    slices: int = 5_000
    queued_jobs: int = 64
    job_s: float = 3600.0
    crops: int = 64
    queued_crops: int = 256
    deadline_s: float = 10.0
    streams: int = 64
    free_bytes: int = 512 * MIB
    comment_chars: int = 2000

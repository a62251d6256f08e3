"""What went wrong, in the form of RFC 9457 (``application/problem+json``).

Must not know Sanic or Flask.
"""

import errno
from typing import Any

from carina.errors import CarinaError

MEDIA_TYPE = "application/problem+json"

TITLES = {
    "bad-request": (400, "The request cannot be understood"),
    "unauthorized": (401, "A bearer token is needed"),
    "forbidden": (403, "The request is not allowed"),
    "not-found": (404, "There is no such thing"),
    "method-not-allowed": (405, "The resource has no such method"),
    "timeout": (408, "The client sent nothing for too long"),
    "conflict": (409, "The job is in another state"),
    "too-large": (413, "The request is larger than this server takes"),
    "unsupported": (415, "The content is of a kind that this server does not take"),
    "invalid": (422, "The content is not what it must be"),
    "internal": (500, "The server failed"),
    "busy": (503, "The server is busy"),
    "not-ready": (503, "The server is not ready"),
    "deadline": (504, "The request waited too long"),
    "no-space": (507, "The server cannot store more"),
}
"""Every kind of problem with its HTTP status and title."""

JOB_TITLES = {
    "input-refused": "The study was refused",
    "no-memory": "The study does not fit into memory",
    "job-timeout": "The analysis took too long",
    "crashed": "The analysis ended unexpectedly",
}
"""Kinds of problem that only jobs have, with their titles: no answer to a request is one of them."""

NO_SPACE = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
"""Errors of the operating system that mean that the disk, or what may be used of it, is full."""


class ProblemError(CarinaError):
    """A request that is refused, with the reason.

    Attributes:
        kind: a key of ``TITLES``.
        detail: what was found, what was expected, and what to do.
        retry_after_s: when to try again, where that helps.
        extra: further members of the answer.
    """

    def __init__(self, kind: str, detail: str, *, retry_after_s: int | None = None, **extra: Any) -> None:
        super().__init__(detail)
        self.kind = kind
        self.detail = detail
        self.retry_after_s = retry_after_s
        self.extra = extra

    @property
    def status(self) -> int:
        """HTTP status."""
        return TITLES[self.kind][0]

    def body(self) -> dict[str, Any]:
        """The members of the answer."""
        return {**describe(self.kind, self.detail), "status": self.status, **self.extra}

    def headers(self) -> dict[str, str]:
        """Headers that belong to the answer."""
        headers = {} if self.retry_after_s is None else {"Retry-After": str(self.retry_after_s)}
        return headers | ({"WWW-Authenticate": "Bearer"} if self.status == 401 else {})


def describe(kind: str, detail: str) -> dict[str, str]:
    """Type, title and detail of a problem; jobs keep theirs in this form."""
    title = JOB_TITLES[kind] if kind in JOB_TITLES else TITLES[kind][1]
    return {"type": f"urn:carina:problem:{kind}", "title": title, "detail": detail}


def is_no_space(error: BaseException) -> bool:
    """Whether an error means that the disk is full; SQLite says so in words only."""
    if isinstance(error, OSError) and error.errno in NO_SPACE:
        return True
    return any(words in str(error) for words in ("database or disk is full", "disk I/O error"))

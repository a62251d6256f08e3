"""What a person says about the findings of a job: accepted, rejected, or not looked at, with comments.

Kept beside the report, which itself never changes. Must not know HTTP or the list of jobs.
"""

from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

import msgspec

from carina.replacing import replacing
from carina.serve.problems import ProblemError


class FindingReview(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The word on one finding.

    Attributes:
        id: the finding's ``id`` in the report.
        verdict: accepted, rejected or open.
        comment: free text.
    """

    id: int
    verdict: Literal["accepted", "rejected", "open"] = "open"
    comment: str = ""


class Review(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The word on a report.

    Attributes:
        findings: at most one entry per finding.
        comment: free text on the whole.
        updated: when it was stored, UTC; filled in by the server.
    """

    findings: tuple[FindingReview, ...] = ()
    comment: str = ""
    updated: str | None = None


def parse_review(body: bytes, *, findings: int, comment_chars: int) -> Review:
    """Check a review that a client sends.

    Args:
        body: JSON.
        findings: how many the report has; their ids count from 1.
        comment_chars: longest comment.

    Raises:
        ProblemError: no such JSON, unknown or repeated findings, or too long a comment.
    """
    try:
        review = msgspec.json.decode(body, type=Review)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ProblemError("invalid", f"not a review: {error}") from error
    ids = [one.id for one in review.findings]
    if len(ids) != len(set(ids)) or not set(ids) <= set(range(1, findings + 1)):
        raise ProblemError("invalid", f"the review must name findings 1 to {findings}, each at most once")
    if max(len(text) for text in (review.comment, *(one.comment for one in review.findings))) > comment_chars:
        raise ProblemError("too-large", f"a comment is longer than {comment_chars} characters")
    return msgspec.structs.replace(review, updated=datetime.now(UTC).isoformat(timespec="seconds"))


FILE = "review.json"
"""The review of a report of the command line, in the report's folder."""


def keep_review(body: bytes, folder: Path) -> None:
    """Write a review beside its report, whole or not at all.

    Raises:
        ProblemError: the folder cannot be written.
    """
    try:
        with replacing(folder / FILE) as draft:
            draft.write_bytes(msgspec.json.format(body, indent=2) + b"\n")
    except OSError as error:
        raise ProblemError("no-space", f"the report's folder cannot be written: {error.strerror}") from error

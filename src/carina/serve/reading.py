"""Small bodies and numbers out of requests, bounded. Must not know what they are for."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from sanic import Request

from carina.serve.limits import Limits
from carina.serve.problems import ProblemError
from carina.serve.receive import too_many_bytes
from carina.serve.service import within


async def next_piece(request: Request, idle_s: float) -> bytes | None:
    """The next bytes of a body; None at its end.

    Raises:
        ProblemError: the client was silent for longer than ``idle_s``.
    """
    stream: Any = request.stream
    piece: bytes | None = await within(idle_s, stream.read())
    return piece


async def read_body(request: Request, most: int, limits: Limits) -> bytes:
    """The whole body of a request.

    Args:
        request: its route must be declared as a stream.
        most: bytes.
        limits: how long the client may be silent, and may take.

    Raises:
        ProblemError: it is larger, or does not come.
    """
    claimed_bytes(request, most)
    body = bytearray()
    async with time_to_send(limits):
        while (piece := await next_piece(request, limits.idle_s)) is not None:
            body += piece
            if len(body) > most:
                raise too_many_bytes(most)
    return bytes(body)


def claimed_bytes(request: Request, most: int) -> int:
    """The length of the body as the client states it; ``most`` where it states none.

    Raises:
        ProblemError: more than ``most``.
    """
    claimed = int(request.headers.get("content-length", most))
    if claimed > most:
        raise too_many_bytes(most)
    return claimed


@asynccontextmanager
async def time_to_send(limits: Limits) -> AsyncIterator[None]:
    """The time in which a body must have come, however steadily it trickles.

    Raises:
        ProblemError: it took longer.
    """
    try:
        async with asyncio.timeout(limits.upload_s):
            yield
    except TimeoutError:
        raise ProblemError("timeout", f"the upload took longer than {limits.upload_s:g} s") from None


def whole_number(request: Request, name: str, default: int, low: int, high: int) -> int:
    """A number of the query.

    Raises:
        ProblemError: no whole number between ``low`` and ``high``.
    """
    text = request.args.get(name)
    if text is None:
        return default
    if not (text.isascii() and text.isdigit() and len(text) < 17 and low <= int(text) <= high):
        raise ProblemError("invalid", f"{name} must be a whole number between {low} and {high}")
    return int(text)

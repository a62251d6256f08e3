"""Small bodies and numbers out of requests, bounded. Must not know what they are for."""

from typing import Any

from sanic import Request

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


async def read_body(request: Request, most: int, idle_s: float) -> bytes:
    """The whole body of a request.

    Args:
        request: its route must be declared as a stream.
        most: bytes.
        idle_s: longest silence of the client.

    Raises:
        ProblemError: it is larger, or does not come.
    """
    if int(request.headers.get("content-length", "0")) > most:
        raise too_many_bytes(most)
    body = bytearray()
    while (piece := await next_piece(request, idle_s)) is not None:
        body += piece
        if len(body) > most:
            raise too_many_bytes(most)
    return bytes(body)


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

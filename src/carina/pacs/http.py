"""HTTP to a PACS with bounds: no answer may be longer or slower than expected. Must not know DICOM.

Needs the extra ``pacs``.
"""

import os
import time
from collections.abc import Mapping
from typing import Any

import httpx

from carina.errors import InputError, UsageError

CREDENTIALS = "CARINA_PACS_AUTH"
"""Environment variable with ``user:password`` for HTTP Basic authentication."""


class PacsError(InputError):
    """A PACS that cannot be reached, or that says no.

    Args:
        message: what happened, in words.
        status: HTTP status of the answer, if that was it.
    """

    def __init__(self, message: str, status: int | None = None) -> None:
        super().__init__(message)
        self.status = status


class Http:
    """Requests below one address.

    Args:
        url: what all paths are relative to.
        timeout_s: longest wait for a connection or for the next bytes.
        total_s: longest time of one request.
        most_bytes: a longer answer is refused.

    Raises:
        UsageError: the address has a password in it, which would end up in logs.
    """

    def __init__(self, url: str, *, timeout_s: float = 20.0, total_s: float = 300.0, most_bytes: int = 1 << 30) -> None:
        if httpx.URL(url).userinfo:
            raise UsageError(f"user and password do not belong into the address; set {CREDENTIALS}=user:password")
        user, _, password = os.environ.get(CREDENTIALS, "").partition(":")
        self._client = httpx.Client(
            auth=(user, password) if user else None, timeout=timeout_s, follow_redirects=False, trust_env=False
        )
        self.url = url.rstrip("/")
        self._total_s = total_s
        self._most_bytes = most_bytes

    def __enter__(self) -> "Http":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close all connections."""
        self._client.close()

    def get(
        self, path: str, *, params: Mapping[str, Any] | None = None, accept: str = "application/json"
    ) -> tuple[bytes, str]:
        """Fetch something.

        Args:
            path: below the address.
            params: the query.
            accept: media type that is wanted.

        Returns:
            The body, and its media type with parameters.

        Raises:
            PacsError: no answer, a refusal, or an answer beyond the bounds.
        """
        return self._request("GET", path, params=params, headers={"Accept": accept})

    def post(
        self,
        path: str,
        content: bytes,
        *,
        media_type: str,
        accept: str = "application/json",
        expected: tuple[int, ...] = (),
    ) -> bytes:
        """Bring something.

        Args:
            path: below the server's URL.
            content: the body.
            media_type: of the body.
            accept: media type of the answer.
            expected: status codes besides success whose answer is wanted.

        Raises:
            PacsError: as ``get``.
        """
        headers = {"Content-Type": media_type, "Accept": accept}
        return self._request("POST", path, expected, content=content, headers=headers)[0]

    def _request(self, method: str, path: str, expected: tuple[int, ...] = (), **options: Any) -> tuple[bytes, str]:
        url, end, body = f"{self.url}/{path}", time.monotonic() + self._total_s, bytearray()
        try:
            with self._client.stream(method, url, **options) as answer:
                if not answer.is_success and answer.status_code not in expected:
                    said = f"answered {answer.status_code} {answer.reason_phrase}"
                    raise PacsError(f"{method} {url}: {said}", answer.status_code)
                for part in answer.iter_bytes():
                    body += part
                    if len(body) > self._most_bytes:
                        raise PacsError(f"{method} {url}: more than {self._most_bytes} bytes; not read further")
                    if time.monotonic() > end:
                        raise PacsError(f"{method} {url}: took more than {self._total_s:g} s")
                return bytes(body), answer.headers.get("Content-Type", "")
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise PacsError(f"{method} {url}: {error or type(error).__name__}") from error

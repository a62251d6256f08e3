"""Who may ask, and what browsers are told about the answers. Must not know what is served."""

import hmac
from collections.abc import Mapping

from carina.serve.problems import ProblemError
from carina.serve.settings import LOOPBACK, Settings

HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "SAMEORIGIN",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
}

PAGE_POLICY = (
    "default-src 'self'; script-src 'self'; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data: blob:; connect-src 'self' data: blob:; worker-src 'self' blob:; object-src 'none'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'self'"
)
"""Content-Security-Policy of the viewer: its own scripts and workers, the files it has fetched, nothing from
elsewhere."""

REPORT_POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:; sandbox; frame-ancestors 'self'"
"""Content-Security-Policy of a report: text and pictures that it carries itself, no scripts."""

DATA_POLICY = "default-src 'none'; frame-ancestors 'none'"
"""Content-Security-Policy of everything else."""


def check_shown_only(method: str, path: str) -> None:
    """Refuse what would change a server that shows one report, but for its review.

    Raises:
        ProblemError: the request would.
    """
    if method not in ("GET", "HEAD") and not (method == "PUT" and path.endswith("/review")):
        raise ProblemError("forbidden", "this server shows one finished report; start 'carina serve' for more")


def check(path: str, headers: Mapping[str, str], settings: Settings) -> None:
    """Refuse a request that has no right to be answered.

    Pages of other sites are kept out by the Host and Origin headers: a browser on the same machine reaches the loopback
    address on behalf of any page that it shows.

    Args:
        path: the URL's.
        headers: by lower-case name.
        settings: the server's.

    Raises:
        ProblemError: a foreign host or page, or no right token.
    """
    host = headers.get("host", "")
    if settings.host in LOOPBACK or settings.hosts:
        name = host.rpartition(":")[0] if host.rpartition(":")[2].isdigit() else host
        if name.strip("[]").lower() not in {*LOOPBACK, settings.host.lower(), *(h.lower() for h in settings.hosts)}:
            raise ProblemError("forbidden", "the Host header names another server; see --hosts")
    origin = headers.get("origin")
    foreign = origin is not None and origin.partition("://")[2].lower() != host.lower()
    if foreign or headers.get("sec-fetch-site") == "cross-site":
        raise ProblemError("forbidden", "requests on behalf of pages of other sites are not answered")
    # The pages and their scripts hold no data, and probes carry no token.
    guarded = path.startswith("/v1/") or path == "/metrics"
    if settings.token is not None and guarded:
        scheme, _, token = headers.get("authorization", "").partition(" ")
        if scheme.lower() != "bearer" or not hmac.compare_digest(token.strip().encode(), settings.token.encode()):
            raise ProblemError("unauthorized", "send the server's token as 'Authorization: Bearer TOKEN'")

"""Who is let in: tokens, hosts and pages of other sites; and settings that would let in too many."""

import math
from pathlib import Path

import pytest

from carina.cli import main
from carina.cli.serve import Serve
from carina.errors import UsageError
from carina.serve.problems import ProblemError
from carina.serve.reviews import keep_review, parse_review
from carina.serve.run import listen
from carina.serve.security import check, check_shown_only
from carina.serve.settings import Settings

TOKEN = "correct-horse-battery"


def allowed(path="/v1/jobs", *, host="127.0.0.1:8000", settings=None, **headers) -> int:
    """200, or the status of the refusal."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    try:
        check(path, {"host": host, **named}, settings or Settings(Path()))
    except ProblemError as problem:
        return problem.status
    return 200


@pytest.mark.parametrize("host", ["127.0.0.1:8000", "localhost", "LOCALHOST:1", "[::1]:8000"])
def test_the_loopback_address_has_its_names(host):
    assert allowed(host=host) == 200


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1.evil.example:8000", "localhost.evil.example", ""])
def test_a_name_that_was_made_to_point_here_is_refused(host):
    assert allowed(host=host) == 403


def test_further_names_are_allowed_by_the_operator():
    settings = Settings(Path(), host="0.0.0.0", hosts=("ct.hospital.example",))
    assert allowed(host="ct.hospital.example:443", settings=settings) == 200
    assert allowed(host="other.example", settings=settings) == 403


def test_pages_of_other_sites_are_refused():
    assert allowed(origin="http://127.0.0.1:8000") == 200
    assert allowed(origin="https://evil.example") == 403
    assert allowed(origin="null") == 403
    assert allowed(sec_fetch_site="cross-site") == 403


@pytest.mark.parametrize(
    ("authorization", "status"),
    [
        (f"Bearer {TOKEN}", 200),
        (f"bearer {TOKEN}", 200),
        ("Bearer wrong", 401),
        (f"Basic {TOKEN}", 401),
        ("Bearer ", 401),
        ("Bearer \u00e9", 401),
        ("", 401),
    ],
)
def test_the_token_must_be_right(authorization, status):
    settings = Settings(Path(), token=TOKEN)
    assert allowed(settings=settings, authorization=authorization) == status
    assert allowed("/metrics", settings=settings, authorization=authorization) == status


@pytest.mark.parametrize("path", ["/", "/healthz", "/readyz", "/docs", "/openapi.json", "/assets/a.js"])
def test_pages_and_probes_need_no_token(path):
    assert allowed(path, settings=Settings(Path(), token=TOKEN)) == 200


@pytest.mark.parametrize("port", [-1, 65536])
def test_a_port_that_cannot_be_is_refused(port):
    with pytest.raises(UsageError, match=r"from 0 .* to 65535"):
        listen(Settings(Path(), port=port))


@pytest.mark.parametrize("threshold", ["50", "-0.1", "nan"])
def test_a_threshold_that_is_no_probability_is_wrong_usage(threshold, tmp_path, capsys):
    with pytest.raises(SystemExit) as stop:
        main(["serve", "--port", "0", "--folder", str(tmp_path / "jobs"), "--threshold", threshold])
    assert stop.value.code == 2
    assert "not a probability" in capsys.readouterr().err
    assert not (tmp_path / "jobs").exists()


def test_an_open_address_needs_a_token(tmp_path, monkeypatch):
    monkeypatch.delenv("CARINA_SERVE_TOKEN", raising=False)
    with pytest.raises(UsageError, match="lets others in"):
        Serve(host="0.0.0.0").settings()
    assert Serve(host="0.0.0.0", allow_anonymous=True).settings().token is None
    file = tmp_path / "token"
    file.write_text(TOKEN + "\n")
    assert Serve(host="0.0.0.0", token_file=file).settings().token == TOKEN


def test_a_short_or_missing_token_file_is_refused(tmp_path):
    file = tmp_path / "token"
    with pytest.raises(UsageError, match="No such file"):
        Serve(token_file=file).settings()
    file.write_text("short")
    with pytest.raises(UsageError, match="at least 16"):
        Serve(token_file=file).settings()


def test_the_environments_token_is_held_to_the_same_rule(monkeypatch):
    monkeypatch.setenv("CARINA_SERVE_TOKEN", "x")
    with pytest.raises(UsageError, match=r"CARINA_SERVE_TOKEN: .* at least 16"):
        Serve(host="0.0.0.0").settings()
    monkeypatch.setenv("CARINA_SERVE_TOKEN", f"{TOKEN}\n")
    assert Serve(host="0.0.0.0").settings().token == TOKEN


@pytest.mark.parametrize(
    "serve", [Serve(keep_days=-1), Serve(keep_gib=-5), Serve(keep_days=math.nan), Serve(keep_gib=math.inf)]
)
def test_results_cannot_be_kept_for_less_than_nothing(serve):
    with pytest.raises(UsageError, match="--keep-days and --keep-gib"):
        serve.settings()


def test_a_server_listens_on_the_loopback_address_unless_told():
    assert Serve().host == "127.0.0.1"


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b"{",
        b'{"findings": [{"id": 3}]}',
        b'{"findings": [{"id": 0}]}',
        b'{"findings": [{"id": 1}, {"id": 1}]}',
        b'{"findings": [{"id": 1, "verdict": "maybe"}]}',
        b'{"more": 1}',
        b'{"comment": "' + b"x" * 101 + b'"}',
        b"[" * 100_000,
    ],
)
def test_a_review_that_does_not_fit_its_report_is_refused(body):
    with pytest.raises(ProblemError):
        parse_review(body, findings=2, comment_chars=100)


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/v1/studies"),
        ("POST", "/v1/jobs/1/cancel"),
        ("POST", "/v1/classify"),
        ("DELETE", "/v1/jobs/1"),
        ("PUT", "/v1/jobs/1"),
    ],
)
def test_a_server_that_shows_a_report_refuses_what_would_change_more(method, path):
    with pytest.raises(ProblemError, match="shows one finished report") as problem:
        check_shown_only(method, path)
    assert problem.value.status == 403


def test_a_server_that_shows_a_report_takes_its_review():
    check_shown_only("GET", "/v1/jobs")
    check_shown_only("PUT", "/v1/jobs/1/review")


def test_a_review_is_kept_beside_its_report_or_the_failure_said(tmp_path):
    keep_review(b'{"comment":"a"}', tmp_path)
    assert (tmp_path / "review.json").read_bytes() == b'{\n  "comment": "a"\n}\n'
    with pytest.raises(ProblemError, match="the report's folder cannot be written"):
        keep_review(b"{}", tmp_path / "gone")


def test_a_review_says_when_it_was_stored():
    review = parse_review(b'{"findings": [{"id": 2, "verdict": "rejected"}]}', findings=2, comment_chars=100)
    assert review.findings[0].verdict == "rejected"
    assert review.updated.endswith("+00:00")

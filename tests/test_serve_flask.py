"""The WSGI form behind a real WSGI server (M39)."""

import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from unittest.mock import Mock

import httpx
import pytest
from waitress.server import create_server

from carina.findings import Report
from carina.io import write_image
from carina.pipeline import Detector
from carina.serve.flask_app import create_flask_app
from carina.serve.limits import Limits
from serve_samples import GRID, small_chest, write_samples, write_weights


@pytest.fixture(scope="module")
def samples(tmp_path_factory) -> Path:
    return write_samples(tmp_path_factory.mktemp("samples"))


@pytest.fixture(scope="module")
def url(tmp_path_factory) -> Iterator[str]:
    detector = Detector.load(write_weights(tmp_path_factory.mktemp("weights")), device="cpu", runtime="torch")
    app = create_flask_app(detector, Limits(upload_bytes=5_000_000))
    server = create_server(app, host="127.0.0.1", port=0, threads=4)
    thread = threading.Thread(target=server.run)
    thread.start()
    yield f"http://127.0.0.1:{server.effective_port}"
    server.close()
    server.trigger.close()
    server.task_dispatcher.shutdown()
    server.asyncore.close_all(server._map)
    thread.join(10)


def test_a_study_in_its_report_out(url, samples):
    answer = httpx.post(f"{url}/detect", content=(samples / "chest.zip").read_bytes(), timeout=120)
    assert answer.status_code == 200, answer.text
    report = Report.from_json(answer.content)
    assert report.input.shape_zyx == GRID.shape_zyx
    assert report.findings
    assert answer.headers["x-content-type-options"] == "nosniff"


def test_a_form_with_header_and_data_is_a_study(url, samples):
    files = [("file", (name, (samples / name).read_bytes())) for name in ("chest.mhd", "chest.zraw")]
    answer = httpx.post(f"{url}/detect", files=files, timeout=120)
    assert Report.from_json(answer.content).input.format == "metaimage"


def test_a_second_study_at_the_same_time_is_told_to_wait(url, samples):
    body = (samples / "chest.mha").read_bytes()
    answers = []

    def ask() -> None:
        answers.append(httpx.post(f"{url}/detect", content=body, timeout=120))

    threads = [threading.Thread(target=ask) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {answer.status_code for answer in answers} == {200, 503}
    assert all("retry-after" in answer.headers for answer in answers if answer.status_code == 503)


@pytest.mark.parametrize(
    ("body", "query", "status"),
    [(b"", "", 422), (b"no CT", "", 422), (bytes(5_000_001), "", 413), (b"x", "?series_uid=../x", 422)],
)
def test_what_is_no_study_is_a_problem(url, body, query, status):
    answer = httpx.post(f"{url}/detect{query}", content=body, timeout=60)
    assert (answer.status_code, answer.headers["content-type"]) == (status, "application/problem+json")


def test_a_ct_that_is_refused_says_why(url, tmp_path):
    write_image(small_chest(lungs=False).hu, GRID, tmp_path / "solid.mha")
    answer = httpx.post(f"{url}/detect", content=(tmp_path / "solid.mha").read_bytes(), timeout=60)
    assert answer.status_code == 422
    assert "lungs" in answer.json()["detail"]


def test_a_failure_is_a_problem_and_does_not_block_the_next_study(tmp_path, samples, monkeypatch):
    client = create_flask_app(Detector.load(write_weights(tmp_path), device="cpu", runtime="torch")).test_client()
    body = (samples / "chest.zip").read_bytes()
    for target, error in ((tempfile, OSError("no folder")), (Detector, RuntimeError("no memory"))):
        with monkeypatch.context() as patch:
            name = "TemporaryDirectory" if target is tempfile else "detect"
            patch.setattr(target, name, Mock(side_effect=error))
            answer = client.post("/detect", data=body)
        assert (answer.status_code, answer.content_type) == (500, "application/problem+json")
        assert str(error) not in answer.text
    assert client.post("/detect", data=body).status_code == 200
    assert client.get("/nothing").status_code == 404


def test_it_is_alive(url):
    assert httpx.get(f"{url}/healthz").json() == {"status": "ok"}

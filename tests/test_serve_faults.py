"""Everything that goes wrong on real servers: after each fault they answer, and other jobs are whole."""

import contextlib
import os
import resource
import signal
import socket
from pathlib import Path

import httpx
import numpy as np
import pytest

from carina.findings import Report
from carina.serve.folder import StateFolder
from carina.serve.jobs import JobStore
from carina.serve.limits import MIB
from serve_samples import CROP_ZYX, Server, running, write_samples, write_weights
from waiting import until

pytestmark = pytest.mark.slow

OLD = "0" * 32


@pytest.fixture(scope="module")
def weights(tmp_path_factory) -> Path:
    return write_weights(tmp_path_factory.mktemp("weights"))


@pytest.fixture(scope="module")
def samples(tmp_path_factory) -> Path:
    return write_samples(tmp_path_factory.mktemp("samples"))


@pytest.fixture(scope="module")
def server(weights, tmp_path_factory):
    options = ("--limits.idle-s", "3", "--limits.queued-crops", "64", "--limits.streams", "2")
    with running(tmp_path_factory.mktemp("serve") / "state", weights, *options) as server:
        yield server


@pytest.fixture(scope="module")
def finished(server, samples) -> tuple[dict, dict[str, bytes]]:
    """A job that was done before anything went wrong, and its files."""
    job = server.wait_ended(server.upload(samples / "chest.mha").json()["id"])
    return job, {link: server.client.get(job["links"][link]).content for link in ("report", "mask", "volume")}


@pytest.fixture
def whole(server, finished):
    """The check after a fault: the server is ready, the finished job as it was, nothing is left over."""
    yield
    job, files = finished
    server.wait_ready()
    assert server.client.get(job["links"]["self"]).json() == job
    for link, content in files.items():
        assert server.client.get(job["links"][link]).content == content
    until(lambda: not list((server.folder / "incoming").iterdir()))


@contextlib.contextmanager
def largest_file(pid: int, size: int):
    """No file of the process grows beyond ``size``: what a full disk or a quota does to it."""
    before = resource.prlimit(pid, resource.RLIMIT_FSIZE)
    resource.prlimit(pid, resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.prlimit(pid, resource.RLIMIT_FSIZE, before)


def connect(server: Server, length: int, sent: bytes, path: str = "/v1/studies") -> socket.socket:
    """A request whose body is promised and only begun."""
    connection = socket.create_connection(("127.0.0.1", server.port), timeout=60)
    head = f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1:{server.port}\r\nContent-Length: {length}\r\n\r\n"
    connection.sendall(head.encode() + sent)
    return connection


def status_of(connection: socket.socket) -> int:
    with connection.makefile("rb") as answer:
        return int(answer.readline().split()[1])


def cut_off(server: Server, samples: Path, times: int = 1) -> str:
    """Upload a study and halt the detection process in the middle of it; at the last of so many times, killed before.

    A job that was quicker than the halt is left alone, and another is uploaded.
    """
    for _ in range(20):
        job_id = server.upload(samples / "chest.zip").json()["id"]
        for attempt in range(1, times + 1):
            if not _halt(server, job_id, attempt):
                break
            if attempt == times:
                return job_id
            os.kill(server.detector_pid(), signal.SIGKILL)
    raise AssertionError("all jobs were quicker")


def _halt(server: Server, job_id: str, attempt: int) -> bool:
    def begun() -> bool:
        job = server.client.get(f"/v1/jobs/{job_id}").json()
        return job["attempts"] == attempt and (job["stage"] is not None or job["state"] == "done")

    until(begun)
    detector = server.detector_pid()
    os.kill(detector, signal.SIGSTOP)
    if not (server.folder / "jobs" / job_id / "result").exists():
        return True
    os.kill(detector, signal.SIGCONT)
    server.wait_ended(job_id)
    return False


def test_kill_9_of_the_server_during_a_job(weights, samples, tmp_path):
    first = Server(tmp_path / "state", weights)
    first.wait_ready()
    finished = first.wait_ended(first.upload(samples / "chest.mha").json()["id"])
    report = first.client.get(finished["links"]["report"]).text
    running_id = cut_off(first, samples)
    waiting_id = first.upload(samples / "chest.mha").json()["id"]
    detector = first.detector_pid()
    first.stop(signal.SIGKILL)
    os.kill(detector, signal.SIGCONT)
    until(lambda: not Path(f"/proc/{detector}").exists())
    assert not (tmp_path / "state" / "jobs" / running_id / "result").exists()
    with running(tmp_path / "state", weights, "--log-identifiers") as second:
        assert second.wait_ended(running_id)["state"] == "done"
        assert second.wait_ended(waiting_id)["attempts"] == 1
        assert second.client.get(f"/v1/jobs/{running_id}").json()["attempts"] == 2
        assert second.client.get(finished["links"]["report"]).text == report
        again = Report.from_json(second.client.get(f"/v1/jobs/{running_id}/report").content)
        assert f"job {running_id} done, series {again.input.series_uid}" in second.log.read_text()


def test_kill_9_of_the_detection_process_runs_the_job_again(server, samples, whole):
    job_id = cut_off(server, samples)
    os.kill(server.detector_pid(), signal.SIGKILL)
    until(lambda: server.client.get("/readyz").status_code == 503)
    job = server.wait_ended(job_id)
    assert (job["state"], job["attempts"]) == ("done", 2)


def test_a_job_that_kills_the_detection_process_twice_has_failed(server, samples, whole):
    job_id = cut_off(server, samples, times=2)
    os.kill(server.detector_pid(), signal.SIGKILL)
    job = server.wait_ended(job_id)
    assert (job["state"], job["error"]["type"]) == ("failed", "urn:carina:problem:crashed")
    until(lambda: not (server.folder / "jobs" / job_id).exists())


def test_a_job_that_takes_too_long_has_failed_and_the_next_one_is_done(weights, samples, tmp_path):
    with running(tmp_path / "state", weights, "--limits.job-s", "8") as server:
        os.kill(server.detector_pid(), signal.SIGSTOP)
        stuck, follows = (server.upload(samples / "chest.mha").json()["id"] for _ in range(2))
        job = server.wait_ended(stuck)
        assert (job["state"], job["error"]["type"]) == ("failed", "urn:carina:problem:job-timeout")
        assert not (server.folder / "jobs" / stuck).exists()
        assert server.wait_ended(follows)["state"] == "done"


def test_a_full_disk_refuses_uploads_and_passes(server, whole, samples):
    with largest_file(server.process.pid, MIB):
        answer = server.client.post("/v1/studies", content=b"\0" * (3 * MIB))
        assert (answer.status_code, answer.json()["type"]) == (507, "urn:carina:problem:no-space")
    assert server.wait_ended(server.upload(samples / "chest.mha").json()["id"])["state"] == "done"


def test_a_full_disk_under_the_job_list_refuses_and_passes(server, whole, samples):
    with largest_file(server.process.pid, 512):
        answer = server.upload(samples / "chest.mha")
        assert answer.status_code in (503, 507)
        assert server.client.get("/healthz").status_code == 200
    assert server.wait_ended(server.upload(samples / "chest.mha").json()["id"])["state"] == "done"


def test_a_full_disk_under_the_results_fails_the_job_and_shows_none_of_it(server, whole, samples):
    with largest_file(server.detector_pid(), 20_000):
        job = server.wait_ended(server.upload(samples / "chest.mha").json()["id"])
    assert (job["state"], job["error"]["type"]) == ("failed", "urn:carina:problem:no-space")
    assert not (server.folder / "jobs" / job["id"]).exists()


def test_a_client_that_goes_in_the_middle_leaves_nothing(server, whole):
    connection = connect(server, 10 * MIB, b"\0" * (2 * MIB))
    until(lambda: list((server.folder / "incoming").iterdir()))
    connection.close()
    until(lambda: not list((server.folder / "incoming").iterdir()))
    assert "carina_uploads 0.0" in server.client.get("/metrics").text


def test_a_client_that_falls_silent_is_sent_away(server, whole):
    with connect(server, 10 * MIB, b"\0" * 1000) as connection:
        assert status_of(connection) == 408
    with connect(server, 10_000, b"\0" * 10, "/v1/classify") as connection:
        assert status_of(connection) == 408


@pytest.fixture(scope="module")
def strict(weights, tmp_path_factory):
    """A server that keeps nothing that has ended, with one done job from before, and gives uploads two seconds."""
    folder = StateFolder(tmp_path_factory.mktemp("strict") / "state")
    folder.make()
    store = JobStore(folder.database)
    store.add(OLD, series_uid=None, size=1)
    store.claim()
    store.done(OLD, findings=0, p_malignant=None, size=1)
    store.close()
    (folder.job(OLD) / "result").mkdir(parents=True)
    with running(folder.root, weights, "--limits.upload-s", "2", "--keep-days", "0") as server:
        yield server


def test_what_is_too_old_is_deleted_with_its_files(strict):
    until(lambda: strict.client.get(f"/v1/jobs/{OLD}").status_code == 404)
    until(lambda: not list((strict.folder / "jobs").iterdir()))


@pytest.mark.parametrize("path", ["/v1/studies", "/v1/classify"])
def test_a_client_that_trickles_is_sent_away(strict, path):
    with connect(strict, 10_000, b"", path) as connection:
        connection.settimeout(0.1)
        answer = b""
        while not answer:
            with contextlib.suppress(TimeoutError):
                connection.sendall(b"\0")
                answer = connection.recv(100)
    assert answer.startswith(b"HTTP/1.1 408")
    strict.wait_ready()
    until(lambda: not list((strict.folder / "incoming").iterdir()))


def test_event_streams_are_bounded_and_end_with_their_client_or_job(server, whole, samples):
    detector = server.detector_pid()
    os.kill(detector, signal.SIGSTOP)
    runs, waits = (server.upload(samples / "chest.mha").json() for _ in range(2))
    with server.client.stream("GET", waits["links"]["events"]) as stays:
        with server.client.stream("GET", waits["links"]["events"]):
            assert server.client.get(waits["links"]["events"]).status_code == 503
        again: list[int] = []

        def taken() -> bool:
            with server.client.stream("GET", waits["links"]["events"]) as stream:
                again.append(stream.status_code)
            return again[-1] == 200

        until(taken)
        assert server.client.delete(waits["links"]["self"]).status_code == 204
        assert stays.read().startswith(b"event: job")
    os.kill(detector, signal.SIGCONT)
    assert server.wait_ended(runs["id"])["state"] == "done"
    assert "Traceback" not in server.log.read_text()


def test_a_zip_bomb_is_refused(server, whole, tmp_path):
    import zipfile

    with zipfile.ZipFile(tmp_path / "bomb.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("bomb", bytes(64 * MIB))
    answer = server.upload(tmp_path / "bomb.zip")
    assert (answer.status_code, answer.json()["type"]) == (413, "urn:carina:problem:too-large")


def test_names_that_lead_out_of_the_folder_lead_nowhere(server, whole, samples):
    before = {path for path in server.folder.parent.parent.rglob("*") if server.folder not in path.parents}
    files = [("file", ("../../../evil.mha", (samples / "chest.mha").read_bytes()))]
    answer = server.client.post("/v1/studies", files=files)
    assert server.wait_ended(answer.json()["id"])["state"] == "done"
    after = {path for path in server.folder.parent.parent.rglob("*") if server.folder not in path.parents}
    assert not {path for path in after - before if "evil" in path.name}


def test_a_body_that_claims_gigabytes_is_refused_unread(server, whole):
    for path in ("/v1/studies", "/v1/classify"):
        with connect(server, 2**40, b"", path) as connection:
            assert status_of(connection) == 413


def test_a_body_that_nothing_asks_for_takes_no_memory(server, finished, whole):
    process = Path(f"/proc/{server.process.pid}")

    def peak_bytes() -> int:
        line = next(line for line in (process / "status").read_text().splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) * 1024

    (process / "clear_refs").write_text("5")  # the peak is that of now again
    before = peak_bytes()
    links = finished[0]["links"]
    assert server.client.post(links["cancel"], content=bytes(50 * MIB)).status_code == 202
    assert peak_bytes() - before < 10 * MIB
    with connect(server, MIB, bytes(MIB), links["cancel"]) as connection:
        assert status_of(connection) == 202
        connection.sendall(f"GET /healthz HTTP/1.1\r\nHost: 127.0.0.1:{server.port}\r\n\r\n".encode())
        assert b"HTTP/1.1 200 OK" in connection.recv(2000)


@pytest.mark.parametrize(
    "head",
    [
        b"POST /v1/studies HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: -5\r\n\r\n",
        b"POST /v1/studies HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n",
        b"POST /v1/studies HTTP/1.1\r\nHost: 127.0.0.1\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n" + b"z" * 200,
        b"GET / HTTP/9.9\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n",
        b"GET /" + b"a" * 20_000 + b" HTTP/1.1\r\n\r\n",
    ],
)
def test_malformed_requests_are_refused(server, whole, head):
    with socket.create_connection(("127.0.0.1", server.port), timeout=60) as connection:
        connection.sendall(head)
        assert 400 <= status_of(connection) < 500


@pytest.mark.parametrize("change", ["shape", "length", "nan", "inf"])
def test_crops_that_are_not_as_claimed_are_refused(server, whole, change):
    hu = np.zeros((1, *CROP_ZYX), np.float32)
    query = {"dtype": "float32", "shape": ",".join(map(str, hu.shape))}
    body = hu.tobytes()
    if change == "shape":
        query["shape"] = "1,16,16,99999"
    elif change == "length":
        body = body[:-4]
    else:
        hu[0, 0, 0, 0] = float(change)
        body = hu.tobytes()
    answer = server.client.post("/v1/classify", params=query, content=body)
    assert (answer.status_code, answer.json()["type"]) == (422, "urn:carina:problem:invalid")


def test_200_uploads_at_once_against_a_bound_of_16(server, whole, samples):
    body = (samples / "chest.mha").read_bytes()
    connections = [connect(server, len(body), body[:10]) for _ in range(16)]
    try:
        until(lambda: "carina_uploads 16.0" in server.client.get("/metrics").text)
        connections += [connect(server, len(body), body[:10]) for _ in range(184)]
        for connection in connections[16:]:
            with connection.makefile("rb") as answer:
                head = answer.read(600)
            assert head.startswith(b"HTTP/1.1 503")
            assert b"retry-after: 2" in head.lower()
        for connection in connections[:16]:
            connection.sendall(body[10:])
        assert [status_of(connection) for connection in connections[:16]] == [202] * 16
    finally:
        for connection in connections:
            connection.close()
    for job in server.client.get("/v1/jobs", params={"state": "queued"}).json()["jobs"]:
        server.client.delete(job["links"]["self"])


def test_more_crops_than_wait_are_told_to_come_back(server, whole):
    hu = np.zeros((64, *CROP_ZYX), np.int16)
    query = {"dtype": "int16", "shape": ",".join(map(str, hu.shape))}
    from concurrent.futures import ThreadPoolExecutor

    def ask(_: int) -> httpx.Response:
        return httpx.post(f"{server.url}/v1/classify", params=query, content=hu.tobytes(), timeout=60)

    with ThreadPoolExecutor(12) as pool:
        answers = list(pool.map(ask, range(48)))
    statuses = {answer.status_code for answer in answers}
    assert statuses == {200, 503}
    assert all("retry-after" in answer.headers for answer in answers if answer.status_code == 503)
    assert ask(0).status_code == 200

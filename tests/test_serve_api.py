"""A real server on the loopback address: from an upload to everything that a client may do with its result."""

import contextlib
import io
import json
import os
import signal
import subprocess
import threading
import zipfile
from pathlib import Path

import httpx
import numpy as np
import pytest

from carina.findings import Report
from carina.io import read_image, write_image
from carina.pipeline import Detector
from serve_samples import CROP_ZYX, GRID, Server, running, small_chest, write_samples, write_weights
from waiting import until

HU = np.random.default_rng(0).integers(-1000, 400, (2, *CROP_ZYX)).astype(np.int16)
RAW = {"dtype": "int16", "shape": ",".join(map(str, HU.shape))}


@pytest.fixture(scope="module")
def weights(tmp_path_factory) -> Path:
    return write_weights(tmp_path_factory.mktemp("weights"))


@pytest.fixture(scope="module")
def samples(tmp_path_factory) -> Path:
    return write_samples(tmp_path_factory.mktemp("samples"))


@pytest.fixture(scope="module")
def server(weights, tmp_path_factory):
    with running(tmp_path_factory.mktemp("serve") / "state", weights) as server:
        yield server


@pytest.fixture(scope="module")
def job(server, samples) -> dict:
    """A DICOM study that was analysed."""
    answer = server.upload(samples / "chest.zip", headers={"content-type": "application/zip"})
    assert answer.status_code == 202, answer.text
    assert answer.headers["location"] == answer.json()["links"]["self"]
    return server.wait_ended(answer.json()["id"])


def get(server: Server, job: dict, link: str) -> httpx.Response:
    answer = server.client.get(job["links"][link])
    assert answer.status_code == 200, answer.text
    return answer


def test_a_study_is_analysed(job):
    assert job["state"] == "done", job
    assert job["progress"] == 1.0
    assert job["findings"] > 0
    assert 0 < job["p_malignant"] < 1


def test_the_report_is_what_the_command_line_writes(server, job, weights, samples):
    """Findings, models and form are those of the library on the same files; only times and the path differ."""
    text = get(server, job, "report").text
    assert Report.from_json(text).to_json() + "\n" == text
    expected = json.loads(
        Detector.load(weights, device="cpu", runtime="torch").detect(samples / "dicom").report.to_json()
    )
    found = json.loads(text)
    for report in (expected, found):
        for changing in ("seconds", "created"):
            report.pop(changing)
        report["input"].pop("path")
    assert found == expected


def test_the_report_names_no_folder_of_the_server(server, job):
    assert str(server.folder) not in get(server, job, "report").text + get(server, job, "report_html").text


def test_volume_and_mask_lie_on_the_input(server, job, tmp_path):
    for name in ("volume", "mask"):
        (tmp_path / f"{name}.nii.gz").write_bytes(get(server, job, name).content)
    volume, geometry = read_image(tmp_path / "volume.nii.gz")
    assert np.array_equal(volume, small_chest().hu)
    assert geometry.same_as(GRID)
    mask, geometry = read_image(tmp_path / "mask.nii.gz")
    assert geometry.same_as(GRID)
    assert set(np.unique(mask)) == set(range(job["findings"] + 1))
    for finding in get(server, job, "report").json()["findings"]:
        assert mask[tuple(np.rint(finding["center_zyx"]).astype(int))] == finding["id"]


def test_the_report_page_can_run_no_script(server, job):
    answer = get(server, job, "report_html")
    assert answer.headers["content-type"].startswith("text/html")
    assert "default-src 'none'" in answer.headers["content-security-policy"]
    assert "sandbox" in answer.headers["content-security-policy"]


def test_events_tell_of_every_stage_and_end_with_the_job(server, samples):
    started = server.upload(samples / "chest.nii.gz").json()
    seen = []
    with server.client.stream("GET", started["links"]["events"]) as stream:
        assert stream.headers["content-type"].startswith("text/event-stream")
        seen.extend(json.loads(line[6:]) for line in stream.iter_lines() if line.startswith("data: "))
    assert seen[-1]["state"] == "done"
    progress = [event["progress"] for event in seen]
    assert progress == sorted(progress)


def test_a_form_with_header_and_data_is_a_study(server, samples):
    files = [("file", (name, (samples / name).read_bytes())) for name in ("chest.mhd", "chest.zraw")]
    answer = server.client.post("/v1/studies", files=files)
    assert server.wait_ended(answer.json()["id"])["state"] == "done"


def test_a_ct_without_lungs_fails_with_the_reason_and_leaves_no_files(server, tmp_path):
    write_image(small_chest(lungs=False).hu, GRID, tmp_path / "solid.nii.gz")
    job = server.wait_ended(server.upload(tmp_path / "solid.nii.gz").json()["id"])
    assert job["state"] == "failed"
    assert job["error"]["type"] == "urn:carina:problem:input-refused"
    assert "lungs" in job["error"]["detail"]
    assert str(server.folder) not in json.dumps(job)
    assert not (server.folder / "jobs" / job["id"]).exists()
    answer = server.client.get(f"/v1/jobs/{job['id']}/report")
    assert (answer.status_code, answer.json()["state"]) == (409, "failed")


def test_a_header_that_claims_gigabytes_is_refused(server, samples):
    body = (samples / "chest.mha").read_bytes().replace(b"DimSize = 64 46 46", b"DimSize = 1024 1024 1024")
    job = server.wait_ended(server.client.post("/v1/studies", content=body).json()["id"])
    assert job["state"] == "failed"
    assert "the header claims 1024 x 1024 x 1024 voxels" in job["error"]["detail"]
    server.wait_ready()


def test_voxels_that_are_no_numbers_count_as_air(server, tmp_path):
    hu = small_chest().hu.astype(np.float32)
    hu[0, 0, :3] = np.nan, np.inf, -np.inf
    write_image(hu, GRID, tmp_path / "nan.nii.gz")
    job = server.wait_ended(server.upload(tmp_path / "nan.nii.gz").json()["id"])
    assert job["state"] == "done"
    assert np.isfinite(job["p_malignant"])


def test_a_review_is_kept_beside_the_report_and_exported(server, job):
    before = get(server, job, "report").text
    assert get(server, job, "review").json() == {"findings": [], "comment": "", "updated": None}
    findings = [
        {"id": 1, "verdict": "rejected", "comment": "a vessel"},
        {"id": 2, "verdict": "accepted", "comment": ""},
    ]
    answer = server.client.put(job["links"]["review"], json={"findings": findings, "comment": "seen twice"})
    assert answer.status_code == 200, answer.text
    kept = get(server, job, "review").json()
    assert kept == answer.json()
    assert kept["findings"] == findings
    assert get(server, job, "report").text == before
    with zipfile.ZipFile(io.BytesIO(get(server, job, "export").content)) as archive:
        names = {"report.json", "report.html", "findings.csv", "mask.nii.gz", "review.json"}
        assert set(archive.namelist()) == names
        assert json.loads(archive.read("review.json")) == kept
        assert archive.read("report.json").decode() == before


def test_jobs_are_listed_and_deleted_with_their_files(server, samples):
    job = server.wait_ended(server.upload(samples / "chest.mha").json()["id"])
    listed = server.client.get("/v1/jobs", params={"state": "done", "limit": 1}).json()
    assert [one["id"] for one in listed["jobs"]] == [job["id"]]
    folder = server.folder / "jobs" / job["id"]
    assert (folder / "result").is_dir()
    until(lambda: not (folder / "input").exists())
    assert server.client.delete(job["links"]["self"]).status_code == 204
    assert not folder.exists()
    assert server.client.get(job["links"]["self"]).status_code == 404


def test_a_running_and_a_waiting_job_are_cancelled_with_their_files_and_the_next_one_is_done(server, samples):
    server.wait_ready()
    os.kill(server.detector_pid(), signal.SIGSTOP)  # the first job runs until it is cancelled
    runs, waits, follows = (server.upload(samples / "chest.mha").json() for _ in range(3))
    until(lambda: server.client.get(runs["links"]["self"]).json()["state"] == "running")
    assert server.client.post(waits["links"]["cancel"]).json()["state"] == "cancelled"
    assert not (server.folder / "jobs" / waits["id"]).exists()
    assert server.client.post(runs["links"]["cancel"]).json()["cancelling"]
    assert server.wait_ended(runs["id"])["state"] == "cancelled"
    assert not (server.folder / "jobs" / runs["id"]).exists()
    assert server.wait_ended(follows["id"])["state"] == "done"


def test_crops_are_classified_as_the_library_does(server, weights):
    answer = server.client.post("/v1/classify", params=RAW | {"diameter_mm": "8,"}, content=HU.tobytes())
    assert answer.status_code == 200, answer.text
    body = answer.json()
    from carina.serve.crops import CropClassifier

    expected = CropClassifier(Detector.load(weights, device="cpu", runtime="torch")).predict(HU.astype(np.float32))
    assert [one["p_nodule"] for one in body["answers"]] == pytest.approx(expected.tolist(), abs=1e-5)
    assert body["answers"][0]["p_malignant"] > 0
    assert body["answers"][1]["p_malignant"] is None
    assert "research use" in body["notice"]
    assert server.client.get("/v1/classify").json()["crop_zyx"] == list(CROP_ZYX)


def test_many_clients_share_batches_and_get_their_own_answers(server):
    crops = np.random.default_rng(1).integers(-1000, 400, (24, *CROP_ZYX)).astype(np.int16)
    query = {"dtype": "int16", "shape": ",".join(map(str, CROP_ZYX))}
    whole = {"dtype": "int16", "shape": ",".join(map(str, crops.shape))}
    together = server.client.post("/v1/classify", params=whole, content=crops.tobytes()).json()
    found: dict[int, float] = {}

    def ask(number: int) -> None:
        answer = httpx.post(f"{server.url}/v1/classify", params=query, content=crops[number].tobytes(), timeout=60)
        found[number] = answer.json()["answers"][0]["p_nodule"]

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(len(crops))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    expected = [answer["p_nodule"] for answer in together["answers"]]
    assert [found[number] for number in range(len(crops))] == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize(
    ("method", "path", "status", "kind"),
    [
        ("GET", "/nothing", 404, "not-found"),
        ("GET", "/../../etc/passwd", 404, "not-found"),
        ("GET", "/%2e%2e/%2e%2e/etc/passwd", 404, "not-found"),
        ("GET", "/v1/jobs/..%2f..%2fetc", 404, "not-found"),
        ("GET", "/v1/jobs/" + "0" * 32, 404, "not-found"),
        ("GET", "/v1/jobs/" + "0" * 32 + "/report", 404, "not-found"),
        ("DELETE", "/v1/jobs/" + "0" * 32, 404, "not-found"),
        ("GET", "/v1/jobs?limit=0", 422, "invalid"),
        ("GET", "/v1/jobs?limit=1e3", 422, "invalid"),
        ("GET", "/v1/jobs?state=lost", 422, "invalid"),
        ("PUT", "/v1/studies", 405, "method-not-allowed"),
        ("POST", "/v1/studies", 422, "invalid"),
        ("POST", "/v1/studies?series_uid=../x", 422, "invalid"),
        ("POST", "/v1/classify", 422, "invalid"),
    ],
)
def test_what_cannot_be_answered_is_a_problem_with_its_reason(server, method, path, status, kind):
    answer = server.client.request(method, path)
    assert answer.status_code == status
    assert answer.headers["content-type"] == "application/problem+json"
    body = answer.json()
    assert body["type"] == f"urn:carina:problem:{kind}"
    assert (body["status"], bool(body["detail"])) == (status, True)


@pytest.mark.parametrize("path", ["/", "/docs", "/healthz", "/v1/jobs", "/nothing"])
def test_every_answer_carries_security_headers(server, path):
    headers = server.client.get(path).headers
    assert headers["x-content-type-options"] == "nosniff"
    assert "default-src" in headers["content-security-policy"]
    assert headers["referrer-policy"] == "no-referrer"
    assert "server" not in headers


def test_pages_load_nothing_from_elsewhere(server):
    for path in ("/", "/docs"):
        text = server.client.get(path).text
        assert "https://" not in text
        assert "http://" not in text


def test_metrics_count_what_happened(server, job):
    text = server.client.get("/metrics").text
    assert 'carina_jobs{state="done"}' in text
    assert 'carina_job_stage_seconds_count{stage="lungs"}' in text
    assert "carina_classify_batch_size_bucket" in text
    assert "carina_classify_queue 0.0" in text
    assert 'carina_requests_total{method="POST",route="v1/studies",status="202"}' in text


def test_metrics_keep_no_method_that_a_client_makes_up(server):
    for path in ("/v1/jobs", "/nothing"):
        assert server.client.request("SECRET", path).status_code in (404, 405)
    text = server.client.get("/metrics").text
    assert 'method="other"' in text
    assert "SECRET" not in text


def test_the_log_names_no_patient_and_no_series(server, job):
    uid = get(server, job, "report").json()["input"]["series_uid"]
    text = server.log.read_text()
    assert f"job {job['id']} done, series #" in text
    for secret in ("DOE", "JANE", "SECRET", uid):
        assert secret not in text


def test_a_second_server_on_the_same_folder_is_refused(server, weights):
    second = Server(server.folder, weights)
    assert second.stop(how=0, seconds=300) == 2
    assert "belongs to another running server" in second.log.read_text()


def test_a_server_on_a_taken_port_is_refused(server, weights, tmp_path):
    second = Server(tmp_path / "state", weights, "--port", str(server.port))
    assert second.stop(how=0, seconds=300) == 2
    assert f"cannot listen on 127.0.0.1, port {server.port}" in second.log.read_text()


def test_a_server_without_models_says_so_and_ends(tmp_path):
    server = Server(tmp_path / "state", tmp_path / "nothing")
    assert server.stop(how=0, seconds=300) == 1
    assert "carina: " in server.log.read_text()


def test_sigterm_finishes_the_running_job_and_the_next_server_does_the_rest(weights, samples, tmp_path):
    with running(tmp_path / "state", weights) as first:
        jobs = [first.upload(samples / "chest.mha").json()["id"] for _ in range(3)]
        while first.client.get(f"/v1/jobs/{jobs[0]}").json()["state"] == "queued":
            pass
        assert first.stop() == 0
    pem = tmp_path / "server.pem"
    subject = ["-subj", "/CN=127.0.0.1", "-days", "1", "-keyout", str(pem.with_suffix(".key")), "-out", str(pem)]
    name = ["-addext", "subjectAltName=IP:127.0.0.1"]
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", *subject, *name]
    subprocess.run(command, check=True, capture_output=True)
    tls = ("--certificate", str(pem), "--key", str(pem.with_suffix(".key")))
    token = {"CARINA_SERVE_TOKEN": "correct-horse-battery"}
    with running(tmp_path / "state", weights, "--workers", "2", *tls, scheme="https", **token) as second:
        assert second.client.get("/v1/jobs").status_code == 401
        assert second.client.get("/metrics", headers={"authorization": "Bearer wrong"}).status_code == 401
        second.client.headers["authorization"] = "Bearer correct-horse-battery"
        assert second.client.get(f"/v1/jobs/{jobs[0]}").json()["attempts"] == 1
        first_two = second.answering_pids()
        os.kill(min(first_two), signal.SIGKILL)
        with contextlib.suppress(httpx.TransportError):
            second.client.get("/healthz")  # may have been that one's connection
        until(lambda: len(second.answering_pids() - {min(first_two)}) == 2)
        assert [second.wait_ended(job)["state"] for job in jobs] == ["done"] * 3
        answer = second.client.post("/v1/classify", params=RAW, content=HU.tobytes())
        assert len(answer.json()["answers"]) == 2
        assert 'carina_jobs{state="done"} 3.0' in second.client.get("/metrics").text

"""The list of jobs: what survives, in which order jobs run, and what becomes of those that are cut off."""

import multiprocessing
import os
import signal

import pytest

from carina.errors import UsageError
from carina.serve.folder import StateFolder
from carina.serve.jobs import MOST_ATTEMPTS, JobStore, UnknownJobError
from carina.serve.present import job_json
from carina.serve.problems import ProblemError


@pytest.fixture
def store(tmp_path):
    store = JobStore(tmp_path / "jobs.sqlite")
    yield store
    store.close()


def add(store, name, **more):
    return store.add(name, series_uid=None, size=10, **more)


def test_jobs_run_in_the_order_of_their_arrival(store):
    for name in "abc":
        add(store, name)
    assert [store.claim().id for _ in range(3)] == ["a", "b", "c"]
    assert store.claim() is None


def test_the_latest_job_is_listed_first_page_by_page(store):
    for name in "abcd":
        add(store, name)
    page = store.latest(limit=2)
    assert [job.id for job in page] == ["d", "c"]
    assert [job.id for job in store.latest(limit=2, before=page[-1].number)] == ["b", "a"]


def test_jobs_are_there_for_another_process_and_after_a_restart(store, tmp_path):
    add(store, "a")
    store.done(store.claim().id, findings=2, p_malignant=0.25, size=99)
    store.close()
    again = JobStore(tmp_path / "jobs.sqlite")
    job = again.get("a")
    assert (job.state, job.findings, job.p_malignant, job.bytes) == ("done", 2, 0.25, 99)
    again.close()


def _add_and_die(path):
    store = JobStore(path)
    add(store, "a")
    store.claim()
    os.kill(os.getpid(), signal.SIGKILL)


def test_a_job_survives_the_sudden_death_of_its_process(tmp_path):
    process = multiprocessing.get_context("spawn").Process(target=_add_and_die, args=(tmp_path / "jobs.sqlite",))
    process.start()
    process.join()
    store = JobStore(tmp_path / "jobs.sqlite")
    assert store.get("a").state == "running"
    store.close()


def test_a_job_that_was_cut_off_is_tried_again_and_fails_in_the_end(store):
    add(store, "a")
    for _ in range(MOST_ATTEMPTS - 1):
        assert store.try_again(store.claim().id, "cut off")
    assert not store.try_again(store.claim().id, "cut off")
    job = store.get("a")
    assert (job.state, job.problem) == ("failed", "crashed")


@pytest.mark.parametrize(
    ("problem", "title"),
    [
        ("input-refused", "The study was refused"),
        ("no-memory", "The study does not fit into memory"),
        ("job-timeout", "The analysis took too long"),
        ("crashed", "The analysis ended unexpectedly"),
        ("no-space", "The server cannot store more"),
        ("internal", "The server failed"),
    ],
)
def test_a_failed_job_says_what_failed(store, problem, title):
    add(store, "a")
    store.failed(store.claim().id, problem, "why")
    error = {"type": f"urn:carina:problem:{problem}", "title": title, "detail": "why"}
    assert job_json(store.get("a"))["error"] == error


def test_a_waiting_job_is_cancelled_at_once_and_a_running_one_is_told(store):
    add(store, "a")
    add(store, "b")
    store.claim()
    assert (store.cancel("a").state, store.cancel("a").cancel) == ("running", True)
    assert store.cancel("b").state == "cancelled"
    assert not store.try_again("a", "cut off")
    assert store.get("a").state == "cancelled"


def test_an_ended_job_cannot_be_cancelled(store):
    add(store, "a")
    store.failed("a", "internal", "words")
    assert store.cancel("a").state == "failed"


def test_an_unknown_job_is_an_error(store):
    for ask in (store.get, store.cancel):
        with pytest.raises(UnknownJobError):
            ask("a")


def test_retention_deletes_the_old_and_the_oldest(store):
    for name in "abc":
        add(store, name)
        store.done(store.claim().id, findings=0, p_malignant=None, size=100)
    add(store, "waits")
    assert store.expired(keep_s=3600, keep_bytes=1000) == []
    assert store.expired(keep_s=3600, keep_bytes=250) == ["a"]
    assert set(store.expired(keep_s=-1, keep_bytes=1000)) == {"a", "b", "c"}


def test_the_last_review_counts_and_goes_with_its_job(store):
    add(store, "a")
    assert store.review("a") is None
    store.set_review("a", b"{}")
    store.set_review("a", b"[]")
    assert store.review("a") == b"[]"
    store.remove("a")
    assert store.review("a") is None


def test_counts_name_every_state(store):
    add(store, "a")
    assert store.counts() == {"queued": 1, "running": 0, "done": 0, "failed": 0, "cancelled": 0}


def test_a_folder_has_one_owner(tmp_path):
    folder = StateFolder(tmp_path / "state")
    folder.make()
    with folder.own(), pytest.raises(UsageError, match="another running server"):
        folder.own()
    folder.own().close()


def test_what_a_crash_left_behind_is_deleted(tmp_path):
    folder = StateFolder(tmp_path)
    folder.make()
    states = {"waits": "queued", "runs": "running", "done": "done", "failed": "failed", "stopped": "cancelled"}
    for path in (folder.incoming("x"), *(folder.job(name) / "input" for name in ("orphan", *states))):
        path.mkdir(parents=True)
        (path / "file").write_bytes(b"1")
    (folder.job("done") / "result").mkdir()
    (folder.job("done") / "result" / "file").write_bytes(b"1")
    folder.tidy(states)
    left = sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("file"))
    assert left == ["jobs/done/result/file", "jobs/runs/input/file", "jobs/waits/input/file"]


def test_a_nearly_full_disk_takes_no_studies(tmp_path):
    StateFolder(tmp_path).check_space(0)
    with pytest.raises(ProblemError, match="nearly full") as refusal:
        StateFolder(tmp_path).check_space(2**60)
    assert refusal.value.status == 507


def test_only_the_owner_may_look_into_the_folder(tmp_path):
    folder = StateFolder(tmp_path / "state")
    folder.make()
    assert folder.root.stat().st_mode & 0o077 == 0

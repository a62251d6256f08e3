"""The receiver and the queue with dcmtk's and pynetdicom's senders; nothing is analysed."""

import json
import math
import shutil
import stat
import time
from collections.abc import Iterator
from pathlib import Path

import pydicom
import pytest
from pynetdicom import AE
from pynetdicom.association import Association
from pynetdicom.sop_class import ComprehensiveSRStorage, CTImageStorage, Verification

from carina.cli import main
from carina.cli.pacs import Serve, Watch
from carina.errors import InputError, UsageError, WeightsError
from carina.pacs.deidentify import deidentify_files
from carina.pacs.http import PacsError
from carina.pacs.queue import Entry, NoSpaceError, Origin, Queue, Study
from carina.pacs.receiver import Receiver
from carina.pacs.worker import Plan, Worker
from made_reports import report
from pacs_samples import PATIENT_ID, need, series, storescu, study_uid
from waiting import until


@pytest.fixture(scope="module")
def files(tmp_path_factory) -> list[Path]:
    return series(tmp_path_factory.mktemp("ct") / "ct", 1)


@pytest.fixture
def queue(tmp_path) -> Iterator[Queue]:
    queue = Queue(tmp_path / "q", free_bytes=0)
    yield queue
    queue.close()


@pytest.fixture
def receiver(queue) -> Iterator[Receiver]:
    # Idle for long, so that a busy machine ends no transfer.
    receiver = Receiver(
        queue, host="127.0.0.1", port=0, ae_title="CARINA", allowed=("STORESCU",), most_bytes=1 << 20, idle_s=60
    )
    yield receiver
    receiver.close()


def associate(receiver: Receiver, *, calling="STORESCU", called="CARINA", sop_class=CTImageStorage) -> Association:
    ae = AE(calling)
    ae.add_requested_context(sop_class)
    return ae.associate("127.0.0.1", receiver.port, ae_title=called)


def the_study(queue: Queue) -> Study:
    (study,) = queue.studies()
    return study


def events(queue: Queue) -> list[dict]:
    return [json.loads(line) for line in (queue.root / "audit.jsonl").read_text().splitlines()]


def judge(queue: Queue, *, quiet_s=0.0, patience_s=0.0) -> Study:
    """Let the worker decide; a study it would analyse stays as it is, for the analysis cannot begin."""
    Worker(queue, Plan(quiet_s=quiet_s, patience_s=patience_s, options=("--nonsense",)), lambda _: None).step()
    return the_study(queue)


def test_what_dcmtk_sends_is_kept_bit_for_bit(queue, receiver, files):
    need("storescu")
    assert storescu(receiver.port, *files) == 0
    study = the_study(queue)
    until(lambda: not study.unfinished)
    kept = {str(d.SOPInstanceUID): d for d in map(pydicom.dcmread, study.images.glob("*/*.dcm"))}
    assert len(kept) == len(files)
    for file in files[::10]:
        sent = pydicom.dcmread(file)
        assert kept[sent.SOPInstanceUID] == sent
    assert study.origin == Origin("STORESCU", "127.0.0.1")


def test_nobody_else_may_look_into_the_queue(queue, receiver, files):
    assert storescu(receiver.port, files[0]) == 0
    for path in (queue.root, queue.root / "secret.key", queue.root / "audit.jsonl", the_study(queue).images):
        assert stat.S_IMODE(path.stat().st_mode) & 0o077 == 0


@pytest.mark.parametrize(("calling", "called"), [("STRANGER", "CARINA"), ("STORESCU", "OTHER")])
def test_strangers_are_rejected_and_noted(queue, receiver, calling, called):
    assert associate(receiver, calling=calling, called=called).is_rejected
    until(lambda: [one for one in events(queue) if one["event"] == "rejected" and one["ae_title"] == calling])


def test_an_echo_is_answered(receiver):
    association = associate(receiver, sop_class=Verification)
    assert association.send_c_echo().Status == 0
    association.release()


def test_reports_are_not_taken_in_so_that_results_cannot_come_round(receiver):
    assert not associate(receiver, sop_class=ComprehensiveSRStorage).accepted_contexts


def test_an_instance_that_is_too_large_ends_the_association(queue, receiver, files, tmp_path):
    large = pydicom.dcmread(files[0])
    large.PixelData = bytes(4 << 20)
    large.save_as(tmp_path / "large.dcm")
    association = associate(receiver)
    assert "Status" not in association.send_c_store(tmp_path / "large.dcm")
    until(lambda: [one for one in events(queue) if one["event"] == "refused" and "1048576 bytes" in one["reason"]])
    assert not list(queue.studies())


def test_a_uid_that_is_a_path_is_refused(receiver, queue, files):
    wrong = pydicom.dcmread(files[0])
    with pytest.warns(UserWarning, match="Invalid value for VR UI"):
        wrong.StudyInstanceUID = "../../etc"
    association = associate(receiver)
    assert association.send_c_store(wrong).Status == 0xC000
    association.release()
    assert not list(queue.studies())


def test_a_full_disk_is_said_so_and_the_study_counts_as_unfinished(tmp_path, files):
    queue = Queue(tmp_path / "q", free_bytes=shutil.disk_usage(tmp_path).free - (300 << 20))
    receiver = Receiver(queue, host="127.0.0.1", port=0, ae_title="CARINA")
    association = associate(receiver)
    assert association.send_c_store(files[0]).Status == 0
    queue._free_bytes = 1 << 60
    assert association.send_c_store(files[1]).Status == 0xA700
    association.release()
    until(lambda: [one for one in events(queue) if one["event"] == "received"])
    assert the_study(queue).unfinished
    receiver.close()
    with pytest.raises(NoSpaceError, match="MiB would be free"):
        queue.add("1.2", "1.3", "1.4", b"", Origin())
    queue.close()


def test_an_idle_association_is_ended_and_what_it_brought_is_whole(queue, files):
    receiver = Receiver(queue, host="127.0.0.1", port=0, ae_title="CARINA", idle_s=3)
    association = associate(receiver)
    for file in files[:20]:
        association.send_c_store(file)
    assert the_study(queue).unfinished
    until(lambda: not the_study(queue).unfinished)
    until(lambda: association.is_aborted)
    receiver.close()


def test_a_study_waits_until_it_is_quiet(queue, receiver, files):
    assert storescu(receiver.port, *files) == 0
    until(lambda: not the_study(queue).unfinished)
    assert judge(queue, quiet_s=60, patience_s=120).entry().state == "receiving"
    assert judge(queue).entry().judged == len(files)


def test_a_series_with_a_gap_is_waited_for_and_then_fails_with_the_reason(queue, receiver, files):
    assert storescu(receiver.port, *files[:20], *files[21:]) == 0
    until(lambda: not the_study(queue).unfinished)
    assert judge(queue, patience_s=60).entry().state == "receiving"
    entry = judge(queue).entry()
    assert entry.state == "failed"
    assert "not evenly spaced" in entry.reason
    assert [one["event"] for one in events(queue)][-2:] == ["waiting", "failed"]


def test_a_slice_that_comes_late_makes_a_failed_study_whole(queue, receiver, files):
    assert storescu(receiver.port, *files[:20], *files[21:]) == 0
    until(lambda: not the_study(queue).unfinished)
    assert judge(queue).entry().state == "failed"
    assert storescu(receiver.port, files[20]) == 0
    until(lambda: not the_study(queue).unfinished)
    assert "not evenly spaced" not in judge(queue).entry().reason
    assert the_study(queue).entry().series


def test_a_transfer_that_was_cut_off_is_not_analysed_until_it_is_taken_up(queue, receiver, files):
    association = associate(receiver)
    for file in files[:30]:
        association.send_c_store(file)
    association.abort()
    until(lambda: [one for one in events(queue) if one["event"] in ("aborted", "cut off")])
    assert judge(queue, patience_s=60).entry().state == "receiving"
    entry = judge(queue).entry()
    assert (entry.state, entry.cut_off, entry.series) == ("failed", True, "")
    assert "cut off" in entry.reason
    assert storescu(receiver.port, *files) == 0
    until(lambda: not the_study(queue).unfinished)
    assert judge(queue).entry().series


def test_a_failed_analysis_gives_its_reason(queue, receiver, files):
    assert storescu(receiver.port, *files) == 0
    until(lambda: not the_study(queue).unfinished)
    entry = judge(queue).entry()
    assert entry.state == "failed"
    assert "exit code 2" in entry.reason


def test_an_analysis_that_ended_the_program_again_and_again_is_given_up(queue, receiver, files):
    assert storescu(receiver.port, *files) == 0
    until(lambda: not the_study(queue).unfinished)
    study = judge(queue)
    entry = study.entry()
    entry.state, entry.attempts = "analysing", 3
    study.save(entry)
    assert "ended 3 times" in judge(queue).entry().reason


def test_an_analysis_that_takes_too_long_is_ended_and_its_study_fails(queue):
    queue.add("1.2.3", "1.2.3.4", "1.2.3.4.5", b"DICM", Origin())
    study = the_study(queue)
    study.save(Entry(state="analysing", judged=1, series="x", result="r"))
    Worker(queue, Plan(timeout_s=0.01), lambda _: None).step()
    assert (study.entry().state, study.entry().reason) == ("failed", "the analysis took more than 0.01 s")
    assert not list((study.folder / "work").iterdir())


def test_a_study_of_which_an_image_may_not_leave_fails_and_the_next_one_is_handled(queue, files, tmp_path, monkeypatch):
    def analysed(self, study, entry, work):
        burned = pydicom.dcmread(files[0])
        burned.BurnedInAnnotation = "YES"
        (work / "images").mkdir(parents=True)
        burned.save_as(work / "images" / "1.dcm")
        (work / "out" / "case").mkdir(parents=True)
        (work / "out" / "case" / "report.json").write_text(report("1.2", ()).to_json())
        return ""

    monkeypatch.setattr(Worker, "_detect", analysed)
    for uid in ("1.2.3", "1.2.4"):
        queue.add(uid, "1.2.3.4", "1.2.3.4.5", b"DICM", Origin())
    studies = list(queue.studies())
    for study in studies:
        study.save(Entry(state="analysing", judged=1, series="x", result="r"))
    plan = Plan(images=True, prepare=lambda paths, folder: deidentify_files(paths, folder, queue.secret))
    for _ in range(2):
        Worker(queue, plan, lambda _: None).step()
        for study in studies:
            assert study.entry().state == "failed"
            assert "burned into its pixels" in study.entry().reason
            assert not list((study.folder / "work").iterdir())
    assert [one["event"] for one in events(queue)].count("failed") == 2, "it is not tried again as it is"


def test_a_study_whose_images_cannot_be_read_is_waited_for_and_then_fails(queue, monkeypatch):
    def refuse(_):
        raise InputError("nothing readable")

    monkeypatch.setattr("carina.pacs.worker.list_series", refuse)
    queue.add("1.2.3", "1.2.3.4", "1.2.3.4.5", b"DICM", Origin())
    queue.finished("1.2.3")
    assert judge(queue, patience_s=600).entry().state == "receiving"
    for _ in range(2):
        entry = judge(queue).entry()
        assert (entry.state, entry.reason) == ("failed", "nothing readable")
    assert [one["event"] for one in events(queue)].count("failed") == 1


def test_a_folder_that_cannot_be_deleted_does_not_end_the_program(queue, monkeypatch):
    tried = []

    def fails(_):
        tried.append(1)
        raise PermissionError("may not be deleted")

    monkeypatch.setattr("carina.pacs.worker.TICK_S", 0.01)
    monkeypatch.setattr(queue, "purge", fails)
    Worker(queue, Plan(), lambda _: None).run(lambda: bool(tried))
    assert tried


def test_a_delivery_that_broke_off_goes_on_with_what_is_left(queue):
    queue.add("1.2.3", "1.2.3.4", "1.2.3.4.5", b"DICM", Origin("PACS"))
    study = the_study(queue)
    (study.folder / "results" / "r").mkdir(parents=True)
    for name in "abc":
        (study.result("r") / f"{name}.dcm").touch()
    study.save(Entry(state="sending", judged=1, result="r"))
    arrived = []

    def breaks_off(files, sent):
        arrived.append(files[0].name)
        sent(files[0])
        raise PacsError("it went away")

    def works(files, sent):
        for file in files:
            arrived.append(file.name)
            sent(file)

    Worker(queue, Plan(), lambda _: ("PACS", breaks_off)).step()
    entry = study.entry()
    assert (entry.state, entry.sent, entry.tries) == ("sending", ["a.dcm"], 1)
    Worker(queue, Plan(), lambda _: ("PACS", works)).step()
    assert arrived == ["a.dcm"], "it is not tried again before its time"
    entry.next_try = 0.0
    study.save(entry)
    Worker(queue, Plan(), lambda _: ("PACS", works)).step()
    assert arrived == ["a.dcm", "b.dcm", "c.dcm"]
    assert study.entry().state == "done"


def test_a_delivery_is_given_up_after_so_many_failures(queue):
    queue.add("1.2.3", "1.2.3.4", "1.2.3.4.5", b"DICM", Origin("PACS"))
    study = the_study(queue)
    study.result("r").mkdir(parents=True)
    (study.result("r") / "a.dcm").touch()
    study.save(Entry(state="sending", judged=1, result="r"))
    tried = []

    def fails(files, sent):
        tried.append(files)
        raise PacsError("it is not there")

    for state in ("sending", "failed", "failed"):
        Worker(queue, Plan(most_tries=2), lambda _: ("PACS", fails)).step()
        entry = study.entry()
        assert entry.state == state
        entry.next_try = 0.0
        study.save(entry)
    assert (len(tried), entry.reason) == (2, "not delivered: it is not there")


def test_results_without_an_address_stay_and_the_reason_is_said(queue):
    queue.add("1.2.3", "1.2.3.4", "1.2.3.4.5", b"DICM", Origin("PACS"))
    study = the_study(queue)
    study.save(Entry(state="sending", judged=1, result="r"))
    Worker(queue, Plan(), lambda _: None).step()
    assert study.entry().state == "done"
    assert "no address is known of PACS" in study.entry().reason


def test_finished_studies_are_deleted_in_time_and_others_never(queue, receiver, files):
    assert storescu(receiver.port, files[0]) == 0
    queue.purge(0)
    study = the_study(queue)
    entry = study.entry()
    entry.state = "done"
    study.save(entry)
    queue.purge(3600)
    assert the_study(queue)
    time.sleep(0.02)
    queue.purge(0)
    assert not list(queue.studies())
    assert events(queue)[-1] == {"time": events(queue)[-1]["time"], "event": "deleted", "study": study.key}


def test_a_folder_belongs_to_one_process(queue):
    with pytest.raises(UsageError, match="another running carina pacs"):
        Queue(queue.root)


def test_what_was_half_written_when_the_process_ended_is_cleared_away(tmp_path):
    queue = Queue(tmp_path / "q", free_bytes=0)
    queue.add("1.2.3", "1.2.3.4", "1.2.3.4.5", b"DICM", Origin("A"))
    study = the_study(queue)
    (next(study.images.iterdir()) / ".x.dcm.0a1b2c3d.part").write_bytes(b"half")
    (study.folder / ".entry.json.0a1b2c3d.part").write_bytes(b"half")
    (study.folder / "work").mkdir()
    queue.close()
    queue = Queue(tmp_path / "q", free_bytes=0)
    assert study.count() == 1
    assert not list(study.folder.rglob("*.part"))
    assert not (study.folder / "work").exists()
    assert study.unfinished
    queue.close()


def test_the_audit_log_holds_hashes_for_identifiers(queue):
    queue.audit.write(
        "x", reason=f"series {study_uid(1)} of 1.2.840.10008.1 from 10.0.0.5", study=queue.secret.key("a")
    )
    line = (queue.root / "audit.jsonl").read_text()
    assert study_uid(1) not in line
    assert "1.2.840.10008.1" not in line
    assert queue.secret.key("1.2.840.10008.1") in line
    assert "10.0.0.5" in line
    assert PATIENT_ID not in line


def test_hashes_cannot_be_computed_elsewhere(queue, tmp_path):
    other = Queue(tmp_path / "other")
    assert queue.secret.key("1.2.3") != other.secret.key("1.2.3")
    assert queue.secret.key("1.2.3") == queue.secret.key("1.2.3")
    other.close()


@pytest.mark.parametrize(
    ("command", "said"),
    [
        (Serve(host="0.0.0.0"), "--allow"),
        (Serve(deidentify=True), "needs --to"),
        (Serve(to="nowhere"), "AETITLE@HOST:PORT"),
        (Serve(node=("A@b:99999",)), "AETITLE@HOST:PORT"),
        (Serve(format="seg,whatever"), "unknown format"),
        (Serve(threshold=50), "not a probability"),
        (Serve(threshold=float("nan")), "not a probability"),
        (Serve(keep_hours=-1), "--keep-hours -1: expected 0 or more"),
        (Serve(keep_hours=math.nan), "--keep-hours nan"),
        (Serve(timeout_s=-5), "--timeout-s -5: expected more than 0"),
        (Serve(weights=Path("nope")), "--weights nope is no folder"),
        (Serve(device="gpu"), "unknown device 'gpu'"),
        (Watch(webhook="0.0.0.0:80"), "open to others"),
        (Watch(webhook="127.0.0.1:70000"), "no port 70000"),
    ],
)
def test_what_cannot_be_carried_out_is_refused_at_the_start(command, said, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError, match=said):
        command.run()


def test_wrong_usage_is_exit_code_2(tmp_path, capsys):
    with pytest.raises(SystemExit) as stop:
        main(["pacs", "serve", "-f", str(tmp_path / "q"), "--threshold", "50"])
    assert stop.value.code == 2
    assert "not a probability" in capsys.readouterr().err
    assert not (tmp_path / "q").exists()


def test_weights_that_cannot_be_loaded_are_refused_at_the_start(tmp_path):
    (tmp_path / "weights").mkdir()
    (tmp_path / "weights" / "segmentation.json").write_text("{}")
    with pytest.raises(WeightsError, match="not a model card"):
        Serve(folder=tmp_path / "q", weights=tmp_path / "weights").run()


def test_a_port_that_is_taken_or_cannot_be_is_said_so(queue, receiver):
    for port in (receiver.port, 70000):
        with pytest.raises(UsageError, match="cannot listen"):
            Receiver(queue, host="127.0.0.1", port=port, ae_title="X")

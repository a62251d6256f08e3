"""HTTP and DICOMweb within bounds, against a server that misbehaves."""

import base64
import contextlib
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pynetdicom import AE, evt
from pynetdicom.sop_class import CTImageStorage

from carina.errors import InputError, UsageError
from carina.pacs.dicomweb import DicomWeb, only_part
from carina.pacs.follow import Follower
from carina.pacs.http import Http, PacsError
from carina.pacs.orthanc import Orthanc
from carina.pacs.queue import Origin, Queue
from carina.pacs.send import Node, destination, send
from pacs_samples import series
from waiting import until


@contextlib.contextmanager
def answering(
    body: bytes,
    *,
    status=200,
    forever=False,
    slow_s=0.0,
    kind="application/json",
    seen: list | None = None,
    paths: dict[str, bytes] | None = None,
) -> Iterator[str]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            if seen is not None:
                seen.append(self.headers["Authorization"])
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.end_headers()
            with contextlib.suppress(OSError):
                self.wfile.write((paths or {}).get(self.path.partition("?")[0], body))
                while forever:
                    self.wfile.write(body)
                    time.sleep(slow_s)

        def do_POST(self):
            self.rfile.read(int(self.headers["Content-Length"]))
            self.do_GET()

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@given(st.binary(), st.sampled_from(["b", "0b1f", "a-b'c"]), st.booleans())
def test_whatever_bytes_a_part_holds_come_out(content, boundary, headers):
    mark = f"--{boundary}".encode()
    if b"\r\n" + mark in b"\r\n" + content:
        return
    head = b"Content-Type: application/dicom\r\n" if headers else b""
    body = mark + b"\r\n" + head + b"\r\n" + content + b"\r\n" + mark + b"--\r\n"
    assert only_part(body, f'multipart/related; type="application/dicom"; boundary="{boundary}"', "x") == content


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        (b"--b\r\n\r\none\r\n--b\r\n\r\ntwo\r\n--b--", "multipart/related; boundary=b"),
        (b"--b\r\n\r\none", "multipart/related; boundary=b"),
        (b"", "multipart/related; boundary=b"),
        (b"--b\r\n\r\none\r\n--b--", "multipart/related"),
        (b"DICM", "application/dicom"),
    ],
)
def test_other_bodies_are_refused(body, kind):
    with pytest.raises(PacsError):
        only_part(body, kind, "x")


def test_an_endless_answer_is_not_read_to_its_end():
    with (
        answering(b"x" * 4096, forever=True) as url,
        Http(url, most_bytes=100_000) as http,
        pytest.raises(PacsError, match="more than 100000 bytes"),
    ):
        http.get("a")


def test_an_answer_that_trickles_is_given_up():
    with (
        answering(b"x", forever=True, slow_s=0.05) as url,
        Http(url, total_s=0.5) as http,
        pytest.raises(PacsError, match=r"more than 0\.5 s"),
    ):
        http.get("a")


def test_a_refusal_tells_its_status():
    with answering(b"", status=404) as url, Http(url) as http, pytest.raises(PacsError, match="404") as caught:
        http.get("a")
    assert caught.value.status == 404


def test_a_server_that_is_not_there_is_said_so():
    with Http("http://127.0.0.1:9", timeout_s=2) as http, pytest.raises(PacsError, match=r"http://127\.0\.0\.1:9"):
        http.get("a")


def test_user_and_password_come_from_the_environment(monkeypatch):
    monkeypatch.setenv("CARINA_PACS_AUTH", "me:se:cret")
    seen = []
    with answering(b"{}", seen=seen) as url, Http(url) as http:
        http.get("a")
    assert seen == [f"Basic {base64.b64encode(b'me:se:cret').decode()}"]


def test_a_password_in_the_address_is_refused():
    with pytest.raises(UsageError, match="CARINA_PACS_AUTH"):
        Http("http://me:secret@127.0.0.1")


@pytest.mark.parametrize("body", [b"{}", b"<html>", b'[{"0020000E": {"vr": "UI", "Value": ["../x"]}}]', b"[{}]"])
def test_a_search_that_answers_nonsense_is_refused(body):
    with answering(body) as url, Http(url) as http, pytest.raises(InputError, match=r"list|JSON|UID|0020000E"):
        DicomWeb(http).series("1.2.3")


@pytest.mark.parametrize(
    "body",
    [b"{}", b"<html>", b'"\xff"', b"[{}]", b'[{"ID": "a"}]', b'[{"ID": "a", "MainDicomTags": {"Modality": "CT"}}]'],
)
def test_an_orthanc_that_answers_nonsense_is_said_so(body):
    with answering(body) as url, Http(url) as http:
        for ask in (
            Orthanc(http).last_change,
            lambda: Orthanc(http).changes(0),
            lambda: Orthanc(http).ct_instances("s"),
        ):
            with pytest.raises(PacsError, match="something else than an Orthanc does"):
                ask()


def test_an_orthanc_that_answers_nonsense_is_asked_again(tmp_path):
    queue, seen = Queue(tmp_path / "q", free_bytes=0), []
    change = b'{"Changes": [{"Seq": 1, "ChangeType": "StableStudy", "ID": "s"}], "Last": 1, "Done": true}'
    with answering(b"[{}]", paths={"/changes": change}, seen=seen) as url, Http(url) as http:
        follower = Follower(queue, Orthanc(http), Origin(url=url), every_s=0.01, from_start=True)
        thread = threading.Thread(target=follower.run)
        thread.start()
        assert follower.asked.wait(30)
        asked = len(seen)
        follower.wake()
        until(lambda: len(seen) > asked, 30)
        assert thread.is_alive()
        follower.stop()
        thread.join()
    assert "something else than an Orthanc does" in (tmp_path / "q" / "audit.jsonl").read_text()
    queue.close()


def test_a_service_that_does_not_store_everything_has_failed(tmp_path):
    (tmp_path / "a.dcm").write_bytes(b"DICM")
    said = b'{"00081198": {"Value": [{"00081197": {"vr": "US", "Value": [272]}}]}}'
    with (
        answering(said) as url,
        Http(url) as http,
        pytest.raises(PacsError, match=r"stored 0 of 1 instances \(failure reason 272\)"),
    ):
        DicomWeb(http).store([tmp_path / "a.dcm"])


@pytest.mark.parametrize(("reason", "arrives"), [(0x0111, True), (0xA700, False)])
def test_a_service_that_has_an_instance_already_has_it(tmp_path, reason, arrives):
    (tmp_path / "a.dcm").write_bytes(b"DICM")
    said = b'{"00081198": {"Value": [{"00081197": {"vr": "US", "Value": [%d]}}]}}' % reason
    expected = contextlib.nullcontext() if arrives else pytest.raises(PacsError, match="failure reason 42752")
    with answering(said, status=409) as url, Http(url) as http, expected:
        DicomWeb(http).store([tmp_path / "a.dcm"])


def test_a_service_that_answers_a_store_with_nonsense_has_failed(tmp_path):
    (tmp_path / "a.dcm").write_bytes(b"DICM")
    with answering(b"[]") as url, Http(url) as http, pytest.raises(PacsError, match="something else"):
        DicomWeb(http).store([tmp_path / "a.dcm"])


@pytest.mark.parametrize(("status", "arrives"), [(0x0000, True), (0xB000, True), (0x0111, True), (0xA700, False)])
def test_a_node_has_an_instance_unless_it_refuses_it(tmp_path, status, arrives):
    files, sent = series(tmp_path / "ct", 1)[:1], []
    ae = AE("X")
    ae.add_supported_context(CTImageStorage)
    server = ae.start_server(("127.0.0.1", 0), block=False, evt_handlers=[(evt.EVT_C_STORE, lambda _: status)])
    with contextlib.nullcontext() if arrives else pytest.raises(PacsError, match="refused it with status A700H"):
        send(files, Node("X", "127.0.0.1", server.socket.getsockname()[1]), ae_title="CARINA", sent=sent.append)
    server.shutdown()
    assert sent == (files if arrives else [])


def test_destinations_are_read():
    assert destination("PACS@10.0.0.5:104") == Node("PACS", "10.0.0.5", 104)
    assert destination("A@[::1]:104") == Node("A", "::1", 104)
    assert destination("https://x/dicom-web") == "https://x/dicom-web"
    for wrong in ("PACS", "PACS@host", "PACS@host:0", "THIS_TITLE_IS_TOO_LONG@h:1", "ftp://x"):
        with pytest.raises(UsageError):
            destination(wrong)


# pynetdicom leaves the socket of a refused connection to the garbage collector.
@pytest.mark.filterwarnings("ignore:Exception ignored.*socket:pytest.PytestUnraisableExceptionWarning")
def test_a_node_that_is_not_there_is_said_so(tmp_path):
    files = series(tmp_path / "ct", 1)[:1]
    with pytest.raises(PacsError, match=r"X@127\.0\.0\.1:9: no association"):
        send(files, Node("X", "127.0.0.1", 9), ae_title="CARINA", sent=print)

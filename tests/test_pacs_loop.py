"""The whole loop with the real programs: a study goes in, SEG and SR come back to Orthanc."""

import re
import subprocess
import sys
import time
from io import BytesIO
from pathlib import Path

import httpx
import pydicom
import pytest
from pynetdicom import AE
from pynetdicom.sop_class import CTImageStorage

from carina.pacs.dicomweb import DicomWeb
from carina.pacs.http import Http
from pacs_samples import (
    PATIENT_ID,
    PATIENT_NAME,
    RunningOrthanc,
    need,
    running_orthanc,
    running_pacs,
    series,
    storescu,
    study_uid,
    tool,
)
from serve_samples import write_weights
from waiting import free_port, until

pytestmark = pytest.mark.slow

PAGE = Path(__file__).parents[1] / "docs" / "how-to" / "pacs.md"


@pytest.fixture(scope="module")
def weights(tmp_path_factory) -> Path:
    return write_weights(tmp_path_factory.mktemp("weights"))


@pytest.fixture(scope="module")
def mover() -> int:
    """The port at which Orthanc expects MOVESCU."""
    return free_port()


@pytest.fixture(scope="module")
def hook() -> int:
    """The port to which Orthanc's script posts."""
    return free_port()


@pytest.fixture(scope="module")
def orthanc(mover, hook, tmp_path_factory):
    (script,) = re.findall(r"^```lua\n(.*?)^```", PAGE.read_text(), re.M | re.S)
    folder = tmp_path_factory.mktemp("pacs") / "orthanc"
    with running_orthanc(folder, movers={"MOVESCU": mover}, script=script.replace("8099", str(hook))) as running:
        yield running


def fetched(orthanc: RunningOrthanc, seed: int, modality: str) -> list[pydicom.Dataset]:
    """What Orthanc has of a study, found by QIDO and fetched by WADO."""
    found = []
    with Http(f"{orthanc.url}/dicom-web") as http:
        service = DicomWeb(http)
        for one in service.series(study_uid(seed), modality=modality):
            for instance in service.instances(study_uid(seed), one):
                data = service.retrieve(study_uid(seed), one, instance)
                found.append(pydicom.dcmread(BytesIO(data)))
    return found


def says_stable(orthanc: RunningOrthanc, seed: int) -> bool:
    """Whether a study has become stable there after the last instance of all came; others may do so at any moment."""
    (there,) = httpx.post(f"{orthanc.url}/tools/lookup", content=study_uid(seed), timeout=60).json()
    said = httpx.get(f"{orthanc.url}/changes", params={"limit": 10000}, timeout=60).json()["Changes"]
    stable = [one["Seq"] for one in said if (one["ChangeType"], one["ID"]) == ("StableStudy", there["ID"])]
    return max(stable, default=0) > max(one["Seq"] for one in said if one["ChangeType"] == "NewInstance")


def test_a_study_that_is_sent_comes_back_with_seg_and_sr(orthanc, mover, weights, tmp_path):
    need("storescu", "echoscu", "findscu", "movescu")
    files = series(tmp_path / "ct", 1)
    port = free_port()
    assert storescu(orthanc.port, *files, called="ORTHANC") == 0
    arguments = ["serve", "--port", str(port), "--quiet-s", "1", "--format", "seg,sr", "--weights", str(weights)]
    with running_pacs(tmp_path / "q", *arguments, "--node", f"STORESCU@127.0.0.1:{orthanc.port}") as pacs:
        assert subprocess.run([tool("echoscu"), "-aec", "CARINA", "127.0.0.1", str(port)], check=False).returncode == 0
        assert storescu(port, *files) == 0
        pacs.wait_for("done")
        assert orthanc.modalities(1) == ["CT", "SEG", "SR"]

        # What Orthanc has is what was written.
        (result,) = (tmp_path / "q").glob("studies/*/results/*")
        for modality in ("SEG", "SR"):
            (there,) = fetched(orthanc, 1, modality)
            assert there == pydicom.dcmread(result / f"findings.{modality.lower()}.dcm")
            assert there.PatientID == PATIENT_ID
            assert there.StudyInstanceUID == study_uid(1)

        # Other programs find and fetch it by C-FIND and C-MOVE.
        node = ["-aec", "ORTHANC", "127.0.0.1", str(orthanc.port)]
        keys = ["-k", "QueryRetrieveLevel=SERIES", "-k", f"StudyInstanceUID={study_uid(1)}", "-k", "Modality=SEG"]
        said = subprocess.run(
            [tool("findscu"), "-S", *node, *keys, "-k", "SeriesInstanceUID"], capture_output=True, text=True, check=True
        )
        (uid,) = set(re.findall(r"\(0020,000e\) UI \[([0-9.]+)", said.stdout + said.stderr))
        (tmp_path / "moved").mkdir()
        move = [
            tool("movescu"),
            "-S",
            "-aet",
            "MOVESCU",
            "-aem",
            "MOVESCU",
            "--port",
            str(mover),
            "-od",
            "moved",
            *node,
        ]
        move += ["-k", "QueryRetrieveLevel=SERIES", *keys[2:4], "-k", f"SeriesInstanceUID={uid}"]
        subprocess.run(move, cwd=tmp_path, check=True, timeout=120)
        (moved,) = (tmp_path / "moved").iterdir()
        assert pydicom.dcmread(moved, force=True).SOPInstanceUID == fetched(orthanc, 1, "SEG")[0].SOPInstanceUID

        # The same study once more changes nothing.
        assert storescu(port, *files) == 0
        pacs.wait_for("received", 2)
        time.sleep(4)
        assert pacs.events("received")[1]["known"] == len(files)
        assert len(pacs.events("analysed")) == len(pacs.events("chosen")) == 1
        assert orthanc.modalities(1) == ["CT", "SEG", "SR"]

        log = (tmp_path / "q" / "audit.jsonl").read_text() + pacs.log()
        for secret in (PATIENT_ID, "Doe", "Jane", study_uid(1), str(files[0])):
            assert secret not in log
        assert pacs.stop() == 0


def test_a_receiver_killed_in_mid_series_and_in_mid_analysis_handles_the_study_once_and_whole(
    orthanc, weights, tmp_path
):
    need("storescu")
    files = series(tmp_path / "ct", 2)
    port = free_port()
    arguments = ["serve", "--port", str(port), "--quiet-s", "1", "--patience-s", "60", "--format", "seg,sr"]
    arguments += ["--weights", str(weights), "--to", f"ORTHANC@127.0.0.1:{orthanc.port}"]
    with running_pacs(tmp_path / "q", *arguments) as pacs:
        sender = AE("STORESCU")
        sender.add_requested_context(CTImageStorage)
        association = sender.associate("127.0.0.1", port, ae_title="CARINA")
        # The lower 20 of 46 slices: without a gap, so that only the cut tells that more must come.
        assert all(association.send_c_store(file).Status == 0 for file in files[:20])
        wire = association.dul.socket.socket
        pacs.kill()
        association.abort()
        wire.close()  # pynetdicom leaves it open when the other side has gone
    with running_pacs(tmp_path / "q", *arguments) as pacs:
        time.sleep(3)
        assert not pacs.events("chosen")
        assert storescu(port, *files) == 0
        pacs.wait_for("chosen")
        until(lambda: any(list(work.iterdir()) for work in (tmp_path / "q" / "studies").glob("*/work")))
        pacs.kill()
    with running_pacs(tmp_path / "q", *arguments) as pacs:
        pacs.wait_for("done")
        (received,) = pacs.events("received")
        assert (received["known"], received["new"]) == (20, 26)
        assert len(pacs.events("chosen")) == len(pacs.events("analysed")) == len(pacs.events("delivered")) == 1
        assert orthanc.modalities(2) == ["SEG", "SR"]
        (report,) = fetched(orthanc, 2, "SR")
        evidence = report.CurrentRequestedProcedureEvidenceSequence[0].ReferencedSeriesSequence
        assert max(len(one.ReferencedSOPSequence) for one in evidence) == len(files)


def test_an_orthanc_whose_script_posts_to_the_webhook_is_followed_and_gets_the_results(
    orthanc, hook, weights, tmp_path
):
    need("storescu")
    files = series(tmp_path / "ct", 3)
    arguments = ["watch", orthanc.url, "--every-s", "600", "--webhook", f"127.0.0.1:{hook}", "--format", "seg,sr"]
    with running_pacs(tmp_path / "q", *arguments, "--weights", str(weights)) as pacs:
        assert storescu(orthanc.port, *files, called="ORTHANC") == 0
        pacs.wait_for("done")
        assert orthanc.modalities(3) == ["CT", "SEG", "SR"]
        # The results make the study stable once more; that is no reason to begin again.
        until(lambda: says_stable(orthanc, 3))
        time.sleep(3)
        assert len(pacs.events("fetched")) == len(pacs.events("analysed")) == 1
        assert pacs.events("fetched")[0]["new"] == len(files)


def test_a_study_is_pulled_and_stored_without_what_identifies_the_patient(orthanc, weights, tmp_path):
    need("storescu")
    files = series(tmp_path / "ct", 4)
    assert storescu(orthanc.port, *files, called="ORTHANC") == 0
    before = {one["0020000D"]["Value"][0] for one in orthanc.find("studies")}
    url = f"{orthanc.url}/dicom-web"
    command = [sys.executable, "-m", "carina", "pacs", "pull", url, "--study", study_uid(4), "--to", url]
    command += ["--deidentify", "--images", "--format", "seg,sr", "--weights", str(weights), "-f", str(tmp_path / "q")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=500, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "carina pacs: done"
    (new,) = {one["0020000D"]["Value"][0] for one in orthanc.find("studies")} - before
    with Http(url) as http:
        service = DicomWeb(http)
        found = {one: service.instances(new, one) for one in service.series(new)}
        data = [service.retrieve(new, one, instances[0]) for one, instances in found.items()]
    assert sorted(map(len, found.values())) == [1, 1, len(files)]
    for file in data:
        for secret in (PATIENT_ID, PATIENT_NAME, study_uid(4), "2.25.1004", "Thorax"):
            assert secret.encode() not in file
        assert pydicom.dcmread(BytesIO(file)).PatientIdentityRemoved == "YES"

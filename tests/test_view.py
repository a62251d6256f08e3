"""``carina view``: a finished run of the command line on the viewer's page, its review kept beside the report (M21)."""

import json
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import httpx
import numpy as np
import pytest

from browser import chromium, window
from carina.errors import InputError, UsageError
from carina.geometry import Geometry
from carina.io import write_image
from carina.serve.folder import StateFolder
from carina.serve.jobs import JobStore
from carina.serve.limits import Limits
from carina.serve.shown import find_report, show
from serve_samples import GRID, small_chest, write_samples, write_weights
from waiting import heed_ctrl_c


@pytest.fixture(scope="module")
def results(tmp_path_factory) -> Path:
    """What ``carina detect`` wrote about a DICOM folder, given as a relative path."""
    root = tmp_path_factory.mktemp("view")
    write_samples(root / "samples")
    command = [sys.executable, "-m", "carina", "detect", "-i", "samples/dicom", "-o", "results", "--quiet"]
    command += ["--weights", str(write_weights(root / "weights")), "--runtime", "torch"]
    subprocess.run(command, cwd=root, check=True, timeout=300)
    return root / "results"


def filled(run: Path, folder: Path, ct: Path | None = None) -> tuple[StateFolder, JobStore]:
    state = StateFolder(folder)
    state.make()
    show(run, ct, state, Limits())
    return state, JobStore(state.database)


def test_the_report_is_the_only_finished_job(results, tmp_path):
    run = find_report(results)
    state, store = filled(run, tmp_path / "state")
    (job,) = store.latest()
    assert job.state == "done"
    assert json.loads(state.result(job.id, "report").read_bytes()) == json.loads((run / "report.json").read_bytes())
    assert all(state.result(job.id, name).is_file() for name in ("report_html", "findings_csv", "mask", "volume"))


def test_a_review_of_before_is_shown_again(results, tmp_path):
    run = shutil.copytree(find_report(results), tmp_path / "case")
    review = {"findings": [{"id": 1, "verdict": "rejected", "comment": "a vessel"}], "comment": "", "updated": None}
    (run / "review.json").write_text(json.dumps(review))
    _, store = filled(run, tmp_path / "state", find_ct(results))
    assert json.loads(store.review(store.latest()[0].id)) == review


def find_ct(results: Path) -> Path:
    return results.parent / "samples" / "dicom"


def test_a_ct_that_is_gone_is_named(results, tmp_path):
    run = shutil.copytree(find_report(results), tmp_path / "case")
    with pytest.raises(InputError, match=r"its CT was at samples/dicom and is not there; say where it is with --ct"):
        filled(run, tmp_path / "state")


@pytest.mark.parametrize(
    ("slices", "spacing_mm", "shift_mm", "said"),
    [
        (20, 4.0, 0, r"\(20, 46, 64\) voxels, not \(46, 46, 64\)"),
        (46, 4.1, 0, r"spacing \(4.1, 4.1, 4.1\) mm, not \(4.0, 4.0, 4.0\)"),
        (46, 4.0, 1, r"finding 1 at .* mm, not"),
    ],
)
def test_another_ct_is_refused(results, tmp_path, slices, spacing_mm, shift_mm, said):
    hu = small_chest().hu[:slices]
    origin = np.array(GRID.origin_lps) + shift_mm
    grid = Geometry.from_axes(hu.shape, spacing_zyx_mm=(spacing_mm,) * 3, origin_lps=origin)
    write_image(hu, grid, tmp_path / "other.mha")
    with pytest.raises(InputError, match=rf"{said}.*give its own CT with --ct"):
        filled(about_an_image(results, tmp_path), tmp_path / "state", tmp_path / "other.mha")


def test_its_own_ct_in_another_format_is_shown(results, tmp_path):
    ct = results.parent / "samples" / "chest.nii.gz"
    _, store = filled(about_an_image(results, tmp_path), tmp_path / "state", ct)
    assert len(store.latest()) == 1


def about_an_image(results: Path, folder: Path) -> Path:
    """The report as it would be of an image, which has no series UID to be known by."""
    run = shutil.copytree(find_report(results), folder / "case")
    report = json.loads((run / "report.json").read_bytes())
    report["input"]["format"] = "metaimage"
    (run / "report.json").write_text(json.dumps(report))
    return run


@pytest.mark.parametrize(("cases", "said"), [([], "no report.json in"), (["a", "b"], "holds 2 reports")])
def test_a_folder_without_one_report_is_wrong_usage(tmp_path, cases, said):
    for case in cases:
        (tmp_path / case).mkdir()
        (tmp_path / case / "report.json").write_text("{}")
    with pytest.raises(UsageError, match=said):
        find_report(tmp_path)


@pytest.mark.slow
def test_a_finished_run_is_looked_at_without_uploading(results, tmp_path):
    run = find_report(results)
    with chromium() as browser:
        viewer = subprocess.Popen(
            [sys.executable, "-m", "carina", "view", str(results), "--no-browser"],
            cwd=tmp_path,  # the CT is found from where the results are
            stdout=subprocess.PIPE,
            text=True,
            preexec_fn=heed_ctrl_c,
        )
        try:
            line = viewer.stdout.readline()
            url = line.split(" is at ")[1].split()[0]
            with window(browser, url) as page:
                page.wait_for_selector("#study:not([hidden])")
                page.wait_for_selector("#loading:empty", state="attached")
                report = json.loads((run / "report.json").read_bytes())
                assert page.locator("#findings li").count() == len(report["findings"]) > 0
                page.keyboard.press("r")
                page.wait_for_selector("#saved:text('Stored on the server')")
            assert json.loads((run / "review.json").read_bytes())["findings"][0]["verdict"] == "rejected"
            refused = httpx.post(f"{url}v1/studies", content=b"x")
            assert refused.status_code == 403
            assert "carina serve" in refused.json()["detail"]
            job = httpx.get(f"{url}v1/jobs").json()["jobs"][0]
            assert httpx.delete(f"{url}v1/jobs/{job['id']}").status_code == 403
        finally:
            viewer.send_signal(signal.SIGINT)
            assert viewer.wait(60) == 0
            viewer.stdout.close()
            (run / "review.json").unlink(missing_ok=True)

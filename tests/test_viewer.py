"""The viewer in a real browser over a real server: a nodule in three planes, and a person's word on it."""

import io
import json
import os
import re
import signal
import zipfile
from pathlib import Path

import httpx
import numpy as np
import pytest
from PIL import Image

from browser import barriers, chromium, window
from carina.io import write_image
from serve_samples import GRID, running, small_chest, write_samples, write_weights
from waiting import until

pytestmark = pytest.mark.slow

TOKEN = "correct-horse-battery"
NOTICE = "For research use only. Not for diagnosis."
COMMENT_CHARS = 40_000
"""So many that one comment makes a long review."""

HOLD_UNPACKED = """(free) => {
  const unpacked = Response.prototype.arrayBuffer
  window.held = []
  Response.prototype.arrayBuffer = async function () {
    const whole = await unpacked.call(this)
    if (free-- <= 0) await new Promise((goOn) => window.held.push(goOn))
    return whole
  }
}"""
"""NiiVue unpacks each file through a ``Response``; all but the first ones wait here until they may go on."""


@pytest.fixture(scope="module")
def browser():
    with chromium() as browser:
        yield browser


@pytest.fixture(scope="module")
def weights(tmp_path_factory) -> Path:
    return write_weights(tmp_path_factory.mktemp("weights"))


@pytest.fixture(scope="module")
def samples(tmp_path_factory) -> Path:
    return write_samples(tmp_path_factory.mktemp("samples"))


@pytest.fixture(scope="module")
def server(browser, weights, tmp_path_factory):
    state = tmp_path_factory.mktemp("viewer") / "state"
    with running(state, weights, "--limits.comment-chars", str(COMMENT_CHARS)) as server:
        yield server


@pytest.fixture(scope="module")
def job(server, samples) -> dict:
    job = server.wait_ended(server.upload(samples / "chest.zip").json()["id"])
    assert job["state"] == "done", job
    return job


@pytest.fixture(scope="module")
def mirrored(server, tmp_path_factory) -> dict:
    """The job of another patient: lung where the first one has nodules."""
    path = tmp_path_factory.mktemp("mirrored") / "mirrored.nii.gz"
    write_image(small_chest().hu[:, :, ::-1].copy(), GRID, path)
    return server.wait_ended(server.upload(path).json()["id"])


@pytest.fixture(scope="module")
def report(server, job) -> dict:
    return server.client.get(job["links"]["report"]).json()


@pytest.fixture(scope="module")
def page(browser, server, job):
    """The study in a window that the tests below share: loading it takes longer than what they do."""
    with window(browser, f"{server.url}/#{job['id']}", width=1200, height=760) as page:
        shown(page)
        yield page


def shown(page) -> None:
    """Wait until the pictures are there."""
    page.wait_for_selector("#study:not([hidden])")
    page.wait_for_selector("#loading:empty", state="attached")


def hold(page, url: str) -> list:
    """Requests for ``url`` wait in this list until they are told to go on."""
    held: list = []
    page.route(url, lambda route: held.append(route))
    return held


def until_held(page, held: list, count: int = 1) -> None:
    until(lambda: page.wait_for_timeout(20) or len(held) == count)


def hold_upload(page, samples: Path) -> list:
    """A chest is being sent, and waits in this list."""
    held = hold(page, "**/v1/studies")
    page.set_input_files("#files", samples / "chest.mha")
    until_held(page, held)
    return held


def crosshair(page) -> list[float]:
    return [float(text) for text in page.locator("#place").get_attribute("data-lps").split(",")]


def hu(page) -> int:
    return int(re.search(r"(-?\d+) HU", page.inner_text("#place")).group(1))


def stored(server, job) -> dict:
    return server.client.get(job["links"]["review"]).json()


def coloured(page) -> int:
    """Pixels of the picture that have a colour; the CT has none."""
    image = Image.open(io.BytesIO(page.locator("#stage").screenshot())).convert("RGB")
    return int((np.ptp(np.asarray(image).astype(int), axis=-1) > 40).sum())


def by_probability(report: dict) -> list[dict]:
    return sorted(report["findings"], key=lambda finding: -finding["p_nodule"])


def test_an_uploaded_folder_is_analysed_and_shown(browser, server, samples):
    with window(browser, server.url) as page:
        assert page.inner_text("#notice") == NOTICE
        page.set_input_files("#folder", samples / "dicom")
        shown(page)
        assert page.inner_text("#notice") == NOTICE
        job_id = page.evaluate("location.hash.slice(1)")
        report = server.client.get(f"/v1/jobs/{job_id}/report").json()
        rows = [row.locator(".value").all_inner_texts() for row in page.locator("#findings button").all()]
    for row, finding in zip(rows, by_probability(report), strict=True):
        number, nodule, diameter, malignant, cut = row
        assert int(number) == finding["id"]
        assert nodule == f"{100 * finding['p_nodule']:.0f} %"
        assert diameter == f"{finding['diameter_mm']:.1f} mm"
        assert malignant == f"{100 * finding['p_malignant']:.0f} %"
        assert int(cut) == finding["slice_index"] + 1


def test_a_click_on_a_finding_moves_the_crosshair_there(page, report):
    for finding in report["findings"]:
        page.click(f"[data-finding='{finding['id']}']")
        assert crosshair(page) == pytest.approx(finding["center_lps"], abs=0.01)
        # The page's own words could be mirrored twice; the voxel under the crosshair cannot: lung is -850 HU.
        assert abs(hu(page) - 60) < 60
        assert f"slice {finding['slice_index'] + 1} of" in page.inner_text("#place")


def test_the_markers_are_where_the_nodule_is(page, report):
    first = by_probability(report)[0]
    page.click(f"[data-finding='{first['id']}']")
    check_markers(page, first)
    page.keyboard.press("z")
    check_markers(page, first)
    page.keyboard.press("z")


def check_markers(page, finding: dict) -> None:
    rings = page.locator("#overlay .selected circle")
    assert rings.count() == 3
    places = [(float(ring.get_attribute("cx")), float(ring.get_attribute("cy"))) for ring in rings.all()]
    radius = max(float(ring.get_attribute("r")) for ring in rings.all())
    for x, y in places:
        page.locator("#canvas").click(position={"x": x + 2 * radius, "y": y})
        assert abs(hu(page) - 60) > 60
        page.locator("#canvas").click(position={"x": x, "y": y})
        assert np.linalg.norm(np.subtract(crosshair(page), finding["center_lps"])) < 1.5


@pytest.mark.parametrize("free", [0, 1], ids=["ct", "mask"])
def test_a_study_left_while_its_images_are_unpacked_is_not_drawn(browser, server, job, mirrored, free):
    with window(browser, server.url) as page:
        page.evaluate(HOLD_UNPACKED, free)
        for held, opened in enumerate((job, mirrored), 1):
            page.evaluate(f"location.hash = '{opened['id']}'")
            until(lambda count=held: page.evaluate("held.length") == count)
        page.evaluate("held[0]()")
        assert page.inner_text("#loading") == "Loading the images, 100 %"
        assert page.inner_text("#place") == ""
        page.evaluate("held.push = (goOn) => goOn(); held.forEach((goOn) => goOn())")
        shown(page)
        first = by_probability(server.client.get(mirrored["links"]["report"]).json())[0]
        assert page.inner_text("#study-title") == f"Study {mirrored['number']}"
        assert crosshair(page) == pytest.approx(first["center_lps"], abs=0.01)
        assert abs(hu(page) - 60) < 60


def test_the_readout_of_a_study_is_gone_with_it(browser, server, job, mirrored):
    with window(browser, f"{server.url}/#{job['id']}") as page:
        shown(page)
        page.route(f"**{mirrored['links']['volume']}", lambda route: route.fulfill(status=500))
        page.evaluate(f"location.hash = '{mirrored['id']}'")
        page.wait_for_selector("#loading:text('cannot be shown')")
        assert page.inner_text("#place") == ""


def test_marks_that_are_off_stay_off_in_the_next_study(browser, server, job, mirrored):
    with window(browser, f"{server.url}/#{job['id']}") as page:
        shown(page)
        page.keyboard.press("o")
        page.keyboard.press("z")
        page.evaluate(f"location.hash = '{mirrored['id']}'")
        page.wait_for_selector(f"#study-title:text('Study {mirrored['number']}')")
        shown(page)
        assert [page.get_attribute(button, "aria-pressed") for button in ("#marks", "#zoom")] == ["false", "false"]
        without = coloured(page)
        page.keyboard.press("o")
        page.evaluate("document.querySelector('#overlay').style.display = 'none'")  # the mask alone
        assert coloured(page) > without + 20


def test_a_finding_chosen_while_the_images_load_stays_chosen(browser, server, job, report):
    chosen = by_probability(report)[1]
    with window(browser, server.url) as page:
        held = hold(page, f"**{job['links']['volume']}")
        page.evaluate(f"location.hash = '{job['id']}'")
        page.click(f"[data-finding='{chosen['id']}']")
        until_held(page, held)
        held[0].continue_()
        shown(page)
        assert page.inner_text("#detail-title") == f"Finding {chosen['id']}"
        assert crosshair(page) == pytest.approx(chosen["center_lps"], abs=0.01)


def test_no_verdict_is_taken_while_the_next_study_is_opened(browser, server, job, mirrored):
    before = stored(server, job)
    with window(browser, f"{server.url}/#{job['id']}") as page:
        shown(page)
        held = hold(page, f"**{mirrored['links']['report']}")
        page.evaluate(f"location.hash = '{mirrored['id']}'")
        until_held(page, held)
        page.keyboard.press("r")
        page.evaluate("location.hash = ''")  # which stores what has been said
        page.wait_for_selector("#start:not([hidden])")
    assert stored(server, job) == before


def test_the_slider_hides_findings_at_once(page, report):
    assert page.locator("#findings li").count() == len(report["findings"])
    page.click(f"[data-finding='{report['findings'][0]['id']}']")
    page.locator("#threshold").fill("1")
    assert page.locator("#findings li").count() == 0
    assert page.locator("#overlay circle").count() == 0
    assert "None of the" in page.inner_text("#none")
    without = coloured(page)
    page.locator("#threshold").fill("0")
    assert page.locator("#findings li").count() == len(report["findings"])
    page.evaluate("document.querySelector('#overlay').style.display = 'none'")  # the mask alone
    assert coloured(page) > without + 20
    page.evaluate("document.querySelector('#overlay').style.display = ''")


def test_the_keyboard_is_enough(page, server, job, report):
    ids = [finding["id"] for finding in by_probability(report)]

    def current() -> int:
        return int(page.locator("#findings [aria-current]").get_attribute("data-finding"))

    page.click(f"[data-finding='{ids[0]}']")
    page.keyboard.press("n")
    assert current() == ids[1]
    assert page.inner_text("#announce").startswith(f"Finding {ids[1]}:")
    page.keyboard.press("a")
    page.keyboard.press("p")
    page.keyboard.press("r")
    assert current() == ids[0]
    before = crosshair(page)
    page.keyboard.press("PageUp")
    assert crosshair(page)[2] == pytest.approx(before[2] + 4, abs=0.01)
    page.keyboard.press("2")
    assert page.locator("#overlay circle").count() <= 1
    page.keyboard.press("1")
    page.keyboard.press("F7")
    assert page.input_value("#windows") == "soft tissue"
    page.keyboard.press("?")
    assert page.locator("#keys").is_visible()
    page.keyboard.press("Escape")
    page.wait_for_selector("#saved:text('Stored on the server')")
    verdicts = {one["id"]: one["verdict"] for one in stored(server, job)["findings"]}
    assert verdicts == {ids[0]: "rejected", ids[1]: "accepted"}


def measure_length(page) -> None:
    """From 0.4 to 0.6 of the picture's width."""
    box = page.locator("#stage").bounding_box()
    middle = box["y"] + box["height"] / 2
    page.keyboard.press("l")
    page.mouse.move(box["x"] + box["width"] * 0.4, middle)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] * 0.6, middle, steps=3)
    page.mouse.up()
    page.wait_for_selector("#clear:not([hidden])")


def test_the_lengths_of_a_study_are_gone_with_it(browser, server, job, mirrored):
    with window(browser, f"{server.url}/#{job['id']}") as page:
        shown(page)
        page.keyboard.press("2")
        measure_length(page)
        page.evaluate(f"location.hash = '{mirrored['id']}'")
        page.wait_for_selector(f"#study-title:text('Study {mirrored['number']}')")
        assert page.is_hidden("#clear")


def test_a_length_is_measured_in_millimetres(page):
    page.keyboard.press("2")
    box = page.locator("#stage").bounding_box()

    def at(fraction: float) -> list[float]:
        page.mouse.click(box["x"] + box["width"] * fraction, box["y"] + box["height"] / 2)
        return crosshair(page)

    expected = abs(at(0.4)[0] - at(0.6)[0])
    measure_length(page)
    measured = float(re.search(r"measured ([\d.]+) mm", page.inner_text("#place")).group(1))
    assert measured == pytest.approx(expected, abs=0.5)
    page.click("#clear")
    page.keyboard.press("x")
    page.keyboard.press("1")


@pytest.mark.parametrize(("width", "height"), [(1366, 768), (1024, 768), (820, 1180)])
def test_the_page_fits_laptops_and_tablets(page, width, height):
    page.set_viewport_size({"width": width, "height": height})
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert page.locator("#stage").bounding_box()["height"] > height / 3
    assert barriers(page) == []


def test_a_rejected_finding_stays_rejected(page, server, job, report):
    first = by_probability(report)[0]["id"]
    page.click(f"[data-finding='{first}']")
    page.keyboard.press("u")
    page.click("#verdict >> text=Reject")
    page.fill("#comment", "a vessel")
    page.fill("#study-comment", "motion")
    page.wait_for_selector("#saved:text('Stored on the server')")
    page.reload()
    shown(page)
    assert "rejected" in page.locator(f"[data-finding='{first}']").get_attribute("class")
    assert page.input_value("#comment") == "a vessel"
    assert page.input_value("#study-comment") == "motion"
    said = {one["id"]: one for one in stored(server, job)["findings"]}
    assert said[first] == {"id": first, "verdict": "rejected", "comment": "a vessel"}
    archive = zipfile.ZipFile(io.BytesIO(server.client.get(job["links"]["export"]).content))
    assert json.loads(archive.read("review.json")) == stored(server, job)


def downloaded(page, name: str) -> bytes:
    with page.expect_download() as download:
        page.click(f"#files-list >> text={name}")
    return Path(download.value.path()).read_bytes()


def comment_in_archive(page) -> str:
    archive = zipfile.ZipFile(io.BytesIO(downloaded(page, "Everything")))
    return json.loads(archive.read("review.json"))["comment"]


def test_the_archive_holds_what_was_said_just_before(page):
    page.fill("#study-comment", "in a hurry")
    assert comment_in_archive(page) == "in a hurry"


def test_a_review_of_more_than_64_kib_is_stored(page, server, job):
    said = "é" * 33_000  # of two bytes each: browsers send at most 65 536 bytes for a page that may go away
    page.fill("#study-comment", said)
    page.wait_for_selector("#saved:not(:text('Not stored yet'))")
    assert page.inner_text("#saved").startswith("Stored on the server")
    assert stored(server, job)["comment"] == said


def test_what_was_said_last_is_stored_when_the_study_is_left(page, server, job):
    page.fill("#study-comment", "left in a hurry")
    page.click(".brand")
    page.wait_for_selector("#start:not([hidden])")
    assert stored(server, job)["comment"] == "left in a hurry"
    page.wait_for_selector("#studies li")
    assert barriers(page) == []


def test_a_study_is_opened_only_after_all_that_was_said_is_stored(browser, server, job):
    puts = []

    def hold(route) -> None:
        if route.request.method == "PUT":
            puts.append(route)
        else:
            route.continue_()

    with window(browser, f"{server.url}/#{job['id']}") as page:

        def until_sent(count: int) -> None:
            until(lambda: page.wait_for_timeout(20) or len(puts) == count)

        shown(page)
        page.route("**/review", hold)
        page.fill("#study-comment", "first")
        until_sent(1)
        page.fill("#study-comment", "second")
        page.evaluate(f"location.hash = ''; location.hash = '{job['id']}'")
        puts[0].continue_()
        until_sent(2)
        assert page.is_visible("#study")
        assert page.inner_text("#loading") == ""
        puts[1].continue_()
        page.wait_for_selector("#saved:text('Stored on the server')")
        assert stored(server, job)["comment"] == "second"


def leave_unstored(page, comment: str) -> None:
    """Say something about a study whose reviews do not reach the server, and go back to the first page."""
    shown(page)
    page.route("**/review", lambda route: route.abort() if route.request.method == "PUT" else route.continue_())
    page.fill("#study-comment", comment)
    page.wait_for_selector("#saved.problem:text('It is tried again soon')")
    page.click(".brand")
    page.wait_for_selector("#start:not([hidden])")


def test_a_review_that_failed_to_be_stored_is_stored_when_the_study_has_been_left(browser, server, job):
    with window(browser, f"{server.url}/#{job['id']}") as page:
        leave_unstored(page, "the network was down")
        page.unroute("**/review")
        until(lambda: page.wait_for_timeout(20) or stored(server, job)["comment"] == "the network was down")


def test_a_review_that_the_server_has_not_got_is_there_when_the_study_is_opened_again(browser, server, job):
    with window(browser, f"{server.url}/#{job['id']}") as page:
        leave_unstored(page, "said while nothing could be stored")
        page.evaluate(f"location.hash = '{job['id']}'")
        page.wait_for_function(
            "document.querySelector('#study-comment').value === 'said while nothing could be stored'"
        )
        assert page.inner_text("#saved").startswith("Not stored")
        page.unroute("**/review")
        page.wait_for_selector("#saved:text('Stored on the server')")
    assert stored(server, job)["comment"] == "said while nothing could be stored"


def test_what_could_not_be_stored_is_not_said_of_the_next_study(browser, server, job, mirrored):
    with window(browser, f"{server.url}/#{job['id']}") as page:
        leave_unstored(page, "of the first study")
        page.evaluate(f"location.hash = '{mirrored['id']}'")
        shown(page)
        assert page.locator("#saved.problem").count() == 0
        page.unroute("**/review")
        until(lambda: page.wait_for_timeout(20) or stored(server, job)["comment"] == "of the first study")


def test_a_study_is_listed_once_however_quickly_the_list_is_asked_for(browser, server, job, mirrored):
    with window(browser, f"{server.url}/#{job['id']}") as page:
        shown(page)
        held = hold(page, "**/v1/jobs?limit=*")
        for asked in (1, 2):
            page.evaluate(f"location.hash = '{job['id']}'")
            page.wait_for_selector("#study:not([hidden])")
            page.evaluate("location.hash = ''")
            until_held(page, held, asked)
        for route in reversed(held):
            with page.expect_response("**/v1/jobs?limit=*"):
                route.continue_()
        page.wait_for_selector(f"#studies a[href='#{job['id']}']")
        listed = page.eval_on_selector_all("#studies a", "links => links.map((link) => link.hash)")
        assert len(listed) == len(set(listed)) >= 2


def focused(page, attribute: str) -> str:
    return page.evaluate(f"document.activeElement.getAttribute('{attribute}')")


def test_focus_goes_to_the_next_study_when_one_is_deleted(browser, server, job, samples):
    gone = server.wait_ended(server.upload(samples / "chest.mha").json()["id"])["id"]
    with window(browser, server.url) as page:
        page.on("dialog", lambda asked: asked.accept())
        page.wait_for_selector(f"#studies a[href='#{gone}']")
        links = page.eval_on_selector_all("#studies a", "links => links.map((link) => link.hash)")
        page.click(f"#studies li:has(a[href='#{gone}']) button")
        page.wait_for_selector(f"#studies a[href='#{gone}']", state="detached")
        assert focused(page, "href") == links[links.index(f"#{gone}") + 1]


def test_focus_goes_to_the_heading_of_the_page_that_comes_back(browser, server, job):
    with window(browser, f"{server.url}/#{job['id']}") as page:
        shown(page)
        page.click(".brand")
        page.wait_for_selector("#start:not([hidden])")
        assert focused(page, "id") == "start-title"


def test_screen_readers_hear_once_that_images_are_loading(browser, server, job):
    with window(browser, server.url) as page:
        held = hold(page, f"**{job['links']['volume']}")
        page.evaluate(f"location.hash = '{job['id']}'")
        until_held(page, held)
        assert page.text_content("#announce") == "Loading the images"
        assert page.get_attribute("#loading", "role") is None


def test_a_study_that_is_sent_meanwhile_does_not_take_the_place_of_another(browser, server, job, samples):
    with window(browser, server.url) as page:
        held = hold_upload(page, samples)
        page.evaluate(f"location.hash = '{job['id']}'")
        shown(page)
        held[0].continue_()
        page.wait_for_selector("#announce:text('is sent')", state="attached")
        sent = server.client.get("/v1/jobs").json()["jobs"][0]
        assert page.text_content("#announce") == f"Study {sent['number']} is sent"
        assert page.is_visible("#study")
        assert page.inner_text("#study-title") == f"Study {job['number']}"
        page.click(".brand")
        page.wait_for_selector(f"#studies a[href='#{sent['id']}']")
    server.wait_ended(sent["id"])


def test_all_studies_are_a_click_away_while_one_is_sent(browser, server, samples):
    with window(browser, f"{server.url}/#") as page:
        hold_upload(page, samples)
        page.click("#wait-back")
        page.wait_for_selector("#start:not([hidden])")


def test_an_upload_that_fails_after_it_was_left_is_told_on_the_first_page(browser, server, job, samples):
    with window(browser, server.url) as page:
        held = hold_upload(page, samples)
        page.evaluate(f"location.hash = '{job['id']}'")
        shown(page)
        held[0].abort()
        page.wait_for_selector("#announce:text('chest.mha was not sent')", state="attached")
        page.click(".brand")
        page.wait_for_selector("#upload-problem:has-text('chest.mha was not sent')")
        page.evaluate(f"location.hash = '{job['id']}'; location.hash = ''")
        page.wait_for_selector("#upload-problem", state="hidden")


def test_a_dropped_file_that_cannot_be_read_is_told(browser, server):
    with window(browser, server.url) as page:
        page.wait_for_selector("#start:not([hidden])")
        page.evaluate("""() => {
            const file = (_, failed) => failed(new DOMException('it is gone', 'NotFoundError'))
            const event = new DragEvent('drop', {cancelable: true})
            const items = [{webkitGetAsEntry: () => ({isFile: true, file})}]
            Object.defineProperty(event, 'dataTransfer', {value: {items}})
            document.dispatchEvent(event)
        }""")
        page.wait_for_selector("#upload-problem:text('it is gone')")


def test_the_first_page_comes_once_the_server_is_there(browser, server):
    with window(browser, server.url) as page:
        page.route("**/v1/server", lambda route: route.abort())
        page.reload()
        page.wait_for_selector("#wait-title:text('The server cannot be reached')")
        page.unroute("**/v1/server")
        page.click(".brand")
        page.wait_for_selector("#start:not([hidden])")


def test_a_running_study_shows_its_progress_and_can_be_cancelled(browser, server, samples):
    os.kill(server.detector_pid(), signal.SIGSTOP)  # the study runs until it is cancelled
    with window(browser, server.url) as page:
        page.set_input_files("#files", samples / "chest.zip")
        page.wait_for_selector("#wait-title:text('is being analysed')")
        assert page.locator("#wait-bar").is_visible()
        assert barriers(page) == []
        page.click("#wait-cancel")
        page.wait_for_selector("#wait-title:text('was cancelled')")
    server.wait_ready()


def test_a_refused_study_shows_the_reason(browser, server, tmp_path):
    write_image(small_chest(lungs=False).hu, GRID, tmp_path / "no-lungs.nii.gz")
    (tmp_path / "note.txt").write_text("no CT")
    with window(browser, server.url) as page:
        page.set_input_files("#files", tmp_path / "note.txt")
        page.wait_for_selector("#upload-problem:not([hidden])")
        assert "no DICOM and no image" in page.inner_text("#upload-problem")
        page.set_input_files("#files", tmp_path / "no-lungs.nii.gz")
        page.wait_for_selector("#wait.failed")
        assert "no lungs found" in page.inner_text("#wait-detail")
        assert barriers(page) == []
        page.click("#wait-back")
        page.wait_for_selector("#studies .failed")
        assert "no lungs found" in page.locator("#studies .failed").first.inner_text()


def test_an_unknown_study_is_said_to_be_unknown(browser, server):
    with window(browser, f"{server.url}/#{'0' * 32}") as page:
        page.wait_for_selector("#wait-title:text('There is no such study')")


@pytest.fixture(scope="module")
def guarded(browser, weights, tmp_path_factory):
    """A server that asks for a token, and finds nothing."""
    state = tmp_path_factory.mktemp("guarded") / "state"
    with running(state, weights, "--threshold", "0.999", CARINA_SERVE_TOKEN=TOKEN) as server:
        server.client.headers["Authorization"] = f"Bearer {TOKEN}"
        yield server


@pytest.fixture(scope="module")
def guarded_job(guarded, samples) -> dict:
    return guarded.wait_ended(guarded.upload(samples / "chest.nii.gz").json()["id"])


def give_token(page, token: str) -> None:
    page.fill("#token-value", token)
    page.keyboard.press("Enter")


def test_a_token_is_asked_for_and_no_findings_are_said_so(browser, guarded, samples):
    with window(browser, guarded.url) as page:
        give_token(page, "wrong")
        page.wait_for_selector("#token-problem:not([hidden])")
        give_token(page, TOKEN)
        page.wait_for_selector("#start:not([hidden])")
        page.set_input_files("#files", samples / "chest.nii.gz")
        shown(page)
        assert "No findings" in page.inner_text("#none")
        assert page.locator("#findings li").count() == 0
        assert "no finding" in page.inner_text("#patient")
        assert barriers(page) == []
        assert json.loads(downloaded(page, "report.json"))["findings"] == []


def test_files_behind_a_token_are_fetched_each_time(browser, guarded, guarded_job):
    with window(browser, f"{guarded.url}/#{guarded_job['id']}") as page:
        give_token(page, TOKEN)
        shown(page)
        for said in ("first", "second"):
            page.fill("#study-comment", said)
            assert comment_in_archive(page) == said


def test_a_file_that_cannot_be_fetched_says_why(browser, guarded, guarded_job):
    with window(browser, f"{guarded.url}/#{guarded_job['id']}") as page:
        give_token(page, TOKEN)
        shown(page)
        page.route("**/report", lambda route: route.abort())
        page.click("#files-list >> text=report.json")
        page.wait_for_selector("#file-problem:text('The server cannot be reached')")
        page.unroute("**/report")
        assert downloaded(page, "report.json")
        assert page.is_hidden("#file-problem")


def test_a_token_that_no_request_can_carry_is_not_taken(browser, guarded):
    with window(browser, guarded.url) as page:
        give_token(page, "жетон-сервера-слово")
        assert page.is_visible("#token")
        assert page.evaluate("document.querySelector('#token-value').validity.patternMismatch")
        assert page.evaluate("sessionStorage.length") == 0


def test_who_gives_no_token_is_told_so_and_can_come_back(browser, guarded):
    with window(browser, guarded.url) as page:
        page.wait_for_selector("#token[open]")
        page.keyboard.press("Escape")
        page.wait_for_selector("#wait-title:text('A token is needed')")
        assert page.is_hidden("#token")
        page.click("#wait-back")
        give_token(page, TOKEN)
        page.wait_for_selector("#start:not([hidden])")


def test_the_page_loads_nothing_from_elsewhere(server, browser):
    page = httpx.get(server.url)
    policy = page.headers["content-security-policy"]
    assert "script-src 'self';" in policy
    assert "unsafe-eval" not in policy
    assert "default-src 'self'" in policy
    assert not re.findall(r'(?:src|href)="(?:https?:)?//', page.text)


@pytest.mark.data
def test_the_nodule_of_a_real_scan_is_under_the_crosshair(browser, lidc_0001, tmp_path):
    study = tmp_path / "lidc.zip"
    with zipfile.ZipFile(study, "w") as archive:
        for path in sorted(lidc_0001.glob("*.dcm")):
            archive.write(path, path.name)
    with running(tmp_path / "state", None) as server, window(browser, server.url) as page:
        page.set_input_files("#files", study)
        page.wait_for_selector("#study:not([hidden])", timeout=400_000)
        shown(page)
        # The second is the spot at the pleura of docs/reference/weights.md.
        assert page.locator("#findings li").count() == 2
        # LUNA16's centre of the nodule that four readers marked, and its slice
        assert np.linalg.norm(np.subtract(crosshair(page), (56.208, 86.343, -115.868))) < 3
        assert hu(page) > -300

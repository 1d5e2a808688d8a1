"""The page of `medvol view` in a real Chromium."""

import io
import json
import socket
import threading
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import uvicorn
from chromium import SOFTWARE_WEBGL, find_chromium
from PIL import Image

from medvol.core.types import Evidence
from medvol.imaging.reading import read_volume
from medvol.inference.records import read_record
from medvol.propagators.extrude import ExtrudePropagator
from medvol.terminal.progress import show_progress
from medvol.viewing.interface import Interface
from medvol.viewing.jobs import Jobs
from medvol.viewing.packing import unpack_mask
from tests.viewing.conftest import HOSTILE, KEY, SlowPropagator, answer_folder, make_desk

BLOCK = (10.0, 6.0, 30.0, 18.0)
"""The answer's box on its key slice 3."""
WAIT_MS = 20_000


class Live:
    """A desk that is served on a port of this machine."""

    def __init__(self, target: Path, port: int = 0, **others: Any) -> None:
        self.jobs = Jobs()
        self.listener = socket.socket()
        self.listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.listener.bind(("127.0.0.1", port))
        self.listener.listen()
        self.port = self.listener.getsockname()[1]
        app = Interface(make_desk(target, **others), self.jobs).build(KEY)
        settings = {"lifespan": "off", "ws": "none", "log_level": "error", "timeout_graceful_shutdown": 1}
        self.server = uvicorn.Server(uvicorn.Config(app, **settings))
        self.thread = threading.Thread(target=self.server.run, kwargs={"sockets": [self.listener]})
        self.thread.start()

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.port}/{KEY}/"

    def stop(self) -> None:
        self.server.should_exit = True
        self.thread.join()
        self.listener.close()
        self.jobs.close()


@pytest.fixture(scope="module")
def browser(playwright: Any):
    opened = playwright.chromium.launch(executable_path=find_chromium(), args=["--no-sandbox", *SOFTWARE_WEBGL])
    yield opened
    opened.close()


@pytest.fixture
def live(tmp_path: Path):
    served = Live(answer_folder(tmp_path), reader="A. Reader")
    yield served
    if served.thread.is_alive():
        served.stop()


@pytest.fixture
def page(browser: Any, live: Live):
    yield from open_page(browser, live)


def open_page(browser: Any, live: Live):
    """A tab with the first answer; what it says to the console, and whom it asks, is held against it."""
    context = browser.new_context(viewport={"width": 1366, "height": 768})
    tab = context.new_page()
    tab.faults, tab.asked = [], []
    tab.on("console", lambda message: tab.faults.append(message.text) if message.type == "error" else None)
    tab.on("pageerror", lambda error: tab.faults.append(str(error)))
    tab.on("request", lambda request: tab.asked.append(request.url))
    tab.goto(live.address)
    ready(tab)
    yield tab
    assert {url for url in tab.asked if not url.startswith((live.address, "blob:", "data:"))} == set()
    context.close()


def ready(tab: Any) -> None:
    tab.wait_for_selector("body[data-answer][data-drawn][data-loaded='1']", timeout=WAIT_MS)


def anchor(tab: Any) -> dict[str, Any]:
    return json.loads(tab.get_attribute("body", "data-anchor"))


def until(tab: Any, read: Any, wanted: Any) -> None:
    """Read again and again from here, since the page's own policy lets no condition be evaluated in it."""
    for _ in range(WAIT_MS // 50):
        if read() == wanted:
            return
        tab.wait_for_timeout(50)
    assert read() == wanted


def wait_for_anchor(tab: Any, wanted: dict[str, Any]) -> None:
    until(tab, lambda: anchor(tab), wanted)


def place(tab: Any, x: float, y: float) -> tuple[float, float]:
    """Where a pixel of the slice lies in the tab: 40 columns of 1.5 mm, 30 rows of 2 mm."""
    box = tab.locator("#axial").bounding_box()
    fit = min(box["width"] / 60, box["height"] / 60)
    left = box["x"] + (box["width"] - 60 * fit) / 2
    top = box["y"] + (box["height"] - 60 * fit) / 2
    return left + x * 1.5 * fit, top + y * 2 * fit


def drag(tab: Any, start: tuple[float, float], end: tuple[float, float]) -> None:
    tab.mouse.move(*place(tab, *start))
    tab.mouse.down()
    tab.mouse.move(*place(tab, (start[0] + end[0]) / 2, (start[1] + end[1]) / 2))
    tab.mouse.move(*place(tab, *end))
    tab.mouse.up()


def kept(tab: Any, word: str = "draft kept") -> None:
    tab.locator("#kept", has_text=word).wait_for(timeout=WAIT_MS)


def choose(tab: Any, query: str) -> None:
    button = tab.locator("#answers button", has_text=query)
    number = button.get_attribute("data-answer")
    button.click()
    tab.wait_for_selector(f"body[data-answer='{number}']", timeout=WAIT_MS)


def test_the_mask_follows_a_dragged_box_and_is_the_librarys(page: Any, live: Live, tmp_path: Path) -> None:
    assert anchor(page) == {"key_slice": 3, "boxes_px": [list(BLOCK)]}
    with page.expect_response(lambda response: response.url.endswith("/mask")) as answered:
        drag(page, (20, 12), (25, 9))
    assert anchor(page)["boxes_px"] == [[15, 3, 35, 15]]
    volume = read_volume(tmp_path / "scans" / "scan0.nii.gz")
    evidence = Evidence(3, np.array([[15.0, 3.0, 35.0, 15.0]]))
    expected = ExtrudePropagator(half_depth_slices=1).propagate(volume, evidence)
    found = answered.value.json()["result"]
    np.testing.assert_array_equal(unpack_mask(found["mask"], volume.shape), expected)
    page.locator("#measures td:last-child", has_text=f"{expected.sum() * 0.012:.3f} ml").wait_for(timeout=WAIT_MS)
    with page.expect_response(lambda response: response.url.endswith("/mask")):
        drag(page, (35, 15), (38, 20))
    assert anchor(page)["boxes_px"] == [[15, 3, 38, 20]], "the lower right corner resizes"
    assert page.faults == []


def test_the_picture_shows_voxels_and_sides_where_they_are(page: Any) -> None:
    """The block is bright; the dark voxel that the file stores first lies at the patient's left, back and head."""
    page.keyboard.press("m")
    until(page, lambda: shade(page, 20.5, 12.5), round((80 + 160) / 400 * 255))
    assert shade(page, 35.5, 12.5) == round((-100 + 160) / 400 * 255)
    page.keyboard.press("PageUp")
    page.wait_for_selector("body[data-drawn='11']", timeout=WAIT_MS)
    assert shade(page, 39.5, 29.5) == 0
    assert shade(page, 0.5, 29.5) == shade(page, 39.5, 0.5) == round((-100 + 160) / 400 * 255)


def shade(tab: Any, x: float, y: float) -> int:
    """Grey of a pixel of the slice as it is drawn."""
    tab.wait_for_timeout(150)
    box = tab.locator("#axial").bounding_box()
    at = [a - b for a, b in zip(place(tab, x, y), (box["x"], box["y"]), strict=True)]
    read = "at => document.getElementById('axial').getContext('2d').getImageData(...at, 1, 1).data[0]"
    return tab.evaluate(read, [*map(int, at)])


def test_undo_and_redo(page: Any) -> None:
    page.locator("#measures:not(.stale)").wait_for(timeout=WAIT_MS)
    first, before = anchor(page), page.inner_text("#measures")
    assert first["boxes_px"] == [list(BLOCK)]
    drag(page, (20, 12), (22, 12))
    page.locator("#undo:not([disabled])").wait_for(timeout=WAIT_MS)
    moved = anchor(page)
    assert moved["boxes_px"] != first["boxes_px"]
    page.keyboard.press("z")
    wait_for_anchor(page, first)
    until(page, lambda: page.inner_text("#measures"), before)
    page.keyboard.press("Shift+Z")
    wait_for_anchor(page, moved)
    page.click("#undo")
    wait_for_anchor(page, first)


def test_undo_goes_back_beyond_a_reload(page: Any) -> None:
    states = [anchor(page)]
    for start, end in (((20, 12), (22, 12)), ((22, 12), (22, 10))):
        drag(page, start, end)
        kept(page)
        states.append(anchor(page))
    page.keyboard.press("z")
    wait_for_anchor(page, states[1])
    kept(page)
    page.reload()
    ready(page)
    for key, wanted in (("Shift+Z", states[2]), ("z", states[1]), ("z", states[0])):
        page.keyboard.press(key)
        wait_for_anchor(page, wanted)
    page.locator("#undo[disabled]").wait_for(timeout=WAIT_MS)
    assert [state["boxes_px"][0] for state in states] == [list(BLOCK), [12, 6, 32, 18], [12, 4, 32, 16]]
    assert page.faults == []


def test_save_reload_go_on(page: Any, live: Live, tmp_path: Path) -> None:
    drag(page, (20, 12), (22, 12))
    kept(page)
    page.reload()
    ready(page)
    assert anchor(page)["boxes_px"] == [[12, 6, 32, 18]], "the draft is there again"
    page.fill("#remark", "two to the left")
    page.click("#correct:not([disabled])")
    page.wait_for_selector("body[data-saved]", timeout=WAIT_MS)
    saved = page.get_attribute("body", "data-saved")
    record = read_record(tmp_path / "answers" / "readings" / saved)
    assert record.evidence.boxes.tolist() == [[12, 6, 32, 18]]
    assert record.reading is not None
    assert (record.reading.remark, record.reading.parent) == ("two to the left", "case0a.json")
    page.reload()
    page.wait_for_selector("#answers .state.corrected", timeout=WAIT_MS)
    choose(page, "the block")
    assert anchor(page)["boxes_px"] == [[12, 6, 32, 18]]
    assert "two to the left" in page.inner_text("#verdict")
    page.click("#accept:not([disabled])")
    page.wait_for_selector("#answers .state.accepted", timeout=WAIT_MS)
    assert len(list((tmp_path / "answers" / "readings").glob("*.json"))) == 2
    assert page.faults == []


def disagree(page: Any, other: Any) -> None:
    """Move a box in one tab, and then the same box in another one, which is told of it."""
    drag(page, (20, 12), (22, 12))
    kept(page)
    drag(other, (20, 12), (20, 15))
    other.locator("#banner", has_text="has changed this answer meanwhile").wait_for(timeout=WAIT_MS)


def test_two_tabs_do_not_lose_each_others_work(browser: Any, page: Any, live: Live) -> None:
    for other in open_page(browser, live):
        disagree(page, other)
        other.click("text=Put mine on top")
        kept(other)
        assert anchor(other)["boxes_px"] == [[10, 9, 30, 21]]
        other.keyboard.press("z")
        assert anchor(other)["boxes_px"] == [[12, 6, 32, 18]], "what the other tab did lies below"
        other.faults.clear()  # the browser tells of the refused request itself


def test_the_server_goes_and_comes_back(page: Any, live: Live, tmp_path: Path) -> None:
    live.stop()
    drag(page, (20, 12), (22, 12))
    page.locator("#banner", has_text="The server does not answer").wait_for(timeout=WAIT_MS)
    assert anchor(page)["boxes_px"] == [[12, 6, 32, 18]]
    again = Live(tmp_path / "answers", live.port)
    try:
        kept(page)
        page.locator("#banner").wait_for(state="hidden", timeout=WAIT_MS)
        page.locator("#measures:not(.stale)").wait_for(timeout=WAIT_MS)
    finally:
        page.close()
        again.stop()


def test_a_wrong_key_is_told(browser: Any, live: Live) -> None:
    tab = browser.new_page()
    answered = tab.goto(live.address.replace(KEY, "wrong"))
    assert answered.status == 404
    assert "open the address that medvol view printed" in tab.inner_text("body")
    tab.close()


def test_hostile_text_is_text(page: Any) -> None:
    choose(page, "liver")
    assert page.inner_text("#query") == HOSTILE
    assert page.title() == f"{HOSTILE} · medvol view"
    assert page.locator("#query *, #answers img, #answers b").count() == 0
    assert page.faults == []


def test_scrolling_asks_for_nothing(page: Any) -> None:
    page.wait_for_timeout(600)
    before = len(page.asked)
    page.mouse.move(*place(page, 20, 25))
    for _ in range(20):
        page.mouse.wheel(0, 100)
    page.wait_for_selector("body[data-drawn='0']", timeout=WAIT_MS)
    for _ in range(20):
        page.mouse.wheel(0, -100)
    page.wait_for_selector("body[data-drawn='11']", timeout=WAIT_MS)
    assert page.asked[before:] == []


def test_everything_by_the_keyboard(page: Any, tmp_path: Path) -> None:
    page.keyboard.press("ArrowUp")
    page.keyboard.press("k")
    assert anchor(page)["key_slice"] == 4
    page.keyboard.press("Shift+ArrowLeft")
    page.keyboard.press("Alt+Control+ArrowDown")
    page.wait_for_selector("body[data-anchor*='28']", timeout=WAIT_MS)
    page.keyboard.press("n")
    assert len(anchor(page)["boxes_px"]) == 2
    page.keyboard.press("Delete")
    assert len(anchor(page)["boxes_px"]) == 1
    page.keyboard.press("Delete")
    assert anchor(page) == {"key_slice": None, "boxes_px": []}
    page.wait_for_selector("#correct:not([disabled])", timeout=WAIT_MS)
    page.keyboard.press("c")
    page.wait_for_selector("#answers .state.corrected", timeout=WAIT_MS)
    (record,) = map(read_record, (tmp_path / "answers" / "readings").glob("*.json"))
    assert record.evidence.absent
    page.keyboard.press("?")
    assert page.locator("#help[open]").is_visible()
    assert page.faults == []


def test_behind_the_list_of_keys_nothing_is_judged(page: Any, tmp_path: Path) -> None:
    page.keyboard.press("?")
    page.click("#help h2")
    page.keyboard.press("a")
    page.keyboard.press("Escape")
    page.locator("#help").wait_for(state="hidden", timeout=WAIT_MS)
    page.wait_for_timeout(300)
    assert not (tmp_path / "answers" / "readings").exists()
    assert page.locator("#answers .state.open").count() == 3


def test_a_box_is_chosen_on_keyboards_that_have_brackets_on_alt(page: Any) -> None:
    page.keyboard.press("n")
    page.keyboard.press("Alt+[")
    page.keyboard.press("Shift+ArrowRight")
    assert anchor(page)["boxes_px"][0] == [11, 6, 31, 18]


def test_a_box_between_pixels_that_is_back_is_no_correction(browser: Any, tmp_path: Path) -> None:
    """(15.12 + 1) - 1 is not 15.12 in floating point."""
    (record,) = (path for path in answer_folder(tmp_path).glob("*a.json") if "the block" in path.read_text())
    content = json.loads(record.read_text())
    content["evidence"]["boxes_px"] = [[15.12, 6.0, 30.0, 18.0]]
    record.write_text(json.dumps(content))
    served = Live(tmp_path / "answers")
    with contextmanager(open_page)(browser, served) as page:
        page.keyboard.press("Shift+ArrowRight")
        until(page, lambda: anchor(page)["boxes_px"][0][0] > 16, True)
        page.keyboard.press("Shift+ArrowLeft")
        until(page, lambda: anchor(page)["boxes_px"][0][0] < 16, True)
        page.wait_for_selector("#measures:not(.stale)", timeout=WAIT_MS)
        page.keyboard.press("a")
        page.wait_for_selector("#answers .state.accepted", timeout=WAIT_MS)
    served.stop()


def test_the_work_list_keeps_the_focus(page: Any) -> None:
    choose(page, "the tail")
    page.keyboard.press("Tab")
    assert "liver" in page.evaluate("() => document.activeElement.textContent")


def test_a_question_that_the_reader_answers(page: Any, tmp_path: Path) -> None:
    page.fill("#new-query", "the other block")
    page.click("#ask-me")
    page.wait_for_selector("[data-tool=add][aria-pressed=true]", timeout=WAIT_MS)
    drag(page, (11, 7), (29, 17))
    assert anchor(page)["boxes_px"] == [[11, 7, 29, 17]]
    page.click("#correct:not([disabled])")
    page.wait_for_selector("#answers .state.corrected", timeout=WAIT_MS)
    (record,) = map(read_record, (tmp_path / "answers" / "readings").glob("*.json"))
    assert (record.query, record.policy) == ("the other block", {})


def test_windows_by_key_and_mouse(page: Any) -> None:
    page.keyboard.press("3")
    assert page.inner_text("#window-now") == "-1350 to 150 HU"
    page.mouse.move(*place(page, 20, 12))
    page.mouse.down(button="right")
    page.mouse.move(*place(page, 25, 12))
    page.mouse.up(button="right")
    assert page.inner_text("#window-now") != "-1350 to 150 HU"
    assert anchor(page)["boxes_px"] == [list(BLOCK)]


def test_planes_and_3d_are_drawn(page: Any) -> None:
    page.wait_for_selector("#three canvas", timeout=WAIT_MS)
    page.wait_for_timeout(1500)
    assert page.inner_text("#three-note") == ""
    for name in ("coronal", "sagittal"):
        pixels = f"document.getElementById('{name}').getContext('2d').getImageData(0, 0, 200, 200).data"
        assert page.evaluate(f"() => new Set({pixels}).size") > 3
    assert page.faults == []


def test_progress_is_shown_and_esc_cancels(browser: Any, tmp_path: Path) -> None:
    served = Live(answer_folder(tmp_path), propagator=SlowPropagator())
    with show_progress(served.jobs.display):
        for tab in open_page(browser, served):
            drag(tab, (20, 12), (22, 12))
            tab.locator("#work-text", has_text="slowly").wait_for(timeout=WAIT_MS)
            assert tab.locator("#work-bar").get_attribute("value") is not None
            tab.keyboard.press("Escape")
            tab.locator("#work").wait_for(state="hidden", timeout=WAIT_MS)
            assert anchor(tab)["boxes_px"] == [list(BLOCK)]
            tab.locator("#measures:not(.stale)").wait_for(timeout=WAIT_MS)
            assert tab.faults == []
    served.stop()


def test_an_answer_is_rejected_with_a_remark(page: Any, tmp_path: Path) -> None:
    page.fill("#remark", "that is the <stomach>")
    page.click("#reject:not([disabled])")
    page.wait_for_selector("#answers .state.rejected", timeout=WAIT_MS)
    page.locator("#query", has_text="the tail").wait_for(timeout=WAIT_MS)  # the next one is opened
    until(page, lambda: page.input_value("#remark"), "")
    page.click("#answers button:has(.state.rejected)")
    page.locator("#verdict", has_text="rejected by A. Reader").wait_for(timeout=WAIT_MS)
    assert "that is the <stomach>" in page.inner_text("#verdict")


@pytest.fixture
def two_anchors(browser: Any, tmp_path: Path):
    """A tab whose first answer has a second anchor on slice 8, and the folder of its answers."""
    folder = answer_folder(tmp_path)
    record = folder / "case0a.json"
    content = json.loads(record.read_text())
    content["evidence"]["further"] = [{"key_slice": 8, "boxes_px": [[2.0, 2.0, 12.0, 12.0]]}]
    record.write_text(json.dumps(content))
    served = Live(folder)
    yield from ((tab, folder) for tab in open_page(browser, served))
    served.stop()


def test_several_anchors_are_shown_moved_added_and_deleted(two_anchors: tuple[Any, Path]) -> None:
    page, folder = two_anchors
    first, second = {"key_slice": 3, "boxes_px": [list(BLOCK)]}, {"key_slice": 8, "boxes_px": [[2, 2, 12, 12]]}
    assert anchor(page) == {**first, "further": [second]}
    page.click("#to-key")
    until(page, lambda: page.inner_text("#place"), "key slice 8")
    drag(page, (7, 7), (9, 8))
    moved = {"key_slice": 8, "boxes_px": [[4, 3, 14, 13]]}
    wait_for_anchor(page, {**first, "further": [moved]})
    page.click("#to-key")
    until(page, lambda: page.inner_text("#place"), "key slice 3")
    page.locator("#axial").focus()
    for _ in range(2):
        page.keyboard.press("ArrowUp")
    until(page, lambda: page.inner_text("#place"), "slice 5")
    page.keyboard.press("b")
    drag(page, (20, 20), (30, 28))
    third = {"key_slice": 5, "boxes_px": [[20, 20, 30, 28]]}
    wait_for_anchor(page, {**first, "further": [moved, third]})
    page.keyboard.press("Delete")
    wait_for_anchor(page, {**first, "further": [moved]})
    page.keyboard.press("z")
    wait_for_anchor(page, {**first, "further": [moved, third]})
    page.locator("#correct:not([disabled])").wait_for(timeout=WAIT_MS)
    page.click("#correct")
    page.wait_for_selector("body[data-saved]", timeout=WAIT_MS)
    saved = read_record(folder / "readings" / (page.get_attribute("body", "data-saved") or ""))
    assert [one.key_slice for one in saved.evidence.anchors] == [3, 8, 5]
    assert page.faults == []


def readings(tmp_path: Path) -> list[str]:
    return [path.name for path in (tmp_path / "answers" / "readings").glob("*.json")]


def opened_answer(tab: Any) -> str:
    return tab.inner_text("#answers button[aria-current] .what")


def hold(tab: Any, address: str) -> list[Any]:
    """The requests to an address: they wait until a test lets them go."""
    held: list[Any] = []
    tab.route(address, lambda route: held.append(route))
    return held


NUDGED = {"key_slice": 3, "boxes_px": [[11, 6, 31, 18]]}
REST_MS = 800
"""After this long nothing that a key began is still to come."""


def test_a_nudge_stays_on_its_slice_and_is_one_step_of_the_history(page: Any) -> None:
    first = anchor(page)
    page.keyboard.press("Shift+ArrowRight")
    page.keyboard.press("ArrowUp")
    page.keyboard.press("ArrowUp")
    page.wait_for_timeout(REST_MS)
    assert page.inner_text("#place") == "slice 5"
    assert anchor(page) == NUDGED
    page.keyboard.press("Home")
    for key in ("Shift+ArrowRight", "Shift+ArrowLeft", "Alt+ArrowDown"):
        page.keyboard.press(key)
    assert anchor(page) == {"key_slice": 3, "boxes_px": [[11, 6, 31, 19]]}
    page.keyboard.press("z")
    page.wait_for_timeout(REST_MS)
    assert anchor(page) == NUDGED
    page.keyboard.press("Shift+ArrowRight")
    page.keyboard.press("Delete")
    page.wait_for_timeout(REST_MS)
    assert anchor(page) == {"key_slice": None, "boxes_px": []}
    for wanted in ({"key_slice": 3, "boxes_px": [[12, 6, 32, 18]]}, NUDGED, first):
        page.keyboard.press("z")
        wait_for_anchor(page, wanted)
    assert page.faults == []


def test_a_nudge_stays_in_its_answer(page: Any, tmp_path: Path) -> None:
    page.keyboard.press("Shift+ArrowRight")
    page.keyboard.press("a")
    page.locator("#banner", has_text="The boxes were moved").wait_for(timeout=WAIT_MS)
    page.keyboard.press("z")
    page.keyboard.press("Shift+ArrowRight")
    page.keyboard.press("c")
    page.locator("#banner", has_text="The mask is not there yet").wait_for(timeout=WAIT_MS)
    page.keyboard.press("z")
    page.keyboard.press("Shift+ArrowRight")
    page.keyboard.press(".")
    until(page, lambda: opened_answer(page), "the tail")
    page.wait_for_timeout(REST_MS)
    assert anchor(page) == {"key_slice": None, "boxes_px": []}
    choose(page, "the block")
    assert anchor(page) == NUDGED, "its draft"
    assert readings(tmp_path) == []
    assert page.faults == []


def test_nothing_happens_to_an_answer_while_the_pointer_holds_its_box(page: Any, tmp_path: Path) -> None:
    page.locator("#measures:not(.stale)").wait_for(timeout=WAIT_MS)
    page.mouse.move(*place(page, 20, 12))
    page.mouse.down()
    page.mouse.move(*place(page, 22, 12))
    page.mouse.wheel(0, -100)
    for key in ("ArrowUp", "a", "r", ".", "n", "Delete", "Shift+ArrowRight", "z"):
        page.keyboard.press(key)
    page.wait_for_timeout(REST_MS)
    page.mouse.up()
    assert anchor(page) == {"key_slice": 3, "boxes_px": [[12, 6, 32, 18]]}
    assert (opened_answer(page), page.inner_text("#place")) == ("the block", "key slice 3")
    kept(page)
    assert readings(tmp_path) == []
    assert page.faults == []


def test_a_box_that_is_held_when_another_answer_opens_is_let_go(page: Any) -> None:
    page.mouse.move(*place(page, 20, 12))
    page.mouse.down()
    page.mouse.move(*place(page, 22, 12))
    page.evaluate("document.querySelectorAll('#answers button')[1].click()")
    until(page, lambda: opened_answer(page), "the tail")
    page.locator("#measures:not(.stale)").wait_for(timeout=WAIT_MS)
    page.mouse.up()
    assert anchor(page) == {"key_slice": None, "boxes_px": []}
    assert page.faults == []


def test_an_answer_that_is_being_saved_is_neither_changed_nor_left(page: Any, tmp_path: Path) -> None:
    held = hold(page, "**/readings")
    page.keyboard.press("a")
    until(page, lambda: len(held), 1)
    drag(page, (20, 12), (22, 12))
    for key in ("Shift+ArrowRight", "n", "Delete", "a", "."):
        page.keyboard.press(key)
    page.wait_for_timeout(REST_MS)
    assert anchor(page)["boxes_px"] == [list(BLOCK)]
    assert (opened_answer(page), len(held)) == ("the block", 1)
    assert page.locator("#remark[readonly]").is_visible()
    held[0].continue_()
    until(page, lambda: opened_answer(page), "the tail")
    until(page, lambda: page.locator("#remark[readonly]").count(), 0)
    assert len(readings(tmp_path)) == 1
    assert page.faults == []


@pytest.mark.parametrize("key", ["a", "Enter"])
def test_a_key_that_is_held_judges_one_answer(page: Any, tmp_path: Path, key: str) -> None:
    page.locator("#measures:not(.stale)").wait_for(timeout=WAIT_MS)
    page.focus("#accept")
    page.keyboard.down(key)
    until(page, lambda: opened_answer(page), "the tail")
    page.locator("#remark:not([readonly])").wait_for(timeout=WAIT_MS)
    for _ in range(3):
        page.keyboard.down(key)  # the browser tells that it is repeated
        page.wait_for_timeout(100)
    page.keyboard.up(key)
    page.wait_for_timeout(REST_MS)
    assert opened_answer(page) == "the tail"
    assert len(readings(tmp_path)) == 1


def test_what_could_not_be_kept_is_not_left(browser: Any, page: Any, live: Live) -> None:
    for other in open_page(browser, live):
        drag(page, (20, 12), (22, 12))
        kept(page)
        drag(other, (20, 12), (20, 15))
        for _ in range(2):
            other.keyboard.press(".")
            other.locator("#banner", has_text="has changed this answer meanwhile").wait_for(timeout=WAIT_MS)
            other.wait_for_timeout(REST_MS)
            assert opened_answer(other) == "the block"
            assert other.locator("#banner").is_visible()
        other.click("text=Put mine on top")
        kept(other)
        assert anchor(other)["boxes_px"] == [[10, 9, 30, 21]]
        other.keyboard.press(".")
        until(other, lambda tab=other: opened_answer(tab), "the tail")
        other.faults.clear()  # the browser tells of the refused request itself


def test_what_goes_on_top_of_theirs_goes_to_its_own_answer(browser: Any, page: Any, live: Live) -> None:
    """The reader opens another answer while theirs is still loaded."""
    for other in open_page(browser, live):
        disagree(page, other)
        address = f"**/answers/{other.get_attribute('body', 'data-answer')}/open"
        held = hold(other, address)
        other.click("text=Put mine on top")
        until(other, lambda held=held: len(held), 1)
        choose(other, "the tail")
        held[0].continue_()
        other.wait_for_timeout(REST_MS)
        assert (opened_answer(other), anchor(other)["boxes_px"]) == ("the tail", [])
        other.unroute(address)
        choose(other, "the block")
        assert anchor(other)["boxes_px"] == [[10, 9, 30, 21]]
        other.faults.clear()  # the browser tells of the refused request itself


def test_the_server_goes_before_a_change_is_kept(page: Any, live: Live, tmp_path: Path) -> None:
    live.stop()
    page.keyboard.press("Shift+ArrowRight")
    page.keyboard.press(".")
    page.locator("#banner", has_text="The server does not answer").wait_for(timeout=WAIT_MS)
    assert (opened_answer(page), anchor(page)) == ("the block", NUDGED)
    again = Live(tmp_path / "answers", live.port)
    try:
        kept(page)
        assert (opened_answer(page), anchor(page)) == ("the block", NUDGED)
    finally:
        page.close()
        again.stop()


def test_the_mask_that_was_asked_for_last_is_shown_in_3d(page: Any) -> None:
    page.wait_for_selector("#three canvas", timeout=WAIT_MS)
    script = """async () => {
        const { show } = await import("./page/three.js");
        const shown = new Set();
        const { addVolume, removeVolume } = niivue.Niivue.prototype;
        Object.assign(niivue.Niivue.prototype, {
            addVolume(volume) { shown.add(volume); addVolume.call(this, volume); },
            removeVolume(volume) { shown.delete(volume); removeVolume.call(this, volume); },
        });
        const mask = () => ({ empty: false, shape: [1, 2, 2], values: new Uint8Array(4).fill(1) });
        const place = document.getElementById("three");
        await Promise.all([mask(), mask()].map((one) => show(place, { spacing: [1, 1, 1] }, one)));
        return shown.size;
    }"""
    page.wait_for_timeout(1500)
    assert page.evaluate(script) == 1
    assert page.faults == []


def test_nothing_of_an_answer_that_is_left_is_shown_while_the_next_one_comes(page: Any) -> None:
    """A mask is green in the planes and in 3D; the request for the next scan is held back."""
    views = ("axial", "coronal", "sagittal", "three")
    until(page, lambda: [green(page, view) > 0 for view in views], [True] * 4)
    held = hold(page, "**/api/scans/*/open")
    page.keyboard.press(".")
    until(page, lambda: [green(page, view) for view in views], [0] * 4)
    assert len(held) == 1


def test_the_next_question_is_about_the_scan_in_view(page: Any) -> None:
    for query, scan in ((HOSTILE, "scan1.nii.gz"), ("the block", "scan0.nii.gz")):
        choose(page, query)
        until(page, lambda: page.locator("#new-scan option:checked").inner_text(), scan)


def green(tab: Any, view: str) -> int:
    """Pixels of a view that are as green as a mask."""
    picture = np.asarray(Image.open(io.BytesIO(tab.locator(f"#{view}").screenshot())).convert("RGB"), int)
    red, green, blue = picture.transpose(2, 0, 1)
    return int(((green > red + 30) & (green > blue + 10)).sum())

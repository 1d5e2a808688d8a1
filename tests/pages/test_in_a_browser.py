"""The answer page in a real browser: what it shows is what the answer says, and it does nothing else."""

import io
from base64 import b64decode
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from chromium import Browser, Opened, start_playwright, worst_contrast
from left_block import BLOCK, BOX, HOSTILE, HOSTILE_WORDS, KEY, SHAPE
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

import medvol
from medvol.inference.notebook import NotebookView

pytestmark = pytest.mark.xdist_group("browser")

GREEN = (6, 214, 160)
YELLOW = (255, 209, 102)

Sides = tuple[float, float, float, float]


def pixels_of(png: bytes) -> NDArray[np.int_]:
    return np.asarray(Image.open(io.BytesIO(png)).convert("RGB")).astype(int)


def canvas(opened: Opened, selector: str = ".slices canvas") -> NDArray[np.int_]:
    """Pixels of a canvas (rows, columns, RGB) as it holds them, whatever size it is shown in."""
    data = opened.page.locator(selector).first.evaluate("node => node.toDataURL('image/png')")
    return pixels_of(b64decode(data.partition(",")[2]))


def is_colour(picture: NDArray[np.int_], colour: tuple[int, int, int], reach: int = 60) -> NDArray[np.bool_]:
    found: NDArray[np.bool_] = np.abs(picture - np.array(colour)).sum(axis=2) < reach
    return found


def sides(found: NDArray[np.bool_]) -> Sides:
    """Left, top, right, bottom of what is true."""
    rows, columns = np.nonzero(found)
    return columns.min(), rows.min(), columns.max() + 1, rows.max() + 1


def wait_for_slices(opened: Opened) -> None:
    opened.page.wait_for_selector(".viewer:not([hidden])")


def wait_for_planes(opened: Opened) -> None:
    opened.page.wait_for_selector(".planes[data-ready]", timeout=120_000)
    opened.page.wait_for_timeout(500)  # NiiVue draws in the next frames


def test_nothing_is_asked_of_a_network_and_nothing_goes_wrong(browser: Browser, one_page: Path) -> None:
    with browser.open(one_page) as opened:
        wait_for_slices(opened)
        wait_for_planes(opened)
        assert opened.requests[0] == one_page.as_uri()
        assert [url for url in opened.requests[1:] if not url.startswith(("data:", "blob:"))] == []
        assert opened.errors == []
        text = opened.page.inner_text("main")
        for shown in ("the block", f"key slice {KEY}", "11.52 ml", "1,280 voxels on 5 slices", "180 HU", "bright"):
            assert shown in text
        assert "For research only" in opened.page.inner_text("header")


def test_slices_show_boxes_and_mask_where_they_are(browser: Browser, one_page: Path) -> None:
    """16 x 16 pixels of 1.5 mm; the whole slice is 80 x 60 of them, on 900 x 675 pixels of the canvas."""
    with browser.open(one_page) as opened:
        wait_for_slices(opened)
        at_key = canvas(opened)
        assert at_key.shape == (675, 900, 3)
        scaled = [900 / 80 * value for value in BOX]
        np.testing.assert_allclose(sides(is_colour(at_key, YELLOW)), scaled, atol=3)
        opened.page.press(".slices canvas", "ArrowUp")
        above = canvas(opened)
        assert "slice 13 of 0\u201315" in opened.page.inner_text(".slices output")
        assert not is_colour(above, YELLOW).any()  # the boxes belong to the key slice
        np.testing.assert_allclose(sides(is_colour(above, GREEN)), scaled, atol=3)
        inside, outside = above[180, 720], above[500, 200]
        assert (inside[0], outside[0]) == (217, 128)  # 180 and 40 HU of -160 to 240, on 0 to 255


def test_every_slice_can_be_reached(browser: Browser, one_page: Path) -> None:
    with browser.open(one_page) as opened:
        wait_for_slices(opened)
        page = opened.page
        with_mask, with_boxes = [], []
        page.press(".slices canvas", "Home")
        for z in range(SHAPE[0]):
            assert page.inner_text(".slices output").startswith(f"slice {z} of 0\u201315")
            picture = canvas(opened)
            with_mask.append(bool(is_colour(picture, GREEN).any()))
            with_boxes.append(bool(is_colour(picture, YELLOW).any()))
            page.press(".slices canvas", "ArrowRight")
        assert page.input_value(".slices input[type=range]") == "15"  # it stops at the end
        assert with_boxes == [z == KEY for z in range(16)]
        assert with_mask == [10 <= z < 15 and z != KEY for z in range(16)]  # there the box lies on the outline
        page.click(".to-key")
        assert page.get_attribute(".slices input[type=range]", "aria-valuetext") == "slice 12 of 0\u201315, key slice"
        page.uncheck(".with-mask input")
        assert not is_colour(canvas(opened), GREEN).any()


def test_planes_and_3d_show_the_left_on_the_right(browser: Browser, one_page: Path) -> None:
    """The block lies near the head, at the front, on the patient's left; grey is the rest of the scan."""
    with browser.open(one_page) as opened:
        wait_for_planes(opened)
        picture = pixels_of(opened.page.locator(".stage").screenshot())
    green = (picture[..., 1] > picture[..., 0] + 40) & (picture[..., 1] > 70)
    drawn = ndimage.binary_opening(picture.max(axis=2) > 40, iterations=4)  # without letters and gaps
    tiles = [part for part in ndimage.find_objects(ndimage.label(drawn)[0]) if drawn[part].sum() > 2000]
    assert len(tiles) == 4
    coronal, sagittal, axial, surface = sorted(tiles, key=lambda tile: (tile[0].start > 200, tile[1].start))
    middles = {}
    for name, tile in (("coronal", coronal), ("sagittal", sagittal), ("axial", axial)):
        middle = np.argwhere(green[tile]).mean(axis=0) / green[tile].shape
        middles[name] = middle[::-1]
    assert green[surface].sum() > 0.5 * green[surface].size  # the mask alone
    front, head, left_side = 16 / 60, 1 - 12.5 / 16, 64 / 80  # middles of the block, as shares of the scan
    np.testing.assert_allclose(middles["axial"], (left_side, front), atol=0.04)
    np.testing.assert_allclose(middles["coronal"], (left_side, head), atol=0.04)
    np.testing.assert_allclose(middles["sagittal"], (1 - front, head), atol=0.04)


def test_the_surface_is_closed_and_as_large_as_the_mask(browser: Browser, one_page: Path) -> None:
    """By the divergence theorem: signed tetrahedra over the triangles, in millimetres; outside is where they point."""
    script = """async () => {
        const stack = JSON.parse(document.querySelector('.viewer').dataset.stack);
        const packed = await unpack(stack.mask);
        const { points, triangles } = surfaceOf(new Uint8Array(packed, 352), stack.shape);
        return [Array.from(toWorld(points, packed)), Array.from(triangles)];
    }"""
    with browser.open(one_page) as opened:
        wait_for_slices(opened)
        points, triangles = opened.page.evaluate(script)
    corners = np.array(points).reshape(-1, 3)[np.array(triangles).reshape(-1, 3)]
    volume_mm3 = np.einsum("ij,ij->i", corners[:, 0], np.cross(corners[:, 1], corners[:, 2])).sum() / 6
    true_mm3 = 16 * 16 * 5 * 1.5 * 1.5 * 4.0
    assert 0.8 * true_mm3 < volume_mm3 < 1.02 * true_mm3  # smoothing rounds the corners off
    edges = np.sort(np.array(triangles).reshape(-1, 3)[:, [[0, 1], [1, 2], [2, 0]]].reshape(-1, 2), axis=1)
    assert set(np.unique(edges, axis=0, return_counts=True)[1]) == {2}
    # The block is on the left (x below 0 of world), as far as 56 to 72 of 80 voxels of 1.5 mm that end at 60 mm.
    z, _, x = BLOCK
    low, high = corners.reshape(-1, 3).min(axis=0), corners.reshape(-1, 3).max(axis=0)
    np.testing.assert_allclose(low[[0, 2]], (60 - 1.5 * x.stop, 240 + 4 * z.start), atol=2.1)
    np.testing.assert_allclose(high[[0, 2]], (60 - 1.5 * x.start, 240 + 4 * z.stop), atol=2.1)


def test_hostile_text_is_text(browser: Browser, many_page: Path) -> None:
    with browser.open(many_page) as opened:
        wait_for_slices(opened)
        page = opened.page
        assert page.title() == "4 answers · medvol"
        assert page.locator("img[src=x]").count() == 0
        assert page.locator("h2 b").count() == 0
        heading = page.inner_text("#question-2")
        assert heading == HOSTILE.replace("\u202e", "\\u202e").replace("\u2028", "\\u2028")
        assert HOSTILE_WORDS in page.inner_text("#answer-2 blockquote")
        page.click("#answer-2 summary")
        assert (
            page.evaluate("JSON.parse(document.querySelector('#answer-2 .record code').textContent).query") == HOSTILE
        )
        assert opened.errors == []


def test_the_policy_of_the_page_holds(browser: Browser, one_page: Path) -> None:
    """A script that was not there when the page was made does not run, and no request gets out."""
    script = """async () => {
        const script = document.createElement('script');
        script.textContent = 'document.title = "broken in"';
        document.head.append(script);
        const image = new Image();
        const seen = new Promise(done => { image.onload = () => done(true); image.onerror = () => done(false); });
        image.src = 'http://127.0.0.1:9/leak.png';
        const fetched = await fetch('http://127.0.0.1:9/leak').then(() => true, () => false);
        return [document.title, await seen, fetched];
    }"""
    with browser.open(one_page) as opened:
        wait_for_planes(opened)
        title, seen, fetched = opened.page.evaluate(script)
        assert (title, seen, fetched) == ("the block · medvol", False, False)
        assert sum("Content Security Policy" in error for error in opened.errors) >= 3


def test_planes_move_from_answer_to_answer(browser: Browser, many_page: Path) -> None:
    with browser.open(many_page) as opened:
        page = opened.page
        assert page.locator("canvas[aria-label^=Axial]").count() == 0  # nothing heavy before somebody asks
        for number in (1, 2):
            page.click(f"#answer-{number} .open")
            page.wait_for_selector(f"#answer-{number} .planes[data-ready]", timeout=120_000)
            assert page.locator(f"#answer-{number} .stage canvas").count() == 1
        assert page.locator(".stage canvas").count() == 1
        assert page.locator("#answer-1 .open").is_visible()
        assert opened.errors == []


def test_planes_of_the_answer_that_was_asked_for_last_are_shown(browser: Browser, many_page: Path) -> None:
    """The second button is pressed while NiiVue still loads for the first."""
    with browser.open(many_page) as opened:
        page = opened.page
        page.evaluate("for (const n of [1, 2]) document.querySelector(`#answer-${n} .planes .open`).click()")
        page.wait_for_selector("#answer-2 .planes[data-ready]", timeout=120_000)
        assert page.locator("#answer-2 .stage canvas").count() == 1
        assert page.locator(".planes.opened").count() == 1
        page.click("#answer-1 .open")
        page.wait_for_selector("#answer-1 .planes[data-ready]", timeout=120_000)
        assert opened.errors == []


def test_absent_and_failed_answers_are_shown_as_such(browser: Browser, many_page: Path) -> None:
    with browser.open(many_page) as opened:
        page = opened.page
        assert [row.inner_text() for row in page.locator("tbody .badge").all()] == [
            "found", "found", "not in the scan", "no answer",
        ]  # fmt: skip
        absent, failed = page.locator("#answer-3"), page.locator("#answer-4")
        assert absent.locator(".planes").count() == 0
        assert absent.locator("img").is_visible()
        assert "no_answer" in failed.inner_text()
        assert failed.locator("img, canvas, details").count() == 0
        page.click("tbody a >> nth=3")
        assert page.evaluate("location.hash") == "#answer-4"


def test_without_webgl_slices_still_work(browser_without_webgl: Browser, one_page: Path) -> None:
    with browser_without_webgl.open(one_page) as opened:
        wait_for_slices(opened)
        assert is_colour(canvas(opened), YELLOW).any()
        assert "WebGL 2" in opened.page.inner_text(".planes")
        assert opened.page.locator(".stage").count() == 0
        assert opened.errors == []


def test_without_scripts_picture_and_text_are_there(browser: Browser, one_page: Path) -> None:
    with browser.open(one_page, java_script_enabled=False) as opened:
        picture = pixels_of(opened.page.locator(".evidence img").screenshot())
        assert is_colour(picture, YELLOW).any()
        text = opened.page.inner_text("main")
        assert "Scripts are off" in text
        assert "medvol segment" in text
        assert opened.page.locator("button:visible").count() == 0
        assert opened.errors == []


@pytest.mark.parametrize(("width", "scheme"), [(360, "light"), (1280, "dark"), (768, "dark")])
def test_it_fits_and_can_be_read(browser: Browser, many_page: Path, width: int, scheme: str) -> None:
    with browser.open(many_page, viewport={"width": width, "height": 800}, color_scheme=scheme) as opened:
        wait_for_slices(opened)
        page = opened.page
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        assert worst_contrast(page) >= 4.5
        assert page.locator("img:not([alt]), img[alt='']").count() == 0


def test_it_prints_without_what_needs_a_screen(browser: Browser, one_page: Path) -> None:
    with browser.open(one_page) as opened:
        wait_for_slices(opened)
        opened.page.emulate_media(media="print")
        assert opened.page.locator(".viewer, button:visible").locator("visible=true").count() == 0
        assert opened.page.locator(".evidence img").is_visible()
        assert opened.page.pdf()[:4] == b"%PDF"
        assert opened.errors == []


def test_the_record_can_be_saved_and_copied(browser: Browser, one_page: Path, left_answer: medvol.Segmentation) -> None:
    with browser.open(one_page, accept_downloads=True, permissions=["clipboard-read", "clipboard-write"]) as opened:
        with opened.page.expect_download() as download:
            opened.page.click(".save")
        assert download.value.suggested_filename == "answer-1.json"
        saved = Path(download.value.path()).read_text(encoding="utf-8")
        assert f'"query": "{left_answer.query}"' in saved
        opened.page.click(".command .copy")
        opened.page.locator(".command .copy", has_text="Copied").wait_for()
        command = opened.page.evaluate("navigator.clipboard.readText()")
        assert command.startswith("medvol segment 'ct scan.nii.gz' --evidence answer-1.json")
        assert opened.errors == []


def test_without_a_browser_the_reason_says_how_to_get_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("chromium.shutil.which", lambda name: None)
    with pytest.raises(pytest.skip.Exception, match="apt-get install chromium"), start_playwright():
        pytest.fail("started without a browser")


def test_a_mask_that_is_empty_has_slices_and_no_planes(
    browser: Browser, left_answer: medvol.Segmentation, tmp_path: Path
) -> None:
    empty = replace(left_answer, mask=np.zeros_like(left_answer.mask))
    with browser.open(medvol.write_answer_page([empty], tmp_path / "empty.html")) as opened:
        wait_for_slices(opened)
        assert is_colour(canvas(opened), YELLOW).any()
        assert "the mask is empty" in opened.page.inner_text("main")
        assert opened.page.locator(".planes").count() == 0
        assert opened.errors == []


def test_a_failing_viewer_says_so(browser: Browser, many_page: Path) -> None:
    with browser.open(many_page) as opened:
        opened.page.evaluate("document.getElementById('niivue').textContent = 'nothing'")
        opened.page.click("#answer-1 .open")
        opened.page.locator(".planes .hint", has_text="could not be drawn").first.wait_for()
        assert opened.page.locator("#answer-1 .open").is_visible()


def test_a_notebook_shows_the_whole_page_in_a_closed_frame(browser: Browser, one_page: Path, tmp_path: Path) -> None:
    notebook = tmp_path / "notebook.html"
    notebook.write_text(f"<!doctype html><meta charset=utf-8>{NotebookView(one_page.read_text(), 900)._repr_html_()}")
    with browser.open(notebook) as opened:
        frame = opened.page.frame_locator("iframe")
        frame.locator(".planes[data-ready]").wait_for(timeout=120_000)
        assert "11.52 ml" in frame.locator("main").inner_text()
        assert opened.errors == []
        assert [url for url in opened.requests[1:] if not url.startswith(("data:", "blob:", "about:srcdoc"))] == []

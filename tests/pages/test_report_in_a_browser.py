"""The report in a real browser: what it shows is what the runs earned, and it does nothing else."""

import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from chromium import Browser, worst_contrast
from PIL import Image
from report_runs import HOSTILE, HOSTILE_WORDS, find_cases, write_runs

from medvol.evaluation.report import LABELS, format_interval
from medvol.evaluation.report_page.page import write_report

pytestmark = pytest.mark.xdist_group("browser")

GREEN, PINK = (6, 214, 160), (255, 122, 184)


@pytest.fixture(scope="module")
def report_runs_folders(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    return write_runs(tmp_path_factory.mktemp("report-runs"))


@pytest.fixture(scope="module")
def report(report_runs_folders: list[Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_report(tmp_path_factory.mktemp("reports") / "report.html", report_runs_folders, find_cases)


def table_rows(page: Any, section: str) -> Iterator[list[str]]:
    for row in page.locator(f"#{section} .sheet tbody tr").all():
        yield [cell.strip() for cell in row.locator("th, td").all_inner_texts()]


def share_of(png: bytes, colour: tuple[int, int, int], reach: int = 90) -> float:
    """Part of the pixels whose hue is near that of a colour, whatever the light on them."""
    pixels = np.asarray(Image.open(io.BytesIO(png)).convert("RGB")).astype(float)
    light = pixels.max(axis=2, keepdims=True)
    near = np.abs(pixels / np.maximum(light, 1) * 255 - np.array(colour) / max(colour) * 255).sum(axis=2) < reach
    return float((near & (light[..., 0] > 50)).mean())


def test_a_whole_reading_asks_nothing_and_goes_well(
    browser: Browser, report: Path, report_runs_folders: list[Path]
) -> None:
    with browser.open(report) as opened:
        page = opened.page
        summaries = [json.loads((run / "evaluation.json").read_text())["all"] for run in report_runs_folders]
        rows = {row[0]: row[1:] for row in table_rows(page, "scores")}
        for name in ("dsc", "nsd", "hd95_mm", "key_slice_score", "absent_accuracy"):
            assert rows[LABELS[name]] == [format_interval(one["metrics"].get(name)) for one in summaries]
        assert page.locator("#curves svg").count() == 2
        for summary in page.locator("main details > summary").all():
            summary.click()
        assert page.locator("#all tbody tr").count() == 6
        assert "tolerance_mm" in page.inner_text("#runs")
        case = page.locator("#cases article[aria-label='worst case of worse']")
        case.scroll_into_view_if_needed()
        case.locator(".viewer:not([hidden]) canvas").wait_for()
        case.locator(".open").click()
        case.locator(".planes[data-ready]").wait_for(state="attached", timeout=120_000)
        page.wait_for_timeout(500)  # NiiVue draws in the next frames
        picture = case.locator(".stage").screenshot()
        assert share_of(picture, GREEN) > 0.01
        assert share_of(picture, PINK) > 0.01  # the box is 9 of 20 pixels short
        assert page.locator(".stage canvas").count() == 1
        for width in ("0", "100%"):  # as for a moment when the page is printed
            case.locator(".stage").evaluate("(stage, width) => { stage.style.width = width }", width)
            page.wait_for_timeout(300)
        assert opened.errors == []
        assert [url for url in opened.requests[1:] if not url.startswith(("data:", "blob:"))] == []


def test_the_true_mask_is_outlined_beside_the_answer(browser: Browser, report: Path) -> None:
    with browser.open(report) as opened:
        case = opened.page.locator("#cases article[aria-label='worst case of worse']")
        case.scroll_into_view_if_needed()
        canvas = case.locator(".viewer:not([hidden]) canvas")
        canvas.wait_for()
        assert share_of(case.locator("img").screenshot(), PINK) > 0.001
        canvas.press("ArrowUp")  # on the key slice the box lies on the mask's outline
        assert share_of(canvas.screenshot(), GREEN) > 0.001
        assert share_of(canvas.screenshot(), PINK) > 0.001
        case.locator(".with-mask input").uncheck()
        assert share_of(canvas.screenshot(), PINK) == 0


def test_hostile_text_is_text(browser: Browser, report: Path) -> None:
    with browser.open(report) as opened:
        page = opened.page
        assert page.title() == "ours and 2 other runs · medvol"
        assert page.locator("img[src=x], main td b").count() == 0
        page.locator("#all summary").click()
        assert page.locator("#all").get_by_text(HOSTILE.replace("\u202e", "\\u202e")).count() == 1
        assert HOSTILE_WORDS in page.inner_text("#failures")
        assert opened.errors == []


@pytest.mark.parametrize(("width", "scheme"), [(360, "light"), (1280, "dark")])
def test_it_fits_and_can_be_read(browser: Browser, report: Path, width: int, scheme: str) -> None:
    with browser.open(report, viewport={"width": width, "height": 800}, color_scheme=scheme) as opened:
        page = opened.page
        for summary in page.locator("main details > summary").all():
            summary.click()
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        assert worst_contrast(page) >= 4.5
        assert page.locator("img:not([alt]), img[alt=''], svg:not([aria-label]), svg[aria-label='']").count() == 0


def test_the_keyboard_reaches_everything(browser: Browser, report: Path) -> None:
    with browser.open(report) as opened:
        page = opened.page
        page.locator("#cases article").first.scroll_into_view_if_needed()
        page.locator(".viewer:not([hidden])").first.wait_for()
        reached = set()
        for _ in range(100):
            page.keyboard.press("Tab")
            reached.add(page.evaluate("document.activeElement.tagName + '.' + document.activeElement.className"))
        assert {"A.skip", "A.", "DIV.sheet", "SUMMARY.", "CANVAS.", "BUTTON.open"} <= reached
        page.locator("#all summary").focus()
        page.keyboard.press("Enter")
        assert page.locator("#all tbody tr").first.is_visible()


def test_without_scripts_tables_plots_and_pictures_are_there(browser: Browser, report: Path) -> None:
    with browser.open(report, java_script_enabled=False) as opened:
        page = opened.page
        assert page.locator("#scores svg .mean").first.is_visible()
        assert page.locator("#cases img").count() == 9
        assert page.locator("button:visible").count() == 0
        assert "Scripts are off" in page.inner_text("#cases")
        assert opened.errors == []


def test_it_prints_without_what_needs_a_screen(browser: Browser, report: Path) -> None:
    with browser.open(report) as opened:
        opened.page.emulate_media(media="print")
        assert opened.page.locator(".viewer, button:visible, nav").locator("visible=true").count() == 0
        assert opened.page.locator("#cases img").first.is_visible()
        assert opened.page.pdf()[:4] == b"%PDF"
        assert opened.errors == []

"""The site: built strictly, complete, and without a request to anywhere else."""

import json
import os
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from chromium import launch

import medvol
from tests.docs.blocks import REPOSITORY

LOADS = {"img": "src", "script": "src", "iframe": "src", "source": "src", "link": "href", "form": "action"}
"""Elements that make a browser ask for something, and the attribute that says for what."""


class Requests(HTMLParser):
    """Collects what a page loads; links that a reader follows are not among it."""

    def __init__(self) -> None:
        super().__init__()
        self.addresses: list[str] = []

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        address = dict(attributes).get(LOADS.get(tag, ""))
        self.addresses += [address] if address else []


def outside(text: str, style: bool = False) -> list[str]:
    """What a page or a style sheet loads from another host."""
    if style:
        found = re.findall(r"url\(\s*['\"]?([^'\")]+)|@import\s+['\"]([^'\"]+)", text)
        addresses = [first or second for first, second in found]
    else:
        reader = Requests()
        reader.feed(text)
        addresses = reader.addresses
    return [address for address in addresses if re.match(r"(https?:)?//", address)]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site, built as ``make docs`` does it."""
    folder = tmp_path_factory.mktemp("site") / "site"
    paths = os.pathsep.join([str(REPOSITORY), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)],
        cwd=REPOSITORY,
        env={**os.environ, "PYTHONPATH": paths, "NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return folder


def test_requests_are_found() -> None:
    page = '<link href="https://fonts.example/a.css"><script src="//cdn.example/x.js"></script><a href="https://b.example">'
    assert outside(page) == ["https://fonts.example/a.css", "//cdn.example/x.js"]
    assert outside("a{b:url(https://c.example/d)} @import 'http://e.example';", style=True) == [
        "https://c.example/d",
        "http://e.example",
    ]


def test_nothing_is_loaded_from_elsewhere(site: Path) -> None:
    pages = [*site.rglob("*.html")]
    assert len(pages) >= 30
    found = {page.name: outside(page.read_text()) for page in pages}
    found |= {style.name: outside(style.read_text(), style=True) for style in site.rglob("*.css")}
    assert {name: addresses for name, addresses in found.items() if addresses} == {}
    assert [
        page.name for page in pages if 'class="mermaid"' in page.read_text()
    ] == []  # its script comes from a network


def test_the_api_has_every_public_name_and_no_other(site: Path) -> None:
    text = "".join(page.read_text() for page in (site / "api").glob("*.html"))
    shown = set(re.findall(r'<h2 id="medvol\.(\w+)"', text))
    assert shown == set(medvol.__all__) - {"__version__", "testing"}
    checks = (site / "api" / "testing.html").read_text()
    assert {name for name in medvol.testing.__all__ if f'id="medvol.testing.{name}"' not in checks} == set()


def test_every_section_of_the_api_is_named() -> None:
    """A name whose module no section has would stand under Other."""
    sys.path.insert(0, str(REPOSITORY / "docs"))
    try:
        import site_pages
    finally:
        sys.path.pop(0)
    assert list(site_pages.group_names()) == list(site_pages.GROUPS)


def test_the_search_leads_to_pages(site: Path) -> None:
    index = json.loads((site / "search" / "search_index.json").read_text())["docs"]
    pages = {entry["location"].partition("#")[0] for entry in index}
    assert {page for page in pages if not (site / page).is_file()} == set()
    assert {"faq.html", "results.html", "how-to/roles.html", "tutorial.html", "changelog.html"} <= pages
    assert any("half-open" in entry["text"] for entry in index)


@pytest.mark.xdist_group("browser")
def test_the_search_works_from_disk_and_asks_no_network(site: Path, playwright: Any) -> None:
    """A file gets no worker from a browser; ``docs/iframe-worker.js`` stands in for it."""
    with launch(playwright) as browser, browser.open(site / "how-to" / "train.html") as opened:
        opened.page.click("input.md-search__input")
        opened.page.keyboard.type("half-open")
        opened.page.wait_for_selector(".md-search-result__link")
        assert "half-open" in opened.page.inner_text(".md-search-result__list")
        assert [url for url in opened.requests if not url.startswith(("file:", "data:", "blob:"))] == []
        assert opened.errors == []

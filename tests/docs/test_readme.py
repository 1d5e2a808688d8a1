"""The README: short, with a picture that its program draws again, and links that lead somewhere."""

import re
import runpy
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
README = REPOSITORY / "README.md"
MOST_WORDS = 800
PICTURES = {"make_readme_picture.py": "evidence.png", "make_coordinates_picture.py": "coordinates.png"}


def anchors(page: Path) -> set[str]:
    """Addresses of the headings of a page, as GitHub and the site make them."""
    titles = re.findall(r"^#+ (.*)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


def test_it_is_short() -> None:
    assert len(README.read_text().split()) <= MOST_WORDS


def test_it_says_what_it_must() -> None:
    text = README.read_text()
    wanted = ["not a medical device", "arXiv 2605.26621", "Apache-2.0", "not on PyPI", "Not verified", "Hardware"]
    assert [words for words in wanted if words not in text] == []
    assert re.search(r"```bash\n(.*)\n", text)[1] == "pip install medvol-r1"


@pytest.mark.parametrize("page", ["README.md", "CONTRIBUTING.md", "CHANGELOG.md"])
def test_links_lead_somewhere(page: str) -> None:
    """Those of ``docs/`` are judged when the site is built."""
    for target in re.findall(r"\]\(([^)\s]+)\)", (REPOSITORY / page).read_text()):
        if target.startswith("https://"):
            continue
        name, _, anchor = target.partition("#")
        assert (REPOSITORY / name).exists(), target
        assert not anchor or anchor in anchors(REPOSITORY / name), target


def test_every_interval_is_on_the_results_page() -> None:
    """A figure of the README is one of the results page, sign and all."""
    results = (REPOSITORY / "docs" / "results.md").read_text()
    figures = re.findall(r"[-+]?\d+\.\d+ (?:points )?\[[^\]]*\]", README.read_text())
    assert len(figures) >= 5
    for figure in figures:
        assert figure.replace("points ", "") in results, figure


@pytest.mark.parametrize("program", PICTURES)
def test_a_picture_is_what_its_program_draws(program: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Twice the same; that it is the kept one holds for one version of Matplotlib only, so sizes are compared."""
    from matplotlib.image import imread

    draw = runpy.run_path(str(REPOSITORY / "docs" / program))["draw"]
    draw(tmp_path / "a.png")
    kept, drawn = imread(REPOSITORY / "docs" / "images" / PICTURES[program]), imread(tmp_path / "a.png")
    assert kept.shape == drawn.shape
    assert abs(kept - drawn).mean() < 0.02

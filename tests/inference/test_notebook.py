"""Answers in a notebook: a picture and what it measures, whatever the query holds."""

import re
from base64 import b64decode
from dataclasses import replace
from html import unescape
from html.parser import HTMLParser
from io import BytesIO

import numpy as np
import pytest
from PIL import Image

from medvol.core.types import Evidence
from medvol.imaging.geometry import make_volume
from medvol.inference.notebook import PICTURE_DPI
from medvol.inference.overlay import render_overlay


class Tags(HTMLParser):
    """Every tag of a text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[str] = []
        self.attributes: list[dict[str, str]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: object) -> None:
        self.found.append(tag)
        self.attributes.append(dict(attrs))


def test_an_answer_shows_its_picture_and_measures(segmenter, volume) -> None:
    answer = segmenter.segment(volume, "the block")
    html = answer._repr_html_()
    picture = re.search(r"base64,([^\"]+)", html)
    assert picture is not None
    assert b64decode(picture[1]) == render_overlay(answer.picture, dpi=PICTURE_DPI)
    assert "other, 12 x 30 x 40 voxels of 4 x 2 x 1.5 mm (z, y, x)" in html
    assert "mean 80, " in html
    ml = answer.mask.sum() * 1.5 * 2 * 4 / 1000
    assert f"{ml:.4g} ml" in html
    assert "not in this scan" in segmenter.segment(volume, "the tail")._repr_html_()
    assert html.endswith("key slice 3<br>other, 12 x 30 x 40 voxels of 4 x 2 x 1.5 mm (z, y, x)</figcaption></figure>")
    both = replace(answer.evidence, further=(Evidence(1, answer.evidence.boxes),))
    assert "mm, key slices 1, 3<br>" in replace(answer, evidence=both)._repr_html_()


def test_hostile_queries_stay_text(segmenter, volume) -> None:
    answer = replace(segmenter.segment(volume, "the block"), query='"><script>alert(1)</script><b>x')
    assert Tags(answer._repr_html_()).found == ["figure", "img", "figcaption", "b", "br"]


def test_a_volume_shows_three_slices_and_what_it_is(volume) -> None:
    html = volume._repr_html_()
    picture = Image.open(BytesIO(b64decode(re.search(r"base64,([^\"]+)", html)[1])))
    assert picture.size == (3 * 160, 160), "40 columns of 1.5 mm are as wide as 30 rows of 2 mm are high"
    assert "other, 12 x 30 x 40 voxels of 4 x 2 x 1.5 mm (z, y, x), -1000 to 80; slices 2, 5, 8" in html
    assert "-1000 to 80 HU; slices" in replace(volume, modality="CT")._repr_html_()
    shown = np.asarray(picture, float)[:, 160:320]
    dark, bright = volume.percentiles((1.0, 99.0))
    expected = 255 * ((volume.voxels[5] - dark) / (bright - dark)).clip(0, 1)
    assert shown[80, 80] == pytest.approx(expected[15, 20], abs=1)
    assert shown[10, 10] == pytest.approx(expected[2, 2], abs=1)
    hostile = replace(volume, modality="<script>")
    assert Tags(hostile._repr_html_()).found == ["figure", "img", "figcaption"]


def test_a_constant_volume_has_a_picture_too() -> None:
    assert "MR, 2 x 3 x 4" in make_volume(np.zeros((2, 3, 4), np.float32), (1, 1, 1), modality="MR")._repr_html_()


def test_a_view_holds_the_page_and_lets_nothing_out(segmenter, volume) -> None:
    answer = replace(segmenter.segment(volume, "the block"), query='"></iframe><script>alert(1)</script>')
    view = answer.view(height_px=500)
    html = view._repr_html_()
    assert Tags(html).found == ["iframe"]
    (attributes,) = Tags(html).attributes
    assert attributes["sandbox"] == "allow-scripts allow-downloads", "scripts, and nothing of the notebook's origin"
    assert attributes["height"] == "500"
    assert attributes["srcdoc"] == view.page
    assert "default-src 'none'" in unescape(view.page)
    assert "voxels-" in view.page
    assert len(repr(view)) < 80


def test_a_figure_is_a_picture_without_pyplot(segmenter, volume) -> None:
    picture = Image.open(BytesIO(segmenter.segment(volume, "the block").plot()._repr_png_()))
    assert min(picture.size) > 300


@pytest.mark.parametrize(("context", "axes"), [(True, 4), (False, 1)])
def test_plot_gives_a_figure(segmenter, volume, context: bool, axes: int) -> None:
    figure = segmenter.segment(volume, "the block").plot(context)
    assert len(figure.axes) == axes

"""Answers in a notebook: a picture and what it measures, whatever the query holds."""

import re
from base64 import b64decode
from dataclasses import replace
from html.parser import HTMLParser

import pytest

from medvol.inference.overlay import render_overlay


class Tags(HTMLParser):
    """Every tag of a text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: object) -> None:
        self.found.append(tag)


def test_an_answer_shows_its_picture_and_measures(segmenter, volume) -> None:
    answer = segmenter.segment(volume, "the block")
    html = answer._repr_html_()
    picture = re.search(r"base64,([^\"]+)", html)
    assert picture is not None
    assert b64decode(picture[1]) == render_overlay(answer.picture)
    ml = answer.mask.sum() * 1.5 * 2 * 4 / 1000
    assert f"{ml:.4g} ml" in html
    assert "not in this scan" in segmenter.segment(volume, "the tail")._repr_html_()


def test_hostile_queries_stay_text(segmenter, volume) -> None:
    answer = replace(segmenter.segment(volume, "the block"), query='"><script>alert(1)</script><b>x')
    assert Tags(answer._repr_html_()).found == ["figure", "img", "figcaption", "b"]


@pytest.mark.parametrize(("context", "axes"), [(True, 4), (False, 1)])
def test_plot_gives_a_figure(segmenter, volume, context: bool, axes: int) -> None:
    figure = segmenter.segment(volume, "the block").plot(context)
    assert len(figure.axes) == axes

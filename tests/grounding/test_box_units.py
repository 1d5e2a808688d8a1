"""Boxes in a model's own units against numbers worked out by hand, and there and back."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from medvol.core.errors import ConfigError, EvidenceParseError
from medvol.core.prompts import INSTRUCTION, PromptTemplate
from medvol.grounding.box_units import ask_in, read_pixels, require_units, write_pixels
from medvol.grounding.grammar import parse_evidence


def answer(*boxes: list[float], think: str = "") -> str:
    return f'{think}<answer>[{{"slice": 3, "bbox_2d_list": {json.dumps(list(boxes))}}}]</answer>'


def test_pixels_of_a_slice_of_84_rows_and_112_columns():
    written = answer([28, 21, 84, 63], [0, 0, 112, 84], think="<think>[28, 21, 84, 63] is bright</think>")
    read = answer([250, 250, 750, 750], [0, 0, 1000, 1000], think="<think>[28, 21, 84, 63] is bright</think>")
    assert read_pixels(written, 84, 112) == read
    assert write_pixels(read, 84, 112) == written


def test_a_box_beyond_the_slice_is_clipped():
    assert read_pixels(answer([-0, 10.5, 400, 21]), 84, 112) == answer([0, 125, 1000, 250])


@pytest.mark.parametrize("box", [[112, 3, 130, 20], [5, 84, 30, 90], [300, 300, 400, 400]])
def test_a_box_outside_of_the_slice_is_no_box_at_its_border(box):
    with pytest.raises(EvidenceParseError, match="box"):
        parse_evidence(read_pixels(answer(box), 84, 112), (9, 84, 112))


def test_a_box_that_is_finer_than_a_pixel_keeps_an_area():
    assert write_pixels(answer([500, 500, 504, 504], [999, 0, 1000, 1]), 84, 112) == answer(
        [56, 42, 57, 43], [111, 0, 112, 1]
    )


@pytest.mark.parametrize("text", ["", "no answer [1, 2, 3, 4]", answer([5, 5, 5, 9]), "<answer>[]</answer>", answer()])
def test_what_holds_no_box_stays(text):
    assert read_pixels(text, 84, 112) == text == write_pixels(text, 84, 112)


edges = st.tuples(st.integers(0, 1000), st.integers(0, 1000)).map(sorted).filter(lambda pair: pair[0] < pair[1])


@given(edges, edges, st.integers(28, 1000), st.integers(28, 1000))
def test_there_and_back_is_off_by_half_a_pixel_at_most(x, y, height, width):
    box = [x[0], y[0], x[1], y[1]]
    back = read_pixels(write_pixels(answer(box), height, width), height, width)
    found = json.loads(back.removeprefix("<answer>").removesuffix("</answer>"))[0]["bbox_2d_list"][0]
    for i, (before, after) in enumerate(zip(box, found, strict=True)):
        side = height if i % 2 else width
        thin = box[2 + i % 2] - box[i % 2] < 1000 / side  # thinner than a pixel: it is given one
        assert abs(before - after) <= (1.5 if thin else 0.5) * 1000 / side + 0.5


def test_only_the_default_instruction_is_asked_otherwise():
    template = PromptTemplate(num_slices=7)
    assert ask_in("thousandths", template) is template
    asked = ask_in("pixels", template)
    assert asked.num_slices == 7
    assert "with x and y in pixels of the slice" in asked.instruction
    assert "1000" not in asked.instruction
    assert ask_in("pixels", asked) == asked
    own = PromptTemplate(instruction=f"{INSTRUCTION} Be brief.")
    assert ask_in("pixels", own) is own


@pytest.mark.parametrize("units", ["mm", "", None, 3, ["pixels"]])
def test_other_units_are_refused(units):
    with pytest.raises(ConfigError, match="box_units is thousandths or pixels; got"):
        require_units(units)

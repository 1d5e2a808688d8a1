"""Prompts: one drawing shared, settings checked, templates that come back from JSON."""

import json

import numpy as np
import pytest

from medvol.core.errors import CheckpointError, ConfigError, QueryError
from medvol.core.prompts import PromptTemplate
from medvol.grounding.boxes import to_norm
from medvol.grounding.prompts import build_prompt, build_prompts
from medvol.imaging.geometry import make_volume

TEMPLATE = PromptTemplate(num_slices=4, height_px=8, width_px=12)


def volume():
    return make_volume(np.linspace(-1000, 500, 10 * 20 * 30).reshape(10, 20, 30), (5.0, 2.0, 2.0))


def test_prompts_of_one_volume_share_one_drawing():
    first, second = build_prompts(volume(), ["the liver", " the spleen\n"], TEMPLATE)
    assert first.slices is second.slices
    assert (first.query, second.query) == ("the liver", "the spleen")
    assert first.slices.indices == (0, 3, 6, 9)
    assert first.slices.pixels.shape == (4, 3, 8, 12)
    assert first.slices.volume_shape == (10, 20, 30)
    assert first.truth is None


@pytest.mark.parametrize("query", ["", " \n\t", "\u200b", "\x00\u202e"])
def test_an_empty_query_is_refused(query):
    with pytest.raises(QueryError, match="the query is empty"):
        build_prompt(volume(), query, TEMPLATE)


def test_a_template_comes_back_from_json():
    template = PromptTemplate(num_slices=7, slice_tag="{index}", windows=("lung", "bone", "brain"), coordinate_step=20)
    assert PromptTemplate.from_dict(json.loads(json.dumps(template.to_dict()))) == template
    with pytest.raises(CheckpointError, match="does not fit this version"):
        PromptTemplate.from_dict({"colour": "red"})


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"num_slices": 0}, r"num_slices is a whole number in 1\.\.4096; got 0"),
        ({"width_px": -4}, "width_px is a whole number .* got -4"),
        ({"height_px": 96.0}, "height_px is a whole number .* got 96.0"),
        ({"num_slices": 4096, "height_px": 4096}, "draws at most 268435456 pixels; got 4096 x 4096 x 256"),
        ({"windows": ("lung", "bone")}, "windows holds three of"),
        ({"windows": ("lung", "bone", "xray")}, "windows holds three of"),
        ({"instruction": 3}, "are texts"),
        ({"coordinate_step": 0}, "coordinate_step is 0; it must be one of 1, 2, 4, 5, 8, 10, 20, 25, 40, 50, 100"),
        ({"coordinate_step": 60}, "coordinate_step is 60"),
        ({"coordinate_step": 125}, "coordinate_step is 125"),
        ({"coordinate_step": 20.0}, "coordinate_step is 20.0"),
        ({"slice_tag": "<slice>"}, "slice_tag holds {index} and no other braces; got '<slice>'"),
        ({"slice_tag": "{index} of {count}"}, "no other braces"),
    ],
)
def test_settings_are_checked(settings, message):
    with pytest.raises(ConfigError, match=message):
        PromptTemplate(**settings)


def test_an_instruction_asks_for_several_anchors_where_they_are_allowed():
    assert PromptTemplate().request == PromptTemplate().instruction
    several = PromptTemplate(max_anchors=4)
    assert several.instruction == PromptTemplate().instruction
    assert several.request.startswith(several.instruction)
    assert "up to 4 such objects" in several.request
    assert PromptTemplate(max_anchors=4, instruction="").request == ""


@pytest.mark.parametrize("most", [0, 17, 1.5, True])
def test_the_number_of_anchors_is_bounded(most):
    with pytest.raises(ConfigError, match=r"max_anchors is a whole number in 1\.\.16"):
        PromptTemplate(max_anchors=most)


@pytest.mark.parametrize("step", range(1, 201))
def test_every_step_that_is_taken_reaches_the_last_pixel(step):
    try:
        template = PromptTemplate(coordinate_step=step)
    except ConfigError:
        assert 1000 % step or step > 100
    else:
        assert to_norm([0, 0, 96, 96], 96, 96, template.coordinate_step).tolist() == [[0, 0, 1000, 1000]]

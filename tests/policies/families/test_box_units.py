"""A family that writes boxes in pixels by habit: read so as published, in the grammar's units once it was taught."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from medvol.core.errors import CheckpointError, ConfigError
from medvol.core.prompts import INSTRUCTION
from medvol.core.sidecar import SIDECAR
from medvol.policies.vision_language import VisionLanguagePolicy
from medvol.policies.vlm.decoding import as_completion

PIXELS = '<think>bright</think><answer>[{"slice": 3, "bbox_2d_list": [[28, 21, 84, 63]]}]</answer>'
THOUSANDTHS = PIXELS.replace("28, 21, 84, 63", "250, 250, 750, 750")
"""The same box on 84 rows and 112 columns."""


@pytest.fixture(scope="module")
def qwen(publish) -> Path:
    return publish("qwen2_5_vl")[0]


@pytest.fixture(scope="module")
def layout(publish):
    return publish("qwen2_5_vl")[1]


def read(policy: VisionLanguagePolicy, text: str) -> str:
    """What is made of an answer that the model wrote."""
    network = policy.load()
    return as_completion(network, network.encode(text), []).text


def written(policy: VisionLanguagePolicy, text: str) -> str:
    """What a model is taught to write for an answer."""
    network = policy.load()
    return network.tokenizer.decode(policy.encode(text).token_ids[:-1])


def test_a_published_folder_is_read_by_its_habit(qwen, layout, caplog):
    policy = VisionLanguagePolicy(str(qwen), template=layout)
    assert read(policy, PIXELS) == THOUSANDTHS
    assert "boxes are read in pixels" in caplog.text
    assert "in pixels of the slice" in policy.template.instruction
    assert policy.identity()["box_units"] == "pixels"
    again = replace(layout, instruction="box it")
    assert VisionLanguagePolicy(str(qwen), template=again).template == again


def test_pixels_are_those_that_the_processor_shows(qwen, layout):
    """96 px become 84, three patches of 28."""
    policy = VisionLanguagePolicy(str(qwen), template=replace(layout, height_px=96, width_px=96))
    assert policy.load().seen_size() == (84, 84)
    assert read(policy, PIXELS.replace("28, 21, 84, 63", "21, 21, 63, 84")) == THOUSANDTHS.replace(
        "750, 750", "750, 1000"
    )


def test_other_families_write_the_grammars_units(publish, caplog):
    policy = VisionLanguagePolicy(str(publish("qwen3_vl")[0]), template=publish("qwen3_vl")[1])
    assert read(policy, THOUSANDTHS) == THOUSANDTHS == written(policy, THOUSANDTHS)
    assert policy.template.instruction == INSTRUCTION
    assert "boxes are read" not in caplog.text
    assert policy.load_for_training() is policy.load()


def test_a_fit_wants_to_be_told(qwen, layout):
    with pytest.raises(ConfigError, match=r"writes boxes in pixels: set policy\.box_units to thousandths to teach it"):
        VisionLanguagePolicy(str(qwen), template=layout).load_for_training()


@pytest.mark.parametrize("units", ["thousandths", "pixels"])
def test_what_a_fit_was_told_is_taught_and_kept_with_the_folder(units, qwen, layout, tmp_path, caplog):
    policy = VisionLanguagePolicy(str(qwen), template=layout, box_units=units)
    policy.load_for_training()
    own = THOUSANDTHS if units == "thousandths" else PIXELS
    assert written(policy, THOUSANDTHS) == own
    assert read(policy, own) == THOUSANDTHS
    assert policy.encode(THOUSANDTHS).text == THOUSANDTHS
    policy.save(tmp_path / "model")
    assert json.loads((tmp_path / "model" / SIDECAR).read_text())["policy"]["settings"]["box_units"] == units
    again = VisionLanguagePolicy(str(tmp_path / "model"))
    again.load_for_training()
    assert read(again, own) == THOUSANDTHS
    assert again.template == policy.template
    assert "boxes are read" not in caplog.text
    given = VisionLanguagePolicy(str(tmp_path / "model"), template=layout, box_units=units)
    assert given.template == policy.template


def test_a_box_of_a_volume_comes_back_to_its_place(qwen, layout):
    from medvol.core.types import Evidence
    from medvol.grounding.grammar import format_evidence, parse_evidence

    policy = VisionLanguagePolicy(str(qwen), template=layout, box_units="pixels")
    boxes = np.array([[100.0, 128.0, 300.0, 384.0]])
    text = format_evidence(Evidence(2, boxes, "bright"), 512, 400)
    assert "[28, 21, 84, 63]" in written(policy, text)
    np.testing.assert_array_equal(parse_evidence(read(policy, written(policy, text)), (9, 512, 400)).boxes, boxes)


def test_a_folder_that_names_other_units_is_refused(publish, qwen, layout, tmp_path):
    shutil.copytree(qwen, tmp_path / "model")
    (tmp_path / "model" / SIDECAR).write_text('{"policy": {"settings": {"box_units": "miles"}}}')
    with pytest.raises(CheckpointError, match=r"does not say what boxes are written in.*'miles'"):
        VisionLanguagePolicy(str(tmp_path / "model"), template=layout).load()
    with pytest.raises(ConfigError, match="box_units is thousandths or pixels"):
        VisionLanguagePolicy("anywhere", box_units="miles")

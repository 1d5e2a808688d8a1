"""Format reward: grades of named texts, and safety on any text."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from medvol.grounding.grammar import MAX_CHARACTERS
from medvol.rewards.format import FormatReward, format_parts

BOXES = '[{"slice": 1, "bbox_2d_list": [[1, 2, 30, 40]]}]'
GOOD = f"<think>Seen best here.</think><answer>{BOXES}</answer>"

GRADES = {
    GOOD: (1, 1, 1, 1),
    f"\n<think>a</think>\n <answer> {BOXES} </answer>\n": (1, 1, 1, 1),
    "<think>Not there.</think><answer>[]</answer>": (1, 1, 1, 1),
    f"<think> </think><answer>{BOXES}</answer>": (1, 0, 1, 1),
    f"<answer>{BOXES}</answer>": (0, 0, 1, 1),
    f"<think>a</think>{BOXES}": (0, 1, 1, 1),
    f"<answer>{BOXES}</answer><think>a</think>": (0, 1, 1, 1),
    f"Well. {GOOD}": (0, 1, 1, 1),
    f"{GOOD}{GOOD}": (0, 1, 1, 1),
    f"<think>a</think><answer>so: {BOXES}</answer>": (1, 1, 1, 1),
    '<think>a</think><answer>{"slice": 1, "bbox_2d_list": [[1, 2, 3, 4]]}</answer>': (1, 1, 1, 1),
    "<think>a</think><answer>the spleen</answer>": (1, 1, 0, 0),
    "<think>a</think><answer>[{</answer>": (1, 1, 0, 0),
    "<think>a</think><answer>3</answer>": (1, 1, 0, 0),
    "<think>a</think><answer>[3]</answer>": (1, 1, 1, 0),
    '<think>a</think><answer>[{"slice": 1}]</answer>': (1, 1, 1, 0),
    '<think>a</think><answer>[{"slice": 1, "bbox_2d_list": []}]</answer>': (1, 1, 1, 0),
    '<think>a</think><answer>{"bbox_2d_list": [[1,2,3,4], [3,2,1,4], [1,2,3], [0,0,1000,1001]]}</answer>': (
        1, 1, 1, 0.25,
    ),
    '<think>a</think><answer>{"bbox_2d_list": [[1.0,2,3,4], [true,2,3,4], [NaN,2,3,4], [0,0,1000,1000]]}</answer>': (
        1, 1, 1, 0.25,
    ),
    "": (0, 0, 0, 0),
    "I see a spleen.": (0, 0, 0, 0),
    "[" * 4000: (0, 0, 0, 0),
    "<answer>" + '["]",' * 1000: (0, 0, 0, 0),
    "[" + "9" * 5000 + "]": (0, 0, 0, 0),
    GOOD + " " * MAX_CHARACTERS: (0, 0, 0, 0),
}  # fmt: skip


@pytest.mark.parametrize(("text", "parts"), GRADES.items(), ids=lambda value: repr(value)[:40])
def test_parts(text, parts):
    assert format_parts(text) == parts


def test_score_is_the_mean_of_the_parts(make_case, make_rollout):
    case = make_case(np.ones((3, 8, 8), bool))
    for text, parts in GRADES.items():
        assert FormatReward()(make_rollout(text, case), case) == sum(parts) / 4


@pytest.mark.parametrize(
    ("text", "score"),
    [
        (GOOD, 1.0),
        ("<think>Not there.</think><answer>[]</answer>", 1.0),
        (f"<answer>{BOXES}</answer>", 0.0),
        (f"<think> </think><answer>{BOXES}</answer>", 0.0),
        (GOOD.replace('"slice": 1', '"slice": 3'), 0.0),
        (f"<think>a</think><answer>so: {BOXES}</answer>", 0.0),
        ("", 0.0),
    ],
)
def test_strict_is_all_or_nothing_for_this_volume(make_case, make_rollout, text, score):
    case = make_case(np.ones((3, 8, 8), bool))
    assert FormatReward(strict=True)(make_rollout(text, case), case) == score


@settings(max_examples=300, deadline=None)
@given(st.text(max_size=300) | st.lists(st.sampled_from([*GRADES][1:9]), max_size=4).map("".join), st.data())
def test_any_text_has_grades(text, data):
    cut = data.draw(st.integers(0, len(text)))
    for piece in (text, text[:cut], text[cut:], GOOD[: cut % len(GOOD)] + text):
        assert all(0.0 <= part <= 1.0 for part in format_parts(piece))


@given(st.integers(0, len(GOOD) - 1))
def test_cutting_a_good_answer_never_scores_higher(length):
    assert sum(format_parts(GOOD[:length])) < 4

"""Rewards under TRL's contract: columns of a batch in, a score for each completion out."""

import math
from dataclasses import replace

import numpy as np
import pytest

import medvol
from medvol.core.errors import ConfigError, DatasetError, RewardError
from medvol.core.types import Evidence
from medvol.grounding.grammar import format_evidence
from medvol.propagators.extrude import ExtrudePropagator
from medvol.rewards.axial import AxialReward
from medvol.rewards.consistency import ConsistencyReward
from medvol.rewards.format import FormatReward
from medvol.rewards.spatial import SpatialReward
from medvol.testing import make_case
from medvol.testing.fixtures import make_scattered_case


class Counting(ExtrudePropagator):
    """Keeps the slices that it was asked for."""

    def __init__(self) -> None:
        super().__init__(half_depth_slices=3)
        self.asked: list = []

    def propagate(self, volume, evidence, z_range=None):
        self.asked.append((evidence.key_slice, z_range))
        return super().propagate(volume, evidence, z_range)


@pytest.fixture
def cases():
    return [make_case(12), make_case(20), make_case(absent=True)]


def write(case, key_slice):
    _, height, width = case.volume.shape
    boxes = np.empty((0, 4)) if key_slice is None else np.array([[4.0, 6.0, 16.0, 20.0]])
    return format_evidence(Evidence(key_slice, boxes), height, width)


def ask(cases):
    """A batch as TRL hands it over: two answers to each case, one of them unreadable, and an absent one."""
    indices = [0, 0, 1, 1, 2]
    slices = [2, 4, 3, None, None]
    texts = [write(cases[index], z) for index, z in zip(indices, slices, strict=True)]
    return indices, [*texts[:3], "no answer", texts[4]]


@pytest.mark.parametrize(
    "term", [FormatReward(), AxialReward(), ConsistencyReward(delta=1), ConsistencyReward(delta=None)]
)
def test_scores_are_those_of_the_term(cases, term):
    indices, texts = ask(cases)
    propagator = ExtrudePropagator(half_depth_slices=3)
    pairs = list(zip(indices, texts, strict=True))
    expected = [medvol.score(cases[index], text, term, propagator).total for index, text in pairs]
    reward = medvol.as_trl_reward(term, cases, propagator)
    assert reward(prompts=["q"] * 5, completions=texts, completion_ids=[[1]] * 5, case=indices) == expected
    assert len(set(expected)) > 1
    assert reward.__name__ == type(term).__name__


def test_a_conversation_is_read_by_its_last_message(cases):
    reward = medvol.as_trl_reward(AxialReward(), cases)
    text = write(cases[0], 4)
    plain = [{"role": "assistant", "content": text}]
    parts = [{"role": "user", "content": "again"}, {"role": "assistant", "content": [{"type": "text", "text": text}]}]
    scores = reward(completions=[text, plain, parts], case=[0, 0, 0])
    assert scores[0] > 0
    assert len(set(scores)) == 1


def test_equal_anchors_are_propagated_once_in_the_window_that_is_read(cases):
    counting = Counting()
    other = replace(cases[0], case_id="other")
    reward = medvol.as_trl_reward(ConsistencyReward(delta=1), [*cases, other], counting)
    texts = [write(cases[0], z) for z in (4, 4, 2, 4)]
    reward(completions=[*texts, "none"], case=[0, 0, 0, 3, 1])
    assert sorted(counting.asked) == [(2, (1, 4)), (4, (3, 6))]


def test_nothing_is_propagated_for_a_term_that_reads_no_mask(cases):
    counting = Counting()
    medvol.as_trl_reward(AxialReward(), cases, counting)(completions=[write(cases[0], 4)], case=[0])
    assert not counting.asked


def test_what_is_missing_is_named(cases):
    with pytest.raises(ConfigError, match="ConsistencyReward scores the mask; give as_trl_reward a propagator"):
        medvol.as_trl_reward(ConsistencyReward(), cases)
    reward = medvol.as_trl_reward(AxialReward(), [*cases, replace(cases[0], target=None)])
    with pytest.raises(ConfigError, match="no column 'case'"):
        reward(completions=["a"], prompts=["q"])
    with pytest.raises(DatasetError, match="says 4, and there are 4 cases"):
        reward(completions=["a"], case=[4])
    with pytest.raises(DatasetError, match="no target"):
        reward(completions=["a"], case=[3])


def test_a_term_that_leaves_its_range_is_named(cases):
    class Broken(AxialReward):
        def __call__(self, rollout, case):
            return math.nan

    with pytest.raises(RewardError, match="Broken"):
        medvol.as_trl_reward(Broken(), cases)(completions=[write(cases[0], 4)], case=[0])


def test_several_anchors_where_the_prompt_allows_them():
    case = make_scattered_case()
    text = format_evidence(medvol.label_anchor(case.target, rule="largest", max_anchors=3), 48, 64)
    batch = {"completions": [text], "case": [0]}
    assert medvol.as_trl_reward(AxialReward(), [case])(**batch) == [0]
    assert medvol.as_trl_reward(AxialReward(), [case], max_anchors=3)(**batch) == [1]


def test_boxes_in_pixels_of_the_slice_that_the_model_sees(cases):
    _, height, width = cases[0].volume.shape
    key_slice = int(cases[0].target.sum((1, 2)).argmax())
    rows, columns = (np.flatnonzero(cases[0].target[key_slice].any(axis)) for axis in (1, 0))
    true = [columns[0], rows[0], columns[-1] + 1, rows[-1] + 1]
    seen = 10 * height, 20 * width
    pixels = [20 * true[0], 10 * true[1], 20 * true[2], 10 * true[3]]
    text = f'<answer>[{{"slice": {key_slice}, "bbox_2d_list": [{[int(value) for value in pixels]}]}}]</answer>'
    batch = {"completions": [text], "case": [0]}
    assert medvol.as_trl_reward(SpatialReward(), cases, seen_px=seen)(**batch)[0] > 0.9
    assert medvol.as_trl_reward(SpatialReward(), cases)(**batch)[0] < 0.5

"""Scoring an answer that somebody wrote."""

from dataclasses import replace

import numpy as np
import pytest

import medvol
from medvol.datasets.phantom import PhantomDataset
from medvol.grounding.anchors import label_anchor
from medvol.propagators.extrude import ExtrudePropagator
from medvol.rewards.axial import AxialReward
from medvol.rewards.spatial import SpatialReward
from medvol.testing.fixtures import make_scattered_case


@pytest.fixture(scope="module")
def case() -> medvol.Case:
    return PhantomDataset(num_volumes=1, shape=(8, 48, 48))[0]


@pytest.fixture(scope="module")
def truth(case) -> str:
    return medvol.format_evidence(label_anchor(case.target, range(8), rule="largest"), 48, 48)


def test_the_truth_earns_everything(case, truth):
    found = medvol.score(case, truth, ["AxialReward", SpatialReward()])
    assert dict(found.scores) == pytest.approx({"AxialReward": 1, "SpatialReward": 1})
    assert found.total == pytest.approx(2)
    assert (found.failure, found.detail, found.mask) == (None, "", None)
    assert case.target[found.evidence.key_slice].any()


def test_weights_and_a_mask(case, truth):
    from medvol.core.metrics import dice

    weighted = {AxialReward(): 0.25, "VolumeDiceReward": 2}
    found = medvol.score(case, truth, weighted, "ExtrudePropagator")
    mask = ExtrudePropagator().propagate(case.volume, found.evidence)
    np.testing.assert_array_equal(found.mask, mask)
    assert found.scores["VolumeDiceReward"] == pytest.approx(dice(mask, case.target))
    assert found.total == pytest.approx(0.25 + 2 * dice(mask, case.target))


def test_a_failure_is_named_and_earns_nothing(case):
    found = medvol.score(case, "the spleen is there", "AxialReward")
    assert (found.total, found.failure, found.evidence) == (0, "no_answer", None)
    assert "the spleen is there" in found.detail


@pytest.mark.parametrize(
    ("rewards", "words"),
    [
        ("VolumeDiceReward", "reads the mask, and there is no propagator"),
        ([], "rewards is"),
        (3, "rewards is 3"),
        ([3], "a reward is a int"),
        ([AxialReward], "a reward is AxialReward"),
        ("AxialRewart", "did you mean 'AxialReward'"),
        ({"AxialReward": "much"}, "weight of AxialReward is 'much'"),
        ({"AxialReward": 0}, "no reward has a weight above 0"),
        ({"AxialReward": -1}, "weight of AxialReward is -1"),
    ],
    ids=str,
)
def test_what_are_no_rewards(case, truth, rewards, words):
    with pytest.raises(medvol.MedvolError, match=words):
        medvol.score(case, truth, rewards)


def test_what_is_no_case_and_no_text(case, truth):
    with pytest.raises(medvol.ConfigError, match="give a Case"):
        medvol.score(3, truth, "AxialReward")
    with pytest.raises(medvol.ConfigError, match="give its text"):
        medvol.score(case, None, "AxialReward")
    with pytest.raises(medvol.DatasetError, match="no target mask"):
        medvol.score(replace(case, target=None), truth, "AxialReward")


def test_an_answer_with_a_mask_is_shown_in_one_short_line(case, truth):
    shown = repr(medvol.score(case, truth, [SpatialReward()], ExtrudePropagator()))
    assert shown.startswith("ScoredAnswer(scores=")
    assert "\n" not in shown
    assert len(shown) <= 200


def test_several_anchors_are_scored():
    case = make_scattered_case()
    text = medvol.format_evidence(label_anchor(case.target, rule="largest", max_anchors=3), 48, 64)
    assert medvol.score(case, text, ["AxialReward"]).failure == "not_one_object"
    assert medvol.score(case, text, ["AxialReward", "SpatialReward"], max_anchors=3).total == 2

"""ConsensusPolicy: what it asks for, what it makes of the answers, and what it refuses."""

import json

import pytest

from medvol.core.errors import ConfigError
from medvol.core.roles import Policy
from medvol.core.specs import describe_component, rebuild
from medvol.core.types import Completion, Sampling
from medvol.grounding.regions import RegionSettings
from medvol.inference.segmenter import Segmenter
from medvol.policies.consensus import ConsensusPolicy
from medvol.policies.oracle import OraclePolicy
from medvol.policies.scripted import ScriptedPolicy
from medvol.policies.second_look import SecondLookPolicy
from medvol.policies.tiny import TinyPolicy
from medvol.propagators.extrude import ExtrudePropagator
from medvol.rollouts.groups import ask
from medvol.testing import check_policy, make_case


def say(key_slice, *box):
    return f"<answer>{json.dumps([{'slice': key_slice, 'bbox_2d_list': [list(box)]}])}</answer>"


THREE = (say(2, 100, 200, 300, 400), say(6, 140, 200, 340, 400), say(5, 120, 260, 400, 500))
MEDIAN = say(5, 120, 200, 340, 400)


class Listening(Policy):
    """Says what it is told, and remembers how it was asked."""

    def __init__(self, said=THREE):
        self.said, self.asked = said, []

    def generate(self, prompts, n=1, sampling=None):
        self.asked.append((len(prompts), n, sampling))
        return [[Completion(self.said[i % len(self.said)]) for i in range(n)] for _ in prompts]


def answer(inner, samples=3, sampling=None, **settings):
    (group,) = ask(ConsensusPolicy(inner, samples, **settings), [make_case()], sampling)
    return group.answer


def test_the_median_is_the_answer_and_carries_what_it_was_made_of():
    rollout = answer(Listening())
    assert rollout.completion.text == MEDIAN
    assert [sample.text for sample in rollout.completion.samples] == list(THREE)
    assert rollout.completion.log_probs is None


def test_one_call_draws_all_answers_of_all_questions():
    inner, case = Listening(), make_case()
    ask(ConsensusPolicy(inner, 5), [case, case], Sampling(max_new_tokens=40, seed=7))
    assert inner.asked == [(2, 5, Sampling(temperature=1.0, max_new_tokens=40, seed=7))]


@pytest.mark.parametrize(("asked", "drawn"), [(0.0, 0.7), (0.3, 0.3)])
def test_its_own_temperature_stands_in_for_a_greedy_one(asked, drawn):
    inner = Listening()
    answer(inner, sampling=Sampling(temperature=asked), temperature=0.7)
    assert inner.asked[0][2].temperature == drawn


def test_several_answers_have_draws_of_their_own():
    inner = Listening((*THREE, "<answer>[]</answer>", "<answer>[]</answer>", THREE[0]))
    (group,) = ask(ConsensusPolicy(inner, 3), [make_case()], n=2)
    assert [said.text for said in group.completions] == [MEDIAN, "<answer>[]</answer>"]
    assert inner.asked[0][1] == 6


def test_most_unreadable_answers_are_a_failure():
    rollout = answer(Listening((THREE[0], "nothing", "nothing else")))
    assert rollout.failure == "no_answer"
    assert rollout.completion.text == "nothing"
    assert len(rollout.completion.samples) == 3


def test_one_unreadable_answer_has_no_say():
    assert answer(Listening((THREE[0], THREE[0], "nothing"))).completion.text == THREE[0]


def test_the_answers_tell_how_far_they_agree():
    """Slices 2, 6 and 5 of 5 mm (of make_case) and three boxes; the agreement is that of the samples."""
    case = make_case()
    consensus = Segmenter(ConsensusPolicy(Listening(), 3), ExtrudePropagator()).segment(case.volume, "the mass")
    drawn = Segmenter(Listening(), ExtrudePropagator(), samples=3).segment(case.volume, "the mass")
    assert consensus.confidence.agreement == drawn.confidence.agreement
    assert consensus.confidence.agreement.samples == 3


def test_the_same_seed_gives_the_same_answer():
    policy = ConsensusPolicy(TinyPolicy(seed=3), 4)
    first, again = (ask(policy, [make_case()], Sampling(max_new_tokens=24))[0].answer.completion for _ in range(2))
    assert first.text == again.text
    assert [said.text for said in first.samples] == [said.text for said in again.samples]
    assert len({said.text for said in first.samples}) > 1


def test_it_sums_up_second_looks():
    second = SecondLookPolicy(Listening(), RegionSettings(margin_mm=5.0, range_mm=3.0))
    policy = ConsensusPolicy(second, 3)
    assert policy.needs_volume
    assert not ConsensusPolicy(Listening()).needs_volume
    (group,) = ask(policy, [make_case()])
    assert [len(sample.looks) for sample in group.answer.completion.samples] == [2, 2, 2]


def test_several_anchors_have_no_median():
    policy = ConsensusPolicy(ScriptedPolicy([THREE[0]], max_anchors=3))
    for call in (policy.require_ready, lambda: ask(policy, [make_case()])[0].answer.evidence):
        with pytest.raises(ConfigError, match="max_anchors 3; set it to 1"):
            call()


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"policy": OraclePolicy()}, "has the true anchor"),
        ({"policy": Listening(), "samples": 1}, "samples"),
        ({"policy": Listening(), "temperature": 0.0}, "temperature is 0.0; it is above 0"),
        ({"policy": Listening(), "temperature": float("nan")}, "temperature is nan"),
    ],
)
def test_refused(settings, said):
    with pytest.raises(ConfigError, match=said):
        ConsensusPolicy(**settings)


def test_contract_identity_and_settings():
    policy = ConsensusPolicy(ScriptedPolicy(THREE), 3)
    check_policy(policy)
    again = rebuild(describe_component(policy))
    assert again.identity() == policy.identity()
    assert policy.identity() != ConsensusPolicy(ScriptedPolicy(THREE), 4).identity()
    assert policy.identity() != ConsensusPolicy(ScriptedPolicy(THREE[:2]), 3).identity()

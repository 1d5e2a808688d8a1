"""Asking: one call for all queries of a volume, one failure harms no other, and every completion is read."""

import pytest

from medvol.core.errors import MissingExtraError, PolicyError, QueryError
from medvol.core.prompts import PromptTemplate
from medvol.core.roles import Policy
from medvol.core.types import Case, Completion, Query, Sampling
from medvol.rollouts.failures import POLICY_FAILED, warn_of_failures
from medvol.rollouts.groups import ask, ask_again, require_answers
from medvol.testing import make_volume

ANSWER = '<think>a mass</think><answer>[{"slice": 4, "bbox_2d_list": [[450, 250, 750, 550]]}]</answer>'


class Picky(Policy):
    """Counts its calls and fails on every call that holds a query it does not like."""

    def __init__(self, error: BaseException | None = None) -> None:
        self.error = error
        self.calls: list[tuple[list[str], int, Sampling | None]] = []

    @property
    def template(self):
        return PromptTemplate(num_slices=3, height_px=16, width_px=16)

    def generate(self, prompts, n=1, sampling=None):
        self.calls.append(([prompt.query for prompt in prompts], n, sampling))
        if any(prompt.query == "the ghost" for prompt in prompts):
            raise self.error or SystemExit("no ghosts")
        return [[Completion(ANSWER if i == 0 else f"{prompt.query} {i}") for i in range(n)] for prompt in prompts]

    def identity(self):
        return {"name": "Picky"}


@pytest.fixture
def cases():
    volume = make_volume()
    return [Case(f"case {query}", volume, Query(query)) for query in ("the mass", "the ghost", "the other")]


def test_all_queries_of_a_volume_are_asked_in_one_call_from_one_drawing(cases):
    policy, sampling = Picky(), Sampling(1.0, seed=3)
    groups = ask(policy, cases[::2], sampling, n=2)
    assert policy.calls == [(["the mass", "the other"], 2, sampling)]
    assert groups[0].prompt.slices is groups[1].prompt.slices
    assert [group.case for group in groups] == cases[::2]
    assert [[rollout.case_id for rollout in group.rollouts] for group in groups] == [
        ["case the mass"] * 2,
        ["case the other"] * 2,
    ]
    for group in groups:
        answered, unread = group.rollouts
        assert group.answer is answered
        assert (answered.evidence.key_slice, answered.failure, answered.mask) == (4, None, None)
        assert (unread.evidence, unread.failure, unread.error) == (None, "no_answer", None)
        assert group.completions == [answered.completion, unread.completion]


def test_a_case_that_the_policy_fails_on_harms_no_other(cases, caplog):
    policy = Picky()
    mass, ghost, other = ask(policy, cases, n=2)
    assert [len(queries) for queries, _, _ in policy.calls] == [3, 1, 1, 1]
    assert mass.answer.evidence.key_slice == other.answer.evidence.key_slice == 4
    assert [rollout.failure for rollout in ghost.rollouts] == [POLICY_FAILED] * 2
    assert "SystemExit: no ghosts" in ghost.answer.detail
    assert ghost.answer.completion.text == ""
    require_answers([mass, other])
    with pytest.raises(PolicyError, match="no ghosts") as refusal:
        require_answers([mass, ghost])
    assert refusal.value is ghost.answer.error
    assert isinstance(refusal.value.__cause__, SystemExit)
    warn_of_failures([rollout for group in (mass, ghost, other) for rollout in group.rollouts])
    assert caplog.text.count("case case the ghost: the policy Picky") == 1


def test_a_policy_that_lacks_what_it_needs_stops_everything(cases):
    policy = Picky(MissingExtraError("peft", "train"))
    with pytest.raises(MissingExtraError):
        ask(policy, cases)
    assert len(policy.calls) == 1


def test_other_words_are_asked_in_place_of_the_query(cases):
    policy = Picky()
    (group,) = ask(policy, cases[1:2], queries=[" the spectre "])
    assert policy.calls[0][0] == ["the spectre"]
    assert group.prompt.query == "the spectre"
    assert group.case is cases[1]
    with pytest.raises(QueryError):
        ask(policy, cases[:1], queries=[" "])


def test_the_same_prompts_are_asked_again(cases):
    policy = Picky()
    groups = ask(policy, cases[::2])
    again = ask_again(policy, groups, Sampling(1.0), 3)
    assert [group.prompt for group in again] == [group.prompt for group in groups]
    assert [len(group.rollouts) for group in again] == [3, 3]
    assert ask_again(policy, [], None, 2) == ask(policy, []) == []
    assert len(policy.calls) == 2


def test_the_users_stop_acts_at_once(cases):
    policy = Picky(KeyboardInterrupt())
    with pytest.raises(KeyboardInterrupt):
        ask(policy, cases)

"""Groups: what a policy says about each case, asked for all cases of a volume at once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from medvol.core.errors import PolicyError
from medvol.core.prompts import Prompt
from medvol.core.roles import Policy
from medvol.core.types import Case, Completion, Evidence, Rollout, Sampling
from medvol.grounding.prompts import build_prompts
from medvol.guarding.guard import ask_policy, read_template
from medvol.rollouts.completions import read_completion
from medvol.rollouts.failures import POLICY_FAILED


@dataclass(frozen=True)
class RewardBreakdown:
    """Scores of one rollout, term by term.

    Args:
        scores: Score of each term, in [0, 1].
        weights: Weight of each term, >= 0.
    """

    scores: Mapping[str, float]
    weights: Mapping[str, float]

    @property
    def total(self) -> float:
        """Weighted sum of the scores."""
        return sum(self.weights[name] * score for name, score in self.scores.items())


@dataclass(frozen=True, eq=False)
class Group:
    """All rollouts of one query.

    Args:
        case: The question.
        prompt: What the policy was asked; the query may be reworded.
        rollouts: One for each completion, at least one.
        rewards: What each of them earns; empty before they are scored.
    """

    case: Case
    prompt: Prompt
    rollouts: tuple[Rollout, ...]
    rewards: tuple[RewardBreakdown, ...] = ()

    @property
    def completions(self) -> list[Completion]:
        """What the policy wrote."""
        return [rollout.completion for rollout in self.rollouts]

    @property
    def answer(self) -> Rollout:
        """The first rollout: the only one where a policy was asked for one answer."""
        return self.rollouts[0]


def ask(
    policy: Policy,
    cases: Sequence[Case],
    sampling: Sampling | None = None,
    n: int = 1,
    queries: Sequence[str] | None = None,
    truths: Sequence[Evidence] | None = None,
) -> list[Group]:
    """Ask a policy about cases of one volume, from one drawing of its slices.

    Args:
        policy: Answers.
        cases: Cases that share one volume.
        sampling: How completions are drawn; greedy when None.
        n: Completions of each case.
        queries: Text to ask each case with, in place of its own.
        truths: True anchors, for a policy that ``needs_truth``.

    Returns:
        A group a case. Completions are read, and nothing is propagated yet. A case that the policy fails on harms no
        other: its rollouts carry the error.

    Raises:
        QueryError: A query is empty, or no text.
        InvalidComponentError: The policy changed the prompts.
    """
    if not cases:
        return []
    texts = [case.query.text for case in cases] if queries is None else list(queries)
    anchors: list[Evidence | None] | None = None if truths is None else [*truths]
    prompts = build_prompts(cases[0].volume, texts, read_template(policy), anchors, policy.needs_volume)
    return _ask(policy, cases, prompts, n, sampling)


def ask_again(policy: Policy, groups: Sequence[Group], sampling: Sampling | None = None, n: int = 1) -> list[Group]:
    """Ask the same about the same drawing once more; arguments, result and errors are those of ``ask``."""
    return _ask(policy, [group.case for group in groups], [group.prompt for group in groups], n, sampling)


def require_answers(groups: Sequence[Group]) -> None:
    """Refuse groups that the policy failed on.

    Raises:
        PolicyError: The first such failure.
    """
    for group in groups:
        if isinstance(group.answer.error, PolicyError):
            raise group.answer.error


def _ask(
    policy: Policy, cases: Sequence[Case], prompts: Sequence[Prompt], n: int, sampling: Sampling | None
) -> list[Group]:
    groups = []
    for case, prompt, said in zip(cases, prompts, ask_each(policy, prompts, n, sampling), strict=True):
        most = prompt.template.max_anchors
        if isinstance(said, PolicyError):
            failed = Rollout(
                case.case_id, Completion(""), None, POLICY_FAILED, detail=str(said), error=said, max_anchors=most
            )
            groups.append(Group(case, prompt, (failed,) * n))
        else:
            groups.append(Group(case, prompt, tuple(read_completion(case, completion, most) for completion in said)))
    return groups


def ask_each(
    policy: Policy, prompts: Sequence[Prompt], n: int, sampling: Sampling | None
) -> list[list[Completion] | PolicyError]:
    """All prompts together; where that fails each alone, so that one harms no other."""
    if not prompts:
        return []
    try:
        return [*ask_policy(policy, prompts, n, sampling)]
    except PolicyError as error:
        if len(prompts) == 1:
            return [error]
    return [said for prompt in prompts for said in ask_each(policy, [prompt], n, sampling)]

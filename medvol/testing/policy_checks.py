"""What every policy promises."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from medvol.core.prompts import Prompt, PromptTemplate
from medvol.core.roles import Policy
from medvol.core.types import Completion, Sampling
from medvol.grounding.anchors import label_anchor
from medvol.grounding.prompts import build_prompts
from medvol.guarding.promises import form_of
from medvol.testing.component_checks import require, require_untouched
from medvol.testing.fixtures import make_case

QUERIES = ("the bright mass", "what is brighter than the rest")
_TOKENS = 24
_GREEDY = Sampling(max_new_tokens=_TOKENS)
_DRAWN = Sampling(temperature=1.0, max_new_tokens=_TOKENS, seed=7)


def check_completions(policy: Policy) -> None:
    """Every prompt gets ``n`` completions, in order."""
    prompts = make_prompts(policy)
    for n, sampling in ((1, None), (3, _DRAWN)):
        answers: object = policy.generate(prompts, n, sampling)
        rows = answers if isinstance(answers, list | tuple) else []
        counts = [len(row) if isinstance(row, list | tuple) else f"a {type(row).__name__}" for row in rows]
        got = counts if rows else form_of(answers)
        require(counts == [n] * len(prompts), f"{n} completions for each of {len(prompts)} prompts", got, "obey n")
        kinds = {type(completion).__name__ for row in rows for completion in row}
        require(kinds == {Completion.__name__}, "Completion objects", kinds, "wrap texts in Completion")
        texts = {type(completion.text).__name__ for row in rows for completion in row}
        require(texts == {"str"}, "texts that are str", texts, "decode them")


def check_token_form(policy: Policy) -> None:
    """Token ids are (T,) int64; their log-probabilities, where there are any, (T,) and <= 0."""
    for row in policy.generate(make_prompts(policy), 2, _DRAWN):
        for completion in row:
            ids, scores = completion.token_ids, completion.log_probs
            require(ids.ndim == 1 and ids.dtype == np.int64, "token ids (T,) int64", f"{ids.dtype} {ids.shape}", "cast")
            fits = scores is None or (scores.shape == ids.shape and bool((scores <= 0).all()))
            require(fits, "one log-probability <= 0 a token", scores, "take the log-softmax at the drawn token")


def check_length_is_bounded(policy: Policy) -> None:
    """No completion has more tokens than were allowed."""
    for sampling in (Sampling(max_new_tokens=3), Sampling(1.0, 3, 7)):
        for row in policy.generate(make_prompts(policy), 2, sampling):
            longest = max(len(completion.token_ids) for completion in row)
            require(longest <= 3, "at most max_new_tokens=3 tokens", longest, "stop at the bound")


def check_prompts_are_kept_apart(policy: Policy) -> None:
    """A greedy answer does not depend on what else is asked at the same time."""
    prompts = make_prompts(policy)
    together = _texts(policy, prompts, _GREEDY, 1)
    alone = [_texts(policy, [prompt], _GREEDY, 1)[0] for prompt in prompts]
    require(together == alone, f"the answers of each prompt alone, {alone}", together, "mask packed prompts")


def check_prompt_unchanged(policy: Policy) -> None:
    """Neither the list of prompts nor anything in it is written to."""
    prompts = make_prompts(policy)
    require_untouched(lambda: policy.generate(prompts, 1, _GREEDY), prompts=prompts)


def check_greedy_is_deterministic(policy: Policy) -> None:
    """Temperature 0 always gives the same answer."""
    prompts = make_prompts(policy)
    first, second = (_texts(policy, prompts, _GREEDY, 1) for _ in range(2))
    require(first == second, f"the same answers again, {first}", second, "draw nothing at temperature 0")


def check_seed_is_obeyed(policy: Policy) -> None:
    """The same seed draws the same completions, whatever was drawn before."""
    prompts = make_prompts(policy)
    first = _texts(policy, prompts, _DRAWN, 3)
    policy.generate(prompts[:1], 1, Sampling(1.0, _TOKENS, 8))
    second = _texts(policy, prompts, _DRAWN, 3)
    require(first == second, f"the same draws again, {first}", second, "draw from a generator seeded by sampling.seed")


def check_template(policy: Policy) -> None:
    """The prompt template is one fixed PromptTemplate."""
    first, second = policy.template, policy.template
    fine = isinstance(first, PromptTemplate) and first == second
    require(fine, "the same PromptTemplate whenever it is asked for", (first, second), "return stored settings")


def make_prompts(policy: Policy) -> list[Prompt]:
    """Two questions about one small volume, with the truth where the policy asks for it."""
    case = make_case()
    assert case.target is not None
    truth = label_anchor(case.target, rule="largest", rationale="it is bright") if policy.needs_truth else None
    return build_prompts(case.volume, list(QUERIES), policy.template, [truth] * len(QUERIES), policy.needs_volume)


def _texts(policy: Policy, prompts: list[Prompt], sampling: Sampling, n: int) -> list[list[str]]:
    return [[completion.text for completion in row] for row in policy.generate(prompts, n, sampling)]


POLICY_CHECKS: tuple[Callable[[Policy], None], ...] = (
    check_completions,
    check_token_form,
    check_length_is_bounded,
    check_prompts_are_kept_apart,
    check_prompt_unchanged,
    check_greedy_is_deterministic,
    check_seed_is_obeyed,
    check_template,
)

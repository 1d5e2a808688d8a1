"""What every policy promises."""

from __future__ import annotations

from dataclasses import asdict

import numpy as np

from medvol.core.grounding.prompts import PromptTemplate
from medvol.core.roles import Policy
from medvol.core.types import Prompt, Sampling
from medvol.testing.contract import require
from medvol.testing.fixtures import make_prompts
from medvol.testing.identity import require_identity

SHORT = 12
"""Tokens written in a check."""


def check_writes_n_completions(policy: Policy) -> None:
    """Every prompt gets as many completions as were asked for, in order."""
    answers = policy.generate(make_prompts(policy), 3, Sampling(1.0, SHORT))
    counts = [len(completions) for completions in answers]
    require(counts == [3, 3], "completions of two prompts with n=3", [3, 3], counts, "return one list of n a prompt")


def check_text(policy: Policy) -> None:
    """A completion's text is a string, its tokens are whole numbers."""
    [[completion]] = policy.generate(make_prompts(policy)[:1], 1, Sampling(0.0, SHORT))
    require(isinstance(completion.text, str), "text", "str", type(completion.text).__name__, "decode the tokens")
    tokens = completion.token_ids
    require(
        isinstance(tokens, np.ndarray) and tokens.ndim == 1 and tokens.dtype == np.int64,
        "token_ids",
        "int64 of shape (T,)",
        f"{getattr(tokens, 'dtype', type(tokens).__name__)} of shape {np.shape(tokens)}",
        "return np.array(ids, np.int64)",
    )


def check_max_new_tokens(policy: Policy) -> None:
    """No completion has more tokens than were allowed."""
    [[completion]] = policy.generate(make_prompts(policy)[:1], 1, Sampling(0.0, 3))
    length = len(completion.token_ids)
    require(length <= 3, "tokens of a completion with max_new_tokens=3", "at most 3", length, "stop at the bound")


def check_drawn_log_probs(policy: Policy) -> None:
    """Log-probabilities of a drawn completion, where they are given, fit its tokens and are not positive."""
    [completions] = policy.generate(make_prompts(policy)[:1], 2, Sampling(1.0, SHORT))
    for completion in completions:
        scores = completion.log_probs
        fits = scores is None or (scores.shape == completion.token_ids.shape and bool((scores <= 1e-6).all()))
        require(fits, "log_probs of a drawn completion", "one value <= 0 a token", scores, "return log-softmax values")


def check_prompt_unchanged(policy: Policy) -> None:
    """The prompts are not changed."""
    prompts = make_prompts(policy)
    before = prompts[0].slices.pixels.copy(), [prompt.query for prompt in prompts]
    policy.generate(prompts, 1, Sampling(0.0, SHORT))
    same = np.array_equal(before[0], prompts[0].slices.pixels) and before[1] == [prompt.query for prompt in prompts]
    require(same, "prompts", "no change", "other values", "work on a copy")


def check_greedy_is_deterministic(policy: Policy) -> None:
    """Greedy completions are always the same, and the seed does not matter."""
    prompts = make_prompts(policy)
    texts = [_texts(policy, prompts, Sampling(0.0, SHORT, seed)) for seed in (0, 0, 1)]
    require(texts[0] == texts[1] == texts[2], "greedy completions", "the same", texts, "draw nothing at temperature 0")


def check_seed_is_reproducible(policy: Policy) -> None:
    """The same seed draws the same completions, whatever the global random state is."""
    prompts = make_prompts(policy)
    first = _texts(policy, prompts, Sampling(1.0, SHORT, 7))
    _disturb_global_randomness()
    second = _texts(policy, prompts, Sampling(1.0, SHORT, 7))
    require(first == second, "completions of one seed", "the same", (first, second), "draw from sampling.seed alone")


def check_prompts_do_not_mix(policy: Policy) -> None:
    """A greedy completion does not depend on which other prompts are asked with it."""
    prompts = make_prompts(policy)
    together = _texts(policy, prompts, Sampling(0.0, SHORT))
    alone = [_texts(policy, [prompt], Sampling(0.0, SHORT))[0] for prompt in prompts]
    require(together == alone, "completions of two prompts", "those of each alone", together, "mask packed prompts")


def check_template(policy: Policy) -> None:
    """The template is a ``PromptTemplate`` and survives being stored."""
    template = policy.template
    require(isinstance(template, PromptTemplate), "template", "PromptTemplate", type(template).__name__, "return one")
    again = PromptTemplate.from_dict(asdict(template))
    require(again == template, "template after storing", template, again, "keep plain values in it")


def check_identity(policy: Policy) -> None:
    """The identity is plain, has a name and stays the same."""
    require_identity(policy)


def _texts(policy: Policy, prompts: list[Prompt], sampling: Sampling) -> list[list[str]]:
    return [[completion.text for completion in row] for row in policy.generate(prompts, 2, sampling)]


def _disturb_global_randomness() -> None:
    import random
    import sys

    random.random()
    np.random.random()
    if "torch" in sys.modules:
        sys.modules["torch"].rand(1)


CHECKS = (
    check_writes_n_completions,
    check_text,
    check_max_new_tokens,
    check_drawn_log_probs,
    check_prompt_unchanged,
    check_greedy_is_deterministic,
    check_seed_is_reproducible,
    check_prompts_do_not_mix,
    check_template,
    check_identity,
)

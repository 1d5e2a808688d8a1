"""What a rollout engine promises, asked of it with a small policy of random weights."""

from __future__ import annotations

import numpy as np

from medvol.core.prompts import PromptTemplate
from medvol.core.registry import POLICIES
from medvol.core.roles import Policy, RolloutEngine, TrainablePolicy
from medvol.core.types import Completion, Sampling
from medvol.guarding.promises import BreachError, form_of, read_answers
from medvol.testing.component_checks import require
from medvol.testing.policy_checks import make_prompts
from medvol.testing.trainable_checks import move_weights

_SAMPLING = Sampling(temperature=0.9, max_new_tokens=4, seed=5)
_GAP = 0.01
_N = 3


def check_completions(engine: RolloutEngine) -> None:
    """Who answers gives as many completions as are asked, with tokens and their log-probabilities."""
    _run(engine, changes=0)


def check_weights_are_followed(engine: RolloutEngine) -> None:
    """After ``sync``, completions come from the weights that the policy has then."""
    _run(engine, changes=2)


def check_stop(engine: RolloutEngine) -> None:
    """An engine can be stopped when it was not started, and started again."""
    engine.stop()
    _run(engine, changes=0)
    engine.stop()


def _run(engine: RolloutEngine, changes: int) -> None:
    """Ask with the weights as they are, and after each change; log-probabilities have to be the policy's."""
    import torch

    policy = _make_policy()
    prompts = make_prompts(policy)
    try:
        asked = engine.start(policy)
        require(isinstance(asked, Policy), "a Policy from start", form_of(asked), "return who is asked")
        for number in range(changes + 1):
            if number:
                move_weights(policy)
            engine.sync()
            answers = _judge(asked.generate(prompts, _N, _SAMPLING), len(prompts))
            engine.rest()
            with torch.no_grad():
                scores = policy.log_probs(prompts, answers, _SAMPLING.temperature)
            pairs = [pair for rows in zip(answers, scores, strict=True) for pair in zip(*rows, strict=True)]
            gap = max(float(np.abs(one.log_probs - row.cpu().numpy()).max()) for one, row in pairs)
            require(
                gap < _GAP,
                f"log-probabilities within {_GAP} of the policy's",
                f"{gap:.3g} after {number} changes of the weights",
                "let sync bring all weights, and sample at the temperature that is asked",
            )
    finally:
        engine.stop()


def _judge(answers: object, prompts: int) -> list[list[Completion]]:
    """Completions of the right form, all with log-probabilities and none too long."""
    expected = f"{_N} completions for each of {prompts} prompts, each with a log-probability a token"
    try:
        groups = read_answers(answers, prompts, _N)
    except BreachError as error:
        raise AssertionError(f"expected {expected}; got an engine that {error}") from None
    rows = [one for group in groups for one in group]
    bare = [one for one in rows if one.log_probs is None or not len(one.token_ids)]
    require(not bare, expected, bare[:1], "keep those of sampling")
    longest = max(len(one.token_ids) for one in rows)
    require(longest <= _SAMPLING.max_new_tokens, f"at most {_SAMPLING.max_new_tokens} tokens", longest, "stop there")
    return groups


def _make_policy() -> TrainablePolicy:
    template = PromptTemplate(num_slices=4, height_px=48, width_px=48, slice_tag="{index}", instruction="")
    policy: TrainablePolicy = POLICIES.get("TinyPolicy")(template=template)
    policy.load().eval()
    return policy


ENGINE_CHECKS = (check_completions, check_weights_are_followed, check_stop)

"""What a rollout engine promises, asked of it with a small policy of random weights."""

from __future__ import annotations

import numpy as np

from medvol.core.prompts import PromptTemplate
from medvol.core.registry import POLICIES
from medvol.core.roles import RolloutEngine, TrainablePolicy
from medvol.core.types import Completion, Sampling
from medvol.testing.component_checks import require
from medvol.testing.policy_checks import make_prompts
from medvol.testing.trainable_checks import move_weights

_SAMPLING = Sampling(temperature=0.9, max_new_tokens=4, seed=5)
_GAP = 0.01
_N = 3


def check_completions(engine: RolloutEngine) -> None:
    """Who answers gives as many completions as are asked, with tokens and their log-probabilities."""
    (answers,) = _run(engine, changes=0)
    rows = [one for group in answers for one in group]
    fine = all(len(group) == _N for group in answers) and all(
        one.log_probs is not None and len(one.log_probs) == len(one.token_ids) > 0 for one in rows
    )
    require(fine, f"{_N} completions a prompt, each with a log-probability a token", answers, "keep those of sampling")
    longest = max(len(one.token_ids) for one in rows)
    require(longest <= _SAMPLING.max_new_tokens, f"at most {_SAMPLING.max_new_tokens} tokens", longest, "stop there")


def check_weights_are_followed(engine: RolloutEngine) -> None:
    """After ``sync``, completions come from the weights that the policy has then."""
    _run(engine, changes=2)


def check_stop(engine: RolloutEngine) -> None:
    """An engine can be stopped when it was not started, and started again."""
    engine.stop()
    _run(engine, changes=0)
    engine.stop()


def _run(engine: RolloutEngine, changes: int) -> list[list[list[Completion]]]:
    """Ask with the weights as they are, and after each change; log-probabilities have to be the policy's."""
    import torch

    policy = _make_policy()
    prompts = make_prompts(policy)
    found = []
    asked = engine.start(policy)
    try:
        for number in range(changes + 1):
            if number:
                move_weights(policy)
            engine.sync()
            answers = asked.generate(prompts, _N, _SAMPLING)
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
            found.append(answers)
    finally:
        engine.stop()
    return found


def _make_policy() -> TrainablePolicy:
    template = PromptTemplate(num_slices=4, height_px=48, width_px=48, slice_tag="{index}", instruction="")
    policy: TrainablePolicy = POLICIES.get("TinyPolicy")(template=template)
    policy.load().eval()
    return policy


ENGINE_CHECKS = (check_completions, check_weights_are_followed, check_stop)

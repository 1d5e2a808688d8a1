"""What vLLM is asked for, and what it must answer; names are those of its ``SamplingParams``."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from medvol.core.errors import ConfigError, EngineError
from medvol.core.roles import RolloutEngine, TrainablePolicy
from medvol.core.served_form import ServedForm
from medvol.core.types import Completion, Sampling

_SEEDS = 2**31
_ROUNDING = 1e-4
"""A log-probability may be above 0 by this much."""


def served_form_of(engine: RolloutEngine, policy: TrainablePolicy) -> ServedForm:
    """What a server has to know of a policy.

    Raises:
        ConfigError: The policy has no such form.
    """
    form = policy.served_form()
    if form is None:
        raise ConfigError(
            f"{type(engine).__name__} answers for Qwen-VL models, whose slices are patches, and "
            f"{type(policy).__name__} has none here; leave model.engine out, or choose QwenVLPolicy"
        )
    return form


def sampling_fields(form: ServedForm, sampling: Sampling, n: int, place: int) -> dict[str, Any]:
    """How completions of one prompt are sampled.

    All is stated that a model folder could set otherwise (``generation_config.json`` of Qwen-VL sets top-p and a
    penalty). vLLM gives completion k of a prompt the seed plus k, so prompts are n seeds apart. What the policy may
    not write has a probability of exactly 0, as in the policy itself.

    Args:
        form: Of the policy.
        sampling: As the policy would be asked.
        n: Completions of the prompt.
        place: Of the prompt among those that are asked together.
    """
    return {
        "n": n,
        "temperature": sampling.temperature,
        "top_p": 1.0,
        "top_k": 0,
        "min_p": 0.0,
        "repetition_penalty": 1.0,
        "presence_penalty": 0.0,
        "frequency_penalty": 0.0,
        "max_tokens": sampling.max_new_tokens,
        "seed": (sampling.seed + place * n) % _SEEDS,
        "stop_token_ids": [form.end_id],
        "allowed_token_ids": form.allowed_ids,
        "logprobs": 0,
        "detokenize": False,
    }


def require_length(spelled: Sequence[int], longest: int, sampling: Sampling, setting: str) -> None:
    """Refuse a prompt that leaves no room for the longest answer.

    Raises:
        ConfigError: It does not fit.
    """
    if len(spelled) + sampling.max_new_tokens > longest:
        raise ConfigError(
            f"a prompt has {len(spelled)} tokens and its answer up to {sampling.max_new_tokens}, and vLLM takes "
            f"{longest} together; raise {setting}, or show fewer or smaller slices"
        )


def read_answer(
    form: ServedForm, token_ids: Sequence[int], log_probs: Sequence[float], reason: str | None, sampling: Sampling
) -> Completion:
    """A completion from what vLLM gave.

    Raises:
        EngineError: It was cut off, or is none that the policy could have written.
    """
    count, end = len(token_ids), form.end_id
    whole = {"stop": count > 0 and token_ids[-1] == end, "length": count == sampling.max_new_tokens}
    if not whole.get(str(reason), False):
        raise EngineError(
            f"vLLM ended a completion after {count} tokens with the reason {reason!r}, and one ends with the end token "
            f"or after {sampling.max_new_tokens} tokens; look into its log"
        )
    if len(log_probs) != count or not all(math.isfinite(value) and value <= _ROUNDING for value in log_probs):
        raise EngineError(
            f"vLLM gave {count} tokens and log-probabilities that do not belong to them; start it with "
            "--logprobs-mode processed_logprobs"
        )
    if not form.allows(token_ids) or end in token_ids[:-1]:
        raise EngineError(
            "vLLM wrote tokens that the policy may not write; serve the model folder that the policy names"
        )
    return form.read(token_ids, log_probs)

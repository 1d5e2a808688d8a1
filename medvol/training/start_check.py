"""What must hold before a policy is trained by its own answers."""

from __future__ import annotations

from collections.abc import Sequence

from medvol.core.errors import ConfigError, PropagationError
from medvol.core.prompts import Prompt
from medvol.core.roles import TrainablePolicy
from medvol.rollouts.failures import PROPAGATION_FAILED
from medvol.training.group_notes import GroupNotes
from medvol.training.measures import parse_rate
from medvol.training.settings import StartSettings


def require_good_start(
    policy: TrainablePolicy,
    prompts: Sequence[Prompt],
    groups: Sequence[GroupNotes],
    start: StartSettings,
    max_new_tokens: int,
) -> None:
    """Refuse a run that cannot go well, before its first update.

    Args:
        policy: As training starts.
        prompts: The first ones of this process.
        groups: The first rollouts of all processes.
        start: What must hold.
        max_new_tokens: Longest allowed answer.

    Raises:
        ConfigError: Image tokens and features disagree, prompt and answer do not fit, or too few answers are parsed.
        PropagationError: The propagator failed on every anchor, so that no answer could earn anything.
    """
    require_room(policy, prompts, start.max_prompt_tokens, max_new_tokens)
    rate = parse_rate(groups)
    if rate < start.min_parse_rate:
        failures = sorted({rollout.failure for group in groups for rollout in group if rollout.failure})
        raise ConfigError(
            f"only {rate:.0%} of the first {sum(map(len, groups))} answers follow the grammar "
            f"({', '.join(failures)}), and start.min_parse_rate is {start.min_parse_rate:.0%}: train the "
            "policy with SFTModule first and give its model folder, or lower start.min_parse_rate"
        )
    _require_masks(groups)


def _require_masks(groups: Sequence[GroupNotes]) -> None:
    anchored = [rollout for group in groups for rollout in group if rollout.parsed and not rollout.absent]
    if anchored and all(rollout.failure == PROPAGATION_FAILED for rollout in anchored):
        raise PropagationError(
            f"nothing could be propagated from any of the first {len(anchored)} anchors: {anchored[0].detail}"
        )


def require_room(
    policy: TrainablePolicy, prompts: Sequence[Prompt], max_prompt_tokens: int | None, max_new_tokens: int
) -> None:
    """Refuse prompts that the model cannot read whole; nothing is ever cut off a prompt.

    Raises:
        ConfigError: Image tokens and features disagree, or prompt and answer do not fit.
    """
    for prompt in prompts:
        size = policy.measure_prompt(prompt)
        if size is None:
            return
        if size.image_tokens != size.image_features:
            raise ConfigError(
                f"the prompt keeps {size.image_tokens} places for image tokens and its slices give "
                f"{size.image_features}; the template does not belong to the model"
            )
        longest = size.limit - max_new_tokens
        if max_prompt_tokens is not None:
            longest = min(longest, max_prompt_tokens)
        if size.tokens > longest:
            raise ConfigError(
                f"the prompt {prompt.query!r} has {size.tokens} tokens, {size.image_tokens} of them for slices, and at "
                f"most {longest} fit; show fewer or smaller slices in the template, raise start.max_prompt_tokens, or "
                "lower evaluation.max_new_tokens"
            )

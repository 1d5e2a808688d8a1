"""Samples: further answers to a question, drawn at random, that tell how far a policy agrees with itself."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from medvol.core.errors import ConfigError
from medvol.core.roles import Policy, Propagator
from medvol.core.types import Rollout, Sampling
from medvol.rollouts.completions import read_completion
from medvol.rollouts.groups import Group, ask_again
from medvol.rollouts.masks import HELD_MIB, follow

MAX_SAMPLES = 1000
"""Most further answers to one query; a number with a few zeros too many would fill the memory."""


def require_samples(samples: int, name: str = "samples") -> None:
    """Refuse a number of samples that compares nothing, or fills the memory.

    Raises:
        ConfigError: It is neither 0 nor 2 to ``MAX_SAMPLES``; the message calls it by the name of the setting.
    """
    if type(samples) is not int or samples < 0 or samples == 1 or samples > MAX_SAMPLES:
        raise ConfigError(f"{name} is {samples!r}; it is 0, or 2 to {MAX_SAMPLES} answers to compare")


def draw_samples(policy: Policy, groups: Sequence[Group], sampling: Sampling | None, n: int) -> list[Group]:
    """Let a policy answer again, in one call and behind the same prefix.

    Args:
        policy: Gave the answers.
        groups: Questions about one volume, each with its answer.
        sampling: How the answers were drawn; samples are drawn alike, but at temperature 1 where that was greedy.
        n: Samples of each question.

    Returns:
        The groups; each answer that the policy gave carries its samples. Where these cannot be drawn, it fails too.
    """
    found = list(groups)
    answered = [place for place, group in enumerate(groups) if group.answer.error is None]
    for place, drawn in zip(
        answered, ask_again(policy, [groups[place] for place in answered], _at_random(sampling), n), strict=True
    ):
        said = replace(groups[place].answer.completion, samples=tuple(drawn.completions))
        answer = replace(groups[place].answer, completion=said)
        found[place] = replace(drawn, rollouts=(answer,)) if drawn.answer.error is None else drawn
    return found


def follow_samples(group: Group, propagator: Propagator) -> Iterator[Rollout]:
    """Follow the samples of an answer to their masks, equal anchors once and together.

    Yields:
        A rollout for each sample, in no fixed order; those with equal anchors share a mask and come one after another.

    Raises:
        InvalidComponentError: The propagator changed what it was given.
    """
    most = group.prompt.template.max_anchors
    rollouts = [read_completion(group.case, sample, most) for sample in group.answer.completion.samples]
    for _, rollout in follow(group.case.volume, rollouts, propagator, held_mib=HELD_MIB):
        yield rollout


def _at_random(sampling: Sampling | None) -> Sampling:
    sampling = sampling or Sampling()
    return replace(sampling, temperature=sampling.temperature or 1.0)

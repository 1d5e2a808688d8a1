"""ConsensusPolicy: the median of several answers that another policy draws."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from medvol.core.errors import ConfigError
from medvol.core.prompts import Prompt, PromptTemplate
from medvol.core.ranges import require_least
from medvol.core.roles import Policy
from medvol.core.specs import identify_component
from medvol.core.training_data import TrainingData
from medvol.core.types import Completion, Sampling
from medvol.grounding.grammar import find_evidence, format_evidence
from medvol.grounding.median import median_anchor
from medvol.guarding.guard import ask_policy


class ConsensusPolicy(Policy):
    """Lets another policy answer several times at random, and answers with the median, see ``median_anchor``.

    The most probable words of a policy that is not sure need not be near the middle of what it holds possible: a key
    slice is written digit by digit. The answers of one question share its prefix, so that a further one costs only its
    own words. They stay with the answer as its samples, and tell how far they agree. The median has no rationale and no
    log-probabilities, as nobody wrote it. Where most answers cannot be read, the first of these is the answer.

    Args:
        policy: Answers; one anchor each time.
        samples: Answers that one consensus is made of.
        temperature: Of the draws where a greedy answer is asked for; where answers are to be drawn at random, theirs.

    Raises:
        ConfigError: The policy needs the true anchor, or a setting is out of its range.
    """

    def __init__(self, policy: Policy, samples: int = 16, temperature: float = 1.0) -> None:
        if policy.needs_truth:
            raise ConfigError(
                f"ConsensusPolicy asks a policy that draws its answers; {type(policy).__name__} has the true anchor"
            )
        require_least(2, samples=samples)
        if not 0 < temperature < float("inf"):
            raise ConfigError(f"temperature is {temperature!r}; it is above 0, so that the answers differ")
        self.policy = policy
        self.samples = samples
        self.temperature = temperature

    @property
    def needs_volume(self) -> bool:  # type: ignore[override]
        """As the policy that is asked."""
        return self.policy.needs_volume

    @property
    def inner(self) -> Policy:
        """The policy that is asked."""
        return self.policy.inner

    @property
    def template(self) -> PromptTemplate:
        """That of the policy."""
        return self.policy.template

    @property
    def training_data(self) -> TrainingData | None:
        """That of the policy."""
        return self.policy.training_data

    @training_data.setter
    def training_data(self, data: TrainingData | None) -> None:
        self.policy.training_data = data

    def identity(self) -> Mapping[str, Any]:
        """Its own settings, and the identity of the policy."""
        return {**identify_component(self, ["policy"]), "policy": dict(self.policy.identity())}

    def require_ready(self) -> None:
        """Find what the policy needs; see ``generate`` for what it must not allow."""
        _require_one_anchor(self.template)
        self.policy.require_ready()

    def generate(
        self, prompts: Sequence[Prompt], n: int = 1, sampling: Sampling | None = None
    ) -> list[list[Completion]]:
        """Draw ``n`` times as many answers as a consensus is made of, in one call, and sum them up.

        Raises:
            ConfigError: A prompt allows several anchors in an answer, of which there is no median.
        """
        for prompt in prompts:
            _require_one_anchor(prompt.template)
        asked = sampling or Sampling()
        drawn = replace(asked, temperature=asked.temperature or self.temperature)
        rows = ask_policy(self.policy, prompts, n * self.samples, drawn)
        return [
            [_sum_up(prompt, row[first : first + self.samples]) for first in range(0, len(row), self.samples)]
            for prompt, row in zip(prompts, rows, strict=True)
        ]


def _require_one_anchor(template: PromptTemplate) -> None:
    if template.max_anchors > 1:
        raise ConfigError(
            f"ConsensusPolicy sums up answers of one anchor, and this policy's template has max_anchors "
            f"{template.max_anchors}; set it to 1, or ask the policy itself"
        )


def _sum_up(prompt: Prompt, drawn: Sequence[Completion]) -> Completion:
    """The consensus of the answers to one prompt, which carries them."""
    shape = prompt.slices.volume_shape
    answers = [find_evidence(completion.text, shape) for completion in drawn]
    median = median_anchor(answers)
    if median is None:
        return replace(drawn[answers.index(None)], samples=tuple(drawn))
    return Completion(format_evidence(median, shape[1], shape[2]), samples=tuple(drawn))

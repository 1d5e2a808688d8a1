"""The policy that a fit asks when an engine answers."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from medvol.core.prompts import Prompt, PromptTemplate
from medvol.core.roles import Policy
from medvol.core.types import Completion, Sampling

Sample = Callable[[Sequence[Prompt], int, Sampling], list[list[Completion]]]


class EnginePolicy(Policy):
    """Hands questions to an engine.

    Args:
        sample: Writes so many completions for each prompt.
        template: Of the policy that is trained.
    """

    def __init__(self, sample: Sample, template: PromptTemplate) -> None:
        self.sample = sample
        self._template = template

    @property
    def template(self) -> PromptTemplate:
        """That of the policy that is trained."""
        return self._template

    def generate(
        self, prompts: Sequence[Prompt], n: int = 1, sampling: Sampling | None = None
    ) -> list[list[Completion]]:
        """Write ``n`` completions for each prompt, with the weights that the engine has."""
        return self.sample(prompts, n, sampling or Sampling())

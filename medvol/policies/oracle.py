"""OraclePolicy: writes the true anchor, for ceilings."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from medvol.core.errors import ConfigError
from medvol.core.prompts import Prompt, PromptTemplate
from medvol.core.roles import Policy
from medvol.core.types import Completion, Sampling
from medvol.grounding.grammar import format_evidence


class OraclePolicy(Policy):
    """Answers with the true anchor in the answer grammar, so with the grammar's rounding.

    Args:
        num_slices: Slices shown in a prompt; the key slice is one of them.
        coordinate_step: Coordinates are multiples of this, as a policy with a small vocabulary writes them.
        max_anchors: Most anchors in one answer.
    """

    needs_truth: ClassVar[bool] = True

    def __init__(self, num_slices: int = 64, coordinate_step: int = 1, max_anchors: int = 1) -> None:
        self.num_slices = num_slices
        self.coordinate_step = coordinate_step
        self.max_anchors = max_anchors

    @property
    def template(self) -> PromptTemplate:
        """The default layout with the chosen numbers of slices and anchors."""
        return PromptTemplate(
            num_slices=self.num_slices, coordinate_step=self.coordinate_step, max_anchors=self.max_anchors
        )

    def generate(
        self, prompts: Sequence[Prompt], n: int = 1, sampling: Sampling | None = None
    ) -> list[list[Completion]]:
        """Write the truth ``n`` times.

        Raises:
            ConfigError: A prompt carries no truth: the case has no mask.
        """
        return [[Completion(self._answer(prompt))] * n for prompt in prompts]

    def _answer(self, prompt: Prompt) -> str:
        if prompt.truth is None:
            raise ConfigError("OraclePolicy answers with the true anchor, and this query comes without a mask")
        _, height, width = prompt.slices.volume_shape
        return format_evidence(prompt.truth, height, width, self.coordinate_step)

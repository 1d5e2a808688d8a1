"""CentreBoxPolicy: a box in the middle of the middle slice, the baseline that looks at nothing."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from medvol.core.prompts import Prompt, PromptTemplate
from medvol.core.ranges import require_between
from medvol.core.roles import Policy
from medvol.core.types import Completion, Evidence, Sampling
from medvol.grounding.grammar import format_evidence


class CentreBoxPolicy(Policy):
    """Answers every query with the same box; scans cropped around their target make it look good.

    Args:
        share: Side of the box as a share of the slice's side, in (0, 1].
        num_slices: Slices shown in a prompt; the middle one is chosen.
    """

    def __init__(self, share: float = 0.5, num_slices: int = 64) -> None:
        require_between("(0, 1]", share=share)
        self.share = share
        self.num_slices = num_slices

    @property
    def template(self) -> PromptTemplate:
        """The default layout with the chosen number of slices."""
        return PromptTemplate(num_slices=self.num_slices)

    def generate(
        self, prompts: Sequence[Prompt], n: int = 1, sampling: Sampling | None = None
    ) -> list[list[Completion]]:
        """Write the centre box ``n`` times; ``sampling`` changes nothing."""
        return [[Completion(self._answer(prompt))] * n for prompt in prompts]

    def _answer(self, prompt: Prompt) -> str:
        _, height, width = prompt.slices.volume_shape
        low, high = (1 - self.share) / 2, (1 + self.share) / 2
        box = np.array([[low * width, low * height, high * width, high * height]])
        middle = prompt.slices.indices[len(prompt.slices.indices) // 2]
        return format_evidence(Evidence(middle, box, "the middle of the scan"), height, width)

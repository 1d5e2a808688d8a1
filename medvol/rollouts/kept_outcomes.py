"""What became of several prompts of which one failed: whoever then asks for each alone is given it, and pays once."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from medvol.core.errors import PolicyError
from medvol.core.prompts import Prompt
from medvol.core.types import Completion, Sampling

Outcome = list[Completion] | PolicyError


class KeptOutcomes:
    """Outcomes of the last call, where that had several prompts and one of them failed."""

    def __init__(self) -> None:
        self._kept: dict[tuple[Prompt, int, Sampling | None], Outcome] = {}

    def answer(
        self, prompts: Sequence[Prompt], n: int, sampling: Sampling | None, ask: Callable[[], list[Outcome]]
    ) -> list[list[Completion]]:
        """Completions of each prompt.

        Args:
            prompts: Questions.
            n: Completions of each.
            sampling: How they are drawn.
            ask: Asks all of them; not called for a single prompt whose outcome is kept, which is given once.

        Raises:
            PolicyError: A prompt got no answer; what became of the others is kept until the next call.
        """
        asked = [(prompt, n, sampling) for prompt in prompts]
        known = self._kept.pop(asked[0], None) if len(asked) == 1 else None
        outcomes = ask() if known is None else [known]
        failed = next((outcome for outcome in outcomes if isinstance(outcome, PolicyError)), None)
        if len(asked) > 1:
            self._kept = {} if failed is None else dict(zip(asked, outcomes, strict=True))
        if failed is not None:
            raise failed
        return [outcome for outcome in outcomes if not isinstance(outcome, PolicyError)]

"""ScriptedPolicy: canned answers, for tests and demonstrations."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from medvol.core.errors import ConfigError
from medvol.core.prompts import Prompt, PromptTemplate
from medvol.core.roles import Policy
from medvol.core.types import Completion, Sampling


class ScriptedPolicy(Policy):
    """Answers from a script.

    Args:
        answers: Completions written one after another, for every prompt anew; the script starts over at its end.
        by_query: Answer to a query, looked up by its exact text before the script.
        num_slices: Slices shown in a prompt.
        max_anchors: Most anchors in one answer.
    """

    def __init__(
        self,
        answers: Sequence[str] = ("<think>nothing is there</think><answer>[]</answer>",),
        by_query: Mapping[str, str] | None = None,
        num_slices: int = 64,
        max_anchors: int = 1,
    ) -> None:
        if isinstance(answers, str):
            raise ConfigError(f"answers is the text {answers[:80]!r}; give a list of texts")
        if not answers:
            raise ConfigError("ScriptedPolicy needs at least one answer, answers is empty")
        self.answers = tuple(answers)
        self.by_query = dict(by_query or {})
        self.num_slices = num_slices
        self.max_anchors = max_anchors

    @property
    def template(self) -> PromptTemplate:
        """The default layout with the chosen numbers of slices and anchors."""
        return PromptTemplate(num_slices=self.num_slices, max_anchors=self.max_anchors)

    def generate(
        self, prompts: Sequence[Prompt], n: int = 1, sampling: Sampling | None = None
    ) -> list[list[Completion]]:
        """Recite the script; ``sampling`` changes nothing."""
        return [[Completion(self._answer(prompt.query, i)) for i in range(n)] for prompt in prompts]

    def _answer(self, query: str, i: int) -> str:
        return self.by_query.get(query, self.answers[i % len(self.answers)])

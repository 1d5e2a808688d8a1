"""How much a step reads and writes, and how many steps there are."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from medvol.planning.prompt_tokens import PromptTokens
from medvol.planning.step import Step


@dataclass(frozen=True)
class Work:
    """What a batch takes, over all devices.

    Args:
        draws: Answers that are drawn; 0 in SFT.
        tokens_drawn: Most tokens that are written for them.
        tokens_read: Of prompts, before answers are drawn.
        tokens_referred: That go through the reference.
        tokens_learned: That go forward and backward for one optimiser step.
        row_tokens: Of one volume with all its queries and the answers that are learned from.
        steps_per_batch: Of the optimiser.
    """

    draws: int
    tokens_drawn: int
    tokens_read: int
    tokens_referred: int
    tokens_learned: int
    row_tokens: int
    steps_per_batch: float

    def to_dict(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)


def count_work(step: Step, tokens: PromptTokens, answer_tokens: int) -> Work:
    """Count what a batch takes.

    Args:
        step: Sizes of the step.
        tokens: Of a prompt.
        answer_tokens: Of an answer.
    """
    answers = step.queries * step.answers
    row = tokens.prefix + step.queries * (tokens.query + step.taught * answer_tokens)
    return Work(
        draws=step.batch * answers if step.draws else 0,
        tokens_drawn=step.batch * answers * answer_tokens if step.draws else 0,
        tokens_read=step.batch * (tokens.prefix + step.queries * tokens.query) if step.draws else 0,
        tokens_referred=step.batch * row if step.reference else 0,
        tokens_learned=step.batch * row * (1 if step.draws else step.accumulation),
        row_tokens=row,
        steps_per_batch=step.updates if step.draws else 1 / step.accumulation,
    )

"""Phases of a training step, with the memory that each of them has alive at its peak."""

from __future__ import annotations

from dataclasses import dataclass

from medvol.planning.live_bytes import Peak
from medvol.planning.prompt_tokens import PromptTokens

DRAWING, REFERRING, LEARNING, STEPPING, WRITING = (
    "drawing answers",
    "scoring under the reference",
    "learning",
    "optimiser step",
    "writing the model",
)
"""Names of phases."""


@dataclass(frozen=True)
class Phase:
    """A part of a training step.

    Args:
        name: What is done.
        peak: The moment of most memory.
    """

    name: str
    peak: Peak


@dataclass(frozen=True)
class Trace:
    """What a device does in a training step.

    Args:
        tokens: Of a prompt.
        answer_tokens: Of an answer.
        phases: In order.
        layers: Bytes of the layers that ``fsdp2`` shares out, by what they are for.
        largest_layer: Bytes of the largest of them.
        trained: Number of trained weights.
    """

    tokens: PromptTokens
    answer_tokens: int
    phases: tuple[Phase, ...]
    layers: dict[str, int]
    largest_layer: int
    trained: int

    @property
    def peak(self) -> Phase:
        """The phase of most memory."""
        return max(self.phases, key=lambda phase: phase.peak.total)

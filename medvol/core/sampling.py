"""Sampling: how completions are drawn."""

from __future__ import annotations

from dataclasses import dataclass

from medvol.core.ranges import require_finite, require_least, require_whole

_COOLEST = 1e-6
"""Lowest temperature above 0; scores are divided by it."""


@dataclass(frozen=True)
class Sampling:
    """How completions are drawn.

    Args:
        temperature: 0 decodes greedily.
        max_new_tokens: Upper bound on the length of a completion.
        seed: Seed of the draw; ignored when greedy.

    Raises:
        ConfigError: A number is out of range.
    """

    temperature: float = 0.0
    max_new_tokens: int = 256
    seed: int = 0

    def __post_init__(self) -> None:
        require_finite("sampling", temperature=self.temperature, max_new_tokens=self.max_new_tokens, seed=self.seed)
        if self.temperature:
            require_least(_COOLEST, "sampling", temperature=self.temperature)
        require_whole(1, "sampling", max_new_tokens=self.max_new_tokens)
        require_whole(0, "sampling", seed=self.seed)

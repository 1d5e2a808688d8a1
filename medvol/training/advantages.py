"""Advantages: how much better a completion did than its siblings."""

from __future__ import annotations

import torch

from medvol.training.settings import AdvantageScale

_SMALLEST = 1e-4
"""Added to a spread before it divides, as TRL does."""


def group_advantages(rewards: torch.Tensor, scale: AdvantageScale = "group") -> torch.Tensor:
    """Reward above the mean of the group, in units of a spread.

    Args:
        rewards: (N, G) rewards of G completions of N prompts; G at least 2.
        scale: See ``AdvantageSettings``.

    Returns:
        (N, G), of mean 0 within each group; exactly 0 where all of a group earn the same. What rounding would leave of
        equal rewards is small, but AdamW makes a whole step of a gradient of any size.
    """
    above = rewards - rewards[:, :1]
    centred = above - above.mean(dim=1, keepdim=True)
    if scale == "none":
        return centred
    spread = rewards.std(dim=1, keepdim=True) if scale == "group" else rewards.std()
    return centred / (spread + _SMALLEST)


def zero_spread(rewards: torch.Tensor) -> torch.Tensor:
    """Which of the groups (N,) teach nothing: all of their completions earn the same.

    Args:
        rewards: (N, G).
    """
    return (rewards - rewards[:, :1]).abs().amax(dim=1) <= 1e-8

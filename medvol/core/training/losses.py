"""The GRPO loss and its relatives, as plain functions of log-probabilities.

Completions are rows of a padded (N, T) array with a mask; a loss is a sum over tokens, each with a weight that depends
on the completions' lengths only. So a batch can be worked through in pieces: the pieces' losses add up to the loss.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch

from medvol.core.errors import ConfigError
from medvol.core.limits import require_least

LossKind = Literal["grpo", "bnpo", "dr_grpo", "dapo"]
RatioLevel = Literal["token", "sequence"]


@dataclass(frozen=True)
class PolicyLoss:
    """What the loss is.

    Args:
        kind: How tokens are averaged. ``grpo``: within each completion, then over completions (DeepSeekMath). ``bnpo``
            and ``dapo``: over all tokens of the batch; they are one here, since the batch is never split before it is
            averaged. ``dr_grpo``: sums over the longest allowed length, so that length is not rewarded (Dr. GRPO).
        ratio: Clip the probability ratio of each ``token``, or of the whole ``sequence`` (GSPO: its geometric mean).
        epsilon_low: A ratio below 1 minus this brings nothing further.
        epsilon_high: Nor one above 1 plus this.
        ratio_cap: Also bound the ratio of completions that did worse than their siblings, where clipping does not (dual
            clip; 3 in EasyR1, ``delta`` of TRL); None leaves it unbounded.
        beta: Weight of the divergence from the reference policy; 0 leaves it out.
        corrected_kl: Weight the divergence by the probability ratio, which makes its gradient unbiased after the first
            update (DeepSeek-V3.2; the default of TRL).
        max_new_tokens: Longest allowed completion, for ``dr_grpo``.
    """

    kind: LossKind = "grpo"
    ratio: RatioLevel = "token"
    epsilon_low: float = 0.2
    epsilon_high: float = 0.2
    ratio_cap: float | None = None
    beta: float = 0.0
    corrected_kl: bool = False
    max_new_tokens: int = 256

    def __post_init__(self) -> None:
        require_least(0, epsilon_low=self.epsilon_low, epsilon_high=self.epsilon_high, beta=self.beta)
        if self.ratio_cap is not None and self.ratio_cap <= 1 + self.epsilon_high:
            raise ConfigError(f"ratio_cap is {self.ratio_cap}; it must be above 1 + epsilon_high, or null")


class LossTerms(NamedTuple):
    """A loss and what it is made of.

    Args:
        loss: Scalar with gradient: a weighted sum over tokens.
        kl: (N, T) divergence from the reference at each token, without gradient; 0 where there is no reference.
        ratio: (N, T) or (N, 1) probability ratio, without gradient.
        clipped: (N, T) bool: the token's gradient was cut off.
    """

    loss: torch.Tensor
    kl: torch.Tensor
    ratio: torch.Tensor
    clipped: torch.Tensor


def token_weights(mask: torch.Tensor, kind: LossKind, max_new_tokens: int) -> torch.Tensor:
    """Weight (N, T) of each token of a batch.

    Args:
        mask: (N, T) 1 for tokens of a completion, 0 for padding.
        kind: See ``PolicyLoss``.
        max_new_tokens: Longest allowed completion.
    """
    mask = mask.float()
    if kind == "grpo":
        return mask / mask.sum(dim=1, keepdim=True).clamp(min=1) / len(mask)
    if kind == "dr_grpo":
        return mask / (len(mask) * max_new_tokens)
    return mask / mask.sum().clamp(min=1)


def policy_loss(
    new: torch.Tensor,
    old: torch.Tensor,
    advantages: torch.Tensor,
    mask: torch.Tensor,
    weights: torch.Tensor,
    settings: PolicyLoss,
    reference: torch.Tensor | None = None,
) -> LossTerms:
    """Clipped policy loss with a divergence from a reference.

    Args:
        new: (N, T) log-probabilities under the policy, with gradient.
        old: (N, T) under the policy that drew the completions.
        advantages: (N,).
        mask: (N, T) 1 for tokens of a completion, 0 for padding.
        weights: (N, T) of ``token_weights`` of the whole batch; 0 for padding.
        settings: What the loss is.
        reference: (N, T) under the reference policy; needed when ``beta`` is above 0.
    """
    gain = advantages[:, None]
    ratio = _ratio(new, old, mask, settings.ratio)
    bounded = ratio.clamp(1 - settings.epsilon_low, 1 + settings.epsilon_high)
    capped = ratio if settings.ratio_cap is None else ratio.clamp(max=settings.ratio_cap)
    per_token = -torch.minimum(capped * gain, bounded * gain)
    clipped = (ratio * gain > bounded * gain).detach() & mask.bool()
    kl = torch.zeros_like(new)
    if settings.beta > 0:
        if reference is None:
            raise ValueError("beta is above 0, and there are no log-probabilities of the reference")
        kl = divergence(new, reference) * (ratio if settings.corrected_kl else 1)
        per_token = per_token + settings.beta * kl
    return LossTerms((per_token * weights).sum(), kl.detach() * mask, ratio.detach(), clipped)


def divergence(new: torch.Tensor, reference: torch.Tensor) -> torch.Tensor:
    """Estimate of KL(policy || reference) at each token from one draw: never negative, and unbiased (k3, Schulman).

    Args:
        new: (N, T) log-probabilities under the policy.
        reference: (N, T) under the reference.
    """
    gap = reference - new
    return torch.expm1(gap) - gap


def _ratio(new: torch.Tensor, old: torch.Tensor, mask: torch.Tensor, level: RatioLevel) -> torch.Tensor:
    difference = new - old
    if level == "sequence":
        difference = (difference * mask).sum(dim=1, keepdim=True) / mask.sum(dim=1, keepdim=True).clamp(min=1)
    return difference.exp()

"""The GRPO loss and its relatives, as plain functions of log-probabilities.

Completions are rows of a padded (N, T) array with a mask; a loss is a sum over tokens, each with a weight that depends
on the completions' lengths only. So a batch can be worked through in pieces: the pieces' losses add up to the loss.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch

from medvol.training.settings import LossKind, LossSettings, RatioLevel


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


def token_weights(
    mask: torch.Tensor, kind: LossKind, max_new_tokens: int, batch_lengths: Sequence[int] | None = None
) -> torch.Tensor:
    """Weight (N, T) of each token of a batch.

    Args:
        mask: (N, T) 1 for tokens of a completion, 0 for padding.
        kind: See ``LossSettings``.
        max_new_tokens: Longest allowed completion.
        batch_lengths: Tokens of each completion of the batch, of which these may be a part; these alone when None.
    """
    mask = mask.float()
    count = len(mask) if batch_lengths is None else len(batch_lengths)
    if kind == "grpo":
        return mask / mask.sum(dim=1, keepdim=True).clamp(min=1) / count
    if kind == "dr_grpo":
        return mask / (count * max_new_tokens)
    tokens = mask.sum() if batch_lengths is None else mask.new_tensor(float(sum(batch_lengths)))
    return mask / tokens.clamp(min=1)


def policy_loss(
    new: torch.Tensor,
    old: torch.Tensor,
    advantages: torch.Tensor,
    mask: torch.Tensor,
    weights: torch.Tensor,
    settings: LossSettings,
    reference: torch.Tensor | None = None,
    correction: torch.Tensor | None = None,
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
        correction: (N, T) or (N, 1) of ``sampler_weights``; 1 everywhere when None.
    """
    gain = advantages[:, None]
    ratio = _ratio(new, old, mask, settings.importance)
    bounded = ratio.clamp(1 - settings.epsilon_low, 1 + settings.epsilon_high)
    capped = ratio if settings.ratio_cap is None else ratio.clamp(max=settings.ratio_cap)
    per_token = -torch.minimum(capped * gain, bounded * gain)
    if correction is not None:
        per_token = per_token * correction
    clipped = ((ratio * gain > bounded * gain) | ((capped < ratio) & (gain < 0))).detach() & mask.bool()
    kl = torch.zeros_like(new)
    if settings.beta > 0:
        if reference is None:
            raise ValueError("beta is above 0, and there are no log-probabilities of the reference")
        kl = divergence(new, reference) * (ratio if settings.corrected_kl else 1)
        per_token = per_token + settings.beta * kl
    return LossTerms((per_token * weights).sum(), kl.detach() * mask, ratio.detach(), clipped)


def sampler_weights(
    trainer: torch.Tensor, sampler: torch.Tensor, mask: torch.Tensor, cap: float, level: RatioLevel
) -> torch.Tensor:
    """Weights that make up for an engine whose probabilities differ a little from those of the policy.

    ``min(p_trainer / p_sampler, cap)``: truncated importance sampling (Yao et al. 2025, "Your Efficient RL Framework
    Secretly Brings You Off-Policy RL Training"), as TRL does with ``vllm_importance_sampling_mode``
    ``token_truncate`` and ``sequence_truncate``. Of a sequence, the ratio is the product over its tokens.

    Args:
        trainer: (N, T) log-probabilities under the policy before the update.
        sampler: (N, T) at sampling.
        mask: (N, T) 1 for tokens of a completion, 0 for padding.
        cap: Largest weight.
        level: Of tokens or of sequences.

    Returns:
        (N, T), or (N, 1) for sequences; without gradient.
    """
    difference = ((trainer - sampler) * mask).detach()
    if level == "sequence":
        difference = difference.sum(dim=1, keepdim=True)
    return difference.exp().clamp(max=cap)


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

"""Attention over packed rows: a causal prefix without a mask, and what grows from it with one.

The prefix is by far the longest part of a row. Left to the causal kernel, half of its scores are never computed and no
square mask is kept. Where the prefix ends is read from the mask's own shape, so nothing but the mask travels with the
row, and recomputation under gradient checkpointing sees the same.
"""

from __future__ import annotations

from typing import Any

import torch
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import AttentionMaskInterface, sdpa_mask

PACKED_ATTENTION = "medvol_packed"
"""Name to set as the language model's attention implementation."""


def attend_packed(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float | None = None,
    **kwargs: Any,
) -> tuple[torch.Tensor, None]:
    """Attend within packed rows.

    Args:
        module: The attention layer.
        query: (B, heads, L, C).
        key: (B, key heads, K, C); fewer heads than the query's are shared by groups of them.
        value: As ``key``.
        attention_mask: Additive (B, 1, S, K) mask of the last S tokens; with S below L, the first L - S tokens are a
            causal prefix at the start of the keys. With S equal to L, or without a mask, this is the stock attention.
        scaling: Factor of the scores.
        kwargs: What the stock attention takes.

    Returns:
        (B, L, heads, C) and None in place of attention weights.
    """
    prefix = 0 if attention_mask is None else query.shape[2] - attention_mask.shape[-2]
    if prefix <= 0:
        attended, _ = sdpa_attention_forward(module, query, key, value, attention_mask, scaling=scaling, **kwargs)
        return attended, None
    shared = query.shape[1] // key.shape[1]
    key, value = (x.repeat_interleave(shared, dim=1) for x in (key, value))
    of_prefix = scaled_dot_product_attention(
        query[:, :, :prefix], key[:, :, :prefix], value[:, :, :prefix], is_causal=True, scale=scaling
    )
    behind = scaled_dot_product_attention(query[:, :, prefix:], key, value, attn_mask=attention_mask, scale=scaling)
    return torch.cat([of_prefix, behind], dim=2).transpose(1, 2), None


AttentionInterface.register(PACKED_ATTENTION, attend_packed)
AttentionMaskInterface.register(PACKED_ATTENTION, sdpa_mask)

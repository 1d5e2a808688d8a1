"""Attention over packed rows: a causal prefix without a mask, and what grows from it with one.

The prefix is by far the longest part of a row. Left to the causal kernel, half of its scores are never computed and no
square mask is kept. Where the prefix ends is read from the mask's own shape, so nothing but the mask travels with the
row, and recomputation under gradient checkpointing sees the same.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import AttentionMaskInterface, sdpa_mask

PACKED_ATTENTION = "medvol_packed"
"""Name to set as the language model's attention implementation."""


@dataclass
class AttentionRecord:
    """What one layer attended with.

    Args:
        layer: Index of the layer.
        calls: Query (B, heads, L, C), key (B, key heads, K, C), additive mask (B, 1, S, K) of the last S tokens, and
            the factor of the scores, of every call with a mask.
    """

    layer: int
    calls: list[tuple[torch.Tensor, torch.Tensor, torch.Tensor, float]] = field(default_factory=list)

    def log_shares(self, rows: torch.Tensor, sources: torch.Tensor, looked_at: torch.Tensor) -> torch.Tensor:
        """Log of the share of attention that tokens give to others, a mean over heads, in the one call recorded.

        Args:
            rows: (N,) row of each token that looks.
            sources: (N,) its place in the row, behind the prefix.
            looked_at: (N, K) bool, the tokens that count; at least one of each that the mask lets it see.

        Returns:
            (N,), all <= 0.
        """
        ((query, key, mask, scaling),) = self.calls
        keys = key.repeat_interleave(query.shape[1] // key.shape[1], dim=1)
        scores = torch.einsum("nhc,nhkc->nhk", query[rows, :, sources], keys[rows]) * scaling
        behind = sources - (query.shape[2] - mask.shape[2])
        shares = torch.log_softmax((scores + mask[rows, 0, behind][:, None]).float(), dim=-1)
        wanted = shares.masked_fill(~looked_at[:, None], float("-inf")).logsumexp(-1)
        return wanted.logsumexp(1) - math.log(wanted.shape[1])


_AS_ON_GPU: ContextVar[bool] = ContextVar("attend_as_on_gpu", default=False)


@contextmanager
def attend_as_on_gpu() -> Iterator[None]:
    """Take the steps of a GPU on a CPU too, in a ``with`` block: to find out what memory they need."""
    token = _AS_ON_GPU.set(True)
    try:
        yield
    finally:
        _AS_ON_GPU.reset(token)


_RECORD: ContextVar[AttentionRecord | None] = ContextVar("attention_record", default=None)


@contextmanager
def record_attention(layer: int) -> Iterator[AttentionRecord]:
    """Keep what a layer attends with, gradient included, while the context is open."""
    record = AttentionRecord(layer)
    token = _RECORD.set(record)
    try:
        yield record
    finally:
        _RECORD.reset(token)


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
            causal prefix at the start of the keys. Without a mask this is the stock attention.
        scaling: Factor of the scores.
        kwargs: What the stock attention takes.

    Returns:
        (B, L, heads, C) and None in place of attention weights.
    """
    if attention_mask is None:
        attended, _ = sdpa_attention_forward(module, query, key, value, None, scaling=scaling, **kwargs)
        return attended, None
    record = _RECORD.get()
    if record is not None and getattr(module, "layer_idx", None) == record.layer:
        factor = query.shape[-1] ** -0.5 if scaling is None else scaling
        record.calls.append((query, key, attention_mask, factor))
    if (
        query.device.type != "cpu" or _AS_ON_GPU.get()
    ):  # elsewhere the fast kernels take no shared key heads beside a mask
        shared = query.shape[1] // key.shape[1]
        key, value = (x.repeat_interleave(shared, dim=1) for x in (key, value))
    attend = partial(scaled_dot_product_attention, scale=scaling, enable_gqa=key.shape[1] != query.shape[1])
    prefix = query.shape[2] - attention_mask.shape[-2]
    behind = attend(query[:, :, prefix:], key, value, attn_mask=attention_mask)
    if prefix:
        before = attend(query[:, :, :prefix], key[:, :, :prefix], value[:, :, :prefix], is_causal=True)
        behind = torch.cat([before, behind], dim=2)
    return behind.transpose(1, 2), None


AttentionInterface.register(PACKED_ATTENTION, attend_packed)
AttentionMaskInterface.register(PACKED_ATTENTION, sdpa_mask)

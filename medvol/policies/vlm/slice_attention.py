"""Vision attention over many slices of one size in one call.

transformers calls its attention function once for every image unless the implementation's name contains "flash", in
which case it hands over the images' boundaries. A volume is dozens of equal images: one batched call is faster.
"""

from __future__ import annotations

from typing import Any

import torch
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface

SLICE_ATTENTION = "medvol_flash_slices"
"""Name to set as the vision tower's attention implementation."""


def attend_within_slices(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float | None = None,
    cu_seq_lens_q: torch.Tensor | None = None,
    **kwargs: Any,
) -> tuple[torch.Tensor, None]:
    """Attend within each image.

    Args:
        module: The attention layer; not used.
        query: (1, heads, N, C) over all patches of all images.
        key: As ``query``.
        value: As ``query``.
        attention_mask: Not used: every patch of an image sees every other.
        scaling: Factor of the scores.
        cu_seq_lens_q: (images + 1,) boundaries of the images.
        kwargs: What other implementations need.

    Returns:
        (1, N, heads, C) and None in place of attention weights.
    """
    if cu_seq_lens_q is None:
        raise ValueError("the boundaries of the images are missing")
    lengths = cu_seq_lens_q.diff().tolist()
    if len(set(lengths)) == 1:
        return _attend_equal(query, key, value, len(lengths), scaling), None
    parts = zip(*(t.split(lengths, dim=2) for t in (query, key, value)), strict=True)
    return torch.cat([_attend_equal(q, k, v, 1, scaling) for q, k, v in parts], dim=1), None


def _attend_equal(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, images: int, scaling: float | None
) -> torch.Tensor:
    _, heads, total, channels = query.shape
    q, k, v = (t.reshape(heads, images, total // images, channels).transpose(0, 1) for t in (query, key, value))
    attended = scaled_dot_product_attention(q, k, v, scale=scaling)
    return attended.transpose(1, 2).reshape(1, total, heads, channels)


AttentionInterface.register(SLICE_ATTENTION, attend_within_slices)

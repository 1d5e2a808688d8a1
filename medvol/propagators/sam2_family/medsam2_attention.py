"""Memory attention of SAM 2, cut where the track begins to matter.

The first self-attention sees the slice alone, so it belongs to the slice's features: computed once, not once a track
and step. Everything after it is the library's own layers in the library's order.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor


class MemoryAttention:
    """The memory attention of a tracker.

    Args:
        module: ``memory_attention`` of a model of transformers.
        places: (1, N, C) position encoding of a slice's tokens.
    """

    def __init__(self, module: Any, places: Tensor) -> None:
        self._module, self._places = module, places
        with torch.no_grad():
            cosines, sines = module.rotary_emb(places, module.position_ids)
            self._turns = torch.complex(cosines[0, :, ::2].contiguous(), sines[0, :, ::2].contiguous())

    def settle(self, coarse: Tensor) -> Tensor:
        """Coarse features (B, C, h, w) to tokens (B, N, C) after the first self-attention."""
        tokens = coarse.flatten(2).transpose(1, 2) + 0.1 * self._places
        return self._look_around(self._module.layers[0], tokens)

    def recall(self, settled: Tensor, memory: Tensor, places: Tensor, pointers: int) -> Tensor:
        """Let a slice attend to what its track remembers.

        Args:
            settled: (B, N, C) from ``settle``.
            memory: (B, M, c) tokens, pointers last.
            places: (1 or B, M, c) where and when they were seen.
            pointers: How many tokens at the end are pointers, which have no place on a slice.

        Returns:
            (B, N, C).
        """
        tokens, keys = settled, memory + places
        for number, layer in enumerate(self._module.layers):
            if number > 0:
                tokens = self._look_around(layer, tokens)
            attended = self._attend(layer.cross_attn_image, layer.layer_norm2(tokens), keys, memory, pointers)
            tokens = tokens + layer.dropout2(attended)
            widened = layer.dropout(layer.activation(layer.linear1(layer.layer_norm3(tokens))))
            tokens = tokens + layer.dropout3(layer.linear2(widened))
        normed: Tensor = self._module.layer_norm(tokens)
        return normed

    def _look_around(self, layer: Any, tokens: Tensor) -> Tensor:
        """Self-attention of a layer."""
        normed = layer.layer_norm1(tokens)
        added: Tensor = tokens + layer.dropout1(self._attend(layer.self_attn, normed, normed, normed, 0))
        return added

    def _attend(self, attention: Any, query: Tensor, key: Tensor, value: Tensor, pointers: int) -> Tensor:
        """Attention (B, N, C) with rotary places on queries and keys, but for the pointers at the end of the keys."""
        heads = attention.num_attention_heads
        asked, seen, known = (
            part.unflatten(-1, (heads, -1)).transpose(1, 2)
            for part in (attention.q_proj(query), attention.k_proj(key), attention.v_proj(value))
        )
        placed = seen.shape[2] - pointers
        seen = torch.cat([self._turn(seen[:, :, :placed]), seen[:, :, placed:]], dim=2)
        mixed = F.scaled_dot_product_attention(self._turn(asked), seen, known, scale=attention.scaling)
        projected: Tensor = attention.o_proj(mixed.transpose(1, 2).flatten(2))
        return projected

    def _turn(self, tokens: Tensor) -> Tensor:
        """Rotate tokens (B, H, k * N, D) of k slices by their places, as one complex product."""
        pairs = tokens.unflatten(2, (-1, len(self._turns))).unflatten(-1, (-1, 2)).contiguous()
        return torch.view_as_real(torch.view_as_complex(pairs) * self._turns).flatten(-2).flatten(2, 3)

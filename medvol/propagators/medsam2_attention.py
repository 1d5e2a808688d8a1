"""Memory attention of SAM 2, cut where the track begins to matter.

The first self-attention sees the slice alone, so it belongs to the slice's features: computed once, not once a track
and step. Everything after it is the library's own layers in the library's order.
"""

from __future__ import annotations

from typing import Any

import torch
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
            self._turns = module.rotary_emb(places, module.position_ids)

    def settle(self, coarse: Tensor) -> Tensor:
        """Coarse features (B, C, h, w) to tokens (B, N, C) after the first self-attention."""
        tokens = coarse.flatten(2).transpose(1, 2) + 0.1 * self._places
        return self._look_around(self._module.layers[0], tokens[:, None])[:, 0]

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
        tokens, memory, places = settled[:, None], memory[:, None], places[:, None]
        for number, layer in enumerate(self._module.layers):
            if number > 0:
                tokens = self._look_around(layer, tokens)
            attended, _ = layer.cross_attn_image(
                query=layer.layer_norm2(tokens),
                key=memory + places,
                value=memory,
                position_embeddings=self._turns,
                num_k_exclude_rope=pointers,
            )
            tokens = tokens + layer.dropout2(attended)
            widened = layer.dropout(layer.activation(layer.linear1(layer.layer_norm3(tokens))))
            tokens = tokens + layer.dropout3(layer.linear2(widened))
        normed: Tensor = self._module.layer_norm(tokens)[:, 0]
        return normed

    def _look_around(self, layer: Any, tokens: Tensor) -> Tensor:
        """Self-attention of a layer."""
        normed = layer.layer_norm1(tokens)
        attended, _ = layer.self_attn(query=normed, key=normed, value=normed, position_embeddings=self._turns)
        added: Tensor = tokens + layer.dropout1(attended)
        return added

"""From drawn slices to the rows of pixels that a Qwen-VL vision tower reads."""

from __future__ import annotations

import torch

from medvol.core.errors import ConfigError


def to_patches(
    pixels: torch.Tensor, patch: int, merge: int, temporal: int, mean: float = 0.5, std: float = 0.5
) -> torch.Tensor:
    """Cut slices into patches, those of one merged token next to one another.

    Args:
        pixels: (S, 3, H, W) in [0, 1]; H and W are multiples of ``patch * merge``.
        patch: Side of a patch in pixels.
        merge: Patches a side that become one token.
        temporal: Frames a patch spans; a still slice is repeated.
        mean: Subtracted from every channel.
        std: Divides every channel.

    Returns:
        (S * H/patch * W/patch, 3 * temporal * patch * patch), the order of transformers' Qwen2-VL image processor.

    Raises:
        ConfigError: The slices cannot be cut evenly.
    """
    count, channels, height, width = pixels.shape
    side = patch * merge
    if height % side or width % side:
        raise ConfigError(f"slices of {height}x{width} pixels cannot be cut evenly; use multiples of {side}")
    rows, columns = height // side, width // side
    cut = ((pixels - mean) / std).reshape(count, channels, rows, merge, patch, columns, merge, patch)
    cut = cut.permute(0, 2, 5, 3, 6, 1, 4, 7)  # slice, row, column, row in token, column in token, channel, y, x
    flat = cut.reshape(-1, channels, 1, patch, patch).expand(-1, -1, temporal, -1, -1)
    return flat.reshape(-1, channels * temporal * patch * patch)

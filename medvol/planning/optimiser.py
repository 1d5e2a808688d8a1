"""What AdamW keeps and makes on a device, by where it keeps its moments."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from medvol.planning.shadow import Device

_BLOCK = 256
"""Values of 8 bits that share a scale."""

_LEAST = 4096
"""A parameter of fewer values keeps its moments in float32."""


def moments_of(parameter: torch.Tensor, kind: str, device: Device) -> list[torch.Tensor]:
    """The two moments of a parameter, as far as they lie on the device.

    Args:
        parameter: Trained, in float32.
        kind: ``device``, ``host`` or ``8bit``.
        device: On a CPU, the memory of the host is that of the device.
    """
    if kind == "host" and device == "cuda":
        return []
    size = parameter.numel()
    if kind != "8bit" or size < _LEAST:
        return [torch.empty(size) for _ in range(2)]
    return [torch.empty(-(-size // 4) + -(-size // _BLOCK)) for _ in range(2)]  # a byte each, and a scale for a block


def adamw_workspace(sizes: Sequence[int], largest: int, kind: str, device: Device) -> list[int]:
    """Values in float32 that a step makes on its way and drops.

    Args:
        sizes: Of all trained parameters.
        largest: Of them.
        kind: See ``moments_of``.
        device: A GPU works on all parameters at once, and a CPU on one after the other.
    """
    if device == "cpu":
        return [largest] * 2
    return {"device": list(sizes), "host": [largest] * 4, "8bit": []}[kind]

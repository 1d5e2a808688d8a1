"""Precision and place of weights: what learns is kept in float32, and computed with in the type it was published in."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import nn


def widen_trained(network: nn.Module) -> torch.dtype | None:
    """Keep what is trained in float32; in bfloat16 a step of a millionth is rounded away. What is frozen stays.

    Args:
        network: Changed in place; its parameters stay the same objects.

    Returns:
        The type that the trained weights had, to compute in; None where it was float32 already.
    """
    trained = [parameter for parameter in network.parameters() if parameter.requires_grad]
    narrow = next((parameter.dtype for parameter in trained if parameter.dtype != torch.float32), None)
    for parameter in trained:
        parameter.data = parameter.data.float()
    return narrow


def arithmetic(device: torch.device, kind: torch.dtype | None) -> AbstractContextManager[Any]:
    """Compute in a type that is narrower than the weights; None computes in theirs."""
    return nullcontext() if kind is None else torch.autocast(device.type, kind)


def narrowed(weights: dict[str, torch.Tensor], kind: torch.dtype | None) -> dict[str, torch.Tensor]:
    """Weights in the type in which they are published, in the memory of the host; those that share memory still do.

    Args:
        weights: By name.
        kind: None leaves them as they are.
    """
    if kind is None:
        return weights
    cast: dict[tuple[int, torch.Size], torch.Tensor] = {}
    for tensor in weights.values():
        if tensor.is_floating_point():
            cast.setdefault((tensor.data_ptr(), tensor.shape), tensor.to("cpu", kind))
    return {name: cast.get((tensor.data_ptr(), tensor.shape), tensor) for name, tensor in weights.items()}


def move_apart(network: nn.Module, other: nn.Module, device: torch.device) -> None:
    """Bring a network to a device, but for what it shares with another one.

    Args:
        network: Changed in place; its parameters stay the same objects.
        other: Its tensors stay where they are.
        device: Where to.
    """
    shared = {id(tensor) for tensor in (*other.parameters(), *other.buffers())}
    for tensor in (*network.parameters(), *network.buffers()):
        if id(tensor) not in shared and tensor.device != device:
            tensor.data = tensor.data.to(device)

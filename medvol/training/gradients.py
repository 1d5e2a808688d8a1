"""Gradients of several processes: each works on its part of a batch, and their sum is the gradient of the batch.

A loss is always normalised over the whole batch before its gradient is taken, so sums are right and means are not: a
process may have fewer answers than another, or none. The sum is taken once, when all parts of a step are done, so
processes may go through the network as often as they need.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from math import isfinite

import torch
from torch import distributed
from torch.distributed.tensor import DTensor
from torch.nn.parallel import DistributedDataParallel
from torch.nn.utils import clip_grad_norm_, clip_grads_with_norm_, get_total_norm

from medvol.core.errors import PolicyError
from medvol.evaluation.ranks import count_ranks

_BUCKET = 64 * 2**20
"""Values that are summed at a time; they are copied for it."""


def keep_gradients_apart(wrapped: torch.nn.Module | None) -> None:
    """Keep a wrapper of a module from taking the mean of gradients in every backward pass of the step that follows."""
    if isinstance(wrapped, DistributedDataParallel):
        wrapped.require_backward_grad_sync = False


def sum_gradients(parameters: Iterable[torch.nn.Parameter]) -> None:
    """Give every process the sum of the gradients of all; a parameter that none has a gradient for stays without.

    Sharded parameters have theirs already.
    """
    if count_ranks() == 1:
        return
    own = [parameter for parameter in parameters if parameter.requires_grad and not isinstance(parameter, DTensor)]
    if not own:
        return
    felt = torch.tensor([parameter.grad is not None for parameter in own], dtype=torch.int32, device=own[0].device)
    distributed.all_reduce(felt, distributed.ReduceOp.MAX)
    learning = [parameter for parameter, known in zip(own, felt.tolist(), strict=True) if known]
    for parameter in learning:
        if parameter.grad is None:
            parameter.grad = torch.zeros_like(parameter)
    for bucket in _buckets([parameter.grad for parameter in learning if parameter.grad is not None]):
        flat = torch.cat([gradient.flatten() for gradient in bucket])
        distributed.all_reduce(flat)
        for gradient, part in zip(bucket, flat.split([g.numel() for g in bucket]), strict=True):
            gradient.copy_(part.view_as(gradient))


def scale_gradients(parameters: Iterable[torch.nn.Parameter], factor: float) -> None:
    """Multiply all gradients, sharded ones too."""
    if factor == 1:
        return
    for parameter in parameters:
        if parameter.grad is not None:
            parameter.grad.mul_(factor)


def clip_gradients(parameters: Iterable[torch.nn.Parameter], largest: float) -> float:
    """Scale gradients down to a norm, over sharded and whole parameters together.

    Returns:
        Their norm before.
    """
    sharded, entire = _split(parameters)
    if not sharded:
        return float(clip_grad_norm_(entire, largest))
    norm = _total_norm(sharded, entire)
    for part in (sharded, entire):
        clip_grads_with_norm_(part, largest, norm)
    return float(norm)


def require_finite_gradients(parameters: Iterable[torch.nn.Parameter], step: int) -> None:
    """Stop before the weights take a gradient with NaN or infinite values: no later step would bring them back.

    Args:
        parameters: With the gradients of all processes.
        step: Optimiser steps before this one.

    Raises:
        PolicyError: There is such a value.
    """
    require_finite_norm(float(_total_norm(*_split(parameters))), step)


def require_finite_norm(norm: float, step: int) -> None:
    """As ``require_finite_gradients``, where the norm of all gradients is known.

    Raises:
        PolicyError: It is no finite number.
    """
    if not isfinite(norm):
        raise PolicyError(
            f"the gradient of optimiser step {step + 1} holds NaN or infinite values, so training stopped before the "
            "weights took them; go on from an earlier checkpoint with a smaller learning rate, or look at the scans "
            "and answers of this step"
        )


def _split(parameters: Iterable[torch.nn.Parameter]) -> tuple[list[torch.nn.Parameter], list[torch.nn.Parameter]]:
    """Parameters with a gradient: the sharded ones, and the whole ones."""
    own = [parameter for parameter in parameters if parameter.grad is not None]
    sharded: list[torch.nn.Parameter] = [parameter for parameter in own if isinstance(parameter, DTensor)]
    return sharded, [parameter for parameter in own if not isinstance(parameter, DTensor)]


def _total_norm(*parts: Sequence[torch.nn.Parameter]) -> torch.Tensor:
    """Norm of the gradients of sharded and of whole parameters together."""
    norms = [get_total_norm([p.grad for p in part if p.grad is not None]) for part in parts if part]
    whole = [norm.full_tensor() if isinstance(norm, DTensor) else norm for norm in norms]
    return torch.stack(whole).norm() if whole else torch.zeros(())


def _buckets(gradients: Sequence[torch.Tensor]) -> Iterator[list[torch.Tensor]]:
    """Neighbours of one type, so many that their copy stays small."""
    bucket: list[torch.Tensor] = []
    for gradient in gradients:
        full = sum(other.numel() for other in bucket) + gradient.numel() > _BUCKET
        if bucket and (full or gradient.dtype != bucket[0].dtype):
            yield bucket
            bucket = []
        bucket.append(gradient)
    if bucket:
        yield bucket

"""Processes that share a run, called ranks: what they tell one another. A process alone gets its own words back.

Every rank has to call these functions the same number of times and in the same order.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import numpy as np
import torch
from torch import distributed

Value = TypeVar("Value")


def count_ranks() -> int:
    """How many processes share the run."""
    return distributed.get_world_size() if distributed.is_available() and distributed.is_initialized() else 1


def own_rank() -> int:
    """Place of this process among them, from 0."""
    return distributed.get_rank() if count_ranks() > 1 else 0


def gather_ranks(own: Value) -> list[Value]:
    """What each rank has, by rank."""
    if count_ranks() == 1:
        return [own]
    found: list[Any] = [None] * count_ranks()
    distributed.all_gather_object(found, own)
    return found


def sum_ranks(own: torch.Tensor) -> torch.Tensor:
    """Sum over the ranks, without gradient; the tensor itself stays as it is."""
    if count_ranks() == 1:
        return own
    total = own.detach().clone()
    distributed.all_reduce(total)
    return total


def share_of_ranks(count: float) -> float:
    """Part that this rank has of all that the ranks count; 0 where nothing is counted."""
    if count_ranks() == 1:
        return 1.0
    total = sum(gather_ranks(count))
    return count / total if total else 0.0


def whole_loss(part: torch.Tensor) -> torch.Tensor:
    """The loss of the batch in value, and of this rank's part of it in gradient."""
    return part if count_ranks() == 1 else part + (sum_ranks(part) - part.detach())


@contextmanager
def one_stream(*seed: int) -> Iterator[np.random.Generator]:
    """Draw from one source, rank after rank, each from where the one before it stopped.

    So the ranks together draw what one process would. Leave what takes long out of the block.

    Args:
        seed: Of the source.
    """
    rng = np.random.default_rng([*seed])
    for rank in range(count_ranks()):
        if rank == own_rank():
            yield rng
        if count_ranks() > 1:
            state = [rng.bit_generator.state]
            distributed.broadcast_object_list(state, src=rank)
            rng.bit_generator.state = state[0]

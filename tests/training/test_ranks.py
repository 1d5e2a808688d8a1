"""What processes tell one another, in three real ones; each test function of a rank runs in one start of them."""

import os
import tempfile

import numpy as np
import pytest
import torch
from torch import distributed, multiprocessing

from medvol.evaluation.ranks import (
    count_ranks,
    gather_ranks,
    one_stream,
    own_rank,
    share_of_ranks,
    sum_ranks,
    whole_loss,
)
from medvol.training.gradients import keep_gradients_apart, sum_gradients
from medvol.training.losses import token_weights

RANKS = 3


def in_rank(rank: int, place: str) -> None:
    torch.set_num_threads(1)
    distributed.init_process_group("gloo", init_method=f"file://{place}", rank=rank, world_size=RANKS)
    try:
        for check in (talk, draw, add_gradients, leave_wrapper_apart):
            check(rank)
    finally:
        distributed.destroy_process_group()


def talk(rank: int) -> None:
    assert (count_ranks(), own_rank()) == (RANKS, rank)
    assert gather_ranks({"rank": rank}) == [{"rank": 0}, {"rank": 1}, {"rank": 2}]
    own = torch.tensor([float(rank), 1.0], requires_grad=True)
    assert sum_ranks(own).tolist() == [3.0, 3.0]
    assert own.tolist() == [rank, 1.0]
    assert share_of_ranks(rank) == rank / 3
    assert share_of_ranks(0) == 0.0
    loss = whole_loss((own * rank).sum())
    assert loss.item() == sum(r * r + r for r in range(RANKS))
    loss.backward()
    assert own.grad.tolist() == [rank, rank]


def draw(rank: int) -> None:
    """Ranks draw as often as they like, some not at all; together they draw what one process would."""
    counts = [2, 0, 3]
    with one_stream(5, 7) as rng:
        own = [float(rng.random()) for _ in range(counts[rank])]
    whole = np.random.default_rng([5, 7])
    assert [x for part in gather_ranks(own) for x in part] == [float(whole.random()) for _ in range(5)]


def add_gradients(rank: int) -> None:
    everyone, first, nobody, frozen = (torch.nn.Parameter(torch.ones(3)) for _ in range(4))
    frozen.requires_grad_(False)
    narrow = torch.nn.Parameter(torch.ones(2, dtype=torch.bfloat16))
    (everyone.sum() * (rank + 1)).backward()
    (narrow.sum() * rank).backward()
    if rank == 0:
        (first.sum() * 5).backward()
    sum_gradients([everyone, first, nobody, frozen, narrow])
    assert everyone.grad.tolist() == [6.0] * 3
    assert first.grad.tolist() == [5.0] * 3
    assert nobody.grad is None
    assert frozen.grad is None
    assert narrow.grad.dtype == torch.bfloat16
    assert narrow.grad.tolist() == [3.0] * 2


def leave_wrapper_apart(rank: int) -> None:
    """Backward passes that differ in number, of which DDP's own mean would be wrong and then hang."""
    torch.manual_seed(0)
    inner = torch.nn.Linear(2, 1, bias=False)
    wrapped = torch.nn.parallel.DistributedDataParallel(inner)
    keep_gradients_apart(wrapped)
    for _ in range(rank):
        wrapped(torch.ones(1, 2)).sum().backward()
    assert inner.weight.grad is None if rank == 0 else inner.weight.grad.tolist() == [[rank, rank]]
    sum_gradients(wrapped.parameters())
    assert inner.weight.grad.tolist() == [[3.0, 3.0]]


def test_three_processes_know_of_one_another():
    with tempfile.TemporaryDirectory() as folder:
        multiprocessing.start_processes(in_rank, (os.path.join(folder, "meeting"),), nprocs=RANKS, start_method="fork")


def test_a_process_alone_gets_its_own_words_back():
    value = torch.tensor([2.0], requires_grad=True)
    assert (count_ranks(), own_rank(), gather_ranks(3)) == (1, 0, [3])
    assert sum_ranks(value) is value
    assert whole_loss(value) is value
    assert share_of_ranks(0) == 1.0
    sum_gradients([torch.nn.Parameter(value.detach())])
    with one_stream(1, 2) as rng:
        assert rng.random() == np.random.default_rng([1, 2]).random()


@pytest.mark.parametrize("kind", ["grpo", "bnpo", "dr_grpo", "dapo"])
def test_weights_of_parts_are_parts_of_the_weights(kind):
    lengths = [3, 1, 5, 2, 0, 4]
    mask = (torch.arange(5) < torch.tensor(lengths)[:, None]).float()
    whole = token_weights(mask, kind, 8)
    parts = [token_weights(mask[rows], kind, 8, lengths) for rows in (slice(0, 1), slice(1, 4), slice(4, 6))]
    torch.testing.assert_close(torch.cat(parts), whole, rtol=0, atol=0)

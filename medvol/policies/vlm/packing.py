"""Packing a tree of tokens into one row: a volume's prefix, the queries behind it, the completions behind a query.

Every token sees its own branch up to itself, the branches it grows from, and the prefix: nothing of its siblings. The
layout travels as a mask and as positions, so recomputation under gradient checkpointing sees the same. The mask holds
the rows behind the prefix only; the prefix itself is causal.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class Prefix:
    """What all queries of a volume share.

    Args:
        ids: (P,) token ids: slices with their tags, then the instruction.
        positions: (3, P) M-RoPE positions.
        next_position: Position of the token after the prefix.
    """

    ids: torch.Tensor
    positions: torch.Tensor
    next_position: int


@dataclass(frozen=True)
class Branch:
    """Tokens that continue the prefix or an earlier branch.

    Args:
        ids: Token ids, at least one.
        parent: Index of the branch it grows from; None for the prefix.
    """

    ids: Sequence[int]
    parent: int | None = None


@dataclass(frozen=True)
class PackedRow:
    """A prefix and its branches in one row of length L.

    Args:
        ids: (L,) token ids; the first P are the prefix, each of which sees itself and those before it.
        positions: (3, L) M-RoPE positions.
        visible: (L - P, L) bool, True where a token behind the prefix may see the column's.
        starts: Index of the first token of each branch.
    """

    ids: torch.Tensor
    positions: torch.Tensor
    visible: torch.Tensor
    starts: tuple[int, ...]

    @property
    def prefix_length(self) -> int:
        """Tokens of the prefix, P."""
        return len(self.ids) - len(self.visible)


Spans = list[list[tuple[list[int], Sequence[int]]]]
"""Of each query and completion of a row, the places whose states predict its tokens, with the tokens."""


def pack_tree(prefix: Prefix, branches: Sequence[Branch]) -> PackedRow:
    """Lay a tree out in one row; a branch starts at the position after its parent's last token."""
    lengths = [len(branch.ids) for branch in branches]
    starts, cursor = [], len(prefix.ids)
    for length in lengths:
        starts.append(cursor)
        cursor += length
    ends: list[int] = []
    sees = torch.eye(len(branches) + 1, dtype=torch.bool)
    sees[:, 0] = True
    positions = [prefix.positions]
    for i, branch in enumerate(branches):
        first = prefix.next_position if branch.parent is None else ends[branch.parent]
        ends.append(first + lengths[i])
        positions.append(torch.arange(first, ends[i]).expand(3, -1))
        if branch.parent is not None:
            sees[i + 1] |= sees[branch.parent + 1]
    ids = torch.cat([prefix.ids, *(torch.as_tensor(branch.ids, dtype=torch.long) for branch in branches)])
    owner = torch.repeat_interleave(torch.arange(len(branches) + 1), torch.tensor([len(prefix.ids), *lengths]))
    behind = owner[len(prefix.ids) :]
    visible = sees[behind[:, None], owner[None]].tril(len(prefix.ids))
    return PackedRow(ids, torch.cat(positions, dim=1), visible, tuple(starts))


def pack_questions(
    prefix: Prefix, questions: Sequence[tuple[Sequence[int], Sequence[Sequence[int]]]]
) -> tuple[PackedRow, Spans]:
    """Lay out queries and the completions behind each of them.

    Args:
        prefix: What they share.
        questions: Token ids of each query, and of its completions.
    """
    branches: list[Branch] = []
    plan: list[tuple[int, list[int]]] = []
    for query, completions in questions:
        parent = len(branches)
        branches.append(Branch(query))
        plan.append((parent, [parent + 1 + i for i in range(len(completions))]))
        branches.extend(Branch(ids, parent) for ids in completions)
    row = pack_tree(prefix, branches)
    spans: Spans = []
    for parent, children in plan:
        last = row.starts[parent] + len(branches[parent].ids) - 1
        places = {
            child: range(row.starts[child], row.starts[child] + len(branches[child].ids) - 1) for child in children
        }
        spans.append([([last, *places[child]], branches[child].ids) for child in children])
    return row, spans


def stack_rows(rows: Sequence[PackedRow], pad_id: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Pad rows at their end to one length.

    Returns:
        Token ids (B, L), positions (3, B, L) and mask (B, 1, L - P, L) bool of the last tokens, where P is the length
        of the shortest prefix: the first P tokens of every row are causal and need no mask. A padding token sees
        itself only.
    """
    length = max(len(row.ids) for row in rows)
    first = min(row.prefix_length for row in rows)
    ids = torch.full((len(rows), length), pad_id)
    positions = torch.zeros(3, len(rows), length, dtype=torch.long)
    mask = torch.eye(length, dtype=torch.bool)[first:].repeat(len(rows), 1, 1, 1)
    for i, row in enumerate(rows):
        size, behind = len(row.ids), row.prefix_length - first
        ids[i, :size] = row.ids
        positions[:, i, :size] = row.positions
        mask[i, 0, :behind, :size] = torch.ones(behind, size, dtype=torch.bool).tril(first)
        mask[i, 0, behind : size - first, :size] = row.visible
    return ids, positions, mask


def with_prefix(visible: torch.Tensor) -> torch.Tensor:
    """Complete a mask (B, 1, L - P, L) of ``stack_rows`` to (B, 1, L, L): the first P tokens are causal."""
    behind, length = visible.shape[2:]
    before = torch.ones(length - behind, length, dtype=torch.bool).tril()
    return torch.cat([before.expand(len(visible), 1, -1, -1), visible], dim=2)

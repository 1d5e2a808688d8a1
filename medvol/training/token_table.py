"""Completions of many groups as rows of padded arrays, cut into the pieces that go through the network together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from medvol.core.errors import EngineError
from medvol.core.prompts import Prompt
from medvol.core.types import Completion
from medvol.rollouts.groups import Group
from medvol.training.losses import token_weights
from medvol.training.settings import LossKind


@dataclass(frozen=True, eq=False)
class TokenTable:
    """Groups with what the loss needs; row after row the completions of each group.

    Args:
        groups: N / G groups.
        advantages: (N,).
        mask: (N, T) 1 for tokens of a completion, 0 for padding.
        weights: (N, T) of ``token_weights`` over the whole batch, of which this may be a piece.
    """

    groups: tuple[Group, ...]
    advantages: torch.Tensor
    mask: torch.Tensor
    weights: torch.Tensor

    @property
    def prompts(self) -> list[Prompt]:
        """One a group."""
        return [group.prompt for group in self.groups]

    @property
    def completions(self) -> list[list[Completion]]:
        """Those of each group."""
        return [group.completions for group in self.groups]

    @property
    def sampled(self) -> torch.Tensor:
        """(N, T) log-probabilities at sampling, 0 for padding.

        Raises:
            EngineError: A completion comes without them.
        """
        found = [[completion.log_probs for completion in group] for group in self.completions]
        rows = [[torch.from_numpy(row) for row in group if row is not None] for group in found]
        if list(map(len, rows)) != list(map(len, found)):
            raise EngineError("the engine gave completions without log-probabilities; a step cannot be corrected")
        return self.pad(rows).to(self.mask.device)

    def pad(self, scores: Sequence[Sequence[torch.Tensor]]) -> torch.Tensor:
        """Lay a value for each token of each completion of each group out as (N, T), 0 for padding."""
        rows = [row for group in scores for row in group]
        padded = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True)
        return torch.nn.functional.pad(padded, (0, self.mask.shape[1] - padded.shape[1]))


def make_tables(
    groups: Sequence[Group],
    advantages: torch.Tensor,
    taught: torch.Tensor,
    kind: LossKind,
    max_new_tokens: int,
    volumes_per_table: int | None = None,
    batch_lengths: Sequence[int] | None = None,
) -> list[TokenTable]:
    """Cut a batch into tables whose losses add up to the loss of the batch.

    Args:
        groups: All groups of the batch that this process has, those of a volume next to one another.
        advantages: (groups, G).
        taught: (groups,) bool; the others are left out, but count in every mean.
        kind: How tokens are averaged.
        max_new_tokens: Longest allowed completion.
        volumes_per_table: All volumes in one table when None.
        batch_lengths: Tokens of each completion of the batch, of all processes; these groups are the batch when None.
    """
    if not groups:
        return []
    lengths = torch.tensor([[len(completion.token_ids) for completion in group.completions] for group in groups])
    mask = (torch.arange(int(lengths.max())) < lengths.flatten()[:, None]).float().to(advantages.device)
    weights = token_weights(mask, kind, max_new_tokens, batch_lengths)
    size = lengths.shape[1]
    volumes: dict[int, list[int]] = {}
    for i, group in enumerate(groups):
        if taught[i]:
            volumes.setdefault(id(group.prompt.slices), []).append(i)
    members = list(volumes.values())
    step = volumes_per_table or max(1, len(members))
    tables = []
    for start in range(0, len(members), step):
        chosen = [i for part in members[start : start + step] for i in part]
        rows = torch.tensor([i * size + k for i in chosen for k in range(size)], device=advantages.device)
        part = tuple(groups[i] for i in chosen)
        tables.append(TokenTable(part, advantages.flatten()[rows], mask[rows], weights[rows]))
    return tables

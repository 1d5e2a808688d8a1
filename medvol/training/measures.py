"""What rollouts and updates tell about a GRPO run, as plain numbers for the log."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from medvol.training.advantages import zero_spread
from medvol.training.group_notes import GroupNotes
from medvol.training.losses import LossTerms
from medvol.training.token_table import TokenTable


def measure_rollouts(groups: Sequence[GroupNotes]) -> dict[str, float]:
    """Means over a batch of scored groups.

    Returns:
        ``reward``: weighted sum; ``reward_<term>``: score of each term; ``spread`` and ``spread_<term>``: standard
        deviation within a group, a mean over groups; ``zero_spread``: share of groups whose completions all earn the
        same; ``parse_rate``; ``absent_rate``: share of answers ``[]``; ``whole_image``: share of boxes that cover
        nearly the whole slice; ``length``: tokens a completion; ``distinct``: share of different completions in a
        group; ``propagation_failures``: share of rollouts; ``slice_spread`` and ``box_spread``: standard deviation
        within a group of the key slices, in slices, and of the edges of the boxes, as a share of the slice's side, a
        mean over groups with two anchors or more. There is little to choose among where these are near 0.
    """
    rollouts = [rollout for group in groups for rollout in group]
    totals = np.array([[rollout.total for rollout in group] for group in groups])
    measures = {
        "reward": float(totals.mean()),
        "spread": float(totals.std(axis=1, ddof=1).mean()),
        "zero_spread": float(zero_spread(torch.from_numpy(totals)).float().mean()),
        "parse_rate": parse_rate(groups),
        "absent_rate": _share(rollout.absent for rollout in rollouts),
        "whole_image": _share(whole for rollout in rollouts for whole in rollout.whole),
        "length": float(np.mean([rollout.tokens for rollout in rollouts])),
        "distinct": float(np.mean([len({rollout.text for rollout in group}) / len(group) for group in groups])),
        "propagation_failures": _share(rollout.parsed and rollout.failure is not None for rollout in rollouts),
    }
    return {**measures, **_measure_anchors(groups), **_measure_terms(groups)}


@dataclass(frozen=True)
class UpdateSums:
    """Sums over the tokens that one process has of a batch, at one update.

    Args:
        tokens: How many there are.
        loss: Its part of the loss of the batch.
        kl: Divergence from the reference.
        clipped: Tokens whose gradient was cut off.
        ratio: Probability ratio to the policy that drew the completions.
        surprise: Negative log-probabilities.
        gap: Largest difference between the log-probabilities at sampling and those of training.
    """

    tokens: float = 0.0
    loss: float = 0.0
    kl: float = 0.0
    clipped: float = 0.0
    ratio: float = 0.0
    surprise: float = 0.0
    gap: float = 0.0


def sum_update(tables: Sequence[TokenTable], terms: Sequence[LossTerms], old: Sequence[torch.Tensor]) -> UpdateSums:
    """Sum what an update says over the tokens of some tables."""
    masks = [table.mask for table in tables]

    def add(values: Iterable[torch.Tensor]) -> float:
        return sum(float((value * mask).sum()) for value, mask in zip(values, masks, strict=True))

    return UpdateSums(
        tokens=float(sum(mask.sum() for mask in masks)),
        loss=sum(float(term.loss) for term in terms),
        kl=add(term.kl for term in terms),
        clipped=add(term.clipped for term in terms),
        ratio=add(term.ratio for term in terms),
        surprise=add(-before for before in old),
        gap=max((_sampling_gap(table, before) for table, before in zip(tables, old, strict=True)), default=0.0),
    )


def measure_update(parts: Sequence[UpdateSums]) -> dict[str, float]:
    """Means over the tokens of a batch at one update.

    Args:
        parts: What each process has of it.

    Returns:
        ``loss``; ``kl``: divergence from the reference; ``clip_fraction``: share of tokens whose gradient was cut off;
        ``ratio``: probability ratio to the policy that drew the completions; ``entropy``: of the policy at the tokens
        drawn, estimated as the mean of their negative log-probabilities; ``sampling_gap``: largest difference between
        the log-probabilities at sampling and those of training, which should be rounding only.
    """
    tokens = sum(part.tokens for part in parts)
    if not tokens:
        return {"loss": 0.0}
    return {
        "loss": sum(part.loss for part in parts),
        "kl": sum(part.kl for part in parts) / tokens,
        "clip_fraction": sum(part.clipped for part in parts) / tokens,
        "ratio": sum(part.ratio for part in parts) / tokens,
        "entropy": sum(part.surprise for part in parts) / tokens,
        "sampling_gap": max(part.gap for part in parts),
    }


def _sampling_gap(table: TokenTable, before: torch.Tensor) -> float:
    gaps = [
        float((torch.from_numpy(completion.log_probs).to(row.device) - row[: len(completion.log_probs)]).abs().max())
        for completion, row in zip((c for group in table.completions for c in group), before, strict=True)
        if completion.log_probs is not None
    ]
    return max(gaps, default=0.0)


def parse_rate(groups: Sequence[GroupNotes]) -> float:
    """Share of the completions that follow the answer grammar."""
    return _share(rollout.parsed for group in groups for rollout in group)


def _measure_terms(groups: Sequence[GroupNotes]) -> Mapping[str, float]:
    measures = {}
    for name in groups[0][0].scores:
        scores = np.array([[rollout.scores[name] for rollout in group] for group in groups])
        measures[f"reward_{name}"] = float(scores.mean())
        measures[f"spread_{name}"] = float(scores.std(axis=1, ddof=1).mean())
    return measures


def _measure_anchors(groups: Sequence[GroupNotes]) -> Mapping[str, float]:
    slices: list[float] = []
    edges: list[float] = []
    for group in groups:
        named = [(r.key_slice, r.edges) for r in group if r.key_slice is not None]
        if len(named) > 1:
            slices.append(float(np.std([key_slice for key_slice, _ in named], ddof=1)))
            edges.append(float(np.std([own for _, own in named], axis=0, ddof=1).mean()))
    return {"slice_spread": _mean(slices), "box_spread": _mean(edges)}


def _mean(values: Sequence[float]) -> float:
    return float(np.mean(values)) if values else 0.0


def _share(marks: Iterable[bool]) -> float:
    values = list(marks)
    return sum(values) / len(values) if values else 0.0

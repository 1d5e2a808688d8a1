"""What rollouts and updates tell about a GRPO run, as plain numbers for the log."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import torch

from medvol.core.types import Rollout
from medvol.rollouts.groups import Group
from medvol.training.advantages import zero_spread
from medvol.training.losses import LossTerms
from medvol.training.token_table import TokenTable

_WHOLE = 0.9
"""A box that covers this share of a slice is called a whole-image box."""


def measure_rollouts(groups: Sequence[Group]) -> dict[str, float]:
    """Means over a batch of scored groups.

    Returns:
        ``reward``: weighted sum; ``reward_<term>``: score of each term; ``spread`` and ``spread_<term>``: standard
        deviation within a group, a mean over groups; ``zero_spread``: share of groups whose completions all earn the
        same; ``parse_rate``; ``absent_rate``: share of answers ``[]``; ``whole_image``: share of boxes that cover
        nearly the whole slice; ``length``: tokens a completion; ``distinct``: share of different completions in a
        group; ``propagation_failures``: share of rollouts.
    """
    rollouts = [rollout for group in groups for rollout in group.rollouts]
    totals = np.array([[reward.total for reward in group.rewards] for group in groups])
    measures = {
        "reward": float(totals.mean()),
        "spread": float(totals.std(axis=1, ddof=1).mean()),
        "zero_spread": float(zero_spread(torch.from_numpy(totals)).float().mean()),
        "parse_rate": parse_rate(groups),
        "absent_rate": _share(rollout.evidence is not None and rollout.evidence.absent for rollout in rollouts),
        "whole_image": _whole_image_share(groups),
        "length": float(np.mean([len(rollout.completion.token_ids) for rollout in rollouts])),
        "distinct": float(np.mean([len({r.completion.text for r in g.rollouts}) / len(g.rollouts) for g in groups])),
        "propagation_failures": _share(r.evidence is not None and r.failure is not None for r in rollouts),
    }
    return {**measures, **_measure_terms(groups)}


def measure_update(
    tables: Sequence[TokenTable], terms: Sequence[LossTerms], old: Sequence[torch.Tensor]
) -> dict[str, float]:
    """Means over the tokens of a batch at one update.

    Returns:
        ``loss``; ``kl``: divergence from the reference; ``clip_fraction``: share of tokens whose gradient was cut off;
        ``ratio``: probability ratio to the policy that drew the completions; ``entropy``: of the policy at the tokens
        drawn, estimated as the mean of their negative log-probabilities; ``sampling_gap``: largest difference between
        the log-probabilities at sampling and those of training, which should be rounding only.
    """
    if not tables:
        return {"loss": 0.0}
    masks = [table.mask for table in tables]
    tokens = float(sum(mask.sum() for mask in masks))

    def mean(values: Iterable[torch.Tensor]) -> float:
        return sum(float((value * mask).sum()) for value, mask in zip(values, masks, strict=True)) / tokens

    return {
        "loss": sum(float(term.loss) for term in terms),
        "kl": mean(term.kl for term in terms),
        "clip_fraction": mean(term.clipped for term in terms),
        "ratio": mean(term.ratio for term in terms),
        "entropy": mean(-before for before in old),
        "sampling_gap": max(_sampling_gap(table, before) for table, before in zip(tables, old, strict=True)),
    }


def _sampling_gap(table: TokenTable, before: torch.Tensor) -> float:
    gaps = [
        float((torch.from_numpy(completion.log_probs).to(row.device) - row[: len(completion.log_probs)]).abs().max())
        for completion, row in zip((c for group in table.completions for c in group), before, strict=True)
        if completion.log_probs is not None
    ]
    return max(gaps, default=0.0)


def parse_rate(groups: Sequence[Group]) -> float:
    """Share of the completions that follow the answer grammar."""
    return _share(rollout.evidence is not None for group in groups for rollout in group.rollouts)


def _measure_terms(groups: Sequence[Group]) -> Mapping[str, float]:
    measures = {}
    for name in groups[0].rewards[0].scores:
        scores = np.array([[reward.scores[name] for reward in group.rewards] for group in groups])
        measures[f"reward_{name}"] = float(scores.mean())
        measures[f"spread_{name}"] = float(scores.std(axis=1, ddof=1).mean())
    return measures


def _whole_image_share(groups: Sequence[Group]) -> float:
    def covers(rollout: Rollout, size: int) -> list[bool]:
        boxes = np.empty((0, 4)) if rollout.evidence is None else rollout.evidence.boxes
        areas = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
        return [bool(area >= _WHOLE * size) for area in areas]

    return _share(
        whole
        for group in groups
        for rollout in group.rollouts
        for whole in covers(rollout, int(np.prod(group.case.volume.shape[1:])))
    )


def _share(marks: Iterable[bool]) -> float:
    values = list(marks)
    return sum(values) / len(values) if values else 0.0

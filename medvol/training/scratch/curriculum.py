"""The curriculum: a few slices of a volume at a time, each at its place in the full drawing."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from medvol.core.types import Case, SliceStack
from medvol.policies.slice_subset import keep_slices
from medvol.training.scratch.occupancy import occupancy_labels, rarest_slices
from medvol.training.scratch.settings import CurriculumSettings
from medvol.training.sft import Row
from medvol.training.true_answers import clear_slices


def deal_rows(
    cases: Sequence[Case], drawing: SliceStack, settings: CurriculumSettings, rng: np.random.Generator
) -> list[Row]:
    """Deal the slices of a volume out to rows, at random, and ask of each row only what it shows clearly.

    Args:
        cases: Cases that share the volume, each with its target mask.
        drawing: All slices of the volume that a policy sees.
        settings: How many slices, rows and queries.
        rng: Source of the draws.

    Returns:
        Rows with at least one case; no slice is in two of them.
    """
    if settings.rows is None:
        order = rng.permutation(len(drawing.indices))
    else:
        count = settings.rows * settings.slices
        order = rng.permutation(rarest_slices(occupancy_labels(cases), drawing, count, rng))
    rows = []
    for start in range(0, len(order), settings.slices):
        kept = keep_slices(drawing, sorted(order[start : start + settings.slices].tolist()))
        clear = [case for case in cases if clear_slices(case, kept.indices)]
        chosen = rng.permutation(len(clear))[: settings.queries]
        if len(chosen):
            rows.append(Row(cases, kept, [clear[i] for i in sorted(chosen)]))
    return rows

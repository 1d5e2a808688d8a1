"""The rollout inspector: a few rollouts of a training step as one picture."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from medvol.core.atomic_files import write_whole
from medvol.core.types import require_target
from medvol.grounding.boxes import tight_boxes
from medvol.imaging.windows import apply_window, get_window, window_for_target, window_limits
from medvol.inference.overlay_marks import BOX_COLOUR, MASK_COLOUR, draw_boxes
from medvol.rollouts.groups import Group

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_SIDE_IN = 2.6


def draw_rollouts(
    path: Path, groups: Sequence[Group], split_boxes: bool = True, rows: int = 4, columns: int = 4
) -> Path:
    """Draw rollouts as PNG: the chosen slice, predicted and true boxes on it, the score of each term.

    Args:
        path: File to write.
        groups: Scored groups; the first few are drawn, one a row.
        split_boxes: One true box for each part of the target; one of the whole target otherwise.
        rows: Most groups.
        columns: Most rollouts of a group, from the one that earns most to the one that earns least.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    shown = [_spread_out(group, columns) for group in groups[:rows]]
    high, wide = len(shown), max(map(len, shown))
    figure = Figure(figsize=(wide * _SIDE_IN, high * (_SIDE_IN + 1.0)), dpi=100, layout="tight")
    FigureCanvasAgg(figure)
    grid = figure.subplots(high, wide, squeeze=False)
    for axes in grid.flat:
        axes.set_axis_off()
    for i, (group, members) in enumerate(zip(groups, shown, strict=False)):
        for axes, k in zip(grid[i], members, strict=False):
            _draw(axes, group, k, split_boxes)
    with write_whole(path) as partial:
        figure.savefig(partial, format="png", metadata={"Software": None})
    return path


def _spread_out(group: Group, count: int) -> list[int]:
    """Indices of rollouts from best to worst, evenly chosen."""
    order = sorted(range(len(group.rewards)), key=lambda i: -group.rewards[i].total)
    return [order[i] for i in np.unique(np.linspace(0, len(order) - 1, min(count, len(order))).round().astype(int))]


def _draw(axes: Axes, group: Group, k: int, split_boxes: bool) -> None:
    case, rollout, reward = group.case, group.rollouts[k], group.rewards[k]
    volume, evidence = case.volume, rollout.evidence
    key = None if evidence is None else evidence.key_slice
    z = volume.shape[0] // 2 if key is None else key
    limits = window_limits(volume, get_window(window_for_target(case.query.text)))
    aspect = volume.spacing[1] / volume.spacing[2]
    axes.imshow(apply_window(volume.voxels[z], *limits), cmap="gray", vmin=0, vmax=1, aspect=aspect)
    draw_boxes(axes, tight_boxes(require_target(case)[z], split=split_boxes), MASK_COLOUR)
    if evidence is not None:
        draw_boxes(axes, evidence.boxes, BOX_COLOUR, linestyle="--")
    others = () if evidence is None else evidence.further
    said = rollout.failure or ("absent" if key is None else f"slice {z}")
    said += f" of {1 + len(others)}" if others else ""
    scores = "  ".join(f"{name.removesuffix('Reward').lower()} {score:.2f}" for name, score in reward.scores.items())
    query = textwrap.wrap(group.prompt.query, 40, max_lines=2, placeholder=" ...")
    lines = (*query, f"{said}, reward {reward.total:.2f}", scores)
    axes.set_title("\n".join(lines), fontsize=6, parse_math=False)

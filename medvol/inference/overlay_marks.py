"""Marks that are drawn on a picture of a slice: boxes, outlines, a scale bar, letters."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from medvol.core.types import Volume

if TYPE_CHECKING:
    from matplotlib.axes import Axes

BOX_COLOUR = "#ffd166"
REGION_COLOUR = "#8ecae6"
MASK_COLOUR = "#06d6a0"
TRUTH_COLOUR = "#ff7ab8"
TEXT_COLOUR = "#f2f2f2"
BACKGROUND = "#000000"
_BAR_MM = (200, 100, 50, 20, 10, 5, 2, 1)


def draw_boxes(
    axes: Axes, boxes: NDArray[np.float64], colour: str, linewidth: float = 1.0, linestyle: str = "-"
) -> None:
    """Frame half-open boxes (N, 4) along their pixel edges."""
    from matplotlib.patches import Rectangle

    for x1, y1, x2, y2 in boxes.tolist():
        frame = Rectangle((x1 - 0.5, y1 - 0.5), x2 - x1, y2 - y1, fill=False, edgecolor=colour)
        frame.set(linewidth=linewidth, linestyle=linestyle)
        axes.add_patch(frame)


def draw_outline(axes: Axes, mask: NDArray[np.bool_], linewidth: float, colour: str = MASK_COLOUR) -> None:
    """Contour along the mask's pixel edges; the padding closes it at the border of the slice."""
    if not mask.any():
        return
    padded = np.pad(mask, 1).astype(np.float64)
    rows, columns = np.arange(-1, mask.shape[0] + 1), np.arange(-1, mask.shape[1] + 1)
    axes.contour(columns, rows, padded, levels=[0.5], colors=[colour], linewidths=linewidth)


def draw_scale_bar(axes: Axes, volume: Volume) -> None:
    """A bar of a round length, at most a fifth or so of the slice's width."""
    _, height, width = volume.shape
    spacing_x = volume.spacing[2]
    length_mm = next((mm for mm in _BAR_MM if mm <= 0.22 * width * spacing_x), _BAR_MM[-1])
    length_px = length_mm / spacing_x
    right, y = 0.97 * width - 0.5, 0.955 * height - 0.5
    axes.plot([right - length_px, right], [y, y], color=TEXT_COLOUR, linewidth=2.2, solid_capstyle="butt")
    text = f"{length_mm // 10} cm" if length_mm >= 10 else f"{length_mm} mm"
    draw_label(axes, 0.97 - length_px / width / 2, 0.055, text, 9, "center", "bottom")


def draw_label(axes: Axes, x: float, y: float, text: str, size: int, across: str, along: str) -> None:
    """Write a text at (x, y) as shares of the picture's sides; ``across`` and ``along`` say what lies there."""
    from matplotlib.patheffects import withStroke

    axes.text(
        x,
        y,
        text,
        transform=axes.transAxes,
        color=TEXT_COLOUR,
        fontsize=size,
        ha=across,
        va=along,
        path_effects=[withStroke(linewidth=2, foreground=BACKGROUND)],
        parse_math=False,
    )

"""The overlay: a picture of the key slice with the boxes, the mask's contour, sides and a scale bar.

Key slices of an answer with several anchors lie beside and below one another, from feet to head.
"""

from __future__ import annotations

import io
import math
import textwrap
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from medvol.core.looks import Region
from medvol.core.metrics import volume_ml
from medvol.core.types import Evidence, Volume
from medvol.core.visible_text import show
from medvol.imaging.windows import apply_window, get_window, window_for_target, window_limits
from medvol.inference.confidence import briefly
from medvol.inference.novelty import AnswerWarning
from medvol.inference.overlay_marks import (
    BACKGROUND,
    BOX_COLOUR,
    REGION_COLOUR,
    TEXT_COLOUR,
    TRUTH_COLOUR,
    draw_boxes,
    draw_label,
    draw_outline,
    draw_scale_bar,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_QUIET = "#b0b0b0"
_WARNING = "#ff9f1c"
_HEIGHT_IN = 6.0
_GAP_IN = 0.05
_DPI = 110
_CONTEXT_SHARE = 0.3
"""Least part of the slice's side that a context picture shows."""


@dataclass(frozen=True, eq=False)
class Picture:
    """What is shown of an answer.

    Args:
        volume: The scan.
        query: Text of the question.
        mask: (Z, Y, X) bool on the volume's grid.
        evidence: The anchor; of an absent one the middle slice is shown.
        warnings: Why the answer may be worth nothing.
        edited: True when a person changed the anchor.
        truth: The true mask on the same grid; None where none is shown.
        shown_slice: Slice that is shown; the key slice, or the middle one, when None.
        region: What a second look showed, which is framed by a dashed line; None where there was one look.
    """

    volume: Volume
    query: str
    mask: NDArray[np.bool_]
    evidence: Evidence
    warnings: Sequence[AnswerWarning] = ()
    edited: bool = False
    truth: NDArray[np.bool_] | None = None
    shown_slice: int | None = None
    region: Region | None = None


def render_overlay(picture: Picture, context: bool = True, dpi: int = _DPI) -> bytes:
    """Draw an answer as PNG; the same answer always gives the same bytes.

    Args:
        picture: The answer; of an absent one the middle slice is shown.
        context: Also show three slices through the mask's extent, close up, so that a leak is seen.
        dpi: Pixels for each of the six inches that the key slice is high.
    """
    return _to_png(draw_overlay(picture, context), dpi)


def draw_overlay(picture: Picture, context: bool = True) -> Figure:
    """Draw an answer as a figure of matplotlib; arguments as of ``render_overlay``."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    from medvol.inference.shown_figure import ShownFigure

    shown, limits, wide = _shown_slice(picture), _limits(picture), _wide_in(picture.volume)
    title = _wrap(picture.query, wide)
    banner = _warn(picture, wide)
    full_wide = wide * (4 / 3 if context else 1) + _GAP_IN * context
    below = 0.1 + 0.22 * (title.count("\n") + 1)
    full_high = _HEIGHT_IN + 0.3 + below + 0.18 * len(banner.splitlines())
    figure = ShownFigure(figsize=(full_wide, full_high), dpi=_DPI, facecolor=BACKGROUND)
    FigureCanvasAgg(figure)
    tall = _HEIGHT_IN / full_high
    _draw_key_slices(figure, (wide / full_wide, tall), picture, limits)
    if context:
        crop = _close_up(picture.mask)
        for row, z in enumerate(_context_slices(picture.mask, shown)):
            place = (1 - wide / 3 / full_wide, tall * (2 - row) / 3, wide / 3 / full_wide, tall / 3 - 0.005)
            _draw_context(figure.add_axes(place), picture, z, limits, crop)
    caption = _caption(picture, shown)
    for text, inches, size, colour in (
        (title, 0.1, 12, TEXT_COLOUR),
        (banner, below, 10, _WARNING),
        (caption, 0, 9, _QUIET),
    ):
        y, along = (1 - inches / full_high, "top") if inches else (tall + 0.08 / full_high, "bottom")
        figure.text(0.12 / full_wide, y, text, color=colour, fontsize=size, va=along, parse_math=False)
    return figure


def render_key_slice(picture: Picture) -> bytes:
    """Draw the key slice with boxes and contour as PNG, without words; of an absent answer the middle slice."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(_wide_in(picture.volume), _HEIGHT_IN), dpi=_DPI, facecolor=BACKGROUND)
    FigureCanvasAgg(figure)
    _draw_key_slices(figure, (1.0, 1.0), picture, _limits(picture))
    return _to_png(figure)


def _shown_slice(picture: Picture) -> int:
    if picture.shown_slice is not None:
        return picture.shown_slice
    key = picture.evidence.key_slice
    return picture.volume.shape[0] // 2 if key is None else key


def _limits(picture: Picture) -> tuple[float, float]:
    return window_limits(picture.volume, get_window(window_for_target(picture.query)))


def _wide_in(volume: Volume) -> float:
    """Width of a slice that is as high as the picture; at most two to one."""
    _, height, width = volume.shape
    _, spacing_y, spacing_x = volume.spacing
    return _HEIGHT_IN * min(max(width * spacing_x / (height * spacing_y), 0.5), 2.0)


def _to_png(figure: Figure, dpi: int = _DPI) -> bytes:
    picture = io.BytesIO()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing from font")  # a query in a script that the font lacks
        figure.savefig(picture, format="png", dpi=dpi, facecolor=BACKGROUND, metadata={"Software": None})
    return picture.getvalue()


def _wrap(query: str, wide_in: float) -> str:
    """A query on at most two lines."""
    lines = textwrap.wrap(show(" ".join(query.split())), max(20, int(wide_in * 10)), max_lines=2, placeholder=" ...")
    return "\n".join(lines)


def _warn(picture: Picture, wide_in: float) -> str:
    """Warnings in a few words, on at most three lines; empty without any."""
    if not picture.warnings:
        return ""
    text = f"WARNING: {briefly(picture.warnings)}"
    return "\n".join(textwrap.wrap(text, max(24, int(wide_in * 12)), max_lines=3, placeholder=" ..."))


def _context_slices(mask: NDArray[np.bool_], shown: int) -> tuple[int, int, int]:
    """Slices near the head end, the middle and the feet end of the mask; around the shown one when it is empty."""
    filled = np.flatnonzero(mask.any(axis=(1, 2)))
    if len(filled) == 0:
        return min(shown + 1, len(mask) - 1), shown, max(shown - 1, 0)
    low, middle, high = (int(filled[round(share * (len(filled) - 1))]) for share in (0.1, 0.5, 0.9))
    return high, middle, low


def _close_up(mask: NDArray[np.bool_]) -> tuple[float, float, float, float]:
    """Part of the slices that shows the whole mask with a margin, in the slice's own proportions: x1, x2, y1, y2."""
    height, width = mask.shape[1:]
    rows, columns = np.flatnonzero(mask.any(axis=(0, 2))), np.flatnonzero(mask.any(axis=(0, 1)))
    if len(rows) == 0:
        return -0.5, width - 0.5, -0.5, height - 0.5
    spans = 1.4 * np.ptp(columns) / width, 1.4 * np.ptp(rows) / height, _CONTEXT_SHARE
    share = min(max(spans), 1.0)
    x = _interval((columns[0] + columns[-1]) / 2, share * width, width)
    y = _interval((rows[0] + rows[-1]) / 2, share * height, height)
    return *x, *y


def _interval(centre: float, length: float, size: int) -> tuple[float, float]:
    """An interval of that length, about the centre as far as it fits into the slice."""
    start = min(max(centre - length / 2, -0.5), size - 0.5 - length)
    return start, start + length


def _draw_key_slices(figure: Figure, size: tuple[float, float], picture: Picture, limits: tuple[float, float]) -> None:
    """One picture a key slice in a grid at the lower left, of that size in shares of the figure."""
    anchors = sorted(picture.evidence.anchors, key=lambda anchor: anchor.key_slice or 0)
    columns = math.ceil(math.sqrt(len(anchors)))
    wide, high = size[0] / columns, size[1] / math.ceil(len(anchors) / columns)
    for i, anchor in enumerate(anchors):
        axes = figure.add_axes((wide * (i % columns), size[1] - high * (1 + i // columns), wide, high))
        z = _shown_slice(picture) if anchor.key_slice is None else anchor.key_slice
        _draw_key_slice(axes, picture, anchor, z, limits)
        if len(anchors) > 1:
            draw_label(axes, 0.03, 0.97, f"slice {z}", 9, "left", "top")


def _draw_key_slice(axes: Axes, picture: Picture, anchor: Evidence, z: int, limits: tuple[float, float]) -> None:
    volume = picture.volume
    _show(axes, volume, z, limits)
    if picture.truth is not None:
        draw_outline(axes, picture.truth[z], 1.6, TRUTH_COLOUR)
    draw_outline(axes, picture.mask[z], 1.6)
    if anchor.key_slice is not None:
        draw_boxes(axes, anchor.boxes, BOX_COLOUR, linewidth=1.6)
    if picture.region is not None:
        (y1, y2), (x1, x2) = picture.region.y, picture.region.x
        draw_boxes(axes, np.array([[x1, y1, x2, y2]], np.float64), REGION_COLOUR, 1.2, "--")
    for text, x, y, across, along in (
        ("R", 0.015, 0.5, "left", "center"),
        ("L", 0.985, 0.5, "right", "center"),
        ("A", 0.5, 0.985, "center", "top"),
        ("P", 0.5, 0.015, "center", "bottom"),
    ):
        draw_label(axes, x, y, text, 12, across, along)
    draw_scale_bar(axes, volume)


def _draw_context(
    axes: Axes,
    picture: Picture,
    z: int,
    limits: tuple[float, float],
    crop: tuple[float, float, float, float],
) -> None:
    _show(axes, picture.volume, z, limits)
    draw_outline(axes, picture.mask[z], 1.0)
    axes.set_xlim(crop[0], crop[1])
    axes.set_ylim(crop[3], crop[2])
    draw_label(axes, 0.03, 0.97, f"slice {z}", 8, "left", "top")


def _show(axes: Axes, volume: Volume, z: int, limits: tuple[float, float]) -> None:
    _, spacing_y, spacing_x = volume.spacing
    axes.imshow(
        apply_window(volume.voxels[z], *limits),
        cmap="gray",
        origin="upper",
        vmin=0,
        vmax=1,
        interpolation="bilinear",
        aspect=spacing_y / spacing_x,
    )
    axes.set_axis_off()


def _caption(picture: Picture, shown: int) -> str:
    depth = picture.volume.shape[0]
    if picture.evidence.absent:
        return f"answer: not in this scan (middle slice {shown} of 0..{depth - 1} shown)"
    amount = volume_ml(picture.mask, picture.volume.spacing)
    filled = int(picture.mask.any(axis=(1, 2)).sum())
    edited = ", anchor edited by hand" if picture.edited else ""
    keys = ", ".join(map(str, picture.evidence.key_slices))
    name = "key slices" if picture.evidence.further else "key slice"
    return f"{name} {keys} of 0..{depth - 1}, mask {amount:.4g} ml on {filled} slices{edited}"

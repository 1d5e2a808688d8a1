"""The overlay: a picture of the key slice with the boxes, the mask's contour, sides and a scale bar."""

from __future__ import annotations

import io
import textwrap
import warnings
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from medvol.core.evaluation.metrics import volume_ml
from medvol.core.imaging.windows import apply_window, get_window, window_for_target, window_limits
from medvol.core.types import Segmentation, Volume

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

BOX_COLOUR = "#ffd166"
MASK_COLOUR = "#06d6a0"
_BACKGROUND = "#000000"
_TEXT = "#f2f2f2"
_BAR_MM = (200, 100, 50, 20, 10, 5, 2, 1)
_HEIGHT_IN = 6.0
_HEADER_IN = 0.95
_DPI = 110


def render_overlay(segmentation: Segmentation, context: bool = True) -> bytes:
    """Draw an answer as PNG; the same answer always gives the same bytes.

    Args:
        segmentation: The answer; of an absent one the middle slice is shown.
        context: Also show three slices through the mask's extent, so that a leak is seen.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    volume = segmentation.volume
    depth, height, width = volume.shape
    _, spacing_y, spacing_x = volume.spacing
    ratio = min(max(width * spacing_x / (height * spacing_y), 0.5), 2.0)
    main, side = _HEIGHT_IN * ratio, _HEIGHT_IN / 3 * ratio
    size = (main + (side + 0.05 if context else 0), _HEIGHT_IN + _HEADER_IN)
    figure = Figure(figsize=size, dpi=_DPI, facecolor=_BACKGROUND)
    FigureCanvasAgg(figure)
    limits = window_limits(volume, get_window(window_for_target(segmentation.query)))
    key = segmentation.evidence.key_slice
    shown = depth // 2 if key is None else key
    tall = _HEIGHT_IN / size[1]
    _draw_key_slice(figure.add_axes((0, 0, main / size[0], tall)), segmentation, shown, limits)
    if context:
        for row, z in enumerate(_context_slices(segmentation.mask, shown)):
            box = (1 - side / size[0], tall * (2 - row) / 3, side / size[0], tall / 3 - 0.005)
            _draw_context(figure.add_axes(box), segmentation, z, limits)
    _write_header(figure, segmentation, shown)
    picture = io.BytesIO()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing from font")  # a query in a script that the font lacks
        figure.savefig(picture, format="png", facecolor=_BACKGROUND, metadata={"Software": None})
    return picture.getvalue()


def _context_slices(mask: NDArray[np.bool_], shown: int) -> tuple[int, int, int]:
    """Slices near the head end, the middle and the feet end of the mask; around the shown one when it is empty."""
    filled = np.flatnonzero(mask.any(axis=(1, 2)))
    if len(filled) == 0:
        last = mask.shape[0] - 1
        return min(shown + 1, last), shown, max(shown - 1, 0)
    low, middle, high = (int(filled[round(share * (len(filled) - 1))]) for share in (0.1, 0.5, 0.9))
    return high, middle, low


def _draw_key_slice(axes: Axes, segmentation: Segmentation, z: int, limits: tuple[float, float]) -> None:
    from matplotlib.patches import Rectangle

    volume = segmentation.volume
    _show(axes, volume, z, limits)
    _outline(axes, segmentation.mask[z], 1.6)
    if segmentation.evidence.key_slice is not None:
        for x1, y1, x2, y2 in segmentation.evidence.boxes.tolist():
            axes.add_patch(
                Rectangle((x1 - 0.5, y1 - 0.5), x2 - x1, y2 - y1, fill=False, edgecolor=BOX_COLOUR, linewidth=1.6)
            )
    for text, x, y, across, along in (
        ("R", 0.015, 0.5, "left", "center"),
        ("L", 0.985, 0.5, "right", "center"),
        ("A", 0.5, 0.985, "center", "top"),
        ("P", 0.5, 0.015, "center", "bottom"),
    ):
        _label(axes, x, y, text, 12, across, along)
    _scale_bar(axes, volume)


def _draw_context(axes: Axes, segmentation: Segmentation, z: int, limits: tuple[float, float]) -> None:
    _show(axes, segmentation.volume, z, limits)
    _outline(axes, segmentation.mask[z], 1.0)
    _label(axes, 0.03, 0.97, f"slice {z}", 8, "left", "top")


def _show(axes: Axes, volume: Volume, z: int, limits: tuple[float, float]) -> None:
    _, spacing_y, spacing_x = volume.spacing
    axes.imshow(
        apply_window(volume.voxels[z], *limits),
        cmap="gray",
        vmin=0,
        vmax=1,
        interpolation="bilinear",
        aspect=spacing_y / spacing_x,
    )
    axes.set_axis_off()


def _outline(axes: Axes, mask: NDArray[np.bool_], linewidth: float) -> None:
    """Contour along the mask's pixel edges; the padding closes it at the border of the slice."""
    if not mask.any():
        return
    padded = np.pad(mask, 1).astype(np.float64)
    rows, columns = np.arange(-1, mask.shape[0] + 1), np.arange(-1, mask.shape[1] + 1)
    axes.contour(columns, rows, padded, levels=[0.5], colors=[MASK_COLOUR], linewidths=linewidth)


def _scale_bar(axes: Axes, volume: Volume) -> None:
    """A bar of a round length, about a fifth of the slice's width."""
    _, height, width = volume.shape
    spacing_x = volume.spacing[2]
    length_mm = next((mm for mm in _BAR_MM if mm <= 0.3 * width * spacing_x), _BAR_MM[-1])
    length_px = length_mm / spacing_x
    right, y = 0.97 * width - 0.5, 0.955 * height - 0.5
    axes.plot([right - length_px, right], [y, y], color=_TEXT, linewidth=2.2, solid_capstyle="butt")
    text = f"{length_mm // 10} cm" if length_mm >= 10 else f"{length_mm} mm"
    _label(axes, 0.97 - length_px / width / 2, 0.05, text, 9, "center", "bottom")


def _label(axes: Axes, x: float, y: float, text: str, size: int, across: str, along: str) -> None:
    from matplotlib.patheffects import withStroke

    axes.text(
        x,
        y,
        text,
        transform=axes.transAxes,
        color=_TEXT,
        fontsize=size,
        ha=across,
        va=along,
        path_effects=[withStroke(linewidth=2, foreground=_BACKGROUND)],
        parse_math=False,
    )


def _write_header(figure: Figure, segmentation: Segmentation, shown: int) -> None:
    """Query on at most two lines, below it what was found."""
    width_in, height_in = figure.get_size_inches().tolist()
    lines = textwrap.wrap(
        " ".join(segmentation.query.split()), max(20, int(width_in * 9.5)), max_lines=2, placeholder=" ..."
    )
    left = 0.12 / width_in
    figure.text(left, 1 - 0.1 / height_in, "\n".join(lines), color=_TEXT, fontsize=12, va="top", parse_math=False)
    figure.text(left, 1 - 0.85 / height_in, _caption(segmentation, shown), color="#b0b0b0", fontsize=9, va="bottom")


def _caption(segmentation: Segmentation, shown: int) -> str:
    depth = segmentation.volume.shape[0]
    if segmentation.evidence.absent:
        return f"answer: not in this scan (middle slice {shown} of 0..{depth - 1} shown)"
    amount = volume_ml(segmentation.mask, segmentation.volume.spacing)
    filled = int(segmentation.mask.any(axis=(1, 2)).sum())
    edited = ", anchor edited by hand" if segmentation.provenance.get("edited") else ""
    return f"key slice {shown} of 0..{depth - 1}, mask {amount:.1f} ml on {filled} slices{edited}"

"""A small picture of a scan for notebooks: three axial slices side by side."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Sequence
from io import BytesIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image

_HEIGHT_PX = 160


def draw_slices(
    slices: Sequence[NDArray[np.float32]], limits: tuple[float, float], spacing_mm: tuple[float, float]
) -> str:
    """Draw slices side by side as PNG, in base64.

    Args:
        slices: (Y, X) each.
        limits: Intensities that are black and white.
        spacing_mm: Distance of rows and of columns.
    """
    height, width = slices[0].shape
    wide = round(_HEIGHT_PX * width * spacing_mm[1] / (height * spacing_mm[0]))
    size = min(max(wide, 1), 3 * _HEIGHT_PX), _HEIGHT_PX
    low, high = limits
    shown = [
        np.rint(255 * ((pixels.astype(np.float64) - low) / max(high - low, 1e-9)).clip(0, 1)).astype(np.uint8)
        for pixels in slices
    ]
    row = np.concatenate([np.asarray(Image.fromarray(pixels).resize(size)) for pixels in shown], axis=1)
    stream = BytesIO()
    Image.fromarray(row).save(stream, format="PNG")
    return b64encode(stream.getvalue()).decode("ascii")

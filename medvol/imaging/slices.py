"""Which slices a policy sees, and how they are drawn for it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from medvol.core.types import SliceStack, Volume
from medvol.imaging.windows import apply_window, get_window, window_limits


def shown_slices(volume: Volume, count: int) -> tuple[int, ...]:
    """Indices of the slices of a volume that a prompt with room for ``count`` of them shows, see ``choose_slices``."""
    first, stop = volume.shown or (0, volume.shape[0])
    return tuple(first + index for index in choose_slices(stop - first, count))


def choose_slices(depth: int, count: int) -> tuple[int, ...]:
    """Spread ``count`` indices uniformly over ``depth`` slices, first and last included; all of them when fewer.

    Source: MedVol-R1 samples 64 axial slices by rounding a linear space over the volume.
    """
    if depth <= count:
        return tuple(range(depth))
    return tuple(np.unique(np.floor(np.linspace(0, depth - 1, count) + 0.5).astype(int)).tolist())


def draw_slices(volume: Volume, indices: Sequence[int], windows: Sequence[str], height: int, width: int) -> SliceStack:
    """Resize the slices and map each window to one channel.

    Args:
        volume: The scan.
        indices: Slices to draw, ascending.
        windows: Three names of intensity windows, one a channel.
        height: Rows of the drawn slice.
        width: Columns of the drawn slice.
    """
    limits = [window_limits(volume, get_window(name)) for name in windows]
    pixels = np.empty((len(indices), len(limits), height, width), np.float32)
    for drawn, z in zip(pixels, indices, strict=True):  # slice by slice, which stays in the processor's cache
        resized = resize_slice(volume.axial(z), height, width)
        for channel, (low, high) in zip(drawn, limits, strict=True):
            channel[:] = apply_window(resized, low, high)
    return SliceStack(tuple(indices), pixels, volume.shape)


def resize_slice(pixels: NDArray[np.float32], height: int, width: int) -> NDArray[np.float32]:
    """Resize one slice (Y, X) by area-aware linear interpolation."""
    if pixels.shape == (height, width):
        return pixels.astype(np.float32, copy=False)
    image = Image.fromarray(np.ascontiguousarray(pixels, np.float32))
    return np.asarray(image.resize((width, height), Image.Resampling.BILINEAR), np.float32)

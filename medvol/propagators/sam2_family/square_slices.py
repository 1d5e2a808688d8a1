"""Slices of one volume as SAM 2 and MedSAM2 read them: windowed, in 256 grey levels, stretched to a square."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from medvol.core.types import Volume
from medvol.imaging.windows import apply_window, get_window, window_limits


class SquareSlices:
    """Slices of one volume in one window.

    Args:
        volume: The scan.
        window: Name of a preset; its limits hold for the whole volume, so grey levels compare from slice to slice.
        size: Side of the square in pixels.
    """

    def __init__(self, volume: Volume, window: str, size: int) -> None:
        self.shape = volume.shape
        self.window = window
        self.size = size
        self._voxels = volume.voxels
        self._low, self._high = window_limits(volume, get_window(window))

    def pixels(self, z: int) -> NDArray[np.uint8]:
        """(S, S) grey levels, as upstream makes them: cut to 8 bits, then resized by bicubic interpolation.

        Raises:
            ValueError: The slice holds values that are not finite.
        """
        if not np.isfinite(self._voxels[z]).all():
            raise ValueError(f"slice {z} holds values that are not finite; read the scan with a value for them")
        levels = (apply_window(self._voxels[z], self._low, self._high) * 255).astype(np.uint8)
        return np.asarray(Image.fromarray(levels).resize((self.size, self.size), Image.Resampling.BICUBIC))

    def place_box(self, box: NDArray[np.float64]) -> NDArray[np.float64]:
        """Half-open box (4,) in pixels of the slice to the corners upstream expects, in pixels of the square."""
        _, height, width = self.shape
        return corner_pixels(box) * (self.size / np.array([width, height, width, height]))


def corner_pixels(box: NDArray[np.float64]) -> NDArray[np.float64]:
    """Half-open box (4,) as its first and last pixel, the convention that the networks were trained with."""
    first, last = box[:2], np.maximum(box[2:] - 1, box[:2])
    return np.concatenate([first, last])

"""Which intensity window an anchor is looked at in: one for the whole volume, chosen by what is in the boxes."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from medvol.core.errors import ConfigError
from medvol.core.prompts import WINDOWS
from medvol.core.types import Volume

AUTO = "auto"
_LUNG_BELOW_HU = -500.0
_BONE_ABOVE_HU = 300.0


def require_window(window: str) -> None:
    """Refuse a window that is neither ``auto`` nor a preset.

    Raises:
        ConfigError: There is no such window.
    """
    if window != AUTO and window not in WINDOWS:
        raise ConfigError(f"no intensity window {window!r}; choose {AUTO} or one of {', '.join(WINDOWS)}")


def choose_window(window: str, volume: Volume, key_slice: int, boxes: NDArray[np.float64]) -> str:
    """Name of the preset for one anchor.

    Args:
        window: A preset, or ``auto``: for CT the lung or bone window when the middle of the boxes is below -500 or
            above 300 HU, otherwise soft tissue. Scans without Hounsfield units use percentiles of soft tissue.
        volume: The scan.
        key_slice: Slice of the boxes.
        boxes: (N, 4) pixels, half-open, at least one.
    """
    if window != AUTO:
        return window
    if volume.modality != "CT":
        return "soft_tissue"
    middle = float(np.median(np.concatenate([_core(volume.voxels[key_slice], box) for box in boxes])))
    if middle < _LUNG_BELOW_HU:
        return "lung"
    return "bone" if middle > _BONE_ABOVE_HU else "soft_tissue"


def _core(pixels: NDArray[np.float32], box: NDArray[np.float64]) -> NDArray[np.float32]:
    """Values in the middle of a box, half its width and half its height."""
    x1, y1, x2, y2 = box
    left, top = int(x1 + (x2 - x1) / 4), int(y1 + (y2 - y1) / 4)
    right, bottom = max(left + 1, int(np.ceil(x2 - (x2 - x1) / 4))), max(top + 1, int(np.ceil(y2 - (y2 - y1) / 4)))
    return pixels[top:bottom, left:right].ravel()

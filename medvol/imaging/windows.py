"""Intensity windows: from Hounsfield units (or MR intensities) to [0, 1].

A window is chosen for a volume and a kind of target, never for one slice, so intensities stay comparable from slice to
slice. Scans without Hounsfield units are windowed by percentiles of the whole volume.
"""

from __future__ import annotations

import re

import numpy as np
from numpy.typing import NDArray

from medvol.core.errors import ConfigError
from medvol.core.prompts import WINDOWS, Window
from medvol.core.types import Volume

_LESION = re.compile(r"\b(nodule|tumou?r|lesion|mass(es)?\b|cancer)")
_ORGANS = {
    "lung": re.compile(r"\b(lung|trachea|bronch|airway)"),
    "bone": re.compile(r"\b(bone|ribs?\b|vertebra|spine|femur|hips?\b|sacrum|scapula|clavic|humerus|skull)"),
    "brain": re.compile(r"\b(brain|cerebr|cerebell)"),
}


def get_window(name: str) -> Window:
    """Return a preset.

    Raises:
        ConfigError: No preset of that name.
    """
    if name not in WINDOWS:
        raise ConfigError(f"no intensity window {name!r}; choose one of {', '.join(WINDOWS)}")
    return WINDOWS[name]


def window_for_target(target: str) -> str:
    """Name of the preset in which a kind of target is seen best; ``soft_tissue`` unless the name says otherwise.

    A nodule or tumour *in* the lung is soft tissue: only the organ's own name selects the lung window.
    """
    name = target.lower().replace("_", " ")
    if _LESION.search(name):
        return "soft_tissue"
    return next((preset for preset, words in _ORGANS.items() if words.search(name)), "soft_tissue")


def window_limits(volume: Volume, window: Window) -> tuple[float, float]:
    """Lower and upper intensity of a window for one volume; the upper one is always the larger, in float32 too.

    Without Hounsfield units the limits follow the scan: twice the intensities, twice the limits. Where both percentiles
    are one value, the window spans all intensities; those of a constant scan are all its lower limit.
    """
    if volume.modality == "CT":
        return window.low_hu, window.high_hu
    low, high = volume.percentiles(window.percentiles)
    if low == high:
        low, high = volume.percentiles((0.0, 100.0))
    return low, high if high > low else low + max(1.0, abs(low))


def scale_window(voxels: NDArray[np.float32], low: float, high: float) -> NDArray[np.float32]:
    """Map intensities linearly, ``low`` to 0 and ``high`` to 1, without clipping; any shape.

    A voxel far outside a narrow window may become infinite, and none becomes NaN.
    """
    scaled: NDArray[np.float32] = voxels.astype(np.float32)
    with np.errstate(over="ignore"):
        scaled -= np.float32(low)
        scaled /= np.float32(high) - np.float32(low)
    return scaled


def apply_window(voxels: NDArray[np.float32], low: float, high: float) -> NDArray[np.float32]:
    """Map intensities linearly to [0, 1] and clip; any shape."""
    scaled = scale_window(voxels, low, high)
    return scaled.clip(0.0, 1.0, out=scaled)

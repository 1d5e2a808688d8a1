"""Traits of a scan: a few numbers that show whether it is unlike other scans, measured in milliseconds.

Lengths are in mm. Tissue shares are parts of the tissue of a CT, so that air around the body does not count. Scans
without units have shares of their own range of intensities, so that neither scale nor offset counts.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from medvol.core.types import Volume

_SLICES = 24
_VOXELS_A_SLICE = 10_000
_TISSUE_HU = -200.0


@dataclass(frozen=True)
class Trait:
    """One number of a scan.

    Args:
        words: What it is called in a sentence.
        unit: ``mm`` or ``%``.
        slack: How far beyond the values seen a further one is still like them: a factor for lengths, else an amount.
    """

    words: str
    unit: str
    slack: float


TRAITS: Mapping[str, Trait] = {
    "height_mm": Trait("height of the field of view", "mm", 1.3),
    "depth_mm": Trait("front-to-back size of the field of view", "mm", 1.3),
    "width_mm": Trait("width of the field of view", "mm", 1.3),
    "slice_spacing_mm": Trait("distance between slices", "mm", 1.5),
    "pixel_spacing_mm": Trait("size of a pixel", "mm", 1.5),
    "lung_share": Trait("lung (-950 to -500 HU), compared with all tissue", "%", 0.2),
    "fat_share": Trait("fat (-200 to -20 HU) in the tissue", "%", 0.08),
    "soft_share": Trait("soft tissue (-20 to 120 HU) in the tissue", "%", 0.08),
    "dense_share": Trait("bone and contrast (above 200 HU) in the tissue", "%", 0.08),
    "middle_share": Trait("median intensity within the scan's range", "%", 0.2),
    "upper_share": Trait("upper quartile of intensity within the scan's range", "%", 0.2),
}
"""Traits by name; a scan with Hounsfield units has no share of its range, and another one has no tissue shares."""


def measure_traits(volume: Volume) -> dict[str, float]:
    """Measure the traits of a scan on at most 24 of its slices and some 10,000 voxels of each.

    Args:
        volume: The scan; tissue shares are measured when its modality is ``CT``.

    Returns:
        Value of each trait that this kind of scan has: mm, and shares of 0 to 1 (lungs may be more than all tissue).
    """
    sizes = [count * step for count, step in zip(volume.shape, volume.spacing, strict=True)]
    z, y, x = volume.spacing
    lengths = dict(zip(("height_mm", "depth_mm", "width_mm"), sizes, strict=True))
    lengths |= {"slice_spacing_mm": z, "pixel_spacing_mm": (y * x) ** 0.5}
    sample = _sample(volume)
    return lengths | (_tissue_shares(sample) if volume.modality == "CT" else _range_shares(sample))


def _sample(volume: Volume) -> NDArray[np.float64]:
    """Voxels of slices spread evenly; a volume kept on disk reads no other slice."""
    depth, height, width = volume.shape
    chosen = np.unique(np.linspace(0, depth - 1, min(depth, _SLICES)).round().astype(int)).tolist()
    step = max(1, int((height * width / _VOXELS_A_SLICE) ** 0.5))
    sample = np.concatenate([volume.axial(z)[::step, ::step].ravel() for z in chosen]).astype(np.float64)
    return sample[np.isfinite(sample)]


def _tissue_shares(sample: NDArray[np.float64]) -> dict[str, float]:
    tissue = max(1, int((sample >= _TISSUE_HU).sum()))
    ranges = {"lung": (-950, -500), "fat": (_TISSUE_HU, -20), "soft": (-20, 120), "dense": (200, np.inf)}
    return {
        f"{name}_share": float(((sample >= low) & (sample < high)).sum()) / tissue
        for name, (low, high) in ranges.items()
    }


def _range_shares(sample: NDArray[np.float64]) -> dict[str, float]:
    low, middle, upper, high = np.percentile(sample, (1, 50, 75, 99)).tolist() if len(sample) else (0.0,) * 4
    across = high - low
    return {"middle_share": (middle - low) / across, "upper_share": (upper - low) / across} if across > 0 else {}

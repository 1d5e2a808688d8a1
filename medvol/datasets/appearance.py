"""Appearance: other intensities for a scan whose label map is known, so that few scans look like many."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from medvol.core.errors import ConfigError
from medvol.core.ranges import require_between, require_share
from medvol.core.reprs import Brief
from medvol.core.types import Modality

TISSUES = 4
"""Classes of what no label names, by intensity: in CT air, fat, soft tissue, bone."""

_CT_EDGES = (-300.0, -30.0, 150.0)
_CT_RANGE = (-160.0, 240.0)
_SOFT = (-50.0, 200.0)
_TOP = 1000.0


@dataclass(frozen=True, repr=False)
class AppearanceSettings(Brief):
    """How strongly intensities change.

    Args:
        remapped: Share of scans whose intensities go through a random curve, which may turn bright to dark.
        sampled: Share of scans whose intensities are sampled anew for every label, after Billot et al., SynthSeg
            (2023). These and the remapped ones are no CT any more; the others keep their modality.
        uptake_hu: Largest change of the soft tissue of a structure of a CT, each structure on its own, as a contrast
            agent makes one.
        noise: Largest standard deviation of the noise: in HU, or in thousandths of the range where a scan is no CT.
        blur_px: Largest standard deviation of the blur within a slice, in pixels.
        bias: Largest strength of the smooth bias field of scans that are no CT: 0.5 is a factor from exp(-0.5) to
            exp(0.5).

    Raises:
        ConfigError: A value is out of its range.
    """

    remapped: float = 0.25
    sampled: float = 0.25
    uptake_hu: float = 120.0
    noise: float = 25.0
    blur_px: float = 0.8
    bias: float = 0.5

    def __post_init__(self) -> None:
        require_share("appearance", remapped=self.remapped, sampled=self.sampled)
        require_between(
            "[0, inf)", "appearance", uptake_hu=self.uptake_hu, noise=self.noise, blur_px=self.blur_px, bias=self.bias
        )
        if self.remapped + self.sampled > 1:
            raise ConfigError(
                f"appearance.remapped and appearance.sampled are shares of all scans, together at most 1; got "
                f"{self.remapped} and {self.sampled}"
            )


def find_tissues(voxels: NDArray[np.float32], modality: Modality) -> NDArray[np.uint8]:
    """Divide a scan into ``TISSUES`` classes by intensity, from 0 for the darkest; any shape.

    The edges of a CT are in Hounsfield units, those of other scans are quartiles.
    """
    edges = _CT_EDGES if modality == "CT" else tuple(np.percentile(voxels, (25, 50, 75)).tolist())
    classes: NDArray[np.uint8] = np.digitize(voxels, edges).astype(np.uint8)
    return classes


def change_appearance(
    rng: np.random.Generator,
    settings: AppearanceSettings,
    voxels: NDArray[np.float32],
    classes: NDArray[np.uint8],
    modality: Modality,
) -> tuple[NDArray[np.float32], Modality]:
    """Change the intensities of a scan at random.

    Args:
        rng: Source of everything random.
        settings: How strong the change is.
        voxels: Intensities (Z, Y, X).
        classes: (Z, Y, X) one number for each structure that a label names, above those of ``find_tissues``.
        modality: What the intensities are.

    Returns:
        New intensities, and what they are.
    """
    kind, most = rng.random(), settings.noise * rng.random()
    if modality == "CT":
        voxels = _add_uptake(rng, voxels, classes, settings.uptake_hu * rng.random())
    if kind < settings.sampled:
        voxels = _sample(rng, classes)
    elif kind < settings.sampled + settings.remapped:
        voxels = _remap(rng, voxels, modality)
    elif modality == "CT":
        return _finish(rng, voxels, most, settings.blur_px), modality
    else:
        voxels = _TOP * _to_unit(voxels, *np.percentile(voxels, (0.5, 99.5)).tolist())
    biased = voxels * np.exp(_sample_field(rng, voxels.shape, settings.bias * rng.random()))
    return _finish(rng, biased.astype(np.float32), most, settings.blur_px), "other" if modality == "CT" else modality


def _finish(rng: np.random.Generator, voxels: NDArray[np.float32], noise: float, blur: float) -> NDArray[np.float32]:
    """Blur within the slice and noise."""
    sigma = blur * rng.random()
    grain = rng.standard_normal(voxels.shape, np.float32) * np.float32(noise)
    noisy: NDArray[np.float32] = ndimage.gaussian_filter(voxels, (0, sigma, sigma)) + grain
    return noisy


def _add_uptake(
    rng: np.random.Generator, voxels: NDArray[np.float32], classes: NDArray[np.uint8], most: float
) -> NDArray[np.float32]:
    """Brighten or darken a little the soft tissue of each structure."""
    shifts = rng.uniform(-0.15, 1, 256).astype(np.float32) * np.float32(most)
    shifts[:TISSUES] = 0
    soft = (voxels > _SOFT[0]) & (voxels < _SOFT[1])
    changed: NDArray[np.float32] = voxels + np.where(soft, shifts[classes], np.float32(0))
    return changed


def _sample(rng: np.random.Generator, classes: NDArray[np.uint8]) -> NDArray[np.float32]:
    """A mean and a spread for each class; air stays dark."""
    means, spreads = rng.uniform(0.1, 1, 256), rng.uniform(0.01, 0.08, 256)
    means[0], spreads[0] = rng.uniform(0, 0.06), 0.01
    grain = ndimage.gaussian_filter(rng.standard_normal(classes.shape, np.float32), (0, 0.7, 0.7))
    sampled: NDArray[np.float32] = (_TOP * (means[classes] + 2 * spreads[classes] * grain)).astype(np.float32)
    return sampled


def _remap(rng: np.random.Generator, voxels: NDArray[np.float32], modality: Modality) -> NDArray[np.float32]:
    """A random power of the intensities, turned over in half of the scans; air stays dark."""
    low, high = _CT_RANGE if modality == "CT" else np.percentile(voxels, (1, 99)).tolist()
    unit = _to_unit(voxels, low, high)
    there = unit > 0.02
    curve = (1 - unit if rng.random() < 0.5 else unit) ** np.float32(np.exp(rng.uniform(-0.7, 0.7)))
    remapped: NDArray[np.float32] = np.where(there, _TOP * (0.1 + 0.9 * curve), 0.0).astype(np.float32)
    return remapped


def _to_unit(voxels: NDArray[np.float32], low: float, high: float) -> NDArray[np.float32]:
    unit: NDArray[np.float32] = ((voxels - np.float32(low)) / np.float32(max(high - low, 1e-6))).clip(0, 1)
    return unit


def _sample_field(rng: np.random.Generator, shape: tuple[int, ...], strength: float) -> NDArray[np.float32]:
    """A smooth field within ``strength`` of 0: a polynomial of second degree along each axis."""
    z, y, x = (np.linspace(-1, 1, count, dtype=np.float32) for count in shape)
    first, second = rng.uniform(-1, 1, 3), rng.uniform(-1, 1, 3)
    parts = [a * axis + b * axis**2 for a, b, axis in zip(first, second, (z, y, x), strict=True)]
    field = parts[0][:, None, None] + parts[1][:, None] + parts[2]
    scaled: NDArray[np.float32] = (field * (strength / max(float(np.abs(field).max()), 1e-6))).astype(np.float32)
    return scaled

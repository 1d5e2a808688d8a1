"""Region growing from the anchor, without weights: fast enough to stand in every test and demonstration.

Three ideas. Intensity: the core of a box belongs to the target, so its median and spread say which pixels are alike.
Connection: on the key slice the component that fills the box best is kept, on the next slices what touches the mask
of the slice before and lies within a short distance of it. Edge: a pixel on the rim belongs to the side, target or
surroundings, whose intensity is nearer to its own (half maximum), which undoes the blur of a partly filled pixel.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from medvol.core.errors import ConfigError
from medvol.core.ranges import require_between, require_finite, require_share, require_whole
from medvol.core.roles import Propagator
from medvol.core.types import Evidence, Volume
from medvol.imaging.windows import get_window, scale_window, window_limits
from medvol.propagators.clipping import clip_range, slices_towards, usable_boxes

Bits = NDArray[np.bool_]
Pixels = NDArray[np.float32]

_CROSS = ndimage.generate_binary_structure(2, 1)
_SQUARE = np.ones((3, 3), bool)
_WINDOW_HU = 400.0
"""Width of the soft-tissue window: intensities without Hounsfield units are stretched to it."""
_FARTHEST_HU = 1e6
"""Stretched intensities end here: an artefact a million times as bright as the rest must not become infinite."""
_MARGIN_PX = 4
"""Room around a mask for the edge rule, which looks two pixels beyond the rim."""
_NORMAL_MAD = 1.4826
"""Median absolute deviation of a normal distribution to its standard deviation."""


@dataclass(frozen=True)
class _Intensity:
    """What the target looks like: median and half-width of the accepted interval, in HU."""

    median: float
    half_width: float

    def alike(self, pixels: Pixels) -> Bits:
        alike: Bits = np.abs(pixels - self.median) < self.half_width
        return alike


class RegionPropagator(Propagator):
    """Grows the target by intensity and connection, slice to slice.

    Lengths in mm never fall below one pixel (smoothing: 0.8 px), because noise and staircase edges come in pixels.

    Args:
        smoothing_mm: Standard deviation of the in-plane Gaussian against noise.
        half_width_hu: Least and greatest half-width of the accepted interval around the core's median; between the two
            it is 2.5 robust standard deviations of the core. Scans without Hounsfield units are stretched so that their
            1st to 99th percentile spans 400.
        soft_above_hu: In CT, a core that is at least a fifth above this counts only what is above (fat in a hilum).
        growth_mm: How far the outline may move from one slice to the next.
        min_area_px: A track ends where fewer pixels are found.
        min_overlap: A track ends where the overlap with the mask before falls below this share of the smaller area.
    """

    def __init__(
        self,
        smoothing_mm: float = 1.5,
        half_width_hu: tuple[float, float] = (20.0, 32.0),
        soft_above_hu: float = -40.0,
        growth_mm: float = 4.0,
        min_area_px: int = 5,
        min_overlap: float = 0.15,
    ) -> None:
        require_between("[0, inf)", smoothing_mm=smoothing_mm, growth_mm=growth_mm)
        require_finite(soft_above_hu=soft_above_hu)
        require_whole(1, min_area_px=min_area_px)
        require_share(min_overlap=min_overlap)
        if not 0 < half_width_hu[0] <= half_width_hu[1]:
            raise ConfigError(f"half_width_hu is {half_width_hu}; give a least and a greatest width, both above 0")
        self.smoothing_mm = smoothing_mm
        self.half_width_hu = half_width_hu
        self.soft_above_hu = soft_above_hu
        self.growth_mm = growth_mm
        self.min_area_px = min_area_px
        self.min_overlap = min_overlap

    def propagate(
        self, volume: Volume, evidence: Evidence, z_range: tuple[int, int] | None = None
    ) -> NDArray[np.bool_]:
        """Grow one track a box and unite them; see the role for arguments and errors.

        Inside ``z_range`` the mask equals that of the whole volume.
        """
        return self.propagate_many(volume, [evidence], [z_range])[0]

    def propagate_many(
        self,
        volume: Volume,
        evidences: Sequence[Evidence],
        z_ranges: Sequence[tuple[int, int] | None] | None = None,
    ) -> list[NDArray[np.bool_]]:
        """Propagate several anchors of one volume; smoothed slices are shared."""
        slices = _SmoothSlices(volume, self.smoothing_mm)
        ranges = [None] * len(evidences) if z_ranges is None else z_ranges
        return [self._propagate(volume, slices, evidence, own) for evidence, own in zip(evidences, ranges, strict=True)]

    def _propagate(
        self, volume: Volume, slices: _SmoothSlices, evidence: Evidence, z_range: tuple[int, int] | None
    ) -> Bits:
        mask = np.zeros(volume.shape, bool)
        allowed = clip_range(volume.shape[0], z_range)
        boxes = usable_boxes(volume, evidence, min_side_px=1.5)
        if evidence.key_slice is None or len(allowed) == 0:
            return mask
        for box in boxes:
            self._grow(slices, evidence.key_slice, box, allowed, mask)
        mask[: allowed.start] = False
        mask[allowed.stop :] = False
        return mask

    def _grow(
        self, slices: _SmoothSlices, key_slice: int, box: NDArray[np.float64], allowed: range, mask: Bits
    ) -> None:
        """Add the track of one box to ``mask``."""
        found = self._key_mask(slices, key_slice, box)
        if found is None:
            return
        key, intensity = found
        mask[key_slice] |= key
        for step in (-1, 1):
            previous, current = key, intensity
            for z in slices_towards(key_slice, allowed, step):
                following = self._next_mask(slices, z, previous, current)
                if following is None:
                    break
                mask[z] |= following
                current = _adapted(current, intensity, slices[z][following])
                previous = following

    def _key_mask(
        self, slices: _SmoothSlices, key_slice: int, box: NDArray[np.float64]
    ) -> tuple[Bits, _Intensity] | None:
        """Segment the key slice inside a box; None when nothing in it is connected and alike."""
        pixels = slices[key_slice]
        x1, y1, x2, y2 = int(box[0]), int(box[1]), int(np.ceil(box[2])), int(np.ceil(box[3]))
        core = _core(y2 - y1), _core(x2 - x1)
        inside = pixels[y1:y2, x1:x2]
        intensity = self._measure(inside[core], slices)
        alike = intensity.alike(inside)
        if min(inside.shape) > 6:
            alike = ndimage.binary_opening(alike, _CROSS)
        labels, count = ndimage.label(alike, _CROSS)
        if count == 0:
            return None
        weight = np.bincount(labels.ravel(), minlength=count + 1) + 2 * np.bincount(
            labels[core].ravel(), minlength=count + 1
        )
        key = np.zeros(pixels.shape, bool)
        key[y1:y2, x1:x2] = ndimage.binary_fill_holes(labels == 1 + int(np.argmax(weight[1:])))
        frame = np.zeros(pixels.shape, bool)
        frame[max(0, y1 - 1) : y2 + 1, max(0, x1 - 1) : x2 + 1] = True
        crop = _crop(key)
        key[crop] = _half_maximum(key[crop], pixels[crop], intensity.median, slices.blur_px) & frame[crop]
        return key, intensity

    def _next_mask(self, slices: _SmoothSlices, z: int, previous: Bits, intensity: _Intensity) -> Bits | None:
        """Follow a mask to the next slice; None where the track ends."""
        growth = slices.pixels(self.growth_mm)
        crop = _crop(previous, _MARGIN_PX + growth)
        before, pixels = previous[crop], slices[z][crop]
        near = ndimage.binary_dilation(before, _SQUARE, iterations=growth)
        found = intensity.alike(pixels) & near
        area_before = int(before.sum())
        if area_before > 30:
            found = ndimage.binary_opening(found, _CROSS)
        found = ndimage.binary_fill_holes(_touching(found, before))
        area = int(found.sum())
        overlap = int((found & before).sum())
        if area < self.min_area_px or overlap < self.min_overlap * min(area, area_before):
            return None
        if area > 1.7 * max(area_before, 20):
            found &= ndimage.binary_dilation(before, _CROSS)
        following = np.zeros(previous.shape, bool)
        following[crop] = _half_maximum(found, pixels, intensity.median, slices.blur_px)
        return following

    def _measure(self, core: Pixels, slices: _SmoothSlices) -> _Intensity:
        values = core.ravel()
        soft = values[values > self.soft_above_hu]
        if slices.hounsfield and len(soft) >= 0.2 * len(values):
            values = soft
        median = float(np.median(values))
        spread = _NORMAL_MAD * float(np.median(np.abs(values - median)))
        return _Intensity(median, float(np.clip(2.5 * spread, *self.half_width_hu)))


class _SmoothSlices:
    """Slices of a volume in HU (or stretched to their range), smoothed when they are first asked for."""

    def __init__(self, volume: Volume, smoothing_mm: float) -> None:
        self.hounsfield = volume.modality == "CT"
        self._voxels = volume.voxels
        self._spacing_px = float(np.sqrt(volume.spacing[1] * volume.spacing[2]))
        self._sigma_px = max(0.8, smoothing_mm / self._spacing_px)
        self.blur_px = max(1, round(self._sigma_px))
        self._limits = window_limits(volume, get_window("soft_tissue"))
        self._smooth: dict[int, Pixels] = {}

    def __getitem__(self, z: int) -> Pixels:
        if z not in self._smooth:
            self._smooth[z] = ndimage.gaussian_filter(self._pixels_hu(z), self._sigma_px)
        return self._smooth[z]

    def _pixels_hu(self, z: int) -> Pixels:
        if self.hounsfield:
            return np.asarray(self._voxels[z], np.float32)
        stretched: Pixels = scale_window(self._voxels[z], *self._limits) * np.float32(_WINDOW_HU)
        near: Pixels = stretched.clip(-_FARTHEST_HU, _FARTHEST_HU)
        return near

    def pixels(self, length_mm: float) -> int:
        """A length in whole pixels, at least one."""
        return max(1, round(length_mm / self._spacing_px))


def _core(side: int) -> slice:
    """Middle four tenths of a box side, at least one pixel."""
    start = int(side * 0.3)
    return slice(start, max(start + 1, side - start))


def _crop(mask: Bits, margin: int = _MARGIN_PX) -> tuple[slice, slice]:
    """Bounding box of a mask with a margin, within the slice."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    return (
        slice(max(0, int(rows[0]) - margin), int(rows[-1]) + 1 + margin),
        slice(max(0, int(columns[0]) - margin), int(columns[-1]) + 1 + margin),
    )


def _touching(found: Bits, before: Bits) -> Bits:
    """Components of ``found`` that overlap the mask before."""
    labels, count = ndimage.label(found, _CROSS)
    keep = np.zeros(count + 1, bool)
    keep[labels[before]] = True
    keep[0] = False
    kept: Bits = keep[labels]
    return kept


def _half_maximum(mask: Bits, pixels: Pixels, median: float, rounds: int) -> Bits:
    """Add the pixels of the rim that are nearer to the target's median than to the mean of what lies outside."""
    for _ in range(rounds):
        grown = ndimage.binary_dilation(mask, _CROSS)
        outside = (~grown).astype(np.float32)
        share = np.maximum(ndimage.uniform_filter(outside, 5), 1e-3)
        surroundings = ndimage.uniform_filter(pixels * outside, 5) / share
        mask = mask | (grown & ~mask & (np.abs(pixels - median) < np.abs(pixels - surroundings)))
    return mask


def _adapted(current: _Intensity, key: _Intensity, values: Pixels) -> _Intensity:
    """Let the median drift slowly with the target, within 10 HU of the key slice's."""
    drifted = 0.8 * current.median + 0.2 * float(np.median(values))
    return _Intensity(float(np.clip(drifted, key.median - 10, key.median + 10)), current.half_width)

"""From the key slice outwards: the slice-to-slice rule.

The log-odds of a pixel of the next slice are a weighted sum of four kinds of evidence:

- **shape**: signed distance to the mask of the slice before, in slice distances, after shrinking that mask as an
  ellipsoid would shrink that starts on the key slice and is ``depth_ratio`` times as deep as it is wide;
- **features** and **intensity**: what looks like the target on the key slice (see ``appearance``);
- **decoder**: logits of the promptable network for the box of what the other three find, grown by a margin.

Shape alone closes every track; the other three hold it open where the scan shows more. The track ends where too little
is left. Masks are whole grid pixels, so shape alone does not close a track by less than half a pixel a slice: on thin
slices the other evidence has to end it. The track depends on the slices between the key slice and the slice asked for
only, so a range can be cut out of it.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from medvol.grounding.boxes import tight_boxes
from medvol.imaging.slices import resize_slice
from medvol.propagators.litemedsam_parts.appearance import LIMIT, FeatureDiscriminant, IntensityRatio

Bits = NDArray[np.bool_]
Floats = NDArray[np.float32]

CELL_PX = 4
"""Grid pixels along one side of a cell of the feature map."""
_DECODER_LIMIT = 8.0
"""Decoder logits are clipped to this; beyond it the network is sure."""


class SliceSource(Protocol):
    """Slices of one volume on the network's square grid."""

    def pixels(self, z: int) -> Floats:
        """(S, S) intensities in [0, 1], zero in the padding."""

    def features(self, z: int) -> Floats:
        """(C, S/4, S/4) encoder features."""

    def decode(self, z: int, box: NDArray[np.float64]) -> Floats:
        """(S, S) logits of the target in a box (4,) of grid pixels."""


@dataclass(frozen=True)
class Grid:
    """How slices lie on the network's square grid: scaled to fit, padded on the right and below.

    Args:
        size: Side of the grid in pixels.
        height: Rows of the volume's slices.
        width: Columns of the volume's slices.
        step_px: Distance of two slices in grid pixels.
    """

    size: int
    height: int
    width: int
    step_px: float

    @classmethod
    def of(cls, shape: tuple[int, int, int], spacing: tuple[float, float, float], size: int) -> Grid:
        """Grid of a volume of this shape and spacing (z, y, x) in mm."""
        px_per_mm = size / max(shape[1:]) / float(np.sqrt(spacing[1] * spacing[2]))
        return cls(size, shape[1], shape[2], spacing[0] * px_per_mm)

    @property
    def rows(self) -> int:
        """Grid rows that show the slice."""
        return max(1, int(self.height * self.size / max(self.height, self.width) + 0.5))

    @property
    def columns(self) -> int:
        """Grid columns that show the slice."""
        return max(1, int(self.width * self.size / max(self.height, self.width) + 0.5))

    @property
    def shown(self) -> Bits:
        """(S, S) pixels that show the slice and not the padding."""
        shown = np.zeros((self.size, self.size), bool)
        shown[: self.rows, : self.columns] = True
        return shown

    def place(self, pixels: Floats) -> Floats:
        """Slice (Y, X) to the grid (S, S)."""
        placed = np.zeros((self.size, self.size), np.float32)
        placed[: self.rows, : self.columns] = resize_slice(pixels, self.rows, self.columns)
        return placed

    def place_box(self, box: NDArray[np.float64]) -> NDArray[np.float64]:
        """Box (4,) in pixels of the volume's slice to grid pixels."""
        x, y = self.columns / self.width, self.rows / self.height
        placed: NDArray[np.float64] = box * np.array([x, y, x, y])
        return placed

    def take(self, log_odds: Floats) -> Bits:
        """Log-odds (S, S) on the grid to the mask (Y, X) of the volume's slice."""
        return resize_slice(log_odds[: self.rows, : self.columns], self.height, self.width) > 0


@dataclass(frozen=True)
class TrackRule:
    """Weights of the evidence and the stop rule; see ``LiteMedSAMPropagator`` for meaning and reasons."""

    feature_weight: float
    intensity_weight: float
    decoder_weight: float
    box_margin_px: float
    depth_ratio: float
    min_area_share: float
    min_overlap: float
    max_gap_slices: int


@dataclass(frozen=True)
class _Found:
    """The target on one slice: mask on the grid and the log-odds it was cut from."""

    mask: Bits
    log_odds: Floats


class Track:
    """One box followed through a volume.

    Args:
        source: Slices on the grid.
        grid: Where they lie.
        key_slice: Slice of the box.
        box: (4,) in pixels of the volume's slice.
        rule: Weights and stop rule.
    """

    def __init__(
        self, source: SliceSource, grid: Grid, key_slice: int, box: NDArray[np.float64], rule: TrackRule
    ) -> None:
        self._source, self._grid, self._rule, self._key_slice = source, grid, rule, key_slice
        self._shown = grid.shown
        logits = self._visible(self._decode(key_slice, grid.place_box(box)))
        self._key = _Found(logits > 0, logits)
        share = _cell_means(self._key.mask)
        self._discriminant = FeatureDiscriminant(source.features(key_slice), share, _cell_means(self._shown) > 0.5)
        self._ratio = IntensityRatio(_smooth(source.pixels(key_slice)), self._key.mask, self._shown)
        self._radius_px = float(np.sqrt(self._key.mask.sum() / np.pi))

    def follow(self, slices: Iterable[int]) -> dict[int, Bits]:
        """Follow the target over consecutive slices away from the key slice.

        Returns:
            Mask (Y, X) of every slice reached, the key slice included; empty when nothing was found there.
        """
        if not self._key.mask.any():
            return {}
        masks = {self._key_slice: self._grid.take(self._key.log_odds)}
        previous, missed = self._key, list[int]()
        for z in slices:
            found = self._next(z, previous, 1 + len(missed))
            if found is None:
                missed.append(z)
                if len(missed) > self._rule.max_gap_slices:
                    break
                continue
            masks |= self._bridge(missed, previous, found)
            masks[z] = self._grid.take(found.log_odds)
            previous, missed = found, []
        return masks

    def _next(self, z: int, previous: _Found, steps: int) -> _Found | None:
        """Find the target ``steps`` slices after ``previous``; None when too little is left."""
        log_odds = self._shape(z, previous.mask, steps) + self._appearance(z)
        expected = _connected(self._visible(log_odds) > 0, previous.mask)
        if not expected.any():
            return None
        if self._rule.decoder_weight > 0:
            log_odds += self._rule.decoder_weight * self._decode(z, tight_boxes(expected)[0])
        mask = ndimage.binary_fill_holes(_connected(self._visible(log_odds) > 0, previous.mask))
        area, before = int(mask.sum()), int(previous.mask.sum())
        overlap = int((mask & previous.mask).sum())
        smallest = max(4, self._rule.min_area_share * self._key.mask.sum())
        if area < smallest or overlap < self._rule.min_overlap * min(area, before):
            return None
        return _Found(mask, _limited_to(mask, log_odds))

    def _shape(self, z: int, before: Bits, steps: int) -> Floats:
        """Log-odds from the mask ``steps`` slices before, shrunk along the ellipsoid of the key slice."""
        step_px = self._grid.step_px
        radius = max(float(np.sqrt(before.sum() / np.pi)), 1.0)
        middle = (abs(z - self._key_slice) - 0.5 * steps) * step_px
        shrink = steps * step_px * middle / (self._rule.depth_ratio**2 * radius)
        odds = (_signed_distance(before) - np.float32(shrink)) / np.float32(steps * step_px)
        clipped: Floats = np.clip(odds, -LIMIT, LIMIT).astype(np.float32)
        return clipped

    def _appearance(self, z: int) -> Floats:
        """Log-odds from what the target looks like on the key slice."""
        odds = np.zeros(self._shown.shape, np.float32)
        if self._rule.feature_weight > 0:
            cells = self._discriminant.log_odds(self._source.features(z))
            odds += self._rule.feature_weight * resize_slice(cells, self._grid.size, self._grid.size)
        if self._rule.intensity_weight > 0:
            odds += self._rule.intensity_weight * self._ratio.log_odds(_smooth(self._source.pixels(z)))
        return odds

    def _decode(self, z: int, box: NDArray[np.float64]) -> Floats:
        """Clipped logits of a tight box of grid pixels, asked for with the margin and within the grid."""
        margin = self._rule.box_margin_px * np.array([-1.0, -1.0, 1.0, 1.0])
        logits = self._source.decode(z, np.clip(box + margin, 0, self._grid.size))
        clipped: Floats = np.clip(logits, -_DECODER_LIMIT, _DECODER_LIMIT).astype(np.float32)
        return clipped

    def _visible(self, log_odds: Floats) -> Floats:
        return np.where(self._shown, log_odds, np.float32(-LIMIT))

    def _bridge(self, missed: list[int], before: _Found, after: _Found) -> dict[int, Bits]:
        """Fill missed slices with the shape half-way between their neighbours."""
        if not missed:
            return {}
        middle = self._grid.take(_signed_distance(before.mask) + _signed_distance(after.mask))
        return dict.fromkeys(missed, middle)


def _signed_distance(mask: Bits) -> Floats:
    """Distance to the outline in pixels, positive inside; one half on either side of it."""
    inside, outside = ndimage.distance_transform_edt(mask), ndimage.distance_transform_edt(~mask)
    distance: Floats = np.where(mask, inside - 0.5, 0.5 - outside).astype(np.float32)
    return distance


def _cell_means(mask: Bits) -> Floats:
    """(S, S) mask to the share of each cell, (S/4, S/4)."""
    side = mask.shape[0] // CELL_PX
    means: Floats = mask.reshape(side, CELL_PX, side, CELL_PX).mean(axis=(1, 3), dtype=np.float32)
    return means


def _connected(found: Bits, before: Bits) -> Bits:
    """Components of ``found`` that overlap the mask before."""
    labels, count = ndimage.label(found)
    keep = np.zeros(count + 1, bool)
    keep[labels[before]] = True
    keep[0] = False
    kept: Bits = keep[labels]
    return kept


def _limited_to(mask: Bits, log_odds: Floats) -> Floats:
    """Log-odds that are positive in the mask and only there; the outline keeps its place between two pixels."""
    return np.where(mask, np.maximum(log_odds, 0.01), np.minimum(log_odds, -0.01)).astype(np.float32)


def _smooth(pixels: Floats) -> Floats:
    smooth: Floats = ndimage.gaussian_filter(pixels, 1.0)
    return smooth

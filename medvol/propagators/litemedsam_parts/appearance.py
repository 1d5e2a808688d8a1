"""What a target looks like on its key slice, as evidence for every other slice.

Two classifiers are fitted to one segmented slice, in closed form: a linear discriminant on the encoder's features
(texture and place) and a ratio of two intensity histograms. Both answer with log-odds, target against surroundings.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

Bits = NDArray[np.bool_]
Floats = NDArray[np.float32]

LIMIT = 4.0
"""Log-odds are clipped to this on either side, so that no single kind of evidence can silence the others."""
_REACH_CELLS = 14
"""Surroundings of the target that the discriminant is fitted on, in cells of the feature map (4 grid pixels each)."""
_REACH_PX = 12
"""Surroundings that the histograms are fitted on, in grid pixels."""
_RIDGE = 0.5
"""Share of the mean variance added to every feature: one slice has too few cells for a full covariance."""
_BINS = 32


class FeatureDiscriminant:
    """Fisher's linear discriminant on the features of one slice, both classes weighted equally.

    Args:
        features: (C, h, w) features of the key slice.
        share: (h, w) share of each cell that belongs to the target, in [0, 1].
        shown: (h, w) cells that show the slice and not the padding.
    """

    def __init__(self, features: Floats, share: Floats, shown: Bits) -> None:
        near = ndimage.binary_dilation(share >= min(0.5, float(share.max())), iterations=_REACH_CELLS) & shown
        cells, target = _cells(features)[near.ravel()], share[near].astype(np.float32)
        self._weights = np.zeros(features.shape[0], np.float32)
        self._offset = np.float32(0)
        if min(target.sum(), (1 - target).sum()) < 0.5:
            return
        shares = target / target.sum(), (1 - target) / (1 - target).sum()
        means = [share @ cells for share in shares]
        scatter = sum(
            (cells * share[:, None]).T @ cells - np.outer(m, m) for share, m in zip(shares, means, strict=True)
        )
        covariance = scatter / 2
        covariance += _RIDGE * np.trace(covariance) / len(covariance) * np.eye(len(covariance))
        self._weights = np.linalg.solve(covariance, means[0] - means[1]).astype(np.float32)
        self._offset = np.float32(-0.5 * (means[0] + means[1]) @ self._weights)

    def log_odds(self, features: Floats) -> Floats:
        """(C, h, w) features of a slice to (h, w) log-odds within ``LIMIT``."""
        odds = _cells(features) @ self._weights + self._offset
        clipped: Floats = np.clip(odds, -LIMIT, LIMIT).astype(np.float32)
        return clipped.reshape(features.shape[1:])


class IntensityRatio:
    """Logarithm of the ratio of two smoothed intensity histograms: inside the target and around it.

    The answer is multiplied by the square of how well intensity alone separates the key slice (Youden's index), so
    that a target as bright as its surroundings is not judged by brightness.

    Args:
        pixels: (Y, X) intensities of the key slice in [0, 1].
        target: (Y, X) the target there.
        shown: (Y, X) pixels that show the slice and not the padding.
    """

    def __init__(self, pixels: Floats, target: Bits, shown: Bits) -> None:
        around = ndimage.binary_dilation(target, iterations=_REACH_PX) & shown & ~target
        self._ratio = np.zeros(_BINS)
        if not (target.any() and around.any()):
            return
        self._ratio = np.log(_histogram(pixels[target]) / _histogram(pixels[around]))
        alike = self.log_odds(pixels) > 0
        separation = max(0.0, float(alike[target].mean() - alike[around].mean()))
        self._ratio *= separation**2

    def log_odds(self, pixels: Floats) -> Floats:
        """Intensities in [0, 1] to log-odds within ``LIMIT``, same shape."""
        odds = np.interp(pixels * _BINS - 0.5, np.arange(_BINS), self._ratio)
        clipped: Floats = np.clip(odds, -LIMIT, LIMIT).astype(np.float32)
        return clipped


def _cells(features: Floats) -> Floats:
    return features.reshape(features.shape[0], -1).T


def _histogram(values: Floats) -> NDArray[np.float64]:
    """Share of each bin, smoothed over one bin and never zero."""
    counts = np.bincount(np.minimum((values * _BINS).astype(int), _BINS - 1), minlength=_BINS).astype(float)
    smooth = ndimage.gaussian_filter1d(counts, 1.0, mode="nearest")
    shares: NDArray[np.float64] = (smooth / smooth.sum() + 0.01 / _BINS) / 1.01
    return shares

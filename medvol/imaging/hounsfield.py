"""Guessing from intensities alone whether they are Hounsfield units, or were until somebody shifted them."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from medvol.core.types import Modality

_AIR_HU = (-1100.0, -700.0)
_DENSE_HU = 700.0
_AIR_SHARE = 1e-3
_OFFSET_HU = 1024
_SOFT_HU = (-200.0, 200.0)
_BETWEEN_SHARE = 0.2
_SAMPLED = 1_000_000


def guess_modality(voxels: NDArray[Any]) -> Modality:
    """``CT`` when intensities look like Hounsfield units: air or lung, twice as much of it as bone and metal.

    Nothing but padding may lie below air. Anything else is ``other``: an MR scan with negative values, be they from
    interpolation, phase or a difference, has as many bright voxels as dark ones and is not taken for a CT. A CT that
    was cropped until no air is left is not recognised; its modality must be given.
    """
    return "CT" if _looks_hounsfield(_sample(voxels)) else "other"


def find_lost_sign(voxels: NDArray[Any]) -> str:
    """Says that Hounsfield units seem to have lost their sign, and what to do about it; empty when they did not."""
    sample = _sample(voxels)
    if sample.max() <= 2**15 or not _looks_hounsfield(np.where(sample >= 2**15, sample - 2**16, sample)):
        return ""
    return (
        "its intensities look like Hounsfield units whose negative values were stored without a sign; "
        "if so, save them as int16"
    )


def find_shift(voxels: NDArray[Any]) -> str:
    """Says that Hounsfield units seem to have another zero, and what to do about it; empty when they have not.

    A CT plus 1024 has hardly anything between air and fat, where an MR has most of its tissue: of 62 real scans, at
    most 14 percent of a CT's body lies there, and at least 33 percent of an MR's.
    """
    sample = _sample(voxels)
    if sample.max() < _OFFSET_HU:
        return ""
    shifted = sample - _OFFSET_HU
    body = shifted[shifted > _AIR_HU[1]]
    if not (len(body) and _looks_hounsfield(shifted)):
        return ""
    between, soft = (body < _SOFT_HU[0]).mean(), ((body > _SOFT_HU[0]) & (body < _SOFT_HU[1])).mean()
    if between > _BETWEEN_SHARE or soft < 0.5:
        return ""
    return (
        f"its intensities look like Hounsfield units plus {_OFFSET_HU}, a CT without its rescale intercept; if air is "
        f"near 0 and water near {_OFFSET_HU}, write a copy: medvol check FILE --fix FOLDER --hu_offset -{_OFFSET_HU}"
    )


def _looks_hounsfield(sample: NDArray[np.float32]) -> bool:
    air = float(((sample >= _AIR_HU[0]) & (sample <= _AIR_HU[1])).mean())
    dense = float((sample > _DENSE_HU).mean())
    beyond = float(((sample < _AIR_HU[0]) & (sample > sample.min())).mean())
    return bool(air >= _AIR_SHARE and air > 2 * dense and beyond < 0.01 and sample.max() < 40_000)


def _sample(voxels: NDArray[Any]) -> NDArray[np.float32]:
    return voxels.flat[:: max(1, voxels.size // _SAMPLED)].astype(np.float32)

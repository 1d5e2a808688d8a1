"""Labels: whole numbers, also where header scaling or rounding moved them a little; telling them from a scan."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medvol.core.notices import tell_once
from medvol.imaging.formats.problems import UnknownDatatypeError

LABEL_TOLERANCE = 0.01
"""How far from a whole number a label may lie; it is read as that number. Scaling to 16 bits moves labels up to 1,300
by less; interpolation between labels moves some by more."""

FULL_SHARE = 0.95
"""A target that takes this share of its scan is none: a mask of everything, or of all but the target."""

_EXACT_FLOAT32 = 2**24
"""float32 holds every whole number below it."""

_MOST_LABELS = 1000
_ALIKE = 0.9


@dataclass(frozen=True)
class Rounding:
    """How far the values of a map lie from whole numbers.

    Args:
        distance: The largest distance; infinite for NaN and infinite values.
        value: The value that lies so far.
        largest: Largest value, without its sign.
    """

    distance: float
    value: float
    largest: float

    @property
    def whole(self) -> bool:
        """True for whole numbers within ``LABEL_TOLERANCE``; tiny values that all become 0 are none."""
        return self.distance == 0 or (self.distance <= LABEL_TOLERANCE and self.largest >= 0.5)


def measure_rounding(voxels: NDArray[Any]) -> Rounding:
    """Distances of values from whole numbers, over an array of any shape."""
    if voxels.dtype.kind != "f":
        return Rounding(0.0, 0.0, 0.0)
    worst, value, largest = 0.0, 0.0, 0.0
    for part in voxels if voxels.ndim > 1 else [voxels]:
        with np.errstate(invalid="ignore"):
            apart = np.abs(part - np.rint(part))
        apart[~np.isfinite(apart)] = np.inf
        place = np.unravel_index(int(apart.argmax()), apart.shape)
        if apart[place] > worst:
            worst, value = float(apart[place]), float(part[place])
        largest = max(largest, float(np.abs(part).max()))
    return Rounding(worst, value, largest)


def count_values(voxels: NDArray[Any]) -> dict[int, int] | None:
    """Voxels of each label, ascending; None when a value is no whole number."""
    if not measure_rounding(voxels).whole:
        return None
    counts: Counter[int] = Counter()
    for axial in voxels:
        values, sizes = np.unique(np.rint(axial).astype(np.int64), return_counts=True)
        counts.update(dict(zip(values.tolist(), sizes.tolist(), strict=True)))
    return dict(sorted(counts.items()))


def label_values(voxels: NDArray[np.float32]) -> dict[int, int] | None:
    """Voxels of each label; None for a scan.

    A label map holds at most a thousand whole numbers from 0 up, and nine in ten neighbours inside it are equal.
    """
    sample = voxels.ravel()[:: max(1, voxels.size // 100_000)]
    if measure_rounding(sample).distance > LABEL_TOLERANCE:
        return None
    sample = np.rint(sample)
    if sample.min() < 0 or len(np.unique(sample)) > _MOST_LABELS:
        return None
    values = count_values(voxels)
    if values is None or next(iter(values)) < 0 or len(values) > _MOST_LABELS:
        return None
    pairs = [(inside, alike) for inside, alike in map(_neighbours, voxels)]
    inside, alike = (sum(column) for column in zip(*pairs, strict=True))
    return values if alike >= _ALIKE * inside else None


def _neighbours(axial: NDArray[np.float32]) -> tuple[int, int]:
    """Pairs of neighbours above 0 in the rows of a slice, and how many of them are equal."""
    labels = np.rint(axial)
    first, second = labels[:, :-1], labels[:, 1:]
    inside = (first > 0) & (second > 0)
    return int(inside.sum()), int((inside & (first == second)).sum())


def to_labels(path: Path, voxels: NDArray[Any]) -> NDArray[np.int32]:
    """Voxels as labels; values within ``LABEL_TOLERANCE`` of a whole number become that number, which is told once.

    Raises:
        UnknownDatatypeError: A value is not a whole number of 32 bits, or too large for its type to be exact.
    """
    rounding = measure_rounding(voxels)
    if not rounding.whole:
        raise UnknownDatatypeError(
            path,
            f"a label map holds whole numbers, and one of its values is {rounding.value:.9g}; resample it by nearest "
            "neighbour, or give the label map in place of a scan",
        )
    if voxels.dtype == np.float32 and rounding.largest >= _EXACT_FLOAT32:
        raise UnknownDatatypeError(
            path, f"float32 does not tell labels such as {rounding.largest:.0f} from the next; save it as int32"
        )
    labels = np.ascontiguousarray(np.rint(voxels) if rounding.distance else voxels)
    if not (labels.min() >= -(2**31) and labels.max() < 2**31):
        raise UnknownDatatypeError(path, "a label map holds whole numbers of 32 bits, this one does not; save it so")
    if rounding.distance:
        tell_once(f"{path}: its labels lie up to {rounding.distance:.1g} beside whole numbers and are rounded")
    return labels.astype(np.int32)


def select_labels(path: Path, labels: NDArray[np.int32], chosen: Collection[int] | None) -> NDArray[np.bool_]:
    """The mask of some labels, or of every one above 0.

    Args:
        path: The label map, as errors name it.
        labels: Its labels, of any shape.
        chosen: Those that belong to the mask; every positive one when None.

    Raises:
        UnknownDatatypeError: Every positive one is meant, there is none, and there are negative ones: a mask of 255
            overflows to -1.
    """
    if chosen is not None:
        return np.isin(labels, list(chosen))
    mask: NDArray[np.bool_] = labels > 0
    if not mask.any() and labels.any():
        raise UnknownDatatypeError(
            path, f"a mask is above 0 in its target, and this one has values such as {labels.min()} and none above 0"
        )
    return mask

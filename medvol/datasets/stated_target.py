"""What is stated about a target must be so in its mask: a label that is not there is no absent target."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from medvol.core.errors import DatasetError
from medvol.datasets.nifti_table import TargetRow
from medvol.imaging.label_values import FULL_SHARE

_MOST_LABELS = 1000
_FEW_LABELS = 64
_LOOKED_AT = 8
_ALIKE = 0.4
"""Share of neighbours in a row that are equal, of which a label map has more and a scan less."""


def require_stated(row: TargetRow, mask: NDArray[np.bool_], values: Callable[[Path], list[int]]) -> None:
    """Refuse a mask that does not show what a row says.

    Args:
        row: The target; it has a file of labels.
        mask: Its mask (Z, Y, X) as read.
        values: Gives the labels that a file holds.

    Raises:
        DatasetError: The mask is empty though the target is not said to be absent, or the other way round, or it fills
            the scan.
    """
    assert row.mask is not None, "a row without a mask states nothing"
    count, name = int(np.count_nonzero(mask)), row.target or row.query
    if row.absent and count:
        raise DatasetError(
            f"{name!r} is said to be absent, and {row.mask} holds {count:,} voxels of it; correct label, mask or absent"
        )
    if not row.absent and not count:
        raise DatasetError(_missing(row, name, values(row.mask)))
    if count >= FULL_SHARE * mask.size:
        raise DatasetError(
            f"{name!r} fills {count / mask.size:.0%} of the scan in {row.mask}, where 0 is the background; check label "
            "and mask"
        )


def require_labels(path: Path, values: NDArray[np.int32]) -> None:
    """Refuse a scan where a label map should be.

    Args:
        path: The file.
        values: Its voxels (Z, Y, X).

    Raises:
        DatasetError: It holds negative values, more than a thousand of them, or many that change from voxel to voxel.
    """
    low, high = int(values.min()), int(values.max())
    if low < 0 or _has_many(values, high):
        raise DatasetError(
            f"{path} holds values from {low} to {high}: a scan, not labels; check that image and mask are not swapped"
        )


def _has_many(values: NDArray[np.int32], high: int) -> bool:
    if high <= _FEW_LABELS:
        return False
    slices = values[:: max(1, len(values) // _LOOKED_AT)]
    found = len(np.unique(slices))
    if found <= _FEW_LABELS:
        return False
    inside = (slices[..., :-1] > 0) & (slices[..., 1:] > 0)
    alike = inside & (slices[..., :-1] == slices[..., 1:])
    return found > _MOST_LABELS or bool(alike.sum() < _ALIKE * inside.sum())


def _missing(row: TargetRow, name: str, held: list[int]) -> str:
    if row.seed is not None:
        return f"{name!r} is not at voxel {row.seed} of {row.mask}; the file has changed since it was looked through"
    some = ", ".join(map(str, held[:12])) + (" and more" if len(held) > 12 else "")
    what = f"label {' or '.join(map(str, row.labels))} of {name!r} is not in" if row.labels else f"{name!r} is empty in"
    labels = f", which holds {some}" if held else ", which holds 0 alone"
    mend = "; correct it, or write yes under 'absent' where the scan does not show it" if row.where else ""
    return f"{what} {row.mask}{labels}{mend}"

"""Masks of ReXGroundingCT: one file a scan, one finding after another along its first axis.

The header of such a file places no voxel (its affine is the identity); the voxels lie as those of the scan's own file.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from medvol.core.errors import DatasetError
from medvol.core.types import Volume
from medvol.datasets.layout import LabelledScan
from medvol.datasets.nifti_table import TargetRow

if TYPE_CHECKING:
    from medvol.imaging.cache.slice_cache import SliceCache

MAX_BYTES = 8 * 1024**3
"""Budget for one file of masks, as it is stored."""

_log = logging.getLogger(__name__)

_Box = tuple[slice, slice, slice]


@dataclass(frozen=True, eq=False)
class _Entities:
    """Numbers of the entities of one finding, cut to where there are any, in the axes of the file."""

    box: _Box
    numbers: NDArray[np.int32]


class ReXGroundingCTScan(LabelledScan):
    """A scan with the masks of its findings; label ``k`` of a row is finding ``k - 1``.

    Args:
        row: A finding of the scan.
        voxels: Size of the mask of each finding as the list states it; None where it does not.
        cache: Keeps scans unpacked.
    """

    def __init__(self, row: TargetRow, voxels: Sequence[int | None], cache: SliceCache | None = None) -> None:
        from medvol.imaging.reading import read_volume

        read = read_volume if cache is None else cache.read_volume
        self.volume: Volume = read(row.image, modality=row.modality)
        self._voxels = voxels
        self._read: list[_Entities] | None = None

    def read(self, path: Path, labels: tuple[int, ...]) -> NDArray[np.bool_]:
        """See ``LabelledScan``."""
        mask: NDArray[np.bool_] = np.logical_or.reduce([self.entities(path, label - 1) > 0 for label in labels])
        return mask

    def values(self, path: Path) -> list[int]:
        """See ``LabelledScan``."""
        return [label for label, one in enumerate(self._entities(path), start=1) if one.numbers.size]

    def entities(self, path: Path, finding: int) -> NDArray[np.int32]:
        """Number of the entity that each voxel belongs to, (Z, Y, X), 0 for none.

        Args:
            path: File of the scan's masks.
            finding: Number of the finding, from 0.

        Raises:
            ScanError: The file is damaged.
            DatasetError: It holds another number of findings, another grid than the scan's, or no whole numbers.
        """
        from medvol.imaging.geometry import turn_to_lps

        source, one = self.volume.source, self._entities(path)[finding]
        assert source is not None, "the scan was read from a file"
        stored = np.zeros(source.shape, np.int32)
        stored[one.box] = one.numbers
        return np.ascontiguousarray(turn_to_lps(stored, source.orientation))

    def _entities(self, path: Path) -> list[_Entities]:
        if self._read is None:
            from medvol.imaging.formats.nifti import read_nifti_array

            stored = read_nifti_array(path, MAX_BYTES)
            self._read = [_cut(path, channel) for channel in self._split(path, stored)]
            self._compare_sizes(path, self._read)
        return self._read

    def _compare_sizes(self, path: Path, found: list[_Entities]) -> None:
        """Say where a mask is not of the size that the list states: its findings may be in another order."""
        sizes = [int(np.count_nonzero(one.numbers)) for one in found]
        for finding, (size, stated) in enumerate(zip(sizes, self._voxels, strict=True)):
            if stated is not None and size != stated:
                _log.warning(
                    "%s: finding %d has %d voxels, and the list says %d; are list and masks of one release?",
                    *(path, finding, size, stated),
                )

    def _split(self, path: Path, stored: NDArray[Any]) -> NDArray[Any]:
        """Masks (F, I, J, K) of a file; the axis of a single finding may be missing."""
        assert self.volume.source is not None, "the scan was read from a file"
        shape = self.volume.source.shape
        wanted = (len(self._voxels), *shape)
        if stored.shape == shape and len(self._voxels) == 1:
            return stored[None]
        if stored.shape != wanted:
            raise DatasetError(
                f"{path} holds an array of {stored.shape}; {wanted[0]} findings of a scan of {shape} need {wanted}: "
                "check that scan and masks are of one release"
            )
        return stored


def _cut(path: Path, channel: NDArray[Any]) -> _Entities:
    from medvol.imaging.label_values import to_labels

    sides = [np.flatnonzero(channel.any(axis=tuple({0, 1, 2} - {axis}))) for axis in range(3)]
    i, j, k = (slice(int(side[0]), int(side[-1]) + 1) if len(side) else slice(0, 0) for side in sides)
    numbers = to_labels(path, channel[i, j, k])
    if numbers.size and numbers.min() < 0:
        raise DatasetError(f"{path} holds the value {numbers.min()}; entities are numbered from 1")
    return _Entities((i, j, k), numbers.copy())

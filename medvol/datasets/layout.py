"""Layouts: where a collection keeps its scans and label maps, and what its labels mean."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import numpy as np
from numpy.typing import NDArray

from medvol.core.errors import DatasetError
from medvol.core.types import Modality, Volume
from medvol.datasets.nifti_table import TargetRow
from medvol.datasets.stated_target import require_labels, require_stated
from medvol.imaging.file_names import DICOM_FILES, ends_in
from medvol.queries.findings import find_growth
from medvol.queries.instances import part_at

if TYPE_CHECKING:
    from medvol.imaging.cache.slice_cache import SliceCache

_PAIRS = {"kidneys": "kidney", "lungs": "lung"}
_PAIRED = {"kidney": r"\b(kidney|renal)", "lung": r"\b(lung|pulmonary)"}
"""What names of growths call a paired organ."""


@dataclass(frozen=True)
class Structure:
    """What a label map shows under one name.

    Args:
        name: Target that is asked for: ``kidneys``.
        labels: Its values in the label map; every value but 0 when empty.
        pair: Name of one of the two when it is a pair: ``kidney``; the affine then tells left from right.
        finding: What a separate growth is called beside its organ: ``tumour``; empty for anatomy.
        organ: Pair that it is a part of: ``kidney``; empty when it is part of none.
        mask: File of its own; None when it is in the scan's label map.
        instances: Files that hold one finding each; connected parts are taken where there are none.
    """

    name: str
    labels: tuple[int, ...] = ()
    pair: str = ""
    finding: str = ""
    organ: str = ""
    mask: Path | None = None
    instances: tuple[Path, ...] = ()


def structure_named(name: str, labels: tuple[int, ...], mask: Path | None = None) -> Structure:
    """A structure as its name tells: ``kidneys`` are a pair, ``right kidney cyst`` is a finding of a kidney."""
    growth = find_growth(name)
    kind = "tumour" if growth in ("tumor", "cancer") else growth
    organ = next((one for one, words in _PAIRED.items() if growth and re.search(words, name)), "")
    return Structure(name, labels, pair=_PAIRS.get(name, ""), finding=kind, organ=organ, mask=mask)


@dataclass(frozen=True)
class ScanFiles:
    """One scan of a collection.

    Args:
        image: The scan.
        label_map: Its label map; None when it has none, or a mask for each structure.
        structures: What the label map or the masks show.
        patient: The same person has the same name in every collection where that can be known.
        case: Start of the ids of its cases.
        split: Part that the publisher put it into: ``train``, ``val`` or ``test``; empty when there is none.
        modality: What the intensities are.
    """

    image: Path
    label_map: Path | None
    structures: tuple[Structure, ...]
    patient: str
    case: str
    split: str = ""
    modality: Modality | None = "CT"


class LabelledScan(ABC):
    """A volume with the masks of its targets; what was read is kept."""

    volume: Volume

    def mask(self, row: TargetRow) -> NDArray[np.bool_] | None:
        """True mask of a target; None when it is unknown.

        Raises:
            DatasetError: The file does not hold the target, or it holds one that is said to be absent.
        """
        if row.mask is None:
            return np.zeros(self.volume.shape, bool) if row.absent else None
        mask = self.read(row.mask, row.labels)
        mask = mask if row.seed is None else part_at(mask, row.seed)
        require_stated(row, mask, self.values)
        return mask

    @abstractmethod
    def read(self, path: Path, labels: tuple[int, ...]) -> NDArray[np.bool_]:
        """Mask (Z, Y, X) of some labels of a file; of every value but 0 when none are named."""

    @abstractmethod
    def values(self, path: Path) -> list[int]:
        """Labels that a file of labels holds."""


class NiftiScan(LabelledScan):
    """A scan and label maps that pass the reading gate, read from a cache of slices where there is one."""

    def __init__(self, row: TargetRow, cache: SliceCache | None = None) -> None:
        from medvol.imaging.reading import read_volume

        self._cache = cache
        read = read_volume if cache is None else cache.read_volume
        self.volume = read(row.image, modality=row.modality)
        self._maps: dict[Path, NDArray[np.int32]] = {}
        self._segments: dict[Path, dict[int, NDArray[np.intp]]] = {}

    def read(self, path: Path, labels: tuple[int, ...]) -> NDArray[np.bool_]:
        """See ``LabelledScan``; the labels of a DICOM segmentation object are the numbers of its segments."""
        from medvol.imaging.reading import read_labels

        if ends_in(path, DICOM_FILES):
            return self._read_segments(path, labels)
        if path not in self._maps:
            read = read_labels if self._cache is None else self._cache.read_labels
            values = read(path, self.volume)
            require_labels(path, values)
            self._maps[path] = values
        values = self._maps[path]
        return np.isin(values, labels) if labels else values != 0

    def values(self, path: Path) -> list[int]:
        """See ``LabelledScan``."""
        if path in self._segments:
            return list(self._segments[path])
        return [value for value in np.unique(self._maps[path]).tolist() if value]

    def _read_segments(self, path: Path, labels: tuple[int, ...]) -> NDArray[np.bool_]:
        from medvol.imaging.dicom.segmentation import read_segment_voxels

        if path not in self._segments:
            self._segments[path] = read_segment_voxels(path, self.volume)
        mask = np.zeros(self.volume.shape, np.bool_)
        for number, voxels in self._segments[path].items():
            if not labels or number in labels:
                mask.ravel()[voxels] = True
        return mask


class Layout(ABC):
    """Finds the scans of a published collection."""

    never_shown: ClassVar[tuple[str, ...]] = ()
    """Targets that no scan of the collection shows, for queries about something absent."""

    @abstractmethod
    def find(self, root: Path) -> tuple[list[ScanFiles], list[Path]]:
        """Every scan below a folder that has label maps, and the scans that have none, in a fixed order; reads no scan.

        Raises:
            DatasetError: The folder does not have the collection's layout, or no scan has a label map; the message says
                what was looked for.
        """

    def open(self, row: TargetRow, cache: SliceCache | None = None) -> LabelledScan:
        """Read the scan of a target; from a cache where the files are of a kind that it keeps."""
        return NiftiScan(row, cache)


def existing(*candidates: Path) -> Path | None:
    """The one of some paths that is a file; None where none is.

    Raises:
        DatasetError: Several are, and nothing says which one counts.
    """
    found = [path for path in candidates if path.is_file()]
    if len(found) > 1:
        raise DatasetError(f"{found[0]} and {found[1]} are files of one scan; keep one of them there")
    return found[0] if found else None


def tell_apart(names: Mapping[Path, str], longer: Callable[[Path], str]) -> dict[Path, str]:
    """Names of files, with a longer one for those that share a name."""
    counts = Counter(names.values())
    return {path: longer(path) if counts[name] > 1 else name for path, name in names.items()}


def one_each(files: Iterable[tuple[str, Path]], remedy: str = "keep one of them there") -> dict[str, Path]:
    """Files by name.

    Args:
        files: Names and files.
        remedy: What to do about two of one name.

    Raises:
        DatasetError: Two are of one name, and nothing says which one counts.
    """
    found: dict[str, Path] = {}
    for name, path in files:
        if name in found:
            raise DatasetError(f"{found[name]} and {path} are both {name!r}; {remedy}")
        found[name] = path
    return found

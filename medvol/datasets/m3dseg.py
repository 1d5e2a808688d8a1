"""M3DSegDataset: the preprocessed arrays of M3D-Seg, where spacing, orientation and Hounsfield units are lost."""

from __future__ import annotations

import logging
import re
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from medvol.core.errors import ConfigError, DatasetError
from medvol.datasets.layout import LabelledScan, Layout, ScanFiles, Structure
from medvol.datasets.m3dseg_arrays import NpyScan, count_voxels
from medvol.datasets.nifti_table import TargetRow
from medvol.datasets.release import ReleaseDataset
from medvol.datasets.settings import CacheSettings, PatientSettings, QuestionSettings
from medvol.datasets.shown_targets import Found, ShownTarget
from medvol.datasets.splits import Split, read_json
from medvol.queries.label_names import name_labels, require_single_names

if TYPE_CHECKING:
    from medvol.imaging.cache.slice_cache import SliceCache

_log = logging.getLogger(__name__)

SETS = {"0003": "abdomenct1k", "0004": "kits", "0012": "ctorg"}
"""Sets whose classes are named as the releases' own data sets name them, and whose patients share names with them."""

_NAMES = {
    "arota": "aorta",
    "bladder": "urinary bladder",
    "bones": "bone",
    "cyst": "kidney cyst",
    "gall bladder": "gallbladder",
    "kidney": "kidneys",
    "lung": "lungs",
    "postcava": "inferior vena cava",
    "tumour": "kidney tumour",
}
_PARTS = {"train": "train", "validation": "val", "val": "val", "test": "test"}


class M3DSegLayout(Layout):
    """``<id>/<case>/image.npy`` with ``mask_(C, H, W, D).npz``, listed in ``<id>/<id>.json``."""

    def __init__(self, set_id: str = "0003", orientation: str = "LPS") -> None:
        self.set_id = set_id
        self.orientation = orientation

    def find(self, root: Path) -> tuple[list[ScanFiles], list[Path]]:
        """See ``Layout``."""
        places = [place for place in (root / self.set_id, root) if (place / f"{self.set_id}.json").is_file()]
        if not places:
            raise DatasetError(f"{root}: there is no {self.set_id}/{self.set_id}.json in it; unpack M3D-Seg there")
        path = places[0] / f"{self.set_id}.json"
        content = read_json(path)
        if not isinstance(content, dict):
            raise DatasetError(f"{path}: expected an object with 'labels' and lists of image and label")
        structures = _structures(path, content.get("labels"))
        parts = {key: part for key, part in _PARTS.items() if isinstance(content.get(key), list)}
        entries = [(entry, part) for key, part in parts.items() for entry in content[key]]
        return [self._scan(path, entry, part, structures) for entry, part in entries], []

    def open(self, row: TargetRow, cache: SliceCache | None = None) -> LabelledScan:
        """See ``Layout``; arrays of NumPy are not kept in a cache, since they are read as they lie."""
        return NpyScan(row, self.orientation)

    def _scan(self, path: Path, entry: Any, part: str, structures: tuple[Structure, ...]) -> ScanFiles:
        name = entry.get("image") if isinstance(entry, dict) else None
        if not isinstance(name, str) or len(PurePosixPath(name).parts) < 2:
            raise DatasetError(f"{path}: an entry is {entry!r:.80}; write an object with 'image' and 'label'")
        case = PurePosixPath(name).parts[-2]
        folder = path.parent / case
        masks = sorted(file for file in folder.glob("mask_*.npz"))
        if not (folder / "image.npy").is_file() or len(masks) != 1:
            raise DatasetError(f"{folder}: expected image.npy and one mask_(C, H, W, D).npz; unpack the case again")
        owner = SETS.get(self.set_id, f"m3d-{self.set_id}")
        return ScanFiles(folder / "image.npy", masks[0], structures, _patient(owner, case), case, part, "other")


class M3DSegDataset(ReleaseDataset):
    """M3D-Seg: preprocessed arrays of 25 CT sets, of which 0003, 0004 and 0012 are those of the paper.

    Its preparation clipped and standardised the intensities, and wrote neither spacing nor orientation: window
    presets in Hounsfield units, distances and sides mean nothing here, and relational questions are not asked. Its
    arrays are read as they lie, and no folder caches them. Read the original release where you can. The first use logs
    this.

    Args:
        root: Folder that holds the folder of the set, or that folder.
        set_id: ``0003`` AbdomenCT-1K, ``0004`` KiTS23, ``0012`` CT-ORG, or another set.
        orientation: Three letters that say which way the three axes of the arrays are taken to point; nothing in the
            files says it.
    """

    layout = M3DSegLayout()

    def __init__(
        self,
        root: str,
        set_id: str = "0003",
        orientation: str = "LPS",
        split: Split = "all",
        seed: int = 0,
        index: str | None = None,
        patients: PatientSettings = PatientSettings(),
        questions: QuestionSettings = QuestionSettings(),
        cache: CacheSettings = CacheSettings(),
    ) -> None:
        super().__init__(
            root=root, split=split, seed=seed, index=index, patients=patients, questions=questions, cache=cache
        )
        if not re.fullmatch(r"\d{4}", set_id):
            raise ConfigError(f"set_id is four digits such as '0004'; got {set_id!r} (put it in quotes)")
        if sorted("LAS".find(_axis(letter)) for letter in orientation) != [0, 1, 2]:
            raise ConfigError(f"orientation is three letters such as LPS or RAS; got {orientation!r}")
        if questions.relations:
            raise ConfigError("M3D-Seg has lost sides and distances, so no relation is asked; leave relations out")
        if cache.folder is not None:
            raise ConfigError("cache.folder does not work with M3D-Seg, whose files are read directly; leave it out")
        self.set_id = set_id
        self.orientation = orientation
        self.layout = M3DSegLayout(set_id, orientation)

    def volume_key(self, index: int) -> str:
        """As for every scan, with where its axes are taken to point."""
        return f"{super().volume_key(index)}:{self.orientation}"

    def _rows(self) -> list[tuple[int, TargetRow]]:
        _log.warning(
            "%s: M3D-Seg arrays have lost Hounsfield units, spacing and orientation; windows are by percentiles, a "
            "voxel counts as 1 mm, and the axes are taken to point to %s; read the original release where you can",
            self.root,
            self.orientation,
        )
        return super()._rows()

    def _look(self, scan: ScanFiles) -> Found:
        assert scan.label_map is not None, "the layout finds no scan without masks"
        counts = count_voxels(scan.label_map)
        if len(counts) != len(scan.structures):
            raise DatasetError(
                f"{scan.label_map}: {len(counts)} masks for the {len(scan.structures)} labels of {self.set_id}.json"
            )
        named = list(zip(scan.structures, counts, strict=True))
        mask = str(scan.label_map)
        shown = tuple(ShownTarget(s.name, mask, s.labels) for s, count in named if count >= self.questions.min_voxels)
        return Found(shown, tuple(s.name for s, count in named if count == 0))


def _structures(path: Path, labels: Any) -> tuple[Structure, ...]:
    """One structure for each mask, which label values number from 1 on."""
    names = name_labels(f"{path}: labels", labels)
    named = {value: _NAMES.get(name, name) for value, name in sorted(names.items())}
    require_single_names(f"{path}: labels", named)
    values = list(named)
    if values != list(range(1, len(named) + 1)):
        raise DatasetError(
            f"{path}: the labels under 'labels' are {str(values)[1:-1]:.80}; masks are numbered from 1 on, so nothing "
            "says which mask is whose; number the labels as the masks lie in their files"
        )
    return tuple(Structure(name, (value,)) for value, name in named.items())


def _patient(owner: str, case: str) -> str:
    """Name of a patient as the data set of the original release writes it, where the case keeps its number."""
    number = re.search(r"(\d+)$", case)
    if number is None or owner == "abdomenct1k":
        return f"{owner}-{case}"
    return f"{owner}-{int(number[1]):0{5 if owner == 'kits' else 3}d}"


def _axis(letter: str) -> str:
    """The letter of an axis, whichever way it points."""
    return {"R": "L", "P": "A", "I": "S"}.get(letter, letter)

"""TotalSegmentatorDataset: one folder a patient, one mask file a structure."""

from __future__ import annotations

from pathlib import Path

from medvol.core.errors import DatasetError
from medvol.core.types import Modality
from medvol.datasets.layout import Layout, ScanFiles, existing, one_each, structure_named
from medvol.datasets.release import ReleaseDataset
from medvol.datasets.sheet import read_sheet
from medvol.imaging.file_names import NIFTI, ends_in, stem
from medvol.imaging.folder_walk import find_below
from medvol.queries.query_bank import target_name

_MODALITIES: dict[str, Modality] = {"ct.nii.gz": "CT", "ct.nii": "CT", "mri.nii.gz": "MR", "mri.nii": "MR"}
"""Modality of a scan by the name of its file."""

_MASKS = "segmentations"
_PARTS = {"train": "train", "val": "val", "test": "test"}


class TotalSegmentatorLayout(Layout):
    """``s0000/ct.nii.gz`` (or ``mri.nii.gz``) with ``segmentations/<structure>.nii.gz``, split in ``meta.csv``."""

    def find(self, root: Path) -> tuple[list[ScanFiles], list[Path]]:
        """See ``Layout``."""
        parts = _read_parts(root / "meta.csv")
        files = sorted(path for path in find_below(root) if path.name in (_MASKS, *_MODALITIES))
        folders = [path.parent for path in files if path.name == _MASKS and path.is_dir()]
        found = [_scan(folder, parts.get(folder.name, "")) for folder in folders]
        if not found:
            raise DatasetError(f"{root}: there is no s0000/segmentations in it; unpack TotalSegmentator there")
        return found, [path for path in files if path.name in _MODALITIES and not (path.parent / _MASKS).is_dir()]


class TotalSegmentatorDataset(ReleaseDataset):
    """TotalSegmentator, CT or MR: more than a hundred structures, each in a file of its own.

    Every mask of every chosen scan is read to know whether it is empty, whichever ``targets`` are asked for, and that
    takes long: let ``index`` remember it. Left and right are checked against the affine. The split is the one in
    ``meta.csv``.
    """

    layout = TotalSegmentatorLayout()
    licence = "CC BY 4.0"


def _scan(folder: Path, part: str) -> ScanFiles:
    image = existing(*(folder / name for name in _MODALITIES))
    if image is None:
        raise DatasetError(f"{folder}: there is neither ct.nii.gz nor mri.nii.gz in it; unpack the scan too")
    masks = sorted(path for path in (folder / _MASKS).iterdir() if ends_in(path, NIFTI))
    named = one_each((target_name(stem(path.name)), path) for path in masks)
    structures = tuple(structure_named(name, (), path) for name, path in named.items())
    name = f"totalsegmentator-{folder.name}"
    return ScanFiles(image, None, structures, name, folder.name, part, _MODALITIES[image.name])


def _read_parts(path: Path) -> dict[str, str]:
    """Split of each case; nothing where there is no such table."""
    if not path.is_file():
        return {}
    rows = [row.cells for row in read_sheet(path, "image_id")]
    if rows and not {"image_id", "split"} <= rows[0].keys():
        raise DatasetError(f"{path}: expected the columns image_id and split; got {', '.join(rows[0])[:200]}")
    return {row["image_id"]: _PARTS.get(row["split"], "") for row in rows}

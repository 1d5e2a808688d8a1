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

_IMAGES: tuple[tuple[str, Modality], ...] = (("ct", "CT"), ("mri", "MR"))
_PARTS = {"train": "train", "val": "val", "test": "test"}


class TotalSegmentatorLayout(Layout):
    """``s0000/ct.nii.gz`` (or ``mri.nii.gz``) with ``segmentations/<structure>.nii.gz``, split in ``meta.csv``."""

    def find(self, root: Path) -> list[ScanFiles]:
        """See ``Layout``."""
        parts = _read_parts(root / "meta.csv")
        folders = sorted(path.parent for path in find_below(root, "segmentations") if path.is_dir())
        found = [_scan(folder, parts.get(folder.name, "")) for folder in folders]
        if not found:
            raise DatasetError(f"{root}: there is no s0000/segmentations in it; unpack TotalSegmentator there")
        return found

    def find_unlabelled(self, root: Path) -> list[Path]:
        """See ``Layout``."""
        names = {f"{name}{end}" for name, _ in _IMAGES for end in NIFTI}
        images = sorted(path for path in find_below(root) if path.name in names)
        return [image for image in images if not (image.parent / "segmentations").is_dir()]


class TotalSegmentatorDataset(ReleaseDataset):
    """TotalSegmentator, CT or MR: more than a hundred structures, each in a file of its own.

    Every mask is read to know whether it is empty, which takes long for all structures: name the ``targets`` you need,
    and let ``index`` remember. Left and right are checked against the affine. The split is the one in ``meta.csv``.
    """

    layout = TotalSegmentatorLayout()
    licence = "CC BY 4.0"


def _scan(folder: Path, part: str) -> ScanFiles:
    names = [(folder / f"{stem}{end}", modality) for stem, modality in _IMAGES for end in NIFTI]
    image = existing(*(path for path, _ in names))
    if image is None:
        raise DatasetError(f"{folder}: there is neither ct.nii.gz nor mri.nii.gz in it; unpack the scan too")
    masks = sorted(path for path in (folder / "segmentations").iterdir() if ends_in(path, NIFTI))
    named = one_each((target_name(stem(path.name)), path) for path in masks)
    structures = tuple(structure_named(name, (), path) for name, path in named.items())
    name = f"totalsegmentator-{folder.name}"
    return ScanFiles(image, None, structures, name, folder.name, part, dict(names)[image])


def _read_parts(path: Path) -> dict[str, str]:
    """Split of each case; nothing where there is no such table."""
    if not path.is_file():
        return {}
    rows = [row.cells for row in read_sheet(path, "image_id")]
    if rows and not {"image_id", "split"} <= rows[0].keys():
        raise DatasetError(f"{path}: expected the columns image_id and split; got {', '.join(rows[0])[:200]}")
    return {row["image_id"]: _PARTS.get(row["split"], "") for row in rows}

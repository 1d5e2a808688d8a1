"""AbdomenCT1KDataset: AbdomenCT-1K, four organs on a thousand CT scans from five sources."""

from __future__ import annotations

import re
from pathlib import Path

from medvol.core.errors import DatasetError
from medvol.datasets.layout import Layout, ScanFiles, Structure, one_each
from medvol.datasets.release import ReleaseDataset
from medvol.imaging.file_names import NIFTI, ends_in, stem
from medvol.imaging.folder_walk import find_below

STRUCTURES = (
    Structure("liver", (1,)),
    Structure("kidneys", (2,), pair="kidney"),
    Structure("spleen", (3,)),
    Structure("pancreas", (4,)),
)
"""Labels of the release."""


class AbdomenCT1KLayout(Layout):
    """``Case_00001_0000.nii.gz`` and its mask ``Case_00001.nii.gz``, in any folders."""

    never_shown = ("brain", "brain tumour", "thyroid gland")

    def find(self, root: Path) -> tuple[list[ScanFiles], list[Path]]:
        """See ``Layout``."""
        images, masks = _find_files(root)
        if not images:
            raise DatasetError(f"{root}: there is no Case_00001_0000.nii.gz in it; unpack AbdomenCT-1K there")
        if images.keys().isdisjoint(masks):
            first = min(images)
            raise DatasetError(f"{images[first]}: there is no {first}.nii.gz; unpack the masks too")
        found = [
            ScanFiles(image, masks[case], STRUCTURES, f"abdomenct1k-{case}", case)
            for case, image in sorted(images.items())
            if case in masks
        ]
        return found, [image for case, image in sorted(images.items()) if case not in masks]


class AbdomenCT1KDataset(ReleaseDataset):
    """AbdomenCT-1K: liver, kidneys, spleen and pancreas.

    Its scans come from LiTS, KiTS, two tasks of the Medical Segmentation Decathlon and NIH Pancreas, under new names.
    Patients are therefore not known across sets: let ``medvol check`` compare the scans before sets are trained on
    together, and leave out what it names with ``patients.exclude``. The release has no split of its own.
    """

    layout = AbdomenCT1KLayout()


def _find_files(root: Path) -> tuple[dict[str, Path], dict[str, Path]]:
    """Images and masks by case."""
    files = sorted(path for path in find_below(root, "Case_*.nii*") if ends_in(path, NIFTI))
    named = [(match, path) for path in files if (match := re.fullmatch(r"(Case_\d+)(_0000)?", stem(path.name)))]
    images = one_each((match[1], path) for match, path in named if match[2])
    return images, one_each((match[1], path) for match, path in named if not match[2])

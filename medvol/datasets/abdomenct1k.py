"""AbdomenCT1KDataset: AbdomenCT-1K, four organs on a thousand CT scans from five sources."""

from __future__ import annotations

import logging
import re
from pathlib import Path

from medvol.core.errors import DatasetError
from medvol.datasets.layout import Layout, ScanFiles, Structure, one_each
from medvol.datasets.release import ReleaseDataset
from medvol.imaging.file_names import NIFTI, ends_in, stem

_log = logging.getLogger(__name__)

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

    def find(self, root: Path) -> list[ScanFiles]:
        """See ``Layout``."""
        files = sorted(path for path in root.rglob("Case_*.nii*") if ends_in(path, NIFTI))
        masks = one_each((stem(path.name), path) for path in files if re.fullmatch(r"Case_\d+", stem(path.name)))
        images = one_each((m[1], path) for path in files if (m := re.fullmatch(r"(Case_\d+)_0000", stem(path.name))))
        if not images:
            raise DatasetError(f"{root}: there is no Case_00001_0000.nii.gz in it; unpack AbdomenCT-1K there")
        lonely = sorted(images.keys() - masks.keys())
        if len(lonely) == len(images):
            raise DatasetError(f"{images[lonely[0]]}: there is no {lonely[0]}.nii.gz; unpack the masks too")
        if lonely:
            _log.warning("%s: %d scans have no mask and are left out, such as %s", root, len(lonely), lonely[0])
        return [
            ScanFiles(image, masks[case], STRUCTURES, f"abdomenct1k-{case}", case)
            for case, image in sorted(images.items())
            if case in masks
        ]


class AbdomenCT1KDataset(ReleaseDataset):
    """AbdomenCT-1K: liver, kidneys, spleen and pancreas.

    Its scans come from LiTS, KiTS, two tasks of the Medical Segmentation Decathlon and NIH Pancreas, under new names.
    Patients are therefore not known across sets: let ``medvol check`` compare the scans before sets are trained on
    together, and leave out what it names with ``exclude_patients``. The release has no split of its own.
    """

    layout = AbdomenCT1KLayout()

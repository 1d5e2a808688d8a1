"""CTORGDataset: CT-ORG, six organs on CT scans of the whole trunk."""

from __future__ import annotations

import re
from pathlib import Path

from medvol.core.errors import DatasetError
from medvol.datasets.layout import Layout, ScanFiles, Structure, existing
from medvol.datasets.release import ReleaseDataset
from medvol.imaging.file_names import NIFTI, ends_in, stem
from medvol.imaging.folder_walk import find_below, folder_above

STRUCTURES = (
    Structure("liver", (1,)),
    Structure("urinary bladder", (2,)),
    Structure("lungs", (3,), pair="lung"),
    Structure("kidneys", (4,), pair="kidney"),
    Structure("bone", (5,)),
    Structure("brain", (6,)),
)
"""Labels of the release."""

LAST_TEST_NUMBER = 20
"""Volumes 0 to 20 are the test part, 21 to 139 the training part."""


class CTORGLayout(Layout):
    """``volume-N.nii.gz`` beside ``labels-N.nii.gz``, at any depth."""

    def find(self, root: Path) -> tuple[list[ScanFiles], list[Path]]:
        """See ``Layout``."""
        found, unlabelled = [], []
        for image in find_below(root, "volume-*.nii*"):
            number = re.fullmatch(r"volume-(\d+)", stem(image.name))
            if number is None or not ends_in(image, NIFTI):
                continue
            labels = existing(*(place / f"labels-{number[1]}{end}" for place in _places(image) for end in NIFTI))
            if labels is None:
                unlabelled.append(image)
                continue
            part = "test" if int(number[1]) <= LAST_TEST_NUMBER else "train"
            name = f"ctorg-{int(number[1]):03d}"
            found.append(ScanFiles(image, labels, STRUCTURES, name, name, part))
        if not found:
            missing, what = ("labels-N.nii.gz", "the labels too") if unlabelled else ("volume-N.nii.gz", "CT-ORG there")
            raise DatasetError(f"{root}: there is no {missing} in it; unpack {what}")
        return sorted(found, key=lambda scan: scan.case), sorted(unlabelled)


class CTORGDataset(ReleaseDataset):
    """CT-ORG: liver, bladder, lungs, kidneys, bone and brain; 119 scans to train and 21 to test.

    Lung and bone labels of the training part were made by a program, those of the test part by hand. Left and right
    kidney and lung are told apart by the affine. Many scans are those of LiTS, which AbdomenCT-1K holds too: let
    ``medvol check`` compare the sets before they are trained on together.
    """

    layout = CTORGLayout()


def _places(image: Path) -> tuple[Path, ...]:
    """Folders in which the labels may lie: beside the scan, or in a folder beside its own."""
    return image.parent, *sorted(place for place in folder_above(image.parent).glob("*abel*") if place.is_dir())

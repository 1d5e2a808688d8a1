"""KiTS23Dataset: KiTS23, kidneys with their tumours and cysts, each annotated by itself."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

from medvol.core.errors import DatasetError
from medvol.datasets.layout import Layout, ScanFiles, Structure, existing, one_each
from medvol.datasets.release import ReleaseDataset
from medvol.imaging.file_names import stem
from medvol.imaging.folder_walk import find_below

KIDNEYS = "kidneys"
MASS = "kidney lesion"
TUMOUR = "kidney tumour"
CYST = "kidney cyst"

CLASSES = {"kidney_and_mass": (1, 2, 3), "mass": (2, 3), "tumor": (2,)}
"""The hierarchical classes that the challenge scores, and their labels."""

TARGETS_OF_CLASSES = {"kidney_and_mass": KIDNEYS, "mass": MASS, "tumor": TUMOUR}
"""What each of them is asked for as."""

_TOLERANCES_MM = {"kidney_and_mass": 1.0331, "mass": 1.1329, "tumor": 1.1498}
_INSTANCES = ("instances", "segmentations")
_FIRST_ANNOTATION = re.compile(r"(tumor|cyst)_instance-\d+_annotation-1\.nii(\.gz)?")


class KiTS23Layout(Layout):
    """``case_00000/imaging.nii.gz``, ``segmentation.nii.gz`` and ``instances/``, below the root or its ``dataset``."""

    never_shown = ("brain", "brain tumour", "thyroid gland")

    def find(self, root: Path) -> tuple[list[ScanFiles], list[Path]]:
        """See ``Layout``."""
        folders = sorted(path for path in find_below(root, "case_*") if re.fullmatch(r"case_\d{5}", path.name))
        images = {folder: _image(folder) for folder in folders if folder.is_dir()}
        labels = {folder: _file(folder, "segmentation") for folder in images}
        found = [_scan(folder, images[folder], path) for folder, path in labels.items() if path is not None]
        if not found:
            raise DatasetError(f"{root}: there is no case_00000 with a segmentation.nii.gz in it; unpack KiTS23 there")
        return found, [images[folder] for folder, path in labels.items() if path is None]


class KiTS23Dataset(ReleaseDataset):
    """KiTS23: kidneys with their masses, masses, tumours and cysts; every tumour and cyst by itself.

    ``kidneys``, ``kidney lesion`` and ``kidney tumour`` are the classes ``kidney_and_mass``, ``mass`` and ``tumor`` of
    the challenge. Each kidney is asked for with its masses, its side told by the affine. With ``relations``, tumours
    and cysts are asked for as the only, largest, smallest, highest and lowest one, and kidneys by what they bear.
    The release has no split of its own; ``split_file`` takes one.
    """

    layout = KiTS23Layout()
    licence = "CC BY-NC-SA"

    surface_tolerances_mm: ClassVar[Mapping[str, float]] = {
        TARGETS_OF_CLASSES[name]: tolerance for name, tolerance in _TOLERANCES_MM.items()
    }
    """Tolerance of the surface Dice of each target, from the challenge's own metrics."""


def _file(folder: Path, name: str) -> Path | None:
    return existing(folder / f"{name}.nii.gz", folder / f"{name}.nii")


def _image(folder: Path) -> Path:
    """The scan of a case, which the release's repository does not hold."""
    image = _file(folder, "imaging")
    if image is None:
        raise DatasetError(f"{folder}: there is no imaging.nii.gz in it; download it with the release's own script")
    return image


def _scan(folder: Path, image: Path, labels: Path) -> ScanFiles:
    name = folder.name
    return ScanFiles(image, labels, _structures(folder), f"kits-{name.removeprefix('case_')}", name)


def _structures(folder: Path) -> tuple[Structure, ...]:
    """Structures of one case; tumours and cysts with a file each where the first annotation gives them."""
    files = sorted(path for place in _INSTANCES for path in (folder / place).glob("*.nii*"))
    found = one_each((stem(path.name), path) for path in files if _FIRST_ANNOTATION.fullmatch(path.name))
    tumours, cysts = (
        tuple(path for path in found.values() if path.name.startswith(kind)) for kind in ("tumor", "cyst")
    )
    return (
        Structure(KIDNEYS, CLASSES["kidney_and_mass"], pair="kidney"),
        Structure(MASS, CLASSES["mass"], organ="kidney"),
        Structure(TUMOUR, CLASSES["tumor"], finding="tumour", organ="kidney", instances=tumours),
        Structure(CYST, (3,), finding="cyst", organ="kidney", instances=cysts),
    )

"""DecathlonDataset: the layout of the Medical Segmentation Decathlon, which many sets copy."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from medvol.core.errors import DatasetError
from medvol.core.types import Modality
from medvol.datasets.layout import Layout, ScanFiles, Structure, structure_named, tell_apart
from medvol.datasets.nifti_table import scan_name
from medvol.datasets.release import ReleaseDataset
from medvol.datasets.splits import read_json
from medvol.imaging.file_names import stem
from medvol.queries.label_names import name_labels, require_single_names

_ORGANS = {"liver": "liver", "pancreas": "pancreas", "lung": "lung", "colon": "colon", "hepaticvessel": "liver"}


class DecathlonLayout(Layout):
    """``dataset.json`` that names label values and pairs of ``imagesTr`` and ``labelsTr``."""

    def find(self, root: Path) -> tuple[list[ScanFiles], list[Path]]:
        """See ``Layout``."""
        path = root / "dataset.json"
        content = read_json(path)
        if not isinstance(content, dict) or not isinstance(content.get("training"), list):
            raise DatasetError(f"{path}: expected an object with 'labels' and a list 'training' of image and label")
        name = str(content.get("name") or root.name)
        structures = _structures(path, name, content.get("labels"))
        modality = _modality(content.get("modality"))
        scans = [_scan(path, entry, structures, modality) for entry in content["training"]]
        names = {scan.image: scan.case for scan in scans}
        cases = tell_apart(names, lambda image: scan_name(Path(os.path.relpath(image, root)).as_posix()))
        patients = {image: f"{name.lower()}-{case}" for image, case in cases.items()}
        return [replace(scan, case=cases[scan.image], patient=patients[scan.image]) for scan in scans], []


class DecathlonDataset(ReleaseDataset):
    """A task of the Medical Segmentation Decathlon, or a set in its layout.

    Labels are named in ``dataset.json``; ``cancer`` of the liver is asked for as the liver tumour, and an organ with
    its tumour. The release's test scans have no labels and are left out; ``test_share`` makes a test part. Scans with
    several channels (brain tumours, prostate) are refused by name, as every series of frames is.
    """

    layout = DecathlonLayout()
    licence = "CC BY-SA 4.0"


def _structures(path: Path, set_name: str, labels: Any) -> tuple[Structure, ...]:
    named = name_labels(f"{path}: labels", labels)
    organ = next((organ for key, organ in _ORGANS.items() if key in set_name.lower()), "")
    found = {value: structure_named(name, (value,)) for value, name in named.items()}
    found = {value: replace(s, name=_growth_name(organ, s)) if s.finding else s for value, s in found.items()}
    require_single_names(f"{path}: labels", {value: structure.name for value, structure in found.items()})
    growths = [value for value, structure in found.items() if structure.finding and organ in structure.name]
    return tuple(
        replace(structure, labels=(value, *growths)) if structure.name == organ else structure
        for value, structure in found.items()
    )


def _growth_name(organ: str, structure: Structure) -> str:
    """``cancer`` of the liver is the liver tumour; a name of more than one word says itself whose growth it is."""
    return structure.name if not organ or " " in structure.name else f"{organ} {structure.finding}"


def _modality(names: Any) -> Modality | None:
    first = str(next(iter(names.values()), "")).upper() if isinstance(names, Mapping) else ""
    return "CT" if first == "CT" else "MR" if first.startswith(("MR", "T1", "T2", "FLAIR")) else None


def _scan(path: Path, entry: Any, structures: tuple[Structure, ...], modality: Modality | None) -> ScanFiles:
    files = [entry.get(key) if isinstance(entry, dict) else None for key in ("image", "label")]
    if not all(isinstance(file, str) for file in files):
        raise DatasetError(f"{path}: an entry of 'training' is {entry!r:.80}; write an object with image and label")
    for file in map(str, files):
        if not os.path.isfile(path.parent / file):  # unlike Path.is_file, False for a name that no file can have
            raise DatasetError(f"{path}: {file!r:.200} is not there; unpack the whole release")
    image, label = (path.parent / str(file) for file in files)
    case = stem(image.name)
    return ScanFiles(image, label, structures, case, case, "", modality)

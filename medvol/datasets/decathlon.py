"""DecathlonDataset: the layout of the Medical Segmentation Decathlon, which many sets copy."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from medvol.core.errors import DatasetError
from medvol.core.grounding.queries import target_name
from medvol.core.types import Modality
from medvol.datasets.layout import Layout, ScanFiles, Structure, nifti_stem
from medvol.datasets.release import ReleaseDataset
from medvol.datasets.splits import read_json

_GROWTH = re.compile(r"tumou?r|cancer|cyst|lesion|metastas|nodule|mass")
_ORGANS = {"liver": "liver", "pancreas": "pancreas", "lung": "lung", "colon": "colon", "hepaticvessel": "liver"}


class DecathlonLayout(Layout):
    """``dataset.json`` that names label values and pairs of ``imagesTr`` and ``labelsTr``."""

    def find(self, root: Path) -> list[ScanFiles]:
        """See ``Layout``."""
        path = root / "dataset.json"
        content = read_json(path)
        if not isinstance(content, dict) or not isinstance(content.get("training"), list):
            raise DatasetError(f"{path}: expected an object with 'labels' and a list 'training' of image and label")
        name = str(content.get("name") or root.name)
        structures = _structures(path, name, content.get("labels"))
        modality = _modality(content.get("modality"))
        return [_scan(path, name, entry, structures, modality) for entry in content["training"]]


class DecathlonDataset(ReleaseDataset):
    """A task of the Medical Segmentation Decathlon, or a set in its layout.

    Labels are named in ``dataset.json``; ``cancer`` of the liver is asked for as the liver tumour, and an organ with
    its tumour. The release's test scans have no labels and are left out; ``test_share`` makes a test part. Scans with
    several channels (brain tumours, prostate) are refused by name, as every series of frames is.
    """

    layout = DecathlonLayout()


def _structures(path: Path, set_name: str, labels: Any) -> tuple[Structure, ...]:
    if not isinstance(labels, Mapping):
        raise DatasetError(
            f'{path}: expected names by label under \'labels\', such as {{"1": "liver"}}; got {labels!r:.80}'
        )
    try:
        named = {int(value): target_name(str(name)) for value, name in labels.items() if int(value) > 0}
    except ValueError as error:
        raise DatasetError(f'{path}: a label is not a number ({error}); write them as in {{"1": "liver"}}') from error
    organ = next((organ for key, organ in _ORGANS.items() if key in set_name.lower()), "")
    growths = {value: name for value, name in named.items() if _GROWTH.search(name)}
    return tuple(
        Structure(_growth_name(organ, name), (value,), finding=_kind(name))
        if value in growths
        else Structure(name, (value, *growths) if name == organ else (value,))
        for value, name in named.items()
    )


def _kind(name: str) -> str:
    """``cancer`` and ``tumour`` are tumours; other growths keep their name."""
    return next((kind for kind in ("cyst", "lesion", "metastasis", "nodule") if kind in name), "tumour")


def _growth_name(organ: str, name: str) -> str:
    return name if not organ or organ in name else f"{organ} {_kind(name)}"


def _modality(names: Any) -> Modality | None:
    first = str(next(iter(names.values()), "")).upper() if isinstance(names, Mapping) else ""
    return "CT" if first == "CT" else "MR" if first.startswith(("MR", "T1", "T2", "FLAIR")) else None


def _scan(
    path: Path, set_name: str, entry: Any, structures: tuple[Structure, ...], modality: Modality | None
) -> ScanFiles:
    files = [entry.get(key) if isinstance(entry, dict) else None for key in ("image", "label")]
    if not all(isinstance(file, str) for file in files):
        raise DatasetError(f"{path}: an entry of 'training' is {entry!r:.80}; write an object with image and label")
    image, label = (path.parent / str(file) for file in files)
    for file in (image, label):
        if not file.is_file():
            raise DatasetError(f"{path}: {file.relative_to(path.parent)} is not there; unpack the whole release")
    case = nifti_stem(image)
    return ScanFiles(image, label, structures, f"{set_name.lower()}-{case}", case, "", modality)

"""Layouts: where other systems write their masks, and what each file says that it shows."""

from __future__ import annotations

import re
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from medvol.core.errors import DatasetError
from medvol.core.json_file import read_json
from medvol.core.words import split_words
from medvol.imaging.case_masks import case_stem
from medvol.imaging.file_names import WHOLE_SCANS, ends_in, stem
from medvol.imaging.folder_walk import find_below, folder_above

LayoutName = Literal["nnunet", "totalsegmentator", "prompts", "challenge"]

NAMES_FILE = "dataset.json"
"""Names of labels, beside label maps or in the folder above, as nnU-Net writes it."""

SEGS = "segs"
"""Key of the label map in an archive of the challenge."""

_NPZ = ".npz"
_PROBABILITIES = "probabilities.npy"
"""In an archive that nnU-Net puts beside a label map when it is asked to; no mask is in it."""

_NO_TARGETS = ("background", "ignore")


@dataclass(frozen=True)
class FoundMask:
    """A mask of another system, before it is read.

    Args:
        path: The file.
        scan: What the layout calls its scan.
        name: What it calls what is shown; empty where the file is called by the id of a case alone.
        labels: Values of the label map that belong to it; every positive one when empty.
    """

    path: Path
    scan: str
    name: str
    labels: tuple[int, ...] = ()


def find_masks(folder: Path, layout: LayoutName | None = None) -> tuple[LayoutName, list[FoundMask]]:
    """Find the masks of a folder.

    Args:
        folder: What the system wrote.
        layout: How it is laid out; told by what the folder holds when None.

    Returns:
        The layout and every mask; a file whose name can be read in several ways comes several times.

    Raises:
        DatasetError: There is no such folder, it holds no mask in the layout, two layouts would fit, or the names of
            labels cannot be read.
    """
    if not folder.is_dir():
        raise DatasetError(f"there is no folder {str(folder)!r}; give the folder of the masks (--predictions)")
    chosen = layout or _detect(folder)
    found = sorted(_FINDERS[chosen](folder), key=lambda mask: (str(mask.path), mask.name, mask.scan))
    if not found:
        raise DatasetError(f"{folder}: there is no mask in the layout {chosen}: {LAYOUTS[chosen]}")
    return chosen, found


def _detect(folder: Path) -> LayoutName:
    flat = bool(_masks(folder))
    fits: dict[LayoutName, bool] = {
        "nnunet": flat and _names_file(folder) is not None,
        "totalsegmentator": any(_masks(case) or _masks(case / "segmentations") for case in _folders(folder)),
        "prompts": flat and _names_file(folder) is None,
        "challenge": any(not _holds_probabilities(path) for path in _archives(folder)),
    }
    fitting = [name for name, fit in fits.items() if fit]
    if len(fitting) != 1:
        known = "; ".join(f"{name}: {text}" for name, text in LAYOUTS.items())
        found = f"could be {' or '.join(fitting)}" if fitting else "holds no mask that is known"
        raise DatasetError(f"{folder} {found}; name the layout (--layout), one of {known}")
    return fitting[0]


def _find_label_maps(folder: Path) -> Iterator[FoundMask]:
    names = _read_names(folder)
    for path in _masks(folder):
        yield from (FoundMask(path, stem(path.name), name, labels) for name, labels in names.items())


def _find_archives(folder: Path) -> Iterator[FoundMask]:
    names = _read_names(folder)
    for path in _archives(folder):
        yield from (FoundMask(path, path.name[: -len(_NPZ)], name, labels) for name, labels in names.items())


def _find_folders(folder: Path) -> Iterator[FoundMask]:
    for case in _folders(folder):
        for path in [*_masks(case), *_masks(case / "segmentations")]:
            yield FoundMask(path, case.name, stem(path.name))


def _find_prompts(folder: Path) -> Iterator[FoundMask]:
    """``CASE_PROMPT.nii.gz``, ``CASE/PROMPT.nii.gz`` and ``CASE.nii.gz``; names are split at every ``_`` in turn."""
    for path in _masks(folder):
        words = case_stem(path).split("_")
        yield FoundMask(path, "_".join(words), "")
        for i in range(1, len(words)):
            yield FoundMask(path, "_".join(words[:i]), "_".join(words[i:]))
    for place in sorted(path for path in find_below(folder) if path.is_dir()):
        yield from (FoundMask(path, place.name.removeprefix("seg_"), stem(path.name)) for path in _masks(place))


LAYOUTS: dict[LayoutName, str] = {
    "nnunet": f"a label map a scan, CASE.nii.gz, and {NAMES_FILE} with the names of the labels",
    "totalsegmentator": "a folder a scan and a file a class in it, CASE/CLASS.nii.gz",
    "prompts": "a file a prompt, CASE_PROMPT.nii.gz or CASE/PROMPT.nii.gz",
    "challenge": f"an archive a scan, CASE.npz, with a label map '{SEGS}', and {NAMES_FILE} with the names of its "
    "labels",
}
"""What each layout is."""

_FINDERS: dict[LayoutName, Callable[[Path], Iterator[FoundMask]]] = {
    "nnunet": _find_label_maps,
    "totalsegmentator": _find_folders,
    "prompts": _find_prompts,
    "challenge": _find_archives,
}


def _masks(folder: Path) -> list[Path]:
    """Files of a folder that are read as label maps, in the order of their names."""
    if not folder.is_dir():
        return []
    return _files(folder, WHOLE_SCANS)


def _archives(folder: Path) -> list[Path]:
    return _files(folder, _NPZ)


def _files(folder: Path, suffixes: str | tuple[str, ...]) -> list[Path]:
    """Files by their names, links that lead nowhere among them: they are refused when they are read."""
    files = (path for path in folder.iterdir() if ends_in(path, suffixes) and not path.name.startswith("."))
    return sorted(path for path in files if not path.is_dir())


def _holds_probabilities(path: Path) -> bool:
    """Whether an archive holds nnU-Net's probabilities and no label map; a damaged one is told when it is read."""
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except (OSError, zipfile.BadZipFile):
        return False
    return _PROBABILITIES in names and f"{SEGS}.npy" not in names


def _folders(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))


def _names_file(folder: Path) -> Path | None:
    places = (folder / NAMES_FILE, folder_above(folder) / NAMES_FILE)
    return next((place for place in places if place.is_file()), None)


def _read_names(folder: Path) -> dict[str, tuple[int, ...]]:
    """Labels of every name: ``{"liver": 1, "kidneys": [2, 3]}`` as nnU-Net writes it, or ``{"1": "liver"}`` as before.

    Raises:
        DatasetError: There is no such file, or it says something else.
    """
    path = _names_file(folder)
    if path is None:
        raise DatasetError(f"{folder}: nothing says what its labels are; put the {NAMES_FILE} of the training there")
    content = read_json(path, "nnU-Net writes it beside its predictions", "copy it again")
    labels = content.get("labels") if isinstance(content, dict) else None
    if not isinstance(labels, dict) or not labels:
        raise DatasetError(f'{path} has no names of labels; write them as {{"labels": {{"liver": 1}}}}')
    numbered = all(re.fullmatch(r"[0-9]{1,9}", key) and isinstance(value, str) for key, value in labels.items())
    pairs = [(value, int(key)) for key, value in labels.items()] if numbered else list(labels.items())
    found: dict[str, tuple[int, ...]] = {}
    for name, value in pairs:
        if name in found:
            raise DatasetError(f"{path}: two labels are called {name!r}; give each a name of its own")
        if not split_words(name):
            raise DatasetError(f"{path}: the label {value!r:.80} is called {name!r:.80}; write what it shows")
        found[name] = _whole_labels(path, name, value)
    return {name: values for name, values in found.items() if name.lower() not in _NO_TARGETS and values != (0,)}


def _whole_labels(path: Path, name: str, value: Any) -> tuple[int, ...]:
    values = value if isinstance(value, list) else [value]
    if not values or any(type(one) is not int or one < 0 for one in values):
        raise DatasetError(f"{path}: the label of {name!r} is {value!r:.80}; it is a whole number, or a list of some")
    if len(values) > 1 and 0 in values:
        raise DatasetError(f"{path}: the region {name!r} is {value!r:.80}; leave out 0, which is the background")
    return tuple(values)

"""Folders of labelled scans: each image with its label map, and the names of the labels."""

from __future__ import annotations

import logging
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from medvol.core.errors import DatasetError, GeometryError
from medvol.core.types import Modality, Volume
from medvol.datasets.layout import ScanFiles, one_each, structure_named, tell_apart
from medvol.datasets.nifti_table import TargetRow, scan_name
from medvol.datasets.shown_targets import find_targets, found_rows
from medvol.datasets.target_problems import describe_unlabelled
from medvol.imaging.file_names import WHOLE_SCANS, ends_in, stem
from medvol.imaging.folder_walk import find_below
from medvol.queries.instances import find_instances, whole_mask
from medvol.queries.label_names import NAMES_FILE, find_names_file, read_label_names
from medvol.queries.query_bank import target_name
from medvol.queries.relations import Relator, find_bearers
from medvol.queries.sides import check_sides

_log = logging.getLogger(__name__)

_LABEL_WORDS = ("label", "labels", "mask")
_IS_LABELS = re.compile(r"(?<![a-z])(labels?|mask)(?![a-z])")
"""A word for a label map by itself: an ``unlabelled`` or ``masked`` image is none."""


@dataclass(frozen=True)
class FolderRows:
    """What is found in a folder.

    Args:
        rows: The targets.
        dropped: For each patient, how many relations of each form have no single answer.
        unlabelled: Scans without a label map.
    """

    rows: list[TargetRow]
    dropped: dict[str, Counter[str]]
    unlabelled: list[Path]


def find_rows(
    root: Path, modality: Modality | None, target: str | None, min_voxels: int, relations: bool = False
) -> FolderRows:
    """Find the targets of every pair of ``*image*`` and ``*label*`` or ``*mask*`` below a folder, in any case.

    The label maps are read once, to know which targets have enough voxels; sides are checked against the affine.
    Relations of a pair of kidneys are asked for where they have one answer. Names of labels without a voxel become rows
    of absent targets.

    Args:
        root: Searched with its subfolders.
        modality: Modality of all scans; None leaves it to the reader.
        target: What the masks show, where no file names the labels.
        min_voxels: Smaller targets are left out.
        relations: Ask for every relation that ``core.grounding.relations`` derives, not for those of kidneys alone.

    Raises:
        DatasetError: There is no pair, one of two files could be meant, labels have no names, or left and right are
            swapped.
    """
    pairs, unlabelled = _find_pairs(root)
    if not pairs:
        raise DatasetError(
            f"{root}: no file *image* with a *label* or *mask* beside it ({', '.join(WHOLE_SCANS)}); "
            "rename the files or write a table"
        )
    if unlabelled:
        _log.warning("%s: %s", root, describe_unlabelled(unlabelled))
    names = tell_apart({image: _case_name(root, image) for image in pairs}, partial(_whole_name, root))
    images = one_each(((name, image) for image, name in names.items()), "rename one of them")
    rows: list[TargetRow] = []
    dropped: dict[str, Counter[str]] = {}
    for name, image in images.items():
        label = pairs[image]
        if relations:
            own, unclear = _related_rows(name, image, label, modality, min_voxels)
        else:
            own, unclear = _pair_rows(name, image, label, modality, target, min_voxels)
        rows += own
        dropped[name] = unclear
    return FolderRows(rows, dropped, unlabelled)


def _find_pairs(root: Path) -> tuple[dict[Path, Path], list[Path]]:
    """Label map of each scan, their names differing only in ``image`` and ``label`` or ``mask``; and scans without."""
    files = sorted(path for path in find_below(root) if ends_in(path, WHOLE_SCANS) and path.is_file())
    named: dict[tuple[Path, str], list[Path]] = {}
    for path in files:
        named.setdefault((path.parent, stem(path.name).lower()), []).append(path)
    pairs: dict[Path, Path] = {}
    unlabelled = []
    for image in files:
        name = stem(image.name).lower()
        if "image" not in name:
            continue
        twins = named[image.parent, name]
        labels = [file for twin in _label_names_of(image) for file in named.get((image.parent, twin), ())]
        if len(labels) > 1:
            raise DatasetError(f"{image.parent}: {image.name} has two label maps ({labels[0].name}, {labels[1].name})")
        if labels and len(twins) > 1:
            raise DatasetError(f"{image.parent}: {labels[0].name} has two scans ({twins[0].name}, {twins[1].name})")
        if labels:
            pairs[image] = labels[0]
        elif not _IS_LABELS.search(name.replace("image", " ")):
            unlabelled.append(image)
    _tell_imageless(root, files, pairs)
    return pairs, unlabelled


def _tell_imageless(root: Path, files: Sequence[Path], pairs: Mapping[Path, Path]) -> None:
    """Name label maps that belong to no scan: their scan is missing, or is called otherwise."""
    rest = [file for file in files if file not in pairs.keys() | set(pairs.values())]
    names = ((file, stem(file.name).lower()) for file in rest)
    maps = [file for file, name in names if "image" not in name and any(word in name for word in _LABEL_WORDS)]
    if len(maps) == 1:
        _log.warning("%s: 1 label map has no *image* beside it and is left out: %s", root, maps[0])
    elif maps:
        what = "label maps have no *image* beside them and are left out, such as"
        _log.warning("%s: %d %s %s", root, len(maps), what, maps[0])


def _label_names_of(image: Path) -> list[str]:
    """What the label map of a scan may be called, in small letters; ``Image`` counts with ``image``, or without."""
    name = stem(image.name)
    twins = [name.lower().replace("image", word) for word in _LABEL_WORDS]
    if "image" in name:
        twins += [name.replace("image", word).lower() for word in _LABEL_WORDS]
    return list(dict.fromkeys(twins))


def _pair_rows(
    name: str, image: Path, label: Path, modality: Modality | None, target: str | None, min_voxels: int
) -> tuple[list[TargetRow], Counter[str]]:
    """Rows of one pair, and how many relations between its kidneys have no answer."""
    from medvol.imaging.reading import read_labels, read_volume

    volume = read_volume(image, modality=modality)
    labels = read_labels(label, volume)
    values, counts = np.unique(labels[labels != 0], return_counts=True)
    names = _label_names(label)
    if names is None and target is None:
        raise DatasetError(
            f"{label}: nothing says what its labels are; write {NAMES_FILE} beside it, set target, or write a table"
        )

    def row(target: str, *labels: int) -> TargetRow:
        return TargetRow(image, label, labels, target, "", name, modality, name)

    if names is None:
        return [row(target_name(target or ""))] if counts.sum() >= min_voxels else [], Counter()
    large = [int(value) for value, count in zip(values, counts, strict=True) if count >= min_voxels]
    unnamed = [value for value in large if value not in names]
    if unnamed:
        raise DatasetError(f"{label}: label {unnamed[0]} has no name in {NAMES_FILE}; add it")
    _check_sides(label, volume, labels, {names[value]: value for value in large})
    present = {names[int(value)]: int(value) for value in values if int(value) in names}
    relations, unclear = _relate_kidneys(volume, labels, large, present)
    rows = [
        *(row(names[value], value) for value in large),
        *(row(relation, *members) for relation, members in relations.items()),
        *(replace(row(target, value), absent=True) for value, target in names.items() if target not in present),
    ]
    return rows, unclear


def _related_rows(
    name: str, image: Path, label: Path, modality: Modality | None, min_voxels: int
) -> tuple[list[TargetRow], Counter[str]]:
    """Rows of one pair with every relation that its label map has one answer for, and how many have none."""
    names = _label_names(label)
    if names is None:
        raise DatasetError(f"{label}: relations need the names of its labels; write {NAMES_FILE} beside it")
    structures = tuple(structure_named(target, (value,)) for value, target in names.items())
    scan = ScanFiles(image, label, structures, name, name, modality=modality)
    found = find_targets(scan, min_voxels, relations=True)
    return found_rows(scan, found), Counter(found.dropped)


def _case_name(root: Path, image: Path) -> str:
    """Name of a scan and of its patient; splits are dealt by it, so it stays what it was.

    Capitals count, but where the file's own name has ``image`` in capitals alone.
    """
    file = image.name if "image" in image.name else re.sub("image", "", image.name, flags=re.IGNORECASE)
    name = scan_name((image.relative_to(root).parent / file).as_posix())
    return name.replace("image", "").strip("-_.") or root.name


def _whole_name(root: Path, image: Path) -> str:
    """A longer name, which tells ``a-b`` from ``a/b``, and ``image_a`` from ``a_image``."""
    return scan_name(image.relative_to(root).as_posix().replace("/", "--"))


def _label_names(label: Path) -> dict[int, str] | None:
    file = find_names_file(label)
    return None if file is None else read_label_names(file)


def _check_sides(label: Path, volume: Volume, labels: NDArray[np.int32], present: dict[str, int]) -> None:
    for name, value in present.items():
        other = present.get("right " + name.removeprefix("left ")) if name.startswith("left ") else None
        if other is None:
            continue
        try:
            check_sides(labels == value, labels == other, volume.affine)
        except GeometryError as error:
            raise DatasetError(f"{label}: {name}: {error}") from error


def _relate_kidneys(
    volume: Volume, labels: NDArray[np.int32], large: list[int], present: dict[str, int]
) -> tuple[dict[str, tuple[int, ...]], Counter[str]]:
    """Label values of both kidneys together and of those that a relation tells apart; and how many have no answer."""
    values = {name: present[name] for name in ("left kidney", "right kidney") if present.get(name) in large}
    pair = [whole_mask(labels == value, volume.affine, name) for name, value in values.items()]
    kidneys = [kidney for kidney in pair if kidney is not None]
    if len(kidneys) < 2:
        return {}, Counter()
    lesions = [value for name, value in present.items() if structure_named(name, (value,)).organ == "kidney"]
    relator = Relator()
    bearers = find_bearers(find_instances(np.isin(labels, lesions), volume.affine), kidneys)
    relator.relate_organs("kidney", {"lesion": bearers}, kidneys)
    relator.rank_pair("kidney", kidneys)
    relations = relator.relations()
    members = {found.target: (values[found.meaning],) for found in relations.found}
    return {"kidneys": tuple(values.values()), **members}, relations.dropped

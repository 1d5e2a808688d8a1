"""Folders of labelled scans: each image with its label map, and the names of the labels."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import replace
from itertools import groupby
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from medvol.core.errors import DatasetError, GeometryError
from medvol.core.grounding.queries import target_name
from medvol.core.grounding.relations import RELATIONS, check_sides, kidney_relations, ranked_kidneys
from medvol.core.json_file import parse_json
from medvol.core.types import Modality, Volume
from medvol.datasets.found_targets import find_targets, found_rows
from medvol.datasets.layout import ScanFiles, structure_named
from medvol.datasets.nifti_table import TargetRow, scan_name

ENDINGS = (".nii", ".nii.gz", ".nrrd", ".mha")
"""Endings of the files that are looked at."""

NAMES_FILE = "labels.json"
"""File of label names, beside the label map or at the root: ``{"1": "spleen", ...}``."""

_LABEL_WORDS = ("label", "labels", "mask")
_RENAL_LESION = re.compile(r"(left |right )?kidney (lesion|tumour|cyst|mass)")


def find_rows(
    root: Path, modality: Modality | None, target: str | None, min_voxels: int, relations: bool = False
) -> tuple[list[TargetRow], dict[str, Counter[str]]]:
    """Find the targets of every pair of ``*image*`` and ``*label*`` or ``*mask*`` below a folder.

    The label maps are read once, to know which targets have enough voxels; sides are checked against the affine.
    Relations of a pair of kidneys are asked for where they have one answer. Names of labels without a voxel become rows
    of absent targets.

    Args:
        root: Searched with its subfolders.
        modality: Modality of all scans; None leaves it to the reader.
        target: What the masks show, where no file names the labels.
        min_voxels: Smaller targets are left out.
        relations: Ask for every relation that ``core.grounding.relational`` derives, not for those of kidneys alone.

    Returns:
        The targets; and for each patient, how many relations of each form have no single answer.

    Raises:
        DatasetError: There is no pair, labels have no names, or left and right are swapped.
    """
    pairs = _find_pairs(root)
    if not pairs:
        raise DatasetError(
            f"{root}: no file *image* with a *label* or *mask* beside it ({', '.join(ENDINGS)}); "
            "rename the files or write a table"
        )
    rows: list[TargetRow] = []
    dropped: dict[str, Counter[str]] = {}
    for image, label in pairs:
        if relations:
            own, unclear = _related_rows(root, image, label, modality, min_voxels)
        else:
            own = _pair_rows(root, image, label, modality, target, min_voxels)
            unclear = _count_unclear([row.target for row in own if not row.absent])
        rows += own
        dropped[_case_name(root, image)] = unclear
    return rows, dropped


def _find_pairs(root: Path) -> list[tuple[Path, Path]]:
    """Scans and label maps whose names differ only in ``image`` and ``label`` or ``mask``."""
    files = sorted(path for path in root.rglob("*") if path.name.endswith(ENDINGS) and path.is_file())
    pairs = []
    for folder, siblings in groupby(files, key=lambda path: path.parent):
        by_stem = {scan_name(path.name): path for path in siblings}
        for stem, image in by_stem.items():
            names = [stem.replace("image", word) for word in _LABEL_WORDS if "image" in stem]
            found = [by_stem[name] for name in names if name in by_stem]
            if len(found) > 1:
                raise DatasetError(f"{folder}: {image.name} has two label maps ({found[0].name}, {found[1].name})")
            pairs += [(image, label) for label in found]
    return pairs


def _pair_rows(
    root: Path, image: Path, label: Path, modality: Modality | None, target: str | None, min_voxels: int
) -> list[TargetRow]:
    from medvol.core.imaging.reading import read_labels, read_volume

    volume = read_volume(image, modality=modality)
    labels = read_labels(label, volume)
    values, counts = np.unique(labels[labels != 0], return_counts=True)
    names = _label_names(root, label.parent)
    if names is None and target is None:
        raise DatasetError(
            f"{label}: nothing says what its labels are; write {NAMES_FILE} beside it, set target, or write a table"
        )
    name = _case_name(root, image)

    def row(target: str, *labels: int) -> TargetRow:
        return TargetRow(image, label, labels, target, "", name, modality, name)

    if names is None:
        return [row(target_name(target or ""))] if counts.sum() >= min_voxels else []
    large = [int(value) for value, count in zip(values, counts, strict=True) if count >= min_voxels]
    unnamed = [value for value in large if value not in names]
    if unnamed:
        raise DatasetError(f"{label}: label {unnamed[0]} has no name in {NAMES_FILE}; add it")
    _check_sides(label, volume, labels, {names[value]: value for value in large})
    present = {names[int(value)]: int(value) for value in values if int(value) in names}
    return [
        *(row(names[value], value) for value in large),
        *(row(relation, *members) for relation, members in _kidney_rows(volume, labels, large, present).items()),
        *(replace(row(target, value), absent=True) for value, target in names.items() if target not in present),
    ]


def _count_unclear(targets: list[str]) -> Counter[str]:
    """Relations between two kidneys that are shown and not told apart."""
    return Counter({"between kidneys": len(RELATIONS) - len({*targets} & {*RELATIONS})} if "kidneys" in targets else {})


def _related_rows(
    root: Path, image: Path, label: Path, modality: Modality | None, min_voxels: int
) -> tuple[list[TargetRow], Counter[str]]:
    """Rows of one pair with every relation that its label map has one answer for, and how many have none."""
    names = _label_names(root, label.parent)
    if names is None:
        raise DatasetError(f"{label}: relations need the names of its labels; write {NAMES_FILE} beside it")
    name = _case_name(root, image)
    structures = tuple(structure_named(target, (value,)) for value, target in names.items())
    scan = ScanFiles(image, label, structures, name, name, modality=modality)
    found = find_targets(scan, min_voxels, relations=True)
    return found_rows(scan, found), Counter(found.dropped)


def _case_name(root: Path, image: Path) -> str:
    return scan_name(image.relative_to(root).as_posix()).replace("image", "").strip("-_.") or root.name


def _label_names(root: Path, folder: Path) -> dict[int, str] | None:
    path = next((place / NAMES_FILE for place in (folder, root) if (place / NAMES_FILE).is_file()), None)
    if path is None:
        return None
    try:
        content = parse_json(path.read_text(encoding="utf-8"))
        return {int(value): target_name(name) for value, name in content.items()}
    except (ValueError, AttributeError, TypeError) as error:
        raise DatasetError(f'{path}: expected names by label, such as {{"1": "spleen"}} ({error})') from error


def _check_sides(label: Path, volume: Volume, labels: NDArray[np.int32], present: dict[str, int]) -> None:
    for name, value in present.items():
        other = present.get("right " + name.removeprefix("left ")) if name.startswith("left ") else None
        if other is None:
            continue
        try:
            check_sides(labels == value, labels == other, volume.affine)
        except GeometryError as error:
            raise DatasetError(f"{label}: {name}: {error}") from error


def _kidney_rows(
    volume: Volume, labels: NDArray[np.int32], large: list[int], present: dict[str, int]
) -> dict[str, tuple[int, ...]]:
    """Label values of both kidneys together and of those that a relation tells apart."""
    left, right = present.get("left kidney"), present.get("right kidney")
    if left not in large or right not in large or left is None or right is None:
        return {}
    lesions = [value for name, value in present.items() if _RENAL_LESION.fullmatch(name)]
    left_mask, right_mask = labels == left, labels == right
    relations = kidney_relations(left_mask, right_mask, np.isin(labels, lesions))
    relations |= ranked_kidneys(left_mask, right_mask, volume.affine)
    members = {name: (left if mask is left_mask else right,) for name, mask in relations.items()}
    return {"kidneys": (left, right), **members}

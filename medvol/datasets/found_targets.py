"""What a scan can be asked for, read off its label map."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from medvol.core.errors import DatasetError, GeometryError
from medvol.core.grounding.instances import Instance, Seed, find_instances, whole_mask
from medvol.core.grounding.relational import Relational, Relator, assign_findings, split_pair
from medvol.core.grounding.relations import check_sides
from medvol.datasets.layout import ScanFiles, Structure
from medvol.datasets.nifti_table import TargetRow

SIDED = ("kidney", "lung", "adrenal gland")
"""Organs whose left and right, named apart, are compared with each other."""

SPECK_VOXELS = 10
"""Smaller parts are slips of the annotator's brush: they are no finding that makes another one ambiguous."""


@dataclass(frozen=True)
class FoundTarget:
    """A target in a file of labels.

    Args:
        target: Its name.
        mask: File of labels; None when the target is absent.
        labels: Its values there; every value but 0 when empty.
        seed: Voxel (z, y, x) in LPS of the one connected part that is meant; None for all of it.
        meaning: Structure that a relational target turns out to be.
    """

    target: str
    mask: str | None
    labels: tuple[int, ...] = ()
    seed: Seed | None = None
    meaning: str = ""


@dataclass(frozen=True)
class Found:
    """Targets of one scan.

    Args:
        shown: What it shows.
        absent: Structures of its labels without a voxel in it.
        dropped: How many relational questions of each form have no single answer.
    """

    shown: tuple[FoundTarget, ...]
    absent: tuple[str, ...] = ()
    dropped: dict[str, int] = field(default_factory=dict)


def find_targets(scan: ScanFiles, min_voxels: int, relations: bool) -> Found:
    """Read the label map of a scan and say what it can be asked for.

    Args:
        scan: Its files.
        min_voxels: Smaller targets are left out.
        relations: Also derive relational targets.

    Raises:
        ScanError: A label map is refused.
        DatasetError: Left and right are swapped.
    """
    reader = _LabelReader(scan)
    present = {structure: reader.mask(structure) for structure in scan.structures if reader.has(structure)}
    counts = {structure: int(mask.sum()) for structure, mask in present.items()}
    large = {structure: present[structure] for structure, count in counts.items() if count >= min_voxels}
    _check_sides(reader, large)
    shown = [FoundTarget(s.name, str(reader.path(s)), s.labels) for s in large]
    absent = tuple(structure.name for structure, count in counts.items() if count == 0)
    if not relations or not large:
        return Found(tuple(shown), absent)
    relator = Relator()
    sides = _relate(reader, {s: mask for s, mask in present.items() if counts[s]}, relator)
    relational = relator.relations()
    derived = [_locate(found) for found in (*sides, *relational.found) if found.instance.size >= min_voxels]
    known = {target.target for target in shown}
    return Found(
        (*shown, *(target for target in derived if target.target not in known)), absent, dict(relational.dropped)
    )


class _LabelReader:
    """Reads each file of a scan's labels once."""

    def __init__(self, scan: ScanFiles) -> None:
        self._scan = scan
        self._maps: dict[Path, tuple[NDArray[np.int32], NDArray[np.float64]]] = {}

    def has(self, structure: Structure) -> bool:
        return structure.mask is not None or self._scan.label_map is not None

    def path(self, structure: Structure) -> Path:
        path = structure.mask or self._scan.label_map
        assert path is not None, "only structures with a file are read"
        return path

    def labels(self, path: Path) -> tuple[NDArray[np.int32], NDArray[np.float64]]:
        from medvol.core.imaging.reading import read_label_map

        if path not in self._maps:
            self._maps[path] = read_label_map(path)
        return self._maps[path]

    def affine(self, structure: Structure) -> NDArray[np.float64]:
        return self.labels(self.path(structure))[1]

    def mask(self, structure: Structure) -> NDArray[np.bool_]:
        values, _ = self.labels(self.path(structure))
        return np.isin(values, structure.labels) if structure.labels else values != 0

    def parts(self, structure: Structure, mask: NDArray[np.bool_]) -> list[Instance]:
        """Its separate parts: one a file where there are such files, connected ones otherwise."""
        if structure.instances:
            found = [whole_mask(values != 0, affine) for values, affine in map(self.labels, structure.instances)]
            pairs = zip(structure.instances, found, strict=True)
            return [replace(one, source=(str(path), (), None)) for path, one in pairs if one is not None]
        where = str(self.path(structure)), structure.labels
        parts = find_instances(mask, self.affine(structure), SPECK_VOXELS)
        return [replace(part, source=(*where, part.seed)) for part in parts]

    def whole(self, structure: Structure, mask: NDArray[np.bool_]) -> Instance | None:
        source = (str(self.path(structure)), structure.labels, None)
        one = whole_mask(mask, self.affine(structure), structure.name)
        return one and replace(one, source=source)


_Masks = dict[Structure, NDArray[np.bool_]]


def _relate(reader: _LabelReader, masks: _Masks, relator: Relator) -> list[Relational]:
    """Collect every relation of a scan; returns the sides of its pairs."""
    pairs = _find_pairs(reader, masks, relator)
    findings = {s: reader.parts(s, mask) for s, mask in masks.items() if s.finding}
    bearing: dict[str, dict[str, list[Instance]]] = {organ: {} for organ in pairs}
    for structure, instances in findings.items():
        relator.relate_findings(structure.name, instances)
        pair = pairs.get(structure.organ)
        if pair is None:
            continue
        for one, own in zip(pair, assign_findings(instances, pair), strict=True):
            if len(instances) > 1:
                relator.relate_findings(structure.name, own, f"{one.name}: ")
            if own:
                bearing[structure.organ].setdefault(structure.finding, []).append(one)
                bearers = bearing[structure.organ].setdefault("lesion", [])
                bearers += [one] if one not in bearers else []
    for organ, pair in pairs.items():
        relator.relate_organs(organ, bearing[organ], pair)
        relator.rank_pair(organ, pair)
    for structure, mask in masks.items():
        if not (
            structure.pair or structure.organ or structure.finding or structure.name.startswith(("left ", "right "))
        ):
            _relate_to(relator, reader.whole(structure, mask), pairs, findings)
    return [Relational(one.name, one) for pair in pairs.values() for one in pair]


def _relate_to(
    relator: Relator,
    place: Instance | None,
    pairs: dict[str, tuple[Instance, Instance]],
    findings: dict[Structure, list[Instance]],
) -> None:
    """Which of a pair, and which finding, lies nearest to a structure."""
    if place is None:
        return
    for organ, pair in pairs.items():
        relator.relate_nearest(organ, pair, place)
    for structure, instances in findings.items():
        relator.relate_nearest(structure.name, instances, place)


def _find_pairs(reader: _LabelReader, masks: _Masks, relator: Relator) -> dict[str, tuple[Instance, Instance]]:
    """Left and right of every organ that comes in pairs, whether one label or two hold them."""
    pairs: dict[str, tuple[Instance, Instance]] = {}
    by_name = {structure.name: structure for structure in masks}
    for name, structure in by_name.items():
        if structure.pair:
            pair = split_pair(reader.parts(structure, masks[structure]), structure.pair)
            if pair is None:
                relator.drop("side")
            else:
                pairs[structure.pair] = pair
        organ = name.removeprefix("left ")
        other = by_name.get(f"right {organ}")
        if name != organ and organ in SIDED and other is not None:
            left, right = reader.whole(structure, masks[structure]), reader.whole(other, masks[other])
            if left is not None and right is not None:
                pairs[organ] = left, right
    return pairs


def _check_sides(reader: _LabelReader, masks: _Masks) -> None:
    by_name = {structure.name: structure for structure in masks}
    for name, left in by_name.items():
        right = by_name.get("right " + name.removeprefix("left ")) if name.startswith("left ") else None
        if right is None:
            continue
        try:
            check_sides(masks[left], masks[right], reader.affine(left))
        except GeometryError as error:
            raise DatasetError(f"{reader.path(left)}: {name}: {error}") from error


def _locate(found: Relational) -> FoundTarget:
    path, labels, seed = found.instance.source
    return FoundTarget(found.target, path, labels, seed, found.meaning)


def found_rows(scan: ScanFiles, found: Found, never_shown: tuple[str, ...] = ()) -> list[TargetRow]:
    """A row for every target that a scan shows, then one for every target that it does not."""
    hidden = [FoundTarget(name, None) for name in (*found.absent, *never_shown)]
    return [
        TargetRow(
            image=scan.image,
            mask=None if target.mask is None else Path(target.mask),
            labels=target.labels,
            target=target.target,
            query="",
            patient=scan.patient,
            modality=scan.modality,
            case=scan.case,
            seed=target.seed,
            meaning=target.meaning,
            absent=target.mask is None,
        )
        for target in (*found.shown, *hidden)
    ]

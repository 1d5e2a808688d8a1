"""What a scan can be asked for, read off its label map."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from medvol.core.errors import DatasetError, GeometryError
from medvol.datasets.layout import ScanFiles, Structure
from medvol.datasets.nifti_table import TargetRow
from medvol.queries.instances import Instance, VoxelIndex, split_instance, whole_mask
from medvol.queries.relations import Relational, Relator, assign_findings, split_pair
from medvol.queries.sides import check_side_positions

SIDED = ("kidney", "lung", "adrenal gland")
"""Organs whose left and right, named apart, are compared with each other."""

SPECK_VOXELS = 10
"""Smaller parts are slips of the annotator's brush: they are no finding that makes another one ambiguous."""


@dataclass(frozen=True)
class ShownTarget:
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
    seed: VoxelIndex | None = None
    meaning: str = ""


@dataclass(frozen=True)
class Found:
    """Targets of one scan.

    Args:
        shown: What it shows.
        absent: Structures of its labels without a voxel in it.
        dropped: How many relational questions of each form have no single answer.
    """

    shown: tuple[ShownTarget, ...]
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
    present = {structure: reader.find(structure) for structure in scan.structures if reader.path(structure)}
    wholes = {structure: whole for structure, whole in present.items() if whole is not None}
    large = [structure for structure, whole in wholes.items() if whole.size >= min_voxels]
    _check_sides(reader, {structure: wholes[structure] for structure in large})
    shown = [ShownTarget(s.name, str(reader.path(s)), s.labels) for s in large]
    absent = tuple(structure.name for structure, whole in present.items() if whole is None)
    if not relations or not large:
        return Found(tuple(shown), absent)
    relator = Relator()
    sides = _relate(reader, wholes, relator)
    relational = relator.relations()
    derived = [_locate(found) for found in (*sides, *relational.found) if found.instance.size >= min_voxels]
    shown += _unite_pairs(reader, large)
    known = {target.target for target in shown}
    return Found((*shown, *(t for t in derived if t.target not in known)), absent, dict(relational.dropped))


class _LabelReader:
    """Reads the label map of a scan once, and files of their own when they are asked for; keeps crops only."""

    def __init__(self, scan: ScanFiles) -> None:
        self._scan = scan

    @cached_property
    def _label_map(self) -> tuple[NDArray[np.int32], NDArray[np.float64]]:
        from medvol.imaging.reading import read_label_map

        assert self._scan.label_map is not None, "only structures with a file are read"
        return read_label_map(self._scan.label_map)

    def path(self, structure: Structure) -> Path | None:
        return structure.mask or self._scan.label_map

    def find(self, structure: Structure) -> Instance | None:
        """All of a structure; None when the scan does not show it."""
        if structure.mask is not None:
            return self._read_file(structure.mask, structure)
        values, affine = self._label_map
        mask = np.isin(values, structure.labels) if structure.labels else values != 0
        return self._sourced(whole_mask(mask, affine, structure.name), structure)

    def parts(self, structure: Structure, whole: Instance) -> list[Instance]:
        """Its separate parts: one a file where there are such files, connected ones otherwise."""
        if structure.instances:
            found = [self._read_file(path, Structure(structure.name, mask=path)) for path in structure.instances]
            return [one for one in found if one is not None]
        where = str(self.path(structure)), structure.labels
        return [replace(part, source=(*where, part.seed)) for part in split_instance(whole, SPECK_VOXELS)]

    def _read_file(self, path: Path, structure: Structure) -> Instance | None:
        from medvol.imaging.reading import read_label_map

        values, affine = read_label_map(path)
        mask = np.isin(values, structure.labels) if structure.labels else values != 0
        return self._sourced(whole_mask(mask, affine, structure.name), structure)

    def _sourced(self, whole: Instance | None, structure: Structure) -> Instance | None:
        return whole and replace(whole, source=(str(self.path(structure)), structure.labels, None))


_Wholes = dict[Structure, Instance]


def _relate(reader: _LabelReader, wholes: _Wholes, relator: Relator) -> list[Relational]:
    """Collect every relation of a scan; returns the sides of its pairs."""
    pairs = _find_pairs(reader, wholes, relator)
    findings = {s: reader.parts(s, whole) for s, whole in wholes.items() if s.finding}
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
    for structure, whole in wholes.items():
        if _is_landmark(structure):
            _relate_to(relator, whole, pairs, findings)
    return [Relational(one.name, one) for pair in pairs.values() for one in pair]


def _is_landmark(structure: Structure) -> bool:
    """True for anatomy that there is one of."""
    sided = structure.name.startswith(("left ", "right "))
    return not (structure.pair or structure.organ or structure.finding or sided)


def _relate_to(
    relator: Relator,
    place: Instance,
    pairs: dict[str, tuple[Instance, Instance]],
    findings: dict[Structure, list[Instance]],
) -> None:
    """Which of a pair, and which finding, lies nearest to a structure."""
    for organ, pair in pairs.items():
        relator.relate_nearest(organ, pair, place)
    for structure, instances in findings.items():
        relator.relate_nearest(structure.name, instances, place)


def _find_pairs(reader: _LabelReader, wholes: _Wholes, relator: Relator) -> dict[str, tuple[Instance, Instance]]:
    """Left and right of every organ that comes in pairs, whether one label or two hold them."""
    pairs: dict[str, tuple[Instance, Instance]] = {}
    by_name = {structure.name: whole for structure, whole in wholes.items()}
    for structure, whole in wholes.items():
        if structure.pair:
            pair = split_pair(reader.parts(structure, whole), structure.pair)
            if pair is None:
                relator.drop("side")
            else:
                pairs[structure.pair] = pair
        organ = structure.name.removeprefix("left ")
        if organ != structure.name and organ in SIDED and f"right {organ}" in by_name:
            pairs[organ] = whole, by_name[f"right {organ}"]
    return pairs


def _unite_pairs(reader: _LabelReader, large: list[Structure]) -> list[ShownTarget]:
    """Both organs of a pair together, where left and right are two labels of one map."""
    by_name = {structure.name: structure for structure in large}
    united = []
    for organ in SIDED:
        left, right = by_name.get(f"left {organ}"), by_name.get(f"right {organ}")
        if left and right and left.mask is None and right.mask is None:
            united.append(ShownTarget(f"{organ}s", str(reader.path(left)), (*left.labels, *right.labels)))
    return united


def _check_sides(reader: _LabelReader, wholes: _Wholes) -> None:
    by_name = {structure.name: whole for structure, whole in wholes.items()}
    for structure, left in wholes.items():
        right = by_name.get("right " + structure.name.removeprefix("left "))
        if right is None or not structure.name.startswith("left "):
            continue
        try:
            check_side_positions(float(left.centre_mm[0]), float(right.centre_mm[0]))
        except GeometryError as error:
            raise DatasetError(f"{reader.path(structure)}: {structure.name}: {error}") from error


def _locate(found: Relational) -> ShownTarget:
    path, labels, seed = found.instance.source
    return ShownTarget(found.target, path, labels, seed, found.meaning)


def found_rows(scan: ScanFiles, found: Found, never_shown: tuple[str, ...] = ()) -> list[TargetRow]:
    """A row for every target that a scan shows, then one for every target that it does not."""
    hidden = [ShownTarget(name, None) for name in (*found.absent, *never_shown)]
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

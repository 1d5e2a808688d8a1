"""Leakage: one patient, one file or one scan in two splits, whatever it is called there."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Literal
from unicodedata import normalize

from medvol.checking.fingerprint import Thumbnail, find_matches, hash_file, hash_pieces, make_thumbnail, scan_size
from medvol.core.roles import CaseDataset
from medvol.guarding.cases import find_scan_file, list_patients, list_volumes
from medvol.terminal.progress import counted

LeakKind = Literal["patient", "file", "scan"]

Splits = Mapping[str, CaseDataset]
"""Data sets by the name of their split."""

_Entry = tuple[str, Path]
"""A split and a file that it reads."""


@dataclass(frozen=True)
class Leak:
    """Something that two splits share.

    Args:
        kind: ``patient`` by name, ``file`` by its bytes, ``scan`` by its looks.
        splits: The two splits; the same one twice when it holds a scan under two names.
        names: The patient, files or scans in them.
        correlation: How much alike two scans look; None for patients and files.
    """

    kind: LeakKind
    splits: tuple[str, str]
    names: tuple[str, str]
    correlation: float | None = None

    def __str__(self) -> str:
        (first, second), (ours, theirs) = self.splits, self.names
        if self.kind == "patient":
            return f"{first} and {second} share the patient {ours!r}"
        what = "is the same file as" if self.kind == "file" else "looks like the same scan as"
        alike = "" if self.correlation is None else f" (correlation {self.correlation:.3f})"
        return f"{ours} in {first} {what} {theirs} in {second}{alike}"


def shared_patients(splits: Splits) -> list[Leak]:
    """Patients that two splits name alike, in one Unicode form or another; reads nothing."""
    patients = {name: {normalize("NFC", one) for one in list_patients(data)} for name, data in splits.items()}
    return [
        Leak("patient", (first, second), (patient, patient))
        for (first, ours), (second, theirs) in combinations(patients.items(), 2)
        for patient in sorted(ours & theirs)
    ]


def shared_files(splits: Splits) -> list[Leak]:
    """Files that two splits read, under one name or two; only files that agree in size and in pieces are read whole."""
    entries = [(split, path) for split, data in splits.items() for path in _files(data)]
    for key in (scan_size, hash_pieces):
        entries = [entry for group in _group(entries, key) for entry in group]
    return [
        Leak("file", (first, second), (str(ours), str(theirs)))
        for group in _group(entries, hash_file)
        for (first, ours), (second, theirs) in combinations(group, 2)
        if first != second
    ]


def _group(entries: Sequence[_Entry], key: Callable[[Path], object]) -> list[list[_Entry]]:
    """Entries that agree in a key, where they are of more than one split."""
    groups: dict[object, list[_Entry]] = defaultdict(list)
    for split, path in entries:
        groups[key(path)].append((split, path))
    return [group for group in groups.values() if len({split for split, _ in group}) > 1]


def shared_scans(splits: Splits) -> list[Leak]:
    """Scans that look the same, in two splits or twice in one; reads every volume.

    Two names for one file that was read before are not compared again: volumes are taken once for each key.
    """
    entries: list[tuple[str, str, Thumbnail]] = []
    for split, data in splits.items():
        volumes = _first_of_volumes(data)
        for key, index in counted(volumes.items(), f"comparing the {split} scans", len(volumes), "scans"):
            path = find_scan_file(data, index)
            volume = data[index].volume
            entries.append((split, str(path or key), make_thumbnail(volume, sized=_is_sized(path))))
    matches = find_matches([thumbnail for *_, thumbnail in entries])
    return [
        Leak(
            "scan",
            (entries[m.first][0], entries[m.second][0]),
            (entries[m.first][1], entries[m.second][1]),
            m.correlation,
        )
        for m in matches
    ]


def _files(data: CaseDataset) -> Iterator[Path]:
    """Scans of a data set, files or folders of DICOM, each once; nothing where it reads none."""
    paths = (find_scan_file(data, index) for index in _first_of_volumes(data).values())
    return iter(dict.fromkeys(path for path in paths if path is not None and path.exists()))


def _first_of_volumes(data: CaseDataset) -> dict[str, int]:
    """Index of the first case of each volume."""
    first: dict[str, int] = {}
    for index, key in enumerate(list_volumes(data)):
        first.setdefault(key, index)
    return first


def _is_sized(path: Path | None) -> bool:
    """False for bare arrays, which carry no spacing."""
    return path is None or path.suffix != ".npy"

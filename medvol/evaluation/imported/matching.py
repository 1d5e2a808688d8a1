"""Matching: which mask of another system answers which question of a data set."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from medvol.core.errors import DatasetError
from medvol.core.roles import CaseDataset
from medvol.core.types import Query
from medvol.core.words import split_words
from medvol.evaluation.imported.layouts import FoundMask
from medvol.guarding.guard import list_volumes
from medvol.imaging.file_names import stem
from medvol.queries.query_bank import target_name

Names = Mapping[str, Sequence[str]]
"""For a target, what the other system calls its parts."""

_FIRST_CHANNEL = "_0000"
"""nnU-Net names its input so, and leaves it out of its output."""

_SHOWN = 5


@dataclass(frozen=True)
class Answer:
    """What another system has for one question.

    Args:
        masks: The masks whose union answers it; empty where one is missing.
        missing: What is missing, in words; empty where nothing is.
    """

    masks: tuple[FoundMask, ...] = ()
    missing: str = ""


class MaskIndex:
    """Masks by what they are called, for the scans of a data set.

    A mask belongs to a scan by the name of its file, that of the folder it lies in, its patient or its identity. It
    answers a question that has its id, its very words or its target, looked for in that order; upper case and signs do
    not count, and ``kidney_left`` is the left kidney.

    Args:
        found: Masks of ``find_masks``.
        dataset: Whose questions are asked; no scan is read.
        names: What the other system calls targets that it calls otherwise.
    """

    def __init__(self, found: Sequence[FoundMask], dataset: CaseDataset, names: Names | None = None) -> None:
        self._names = {target_name(target): tuple(parts) for target, parts in (names or {}).items()}
        self._masks: dict[tuple[str, str], list[FoundMask]] = {}
        for mask in found:
            for name in {_key(mask.name), _target_key(mask.name)}:
                self._masks.setdefault((_scan_key(mask.scan), name), []).append(mask)
        self._scans = [_scan_names(dataset, index, key) for index, key in enumerate(list_volumes(dataset))]
        self._keys = list_volumes(dataset)
        self._owners: dict[str, set[str]] = {}
        for names_of_scan, key in zip(self._scans, self._keys, strict=True):
            for name in names_of_scan:
                self._owners.setdefault(name, set()).add(key)
        self._files = {key: dataset.scan_file(index) for index, key in enumerate(self._keys)}
        self._found = list(found)
        self._used: set[FoundMask] = set()
        self._scan_of: dict[Path, str] = {}

    def answer(self, index: int, case_id: str, query: Query) -> Answer:
        """Masks that answer a question.

        Args:
            index: Its place in the data set.
            case_id: Its id.
            query: Its words and target.

        Raises:
            DatasetError: Several masks would, or a mask might belong to several scans.
        """
        scans = self._scans[index]
        exact = self._look_up([_scan_key(case_id)], "", case_id) or self._look_up(scans, _key(query.text), case_id)
        if exact is not None:
            return self._use(index, [exact])
        parts = self._names.get(target_name(query.target), (query.target,)) if query.target else ()
        masks = [self._look_up(scans, _target_key(part), case_id) for part in parts]
        absent = [part for part, mask in zip(parts, masks, strict=True) if mask is None]
        if absent or not masks:
            wanted = ", ".join(map(repr, absent)) or repr(query.text)
            return Answer(missing=f"there is no mask of {wanted} for its scan")
        return self._use(index, [mask for mask in masks if mask is not None])

    @property
    def unused(self) -> list[str]:
        """What answered no question: files, and labels of those that are used in part."""
        files = {mask.path for mask in self._used}
        labels = {(mask.path, mask.labels) for mask in self._used}
        whole = {str(mask.path) for mask in self._found if mask.path not in files}
        parts = {
            f"{mask.path}: {mask.name}"
            for mask in self._found
            if mask.path in files and mask.labels and (mask.path, mask.labels) not in labels
        }
        return sorted(whole | parts)

    @property
    def is_used(self) -> bool:
        """Whether any mask answered a question."""
        return bool(self._used)

    @property
    def called(self) -> str:
        """Some names that the masks have, for a message."""
        return _some(f"{mask.scan}: {mask.name}" if mask.name else mask.scan for mask in self._found)

    @property
    def strangers(self) -> str:
        """Some of the scans that masks are named after, if the data have none of them; empty otherwise."""
        if any(_scan_key(mask.scan) in self._owners for mask in self._found):
            return ""
        named = {mask.path: mask.scan for mask in sorted(self._found, key=lambda mask: -len(mask.scan))}
        return _some(sorted(named.values()))

    @property
    def scans(self) -> str:
        """Some names of the scans of the data, for a message."""
        return _some(key if file is None else stem(file.name) for key, file in self._files.items())

    def _use(self, index: int, masks: Sequence[FoundMask]) -> Answer:
        for mask in masks:
            self._refuse_two(mask, {self._scan_of.setdefault(mask.path, self._keys[index]), self._keys[index]})
        self._used.update(masks)
        return Answer(tuple(masks))

    def _refuse_two(self, mask: FoundMask, scans: set[str]) -> None:
        if len(scans) > 1:
            first, second, *_ = sorted(scans)
            raise DatasetError(
                f"{mask.path} may belong to {first} or to {second}; name masks after the files of their scans"
            )

    def _look_up(self, scans: Sequence[str], name: str, case_id: str) -> FoundMask | None:
        hits = {(mask.path, mask.labels): (mask, scan) for scan in scans for mask in self._masks.get((scan, name), ())}
        if not hits:
            return None
        (mask, scan), *others = hits.values()
        if others:
            raise DatasetError(
                f"case {case_id!r} is answered by {mask.path} and by {others[0][0].path}; leave one of them out"
            )
        self._refuse_two(mask, self._owners.get(scan, set()))
        return mask


def _some(names: Iterable[str]) -> str:
    known = list(dict.fromkeys(names))
    return ", ".join(known[:_SHOWN]) + (f" and {len(known) - _SHOWN} more" if len(known) > _SHOWN else "")


def _scan_names(dataset: CaseDataset, index: int, key: str) -> list[str]:
    """What masks of the scan of a case may be called."""
    file = dataset.scan_file(index)
    names = [key, dataset.patient_id(index)]
    if file is not None:
        names += [stem(file.name), stem(file.name).removesuffix(_FIRST_CHANNEL), Path(file).parent.name]
    return list(dict.fromkeys(_scan_key(name) for name in names if name))


def _scan_key(name: str) -> str:
    return name.casefold()


def _key(name: str) -> str:
    return " ".join(split_words(name))


def _target_key(name: str) -> str:
    return _key(target_name(name)) if name.strip(" _") else ""

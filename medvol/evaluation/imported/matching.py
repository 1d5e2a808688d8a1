"""Matching: which mask of another system answers which question of a data set."""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from medvol.core.errors import DatasetError
from medvol.core.roles import CaseDataset
from medvol.core.types import Query
from medvol.core.words import split_words
from medvol.evaluation.imported.layouts import NAMES_FILE, FoundMask
from medvol.guarding.cases import find_scan_file, list_patients, list_volumes
from medvol.imaging.file_names import stem
from medvol.inference.predictions import name_files
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
    answers a question that has its id, its very words or its target, looked for in that order; upper case, signs and
    the ways in which Unicode writes one letter do not count, and ``kidney_left`` is the left kidney.

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
        self._keys = list_volumes(dataset)
        files = [find_scan_file(dataset, index) for index in range(len(self._keys))]
        self._called = [*map(_name_scan, self._keys, list_patients(dataset), files)]
        self._scans = [list(dict.fromkeys(map(_scan_key, names))) for names in self._called]
        self._owners: dict[str, set[str]] = {}
        for names_of_scan, key in zip(self._scans, self._keys, strict=True):
            for name in names_of_scan:
                self._owners.setdefault(name, set()).add(key)
        self._found = list(found)
        self._used: set[FoundMask] = set()
        self._scan_of: dict[Path, str] = {}
        self._unasked = dict.fromkeys(self._names)
        self._named: dict[Path, set[int]] = {}
        for mask in found:
            self._named.setdefault(mask.path, set()).update(mask.labels)
        self._unnamed: dict[Path, list[int]] = {}
        self._several: dict[Path, list[int]] = {}

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
        if query.target:
            self._unasked.pop(target_name(query.target), None)
        exact = self._look_up(dict.fromkeys(map(_scan_key, (case_id, name_files(case_id)))), "", case_id)
        exact = exact or self._look_up_words(scans, query.text, case_id, _key)
        if exact is not None:
            return self._use(index, [exact])
        parts = self._names.get(target_name(query.target), (query.target,)) if query.target else ()
        masks = [self._look_up_words(scans, part, case_id, _target_key) for part in parts]
        absent = [part for part, mask in zip(parts, masks, strict=True) if mask is None]
        if absent or not masks:
            wanted = ", ".join(map(repr, absent)) or repr(query.text)
            return Answer(missing=f"there is no mask of {wanted} for its scan")
        return self._use(index, [mask for mask in masks if mask is not None])

    def note_labels(self, path: Path, labels: Iterable[int]) -> None:
        """Note which labels a file holds, so that ``remarks`` can tell those that nobody expects."""
        named = self._named[path]
        if named:
            self._unnamed[path] = [label for label in labels if label not in named]
        else:
            self._several[path] = [label for label in labels if label > 0]

    @property
    def remarks(self) -> list[str]:
        """What was passed over or united: sentences without a full stop."""
        unnamed = {path: labels for path, labels in self._unnamed.items() if labels}
        several = {path: labels for path, labels in self._several.items() if len(labels) > 1}
        lines = []
        if unnamed:
            first = _list_labels(unnamed)
            lines.append(f"{len(unnamed)} label maps hold labels that {NAMES_FILE} does not name, such as {first}")
        if several:
            first = _list_labels(several)
            lines.append(f"{len(several)} masks hold several labels, which count as one target, such as {first}")
        if self._unasked:
            lines.append(f"--names says what {_some(self._unasked)} is called, and no question asks for that")
        return lines

    @property
    def unused(self) -> list[str]:
        """What answered no question: files, and labels of those that are used in part."""
        files = {mask.path for mask in self._used}
        labels = {(mask.path, mask.labels) for mask in self._used}
        whole = {str(mask.path) for mask in self._found if mask.path not in files}
        parts = {
            _describe(mask)
            for mask in self._found
            if mask.path in files and mask.labels and (mask.path, mask.labels) not in labels
        }
        return sorted(whole | parts)

    @property
    def is_used(self) -> bool:
        """Whether any mask answered a question."""
        return bool(self._used)

    @property
    def has_scans(self) -> bool:
        """Whether a file is called as a scan is, and so says nothing of what it shows."""
        return any(not mask.name and _scan_key(mask.scan) in self._owners for mask in self._found)

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
        """Some names of the scans of the data, none of which two scans share, for a message."""
        return _some(
            next((name for name in names if len(self._owners[_scan_key(name)]) == 1), key)
            for key, names in zip(self._keys, self._called, strict=True)
        )

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

    def _look_up_words(
        self, scans: Sequence[str], words: str, case_id: str, key: Callable[[str], str]
    ) -> FoundMask | None:
        """As ``_look_up``; words without a letter or digit name nothing."""
        return self._look_up(scans, key(words), case_id) if split_words(words) else None

    def _look_up(self, scans: Iterable[str], name: str, case_id: str) -> FoundMask | None:
        hits = {(mask.path, mask.labels): (mask, scan) for scan in scans for mask in self._masks.get((scan, name), ())}
        if not hits:
            return None
        (mask, scan), *others = hits.values()
        if others:
            raise DatasetError(
                f"case {case_id!r} is answered by {_describe(mask)} and by {_describe(others[0][0])}; leave one of "
                "them out"
            )
        self._refuse_two(mask, self._owners.get(scan, set()))
        return mask


def _describe(mask: FoundMask) -> str:
    return f"{mask.path}: {mask.name}" if mask.labels else str(mask.path)


def _list_labels(found: Mapping[Path, Sequence[int]]) -> str:
    """The first of some files with the labels that it holds."""
    path, labels = min(found.items())
    return f"{path}: {_some(map(str, labels))}"


def _some(names: Iterable[str]) -> str:
    known = list(dict.fromkeys(names))
    return ", ".join(known[:_SHOWN]) + (f" and {len(known) - _SHOWN} more" if len(known) > _SHOWN else "")


def _name_scan(key: str, patient: str, file: Path | None) -> list[str]:
    """What masks of the scan of a case may be called, the clearest name first."""
    names = [key] if file is None else [stem(file.name), stem(file.name).removesuffix(_FIRST_CHANNEL), file.parent.name]
    return [name for name in (*names, patient, key) if name]


def _scan_key(name: str) -> str:
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).casefold())


def _key(name: str) -> str:
    return " ".join(split_words(name))


def _target_key(name: str) -> str:
    return _key(target_name(name)) if split_words(name) else ""

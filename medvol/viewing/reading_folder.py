"""The folder of readings: every verdict is a record of its own that names the record it is about.

Readings of one answer form a chain, and the last one counts. Nothing is ever written over: the name of a reading holds
a digest of what it says, and whoever saves names the record that they had before them. When that is no longer the last
one, somebody else was there first, and nothing is saved.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path
from typing import Any

from medvol.core.atomic_files import hold
from medvol.core.errors import OutputError, RecordError, explain_error
from medvol.core.json_file import read_json, to_json, write_json
from medvol.core.settled_files import Stamp, stamp_file
from medvol.inference.readings import VERDICTS, Reading
from medvol.inference.record_fields import RecordFields
from medvol.inference.records import FAILED_SUFFIX, SCHEMA, EvidenceRecord, read_record
from medvol.inference.segmentation import Segmentation, save_segmentation
from medvol.viewing.entries import DRAFT_SCHEMA, Entry
from medvol.viewing.jobs import ConflictError

_DRAFTS = "drafts"
_LOCK = ".lock"
_DIGITS = 12
_NAME = re.compile(rf"_({'|'.join(VERDICTS)})_[0-9a-f]{{{_DIGITS}}}\.json$")
"""How the name of a reading ends, whatever is left of what it held."""


@dataclass(frozen=True, eq=False)
class Head:
    """The last word on an answer.

    Args:
        record: The last reading; the answer itself where nobody has read it.
        sha256: Digest of its file.
        file: Its name.
        folder: Where its mask lies; None where there is none.
        others: Names of readings that were saved beside it and of which neither knows the other.
        damage: Why a reading of the answer cannot be read, which may be the one that counts; empty otherwise.
    """

    record: EvidenceRecord
    sha256: str
    file: str
    folder: Path | None
    others: tuple[str, ...] = ()
    damage: str = ""


@dataclass(frozen=True, eq=False)
class _Kept:
    """A reading on the disk: the name of its record, the digest of its bytes, and what it says."""

    file: str
    sha256: str
    record: EvidenceRecord
    reading: Reading


class ReadingFolder:
    """Readings and drafts of a session on the disk; safe for threads, and for other processes where disks can lock.

    Args:
        path: The folder; made when something is saved.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._known: dict[tuple[str, Stamp], tuple[str, EvidenceRecord]] = {}
        self._revisions: dict[str, int] = {}  # a number that a draft had is not given to the next one
        self._lock = threading.RLock()

    def require_sound(self) -> None:
        """Refuse a folder that cannot take readings, or in which one cannot be read: nobody would know what counts.

        Raises:
            RecordError: It is a file, or holds a damaged reading.
        """
        if self.path.exists() and not self.path.is_dir():
            raise RecordError(f"{self.path} is a file, and readings go to a folder; choose another --out")
        for damage in self._look()[1].values():
            raise RecordError(damage)

    def head(self, entry: Entry) -> Head:
        """The last word on an answer: the reading that no other one names.

        Raises:
            RecordError: A reading of the answer is damaged.
        """
        head = self.heads([entry])[0]
        if head.damage:
            raise RecordError(head.damage)
        return head

    def require_head(self, entry: Entry, expected_sha256: str) -> Head:
        """The last word on an answer, which must be the one that a reader had before them.

        Raises:
            ConflictError: Somebody else has saved a reading meanwhile.
        """
        head = self.head(entry)
        if head.sha256 != expected_sha256:
            raise ConflictError(f"{_who(head)} has saved a reading of this answer meanwhile; load it and look again")
        return head

    def heads(self, entries: Iterable[Entry]) -> list[Head]:
        """The last word on each of some answers, as far as it can be read; the folder is looked through once."""
        children: dict[str, list[_Kept]] = {}
        readings, damaged = self._look()
        for kept in readings:
            children.setdefault(kept.reading.parent_sha256, []).append(kept)
        return [replace(_last(entry, children, self.path), damage=_find_damage(entry, damaged)) for entry in entries]

    def strays(self, entries: Iterable[Entry]) -> list[str]:
        """Names of readings that are about what an answer was before it was written again: they count for nothing."""
        listed = list(entries)
        kept, _ = self._look()
        known = {entry.sha256 for entry in listed} | {one.sha256 for one in kept}
        answers = {_answer_name(entry.file) for entry in listed if entry.file}
        lost = [one for one in kept if one.reading.parent_sha256 not in known]
        return [one.file for one in lost if _answer_name(one.reading.parent) in answers]

    def save(self, entry: Entry, segmentation: Segmentation, expected_sha256: str, expected_revision: int) -> Head:
        """Write a reading with its mask and its picture; the draft that led to it is done with.

        Args:
            entry: The answer that it is about.
            segmentation: What is kept; its reading says what the reader made of it.
            expected_sha256: Digest of the record that the reader had before them.
            expected_revision: Revision of the draft that the reader had before them; 0 where there was none.

        Raises:
            ConflictError: Somebody else has saved a reading or a draft meanwhile; nothing is written.
            OSError: Mask and record cannot be written; nothing is.
        """
        reading = segmentation.reading
        if reading is None:
            raise RecordError("a segmentation without a reading is none; give it one")
        with self._held():
            head = self.require_head(entry, expected_sha256)
            self._require_draft(entry, expected_revision)
            reading = replace(reading, parent=head.file, parent_sha256=head.sha256)
            name = f"{entry.name}_{reading.verdict}_{_digest(entry, segmentation, reading)}"
            with suppress(OutputError):  # of the picture; the record says why it is not there
                save_segmentation(replace(segmentation, reading=reading), self.path, name)
            self._draft_path(entry).unlink(missing_ok=True)
            return self.head(entry)

    def has_draft(self, entry: Entry) -> bool:
        """True where something is not finished, even if it cannot be read."""
        return self._draft_path(entry).is_file()

    def read_draft(self, entry: Entry) -> dict[str, Any] | None:
        """What is not finished; None where there is nothing.

        Raises:
            RecordError: What lies there is no draft.
        """
        path = self._draft_path(entry)
        if not path.is_file():
            return None
        draft = read_json(path, "", f"delete {path}")
        if not isinstance(draft, dict) or draft.get("schema") != DRAFT_SCHEMA or type(draft.get("revision")) is not int:
            raise RecordError(f"{path} is no draft of this version ({DRAFT_SCHEMA}); delete it")
        anchor = {name: draft[name] for name in ("key_slice", "boxes_px", "further") if name in draft}
        RecordFields(path, {"draft": {**anchor, "rationale": ""}}).evidence("draft")
        return draft

    def write_draft(self, entry: Entry, content: Mapping[str, Any], expected_revision: int) -> dict[str, Any]:
        """Keep what is not finished.

        Args:
            entry: The answer that it is about.
            content: Anchor and remark, as plain values.
            expected_revision: Revision of the draft that the reader had before them; 0 where there was none.

        Returns:
            The draft with its new revision.

        Raises:
            ConflictError: Another tab or another reader has changed the draft, or has finished; nothing is written.
        """
        with self._held():
            head = self.head(entry)
            if content["parent_sha256"] != head.sha256:
                raise ConflictError(f"{_who(head)} has changed this answer meanwhile; load it and look again")
            self._require_draft(entry, expected_revision)
            revision = max(expected_revision, self._revisions.get(entry.entry_id, 0)) + 1
            draft = {"schema": DRAFT_SCHEMA, **content, "revision": revision}
            self._revisions[entry.entry_id] = revision
            write_json(self._draft_path(entry), draft)
            return draft

    def drop_draft(self, entry: Entry, expected_revision: int) -> None:
        """Forget what is not finished; raises as ``write_draft`` does."""
        with self._held():
            if self.has_draft(entry):
                self._require_draft(entry, expected_revision)
            self._draft_path(entry).unlink(missing_ok=True)

    def _require_draft(self, entry: Entry, expected_revision: int) -> None:
        """Refuse to replace or to end a draft that a reader did not have before them: it is somebody's work."""
        known = self.read_draft(entry)
        if expected_revision != (0 if known is None else known["revision"]):
            raise ConflictError(
                "another tab or another reader has changed this answer meanwhile; load it and look again"
            )

    def _draft_path(self, entry: Entry) -> Path:
        return self.path / _DRAFTS / f"{entry.entry_id}.json"

    @contextmanager
    def _held(self) -> Iterator[None]:
        self.path.mkdir(parents=True, exist_ok=True)
        lock = self.path / _LOCK
        lock.touch()
        with self._lock, hold(lock):
            yield

    def _look(self) -> tuple[list[_Kept], dict[str, str]]:
        """Every reading of the folder, and by their names why others cannot be read; each file is read once."""
        found: list[_Kept] = []
        damaged: dict[str, str] = {}
        with self._lock:
            for path in filter(Path.is_file, sorted(self.path.glob("*.json"))):
                try:
                    kept = self._read(path)
                except (RecordError, OSError) as error:
                    damaged[path.name] = f"{explain_error(error)}; or move it out of the folder of the readings"
                else:
                    found += [] if kept is None else [kept]
        return found, damaged

    def _read(self, path: Path) -> _Kept | None:
        """A reading; None for a file that is none."""
        key = path.name, stamp_file(path)
        if key not in self._known:
            content = path.read_bytes()
            if SCHEMA.encode() not in content and not _NAME.search(path.name):
                return None
            self._known[key] = sha256(content).hexdigest(), read_record(path)
        digest, record = self._known[key]
        return None if record.reading is None else _Kept(path.name, digest, record, record.reading)


def _find_damage(entry: Entry, damaged: Mapping[str, str]) -> str:
    """Why a reading of an answer cannot be read; whose it is, its name says."""
    return next((why for file, why in damaged.items() if _may_be_of(entry, file)), "")


def _may_be_of(entry: Entry, file: str) -> bool:
    """A file that somebody renamed is taken for a reading of every answer that its name begins with."""
    named = _NAME.search(file)
    return file.startswith(entry.name) if named is None else file[: named.start()] == entry.name


def _last(entry: Entry, children: Mapping[str, list[_Kept]], folder: Path) -> Head:
    """Follow the readings of an answer from parent to child."""
    head = Head(entry.record, entry.sha256, entry.file, entry.folder)
    for _ in range(len(children)):  # a chain is no longer, and a circle does not hold it
        found = sorted(children.get(head.sha256, []), key=lambda kept: (kept.reading.time, kept.file))
        if not found:
            break
        last = found[-1]
        head = Head(last.record, last.sha256, last.file, folder, (*head.others, *(kept.file for kept in found[:-1])))
    return head


def _answer_name(file: str) -> str:
    """Name of an answer, whether its file is a record or that of a failure."""
    return file.removesuffix(FAILED_SUFFIX).removesuffix(".json")


def _who(head: Head) -> str:
    reading = head.record.reading
    return reading.reader if reading is not None and reading.reader else "another tab or another reader"


def _digest(entry: Entry, segmentation: Segmentation, reading: Reading) -> str:
    """Digits that no other reading has: what it says, about which record, and when."""
    evidence = segmentation.evidence
    said = {**reading.to_dict(), "entry": entry.sha256, "key": evidence.key_slice, "boxes": evidence.boxes.tolist()}
    if evidence.further:
        said["further"] = [[anchor.key_slice, anchor.boxes.tolist()] for anchor in evidence.further]
    return sha256(to_json(said)).hexdigest()[:_DIGITS]

"""Entries: the answers of a session, each with its question, its scan and what the policy said."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from hashlib import sha256
from pathlib import Path
from types import MappingProxyType
from typing import Any, get_args

import numpy as np

from medvol.core.errors import RecordError
from medvol.core.json_file import read_json
from medvol.core.types import Evidence, Modality, Volume
from medvol.imaging.volume_hash import hash_volume
from medvol.inference.confidence import read_warnings
from medvol.inference.jobs import answer_stem, case_name
from medvol.inference.names import MAX_NAME_BYTES, cut
from medvol.inference.record_fields import RecordFields
from medvol.inference.recorded_scan import place_scan, require_scan
from medvol.inference.records import FAILED_SUFFIX, SCHEMA, EvidenceRecord, read_record, scan_fields
from medvol.viewing.scans import Scan, make_id

Reader = Callable[..., Volume]
"""Reads a scan: path, and by name series and settings of ``read_volume``."""

DRAFT_SCHEMA = "medvol-draft/1"
"""Version of the layout of drafts."""

NOTHING = Evidence(None, np.empty((0, 4), np.float64))
"""An anchor without a box."""

_NAME_ROOM = 40
"""Letters of a file name that a reading adds."""


@dataclass(frozen=True, eq=False)
class Entry:
    """One answer that can be read.

    Args:
        entry_id: Names it in addresses.
        name: Start of the names of files that readings of it have.
        scan: What was asked about.
        record: The answer; of one without a mask its anchor is empty.
        sha256: Digest of the answer's file, or of the question where there is none: what a first reading names as its
            parent.
        folder: Where its mask lies; None where it has none.
        file: Name of the answer's file; empty where a reader begins.
        failure: Why there is no mask, in words; empty otherwise.
        patient: Whose scan it is, where that is known.
        settle: Completes the record once the scan is read, where only the scan tells what it says; None elsewhere.
    """

    entry_id: str
    name: str
    scan: Scan
    record: EvidenceRecord
    sha256: str
    folder: Path | None = None
    file: str = ""
    failure: str = ""
    patient: str = ""
    settle: Callable[[EvidenceRecord, Volume], EvidenceRecord] | None = None

    def settled(self, volume: Volume) -> Entry:
        """The entry with its record completed."""
        return self if self.settle is None else replace(self, record=self.settle(self.record, volume), settle=None)

    def asked(self) -> dict[str, Any]:
        """What a draft has to keep of a question that a reader began, since no other file does; nothing else."""
        if self.file:
            return {}
        record = self.record
        scan = {
            "path": record.scan_path,
            "sha256": record.scan_sha256,
            "series": record.series,
            "modality": record.modality,
            "read_with": dict(record.read_with or {}),
        }
        return {"question": {"query": record.query, "scan": scan}}

    def describe(self) -> dict[str, Any]:
        """Plain values for a list."""
        return {
            "id": self.entry_id,
            "name": self.name,
            "query": self.record.query,
            "scan": self.scan.scan_id,
            "scan_name": self.scan.name,
            "failure": self.failure,
            "warnings": list(read_warnings(self.record.confidence)),
            "completion": self.record.completion,
            "propagator": str(self.record.propagator.get("name", "")),
        }


def find_answers(folder: Path, read: Reader) -> tuple[list[Entry], list[str]]:
    """Every answer of a folder, and of the folders in it, and every question that a reader began.

    Args:
        folder: Where ``medvol segment`` or ``medvol predict`` wrote.
        read: Reads a scan.

    Returns:
        The entries in the order of their names; and for each record that cannot be read, why.
    """
    entries: list[Entry] = []
    problems: list[str] = []
    for path in sorted(folder.rglob("*.json")):
        if _is_hidden(path.relative_to(folder)) or not path.is_file():
            continue
        try:
            found = _open(path, read)
        except RecordError as error:
            problems.append(str(error))
            continue
        if found is not None:
            entries.append(found)
    unique = {entry.entry_id: entry for entry in entries}
    return list(unique.values()), problems


def holds_answer(path: Path) -> bool:
    """True for the file of an answer, or of a reading; False for other JSON and for what cannot be read."""
    if path.name.endswith(FAILED_SUFFIX):
        return True
    try:
        content = read_json(path, "", "")
    except RecordError:
        return False
    return isinstance(content, dict) and content.get("schema") == SCHEMA


def open_answer(path: Path, read: Reader) -> Entry:
    """An entry of a record.

    Raises:
        RecordError: The record cannot be used, or names no scan.
    """
    record = read_record(path)
    scan = scan_of(record, path, read)
    digest = sha256(path.read_bytes()).hexdigest()
    return Entry(make_id(digest, path.name), _stem(path.stem), scan, record, digest, path.parent, path.name)


def open_failure(path: Path, read: Reader) -> Entry:
    """An entry of an answer that gave no mask: a reader may give one.

    Raises:
        RecordError: The file cannot be used.
    """
    fields = RecordFields(path, read_json(path, "`medvol segment` writes one of a failed answer", "segment it again"))
    record = EvidenceRecord(
        query=fields.text("query"),
        evidence=NOTHING,
        completion=fields.text("completion", may_be_empty=True),
        mask_file="",
        **scan_fields(fields),
        policy=fields.mapping("policy"),
        propagator=fields.mapping("propagator"),
    )
    digest = sha256(path.read_bytes()).hexdigest()
    stem = path.name.removesuffix(FAILED_SUFFIX)
    scan = scan_of(record, path, read)
    failure = fields.text("detail", may_be_empty=True)
    return Entry(make_id(digest, path.name), _stem(stem), scan, record, digest, None, path.name, failure)


def scan_of(record: EvidenceRecord, path: Path, read: Reader) -> Scan:
    """The scan that a record names, read as it was read for the answer.

    Raises:
        RecordError: It names none, or a modality that there is not.
    """
    if record.scan_path is None:
        raise RecordError(f"{path} names no scan: it was made in memory; segment the scan from a file")
    if record.modality is not None and record.modality not in get_args(Modality):
        raise RecordError(f"{path}: scan.modality is {record.modality!r}; it is one of {', '.join(get_args(Modality))}")
    named, place = record.scan_path, place_scan(record.scan_path, path)
    scan = scan_file(place, read, record.series, record.reader_settings)
    return replace(scan, read=lambda: (require_scan(named, path), scan.read())[1])


def scan_file(
    path: Path, read: Reader, series: str | None = None, settings: Mapping[str, Any] = MappingProxyType({})
) -> Scan:
    """A scan in a file, or a folder of DICOM.

    Args:
        path: The file.
        read: Reads it.
        series: Of a DICOM folder.
        settings: What it was read with before, such as its modality; the rest is left to ``read``.
    """
    opened = partial(read, path, series=series, **settings)
    scan_id = make_id(str(path), series, sorted(settings.items()))
    name = path.name if series is None else f"{path.name}, series {series}"
    return Scan(scan_id, name, lambda: (opened(), None), path, series)


def question_entry(scan: Scan, about: EvidenceRecord) -> Entry:
    """An entry that a reader begins: a question without an answer.

    Args:
        scan: What is asked about.
        about: Scan and query count.
    """
    record = replace(
        EvidenceRecord(about.query, NOTHING, "", about.scan_path, about.scan_sha256, ""),
        **{name: getattr(about, name) for name in ("series", "modality", "read_with")},
    )
    asked = ("question", about.scan_sha256, about.query, about.series, about.modality)
    digest = sha256(repr(asked).encode()).hexdigest()
    name = answer_stem(case_name(scan.path or Path(scan.name), scan.series), about.query)
    return Entry(make_id(digest), _stem(name), scan, record, digest)


def question_about(volume: Volume, query: str) -> EvidenceRecord:
    """Scan and query of a question, as ``question_entry`` takes them."""
    source = volume.source
    path = None if source is None or source.path is None else str(source.path)
    series = None if source is None else source.series or None
    read_with = None if source is None else dict(source.read_with)
    record = EvidenceRecord(query, NOTHING, "", path, hash_volume(volume), "", read_with=read_with)
    return replace(record, series=series, modality=volume.modality)


def _is_hidden(path: Path) -> bool:
    """True for what no person looks at, such as what a killed process was writing."""
    return any(part.startswith(".") for part in path.parts)


def _open(path: Path, read: Reader) -> Entry | None:
    """The answer in a file, or the question that a reader began there; None for other JSON and for later readings.

    Raises:
        RecordError: It cannot be used, or not even be read.
    """
    if path.name.endswith(FAILED_SUFFIX):
        return open_failure(path, read)
    try:
        content = read_json(path, "", "")
    except RecordError:
        content = {"schema": SCHEMA}  # opened as a record, it says what is wrong
    schema = content.get("schema") if isinstance(content, dict) else None
    if schema == DRAFT_SCHEMA and "question" in content:
        fields = RecordFields(path, content["question"])
        asked = EvidenceRecord(fields.text("query"), NOTHING, "", mask_file="", **scan_fields(fields))
        return question_entry(scan_of(asked, path, read), asked)
    if schema != SCHEMA:
        return None
    entry = open_answer(path, read)
    reading = entry.record.reading
    if reading is None:
        return entry
    return None if reading.parent else question_entry(entry.scan, entry.record)


def _stem(name: str) -> str:
    return cut(name, MAX_NAME_BYTES - _NAME_ROOM)

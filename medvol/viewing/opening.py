"""What `medvol view` is given: a scan, a folder of scans, a record, a folder of answers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from medvol.core.errors import RecordError
from medvol.imaging.file_names import SCANS
from medvol.imaging.folders import find_scans, is_batch, look_into
from medvol.inference.records import FAILED_SUFFIX
from medvol.viewing.entries import Entry, Reader, find_answers, holds_answer, open_answer, open_failure, scan_file
from medvol.viewing.scans import Scan

READINGS = "readings"
"""Folder of the readings, beside the answers that they are about."""


@dataclass(frozen=True, eq=False)
class Opened:
    """What a session begins with.

    Args:
        entries: Answers to be read.
        scans: Scans that can be asked about besides.
        readings: Where readings belong when the user names no folder.
        problems: What could not be opened, in sentences.
    """

    entries: Sequence[Entry]
    scans: Sequence[Scan]
    readings: Path
    problems: Sequence[str] = field(default_factory=tuple)


def add_kept(opened: Opened, out: Path, read: Reader) -> Opened:
    """What a session begins with, and what former sessions kept about its scans.

    Args:
        opened: From ``open_target``.
        out: Folder of the readings, which also holds what readers or the policy answered in the page.
        read: Reads a scan.
    """
    if not out.is_dir():
        return opened
    about = {_place(scan) for scan in (*opened.scans, *(entry.scan for entry in opened.entries))}
    known = {entry.entry_id for entry in opened.entries}
    found, lost = find_answers(out, read)
    kept = [entry for entry in found if entry.entry_id not in known and _place(entry.scan) in about - {None}]
    problems = list(dict.fromkeys([*opened.problems, *lost]))
    return replace(opened, entries=[*opened.entries, *kept], problems=problems)


def _place(scan: Scan) -> Path | None:
    return None if scan.path is None else scan.path.resolve()


def open_target(path: Path, read: Reader, series: str | None = None) -> Opened:
    """Find the answers, or the scans, of a path; no scan is read.

    Args:
        path: A record, a folder of records, a scan, or a folder of scans.
        read: Reads a scan.
        series: Of a DICOM folder.

    Raises:
        RecordError: There is nothing of that kind.
    """
    if not path.exists():
        raise RecordError(f"there is no {str(path)!r}; give a scan, a record, a folder of answers, or a run's folder")
    if path.is_file() and path.suffix.lower() == ".json":
        entry = open_failure(path, read) if path.name.endswith(FAILED_SUFFIX) else open_answer(path, read)
        if entry.record.reading is not None:
            raise RecordError(
                f"{path} is a reading of {entry.record.reading.parent!r}; open that record, or its folder"
            )
        return Opened([entry], [], path.parent / READINGS)
    if path.is_dir():
        entries, problems = find_answers(path, read)
        if entries or problems:
            return Opened(entries, _scans_besides(path, read, series), path / READINGS, problems)
        if is_batch(path):
            scans = [scan_file(scan, read, series) for scan in find_scans(path)]
            if not scans:
                raise RecordError(
                    f"{path} holds no answers and no scans; scans end in {', '.join(SCANS)}, or are DICOM"
                )
            return Opened([], scans, Path(READINGS))
    return Opened([], [scan_file(path, read, series)], Path(READINGS))


def _scans_besides(path: Path, read: Reader, series: str | None) -> list[Scan]:
    """Scans of a folder whose answers all lie in folders of it, such as ``readings``; beside answers lie masks."""
    if any(map(holds_answer, path.glob("*.json"))):
        return []
    return [scan_file(scan, read, series) for scan in look_into(path).scans if scan != path]

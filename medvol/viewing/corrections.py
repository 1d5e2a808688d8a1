"""Corrections: a table of what readers accepted and corrected, which a data set trains on."""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from medvol.core.atomic_files import write_whole
from medvol.core.errors import RecordError
from medvol.grounding.box_text import BETWEEN, write_boxes
from medvol.inference.recorded_scan import path_from, place_scan
from medvol.inference.records import EvidenceRecord
from medvol.inference.repropagation import keeps_its_anchor
from medvol.viewing.entries import Entry
from medvol.viewing.reading_folder import Head, ReadingFolder

COLUMNS = ("image", "mask", "query", "patient", "modality", "case", "absent", "key_slice", "boxes")
"""Columns of the table, as ``NiftiDataset`` reads them; a case is called as its reading is."""


@dataclass(frozen=True)
class Corrections:
    """What a table holds, and what it does not.

    Args:
        rows: One for each answer that was accepted or corrected.
        left_out: How many answers are not in it, by the reason.
    """

    rows: tuple[dict[str, str], ...]
    left_out: Counter[str]


def collect(entries: Iterable[Entry], readings: ReadingFolder, root: Path) -> Corrections:
    """Find what a data set can train on.

    Args:
        entries: The answers of a session.
        readings: Their readings.
        root: Folder that the paths of the table are relative to.

    Raises:
        RecordError: Two readings of one answer were saved beside one another, and neither knows the other; or one is
            damaged.
    """
    rows: list[dict[str, str]] = []
    left_out: Counter[str] = Counter()
    listed = list(entries)
    for entry, head in zip(listed, readings.heads(listed), strict=True):
        reason = _why_not(entry, head)
        if reason:
            left_out[reason] += 1
        else:
            rows.append(_row(entry, head, root))
    return Corrections(tuple(rows), left_out)


def write_corrections(path: Path, corrections: Corrections) -> None:
    """Write the table as CSV.

    Raises:
        RecordError: There is nothing to write, or something that UTF-8 cannot write.
    """
    if not corrections.rows:
        reasons = "; ".join(f"{count} {reason}" for reason, count in corrections.left_out.items())
        raise RecordError(f"there is nothing to train on ({reasons or 'no answers'}); accept or correct answers first")
    for row in corrections.rows:
        _require_text(path, row)
    with write_whole(path) as partial, partial.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS)
        writer.writeheader()
        writer.writerows(corrections.rows)


def _require_text(path: Path, row: dict[str, str]) -> None:
    """Refuse a row with half a letter in it, such as the name of a file from a disk in Latin-1."""
    for column, cell in row.items():
        try:
            cell.encode()
        except UnicodeEncodeError:
            what = f"the {column} {cell!r}, which is no UTF-8 text"
            raise RecordError(f"{path}: a table cannot hold {what}; rename the file") from None


def _why_not(entry: Entry, head: Head) -> str:
    """Why an answer is not in the table; empty when it is."""
    reading = head.record.reading
    if head.damage:
        raise RecordError(head.damage)
    if head.others:
        raise RecordError(
            f"{head.file} and {', '.join(head.others)} are readings of one answer that do not know one another; move "
            "away those that do not count"
        )
    if reading is None:
        return "not read yet"
    if reading.verdict == "rejected":
        return "rejected"
    if keeps_its_anchor(head.record) is False:
        return "whose slice or boxes were changed in the file, after the mask was made"
    if head.record.scan_path is None:
        return "about a scan that lies in no file"
    if not _image_of(entry, head).exists():
        return f"about a scan that is not there, such as {head.record.scan_path}"
    return _what_no_table_says(head.record)


def _what_no_table_says(record: EvidenceRecord) -> str:
    """How a scan has to be read that a row cannot say; empty when it says all."""
    if record.series:
        return "of a named DICOM series, which a table cannot name"
    told = [f"--{name}" for name in record.reader_settings if name != "modality"]
    return f"about a scan that is read with {' and '.join(told)}, which a table cannot say" if told else ""


def _image_of(entry: Entry, head: Head) -> Path:
    """Where the scan of an answer lies."""
    assert head.folder is not None, "a reading has a folder"
    return entry.scan.path or place_scan(str(head.record.scan_path), head.folder / head.file)


def _row(entry: Entry, head: Head, root: Path) -> dict[str, str]:
    record = head.record
    assert head.folder is not None, "a reading has a folder"
    evidence, image = record.evidence, path_from(root, _image_of(entry, head)).as_posix()
    return {
        "image": image,
        "mask": "" if evidence.absent else path_from(root, head.folder / record.mask_file).as_posix(),
        "query": record.query,
        "patient": entry.patient,
        "modality": record.modality or "",
        "case": Path(head.file).stem,
        "absent": "yes" if evidence.absent else "",
        "key_slice": "" if evidence.absent else BETWEEN.join(str(anchor.key_slice) for anchor in evidence.anchors),
        "boxes": BETWEEN.join(write_boxes(anchor.boxes.tolist()) for anchor in evidence.anchors),
    }

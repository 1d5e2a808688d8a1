"""What a batch has to do: which scan is asked which query, and what the files of the answer are called."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from medvol.core.errors import RecordError
from medvol.core.json_file import read_json
from medvol.core.suggestions import suggest
from medvol.core.visible_text import is_blank
from medvol.imaging.case_masks import DIGEST_LENGTH
from medvol.imaging.file_names import SCANS, stem
from medvol.imaging.folders import find_scans
from medvol.inference.names import MAX_NAME_BYTES, cut, readable, require_below, require_name

_KEYS = ("scan", "series", "query", "queries", "out", "name")
_CASE_BYTES = 96
_SLUG_LETTERS = 48
_SLUG_BYTES = 72
_TAKEN = ("summary", "answers")
"""The batch's own summary and page have these names."""


@dataclass(frozen=True)
class Job:
    """One query about one scan.

    Args:
        scan: Path of the scan.
        query: The question.
        folder: Where the files of the answer go.
        name: Their stem, or its first part.
        series: UID, number or description of a DICOM series; None lets the reader choose.
        named: True when a jobs file gave the whole name, which is kept as it is; otherwise a digest of the question
            follows, see ``digest_question``.
    """

    scan: Path
    query: str
    folder: Path
    name: str
    series: str | None = None
    named: bool = False


def find_jobs(folder: str | Path, queries: Sequence[str], out: str | Path, series: str | None = None) -> list[Job]:
    """Ask the same queries about every scan of a folder.

    Args:
        folder: Its scans are taken in the order of their names, see ``find_scans``; folders within it are searched for
            DICOM only.
        queries: At least one.
        out: Where the answers go; another folder, since masks are scans too.
        series: UID, number or description of the series of every DICOM scan; None lets the reader choose.

    Raises:
        RecordError: The folder holds no scan, or is the output folder, or a query is empty.
    """
    folder, out = Path(folder), Path(out)
    if folder.resolve() == out.resolve():
        raise RecordError(f"{out} is the folder of the scans; choose another output folder, since masks are scans too")
    scans = find_scans(folder)
    if not scans:
        raise RecordError(f"{folder} holds no scan; files ending in {', '.join(SCANS)}, and DICOM, are read")
    return _name(
        [
            (scan, series, _checked(query, "the query"), out, case_name(scan, series), None)
            for scan in scans
            for query in queries
        ]
    )


def read_jobs(path: str | Path, out: str | Path) -> list[Job]:
    """Read a jobs file: a JSON list of objects.

    Each object holds ``scan`` (relative to the jobs file), ``query`` or ``queries``, and may hold ``series`` (of a
    DICOM scan), ``out`` (a folder below the output folder) and ``name``: the stem of the files, or its first part
    when there are several queries.

    Args:
        path: The jobs file.
        out: Where the answers go that name no folder of their own.

    Raises:
        RecordError: The file cannot be read, an entry cannot be used, or two entries have one name; the message names
            the entry and the key. A scan that is missing is not an error here: it fails when its turn comes, and the
            others go on.
    """
    path, out = Path(path), Path(out)
    entries = read_json(path, "name a jobs file", "correct it")
    if not isinstance(entries, list) or not entries:
        raise RecordError(f'{path} holds no list of jobs; write [{{"scan": "ct.nii.gz", "query": "the spleen"}}]')
    wanted: list[_Wanted] = []
    for i, entry in enumerate(entries):
        wanted += _read_entry(entry, f"{path}[{i}]", path.parent, out)
    return _name(wanted)


def case_name(scan: Path, series: str | None = None) -> str:
    """File name of a scan without its ending, or name of its folder; with the series when one was named."""
    name = scan.resolve().name if scan.is_dir() else stem(scan.name)
    named = cut(readable(name).lstrip(".") or "scan", _CASE_BYTES - (_SLUG_BYTES // 3 if series else 0))
    return f"{named}_{cut(slug(series), _SLUG_BYTES // 3)}" if series else named


def answer_stem(case: str, query: str) -> str:
    """The part of a name that people read, with room for the digest."""
    words = slug(query)
    room = MAX_NAME_BYTES - DIGEST_LENGTH - len(words.encode()) - 2
    return f"{cut(case, room)}_{words}"


def slug(query: str) -> str:
    """A query as part of a file name: letters and digits of any script, joined by ``-``."""
    words = re.sub(r"[\W_]+", "-", query.casefold()).strip("-")[:_SLUG_LETTERS]
    return cut(words, _SLUG_BYTES).strip("-") or "query"


_Wanted = tuple[Path, str | None, str, Path, str, str | None]
"""Scan, series, query, folder, name of the case, where the whole name was given."""


def _read_entry(entry: Any, where: str, base: Path, out: Path) -> list[_Wanted]:
    if not isinstance(entry, dict):
        raise RecordError(f"{where} is {entry!r}; a job is an object with scan and query")
    for key in entry:
        if key not in _KEYS:
            raise RecordError(f"{where} has an unknown key {key!r}; a job has {', '.join(_KEYS)}{suggest(key, _KEYS)}")
    if ("query" in entry) == ("queries" in entry):
        raise RecordError(f"{where} must hold either query or queries")
    key = "query" if "query" in entry else "queries"
    queries = [entry["query"]] if key == "query" else entry["queries"]
    if not isinstance(queries, list) or not queries:
        raise RecordError(f"{where}.queries is {queries!r}; it must be a list of texts")
    scan = base / _checked(entry.get("scan"), f"{where}.scan")
    folder = require_below(out, _checked(entry["out"], f"{where}.out"), f"{where}.out") if "out" in entry else out
    name = require_name(_checked(entry["name"], f"{where}.name"), f"{where}.name") if "name" in entry else None
    if name is not None and name.casefold() in _TAKEN:
        raise RecordError(f"{where}.name is {name!r}, as a file of the batch itself is called; choose another name")
    series = _checked(_as_text(entry["series"]), f"{where}.series") if "series" in entry else None
    case = name or case_name(scan, series)
    given = f"{where}.name" if name is not None and key == "query" else None
    return [(scan, series, _checked(query, f"{where}.{key}"), folder, case, given) for query in queries]


def _as_text(value: Any) -> Any:
    """A series number as text."""
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else value


def _checked(value: Any, where: str) -> str:
    if not isinstance(value, str) or is_blank(value):
        raise RecordError(f"{where} is {value!r}; it must be a text that is not empty")
    return value.strip()


def _name(wanted: Iterable[_Wanted]) -> list[Job]:
    """Give each job its name, and leave out jobs that are written twice."""
    jobs: dict[Job, None] = {}
    taken: dict[tuple[Path, str], tuple[Job, str]] = {}
    for scan, series, query, folder, case, given in wanted:
        if given is None:
            jobs[Job(scan, query, folder, answer_stem(case, query), series)] = None
            continue
        job = Job(scan, query, folder, case, series, named=True)
        place = folder.resolve(), unicodedata.normalize("NFC", case).casefold()
        other, where = taken.setdefault(place, (job, given))
        if other != job:
            raise RecordError(f"{given} is {case!r}, and so is {where}; two questions cannot have files of one name")
        jobs[job] = None
    return list(jobs)

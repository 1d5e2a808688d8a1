"""What the files of an answer are called: readable, short enough for every disk, and another name for another question.

A name is the scan's, the query's and a digest: ``ct_the-spleen_3f9a1c0b7d2e``. The first two are for people and leave
out what a file name cannot hold; the digest tells apart what they cannot.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Mapping, Set
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

from medvol.core.errors import RecordError
from medvol.core.visible_text import show
from medvol.imaging.case_masks import DIGEST_LENGTH
from medvol.imaging.scan_files import voxel_files
from medvol.inference.records import AGREEMENT_SUFFIX, DICOM_SUFFIXES, FAILED_SUFFIX

MAX_NAME_BYTES = 242
"""Longest stem: disks take 255 bytes, and the longest ending, ``.rtstruct.dcm``, has 13."""

_TAKEN = tuple(f".{suffix.split('.')[1]}" for suffix in (FAILED_SUFFIX, AGREEMENT_SUFFIX, *DICOM_SUFFIXES.values()))
"""What stands in the names of further files of an answer before their ending."""

_FORBIDDEN = re.compile(r'[/\\:*?"<>|]+')


def digest_question(
    scan_sha256: str, modality: str, orientation: str, series: str | None, query: str, identity: Mapping[str, Any]
) -> str:
    """Digits that tell one question from another: what is asked, about which voxels, and who answers.

    Args:
        scan_sha256: Hash of the scan's voxels and geometry; where the file lies and what it is called does not count.
        modality: What it was read as, which decides what the policy sees.
        orientation: Which way the axes of its file run, which decides the grid of the mask.
        series: What the series was named by, or None.
        query: The question to the letter.
        identity: Of the policy and the propagator, as plain values.
    """
    asked = [scan_sha256, modality, orientation, series, query, identity["policy"], identity["propagator"]]
    return hashlib.sha256(json.dumps(asked, sort_keys=True).encode()).hexdigest()[:DIGEST_LENGTH]


def cut(text: str, max_bytes: int) -> str:
    """The first letters of a text that fit into so many bytes of UTF-8; none of them is cut in two."""
    return text.encode()[:max_bytes].decode(errors="ignore")


def readable(text: str) -> str:
    """A text that may be part of a file name on every system; what may not becomes ``-``."""
    visible = "".join(letter if show(letter) == letter else "-" for letter in text)
    return _FORBIDDEN.sub("-", visible)


def require_name(name: str, where: str) -> str:
    """A name that somebody chose for files, kept as it is.

    Raises:
        RecordError: It has a folder or a drive in it, letters that a file name cannot hold, or too many of them, or it
            ends as the name of a further file of another answer does.
    """
    foreign = "/" in name or "\\" in name or PureWindowsPath(name).drive or show(name) != name
    if not name or name.startswith(".") or foreign:
        raise RecordError(f"{where} is {name!r}; a name is one of letters, with no folder in it, which goes under out")
    if len(name.encode()) > MAX_NAME_BYTES:
        raise RecordError(f"{where} has {len(name.encode())} bytes; a name has at most {MAX_NAME_BYTES}")
    if is_taken(name):
        raise RecordError(
            f"{where} is {name!r}; a name does not end in {' or '.join(_TAKEN)}, which further files of an answer have "
            "after its name, so choose another"
        )
    return name


def is_taken(name: str) -> bool:
    """True for a name that ends as that of a further file of another answer does."""
    return name.casefold().endswith(_TAKEN)


def require_below(folder: Path, given: str, where: str) -> Path:
    """A folder that a file names, below the one that the user named.

    Raises:
        RecordError: It leads out of ``folder``, by ``..``, as a path of its own, or over a link.
    """
    posix, windows = PurePosixPath(given), PureWindowsPath(given)
    path = folder / given
    leaves = posix.is_absolute() or windows.anchor or "\\" in given or ".." in posix.parts or show(given) != given
    if leaves or not path.resolve().is_relative_to(folder.resolve()):
        raise RecordError(f"{where} is {given!r}; it must be a folder below {str(folder)!r}")
    return path


def scan_places(scans: Iterable[Path | None]) -> frozenset[Path]:
    """Where scans lie, and the files with the voxels that their headers name; None is a scan made in memory."""
    return frozenset(place(path) for scan in {*scans} if scan is not None for path in (scan, *voxel_files(scan)))


def require_no_scan(paths: Iterable[Path], places: Set[Path]) -> None:
    """Refuse to write an answer in the place of a scan.

    Args:
        paths: Files of the answer.
        places: From ``scan_places``.

    Raises:
        RecordError: One of the paths is a scan's.
    """
    if scan := next((path for path in paths if place(path) in places), None):
        raise RecordError(f"the answer would replace a scan, {scan}; choose another folder or another name")


def place(path: Path) -> Path:
    """Where a path leads, over all links; the path itself when that cannot be told."""
    try:
        return path.resolve()
    except (OSError, RuntimeError, ValueError):  # a loop of links, or no path at all
        return path.absolute()

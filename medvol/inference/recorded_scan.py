"""Where the scan lies that a record names: a record keeps the path as it was given, and that may be a relative one."""

from __future__ import annotations

import os
from pathlib import Path

from medvol.core.errors import RecordError


def place_scan(scan: str, record: Path) -> Path:
    """Where the scan of a record is.

    A relative path counts from the working folder. If nothing is there, it counts from the record's folder, then from
    each folder above that. So answers are found from any folder, and still when they were moved together with the scan.

    Args:
        scan: Path as the record has it.
        record: File of the record.

    Returns:
        The path that leads to it; relative if the record's path is. The path as it is when nothing is found.
    """
    named = Path(scan)
    if named.is_absolute() or named.exists():
        return named
    above = (folder / named for folder in record.absolute().parents)
    found = next((place for place in above if place.exists()), None)
    if found is None:
        return named
    return found if record.is_absolute() else path_from(Path(), found)


def path_from(folder: Path, path: Path) -> Path:
    """A path as it reads from a folder: a relative one that leads to the same place over all links, or the whole path.

    Args:
        folder: From where; it need not exist.
        path: What it leads to.
    """
    whole = path.resolve()
    for start, end in ((folder, path), (folder.resolve(), whole)):
        try:
            told = Path(os.path.relpath(end, start))
        except ValueError:  # on another drive
            break
        if (folder / told).resolve() == whole:
            return told
    return whole


def require_scan(scan: str, record: Path) -> Path:
    """Where the scan of a record is, as ``place_scan`` finds it.

    Raises:
        RecordError: It is not there.
    """
    found = place_scan(scan, record)
    if found.exists():
        return found
    looked = "" if found.is_absolute() else f" in the working folder, in {str(record.parent)!r} or above"
    raise RecordError(
        f"{record} names the scan {scan!r}, which is not there{looked}; correct scan.path in the record, or give the "
        "scan yourself: medvol segment SCAN --evidence RECORD"
    )

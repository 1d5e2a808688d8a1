"""SHA-256 of files that are asked for again: read once, for as long as the file stays as it is."""

from __future__ import annotations

import os
import time
from pathlib import Path

from medvol.core.atomic_files import file_sha256

_SETTLED_NS = 2 * 10**9
"""A file that changed less than this before it was read may change again within one tick of its clock, unseen.

The coarsest clock of a file system has ticks of two seconds.
"""

Stamp = tuple[int, int, int, int, int]

_known: dict[str, tuple[Stamp, str]] = {}


def settled_sha256(path: Path) -> str:
    """SHA-256 of a file, as hexadecimal digits.

    A digest is kept with device, number, size and times of the file, and only where the file had rested before it was
    read: whatever is changed afterwards then has another time, and the file is read again.
    """
    place, stamp, begun = os.path.abspath(path), _stamp(path), time.time_ns()
    kept = _known.get(place)
    if kept is not None and kept[0] == stamp:
        return kept[1]
    digest = file_sha256(path)
    _known.pop(place, None)
    if _stamp(path) == stamp and begun - max(stamp[-2:]) > _SETTLED_NS:
        _known[place] = stamp, digest
    return digest


def _stamp(path: Path) -> Stamp:
    found = path.stat()
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns

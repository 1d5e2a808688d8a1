"""Whether a file has stayed as it is; and SHA-256 of files that are asked for again, read once while they do."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable
from pathlib import Path

from medvol.core.atomic_files import file_sha256

_SETTLED_NS = 2 * 10**9
"""A file that changed less than this before it was read may change again within one tick of its clock, unseen.

The coarsest clock of a file system has ticks of two seconds.
"""

Stamp = tuple[int, int, int, int]
"""Number, size and times of a file; the last one, of the change of its entry, is set by the system alone."""

_known: dict[str, tuple[Stamp, str]] = {}


def stamp_file(path: Path) -> Stamp:
    """What the system says of a file; equal as long as the file stays as it is, once it has settled."""
    found = path.stat()
    return found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns


def have_settled(stamps: Iterable[Stamp]) -> bool:
    """True where all files had rested before now; whatever is changed from now on gives another stamp."""
    now = time.time_ns()
    return all(now - max(stamp[-2:]) > _SETTLED_NS for stamp in stamps)


def settled_sha256(path: Path) -> str:
    """SHA-256 of a file, as hexadecimal digits.

    A digest is kept with number, size and times of the file, and only where the file had rested before it was read:
    whatever is changed afterwards then has another time, and the file is read again.
    """
    place, stamp = os.path.abspath(path), stamp_file(path)
    settled = have_settled([stamp])
    kept = _known.get(place)
    if kept is not None and kept[0] == stamp:
        return kept[1]
    digest = file_sha256(path)
    _known.pop(place, None)
    if settled and stamp_file(path) == stamp:
        _known[place] = stamp, digest
    return digest

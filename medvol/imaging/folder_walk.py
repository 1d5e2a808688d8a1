"""What lies below a folder, links to other folders included: cohorts are often folders of links. And what is above."""

from __future__ import annotations

import heapq
import os
from collections.abc import Iterator
from fnmatch import fnmatchcase
from pathlib import Path

from medvol.core.notices import tell_once


def find_below(folder: Path, pattern: str = "*") -> Iterator[Path]:
    """Files and folders below a folder whose names match a pattern, in no order.

    Links to folders are followed. Each folder is entered once, so that links in a circle come to an end: under its own
    path before that of a link, and from links to two folders of which one holds the other, from the outer one. The
    paths do not depend on the order in which a disk lists them. A link to a folder that was entered already, or to one
    around ``folder``, is passed over with a warning, and so is a folder that the system does not open.
    """
    top = folder.resolve()
    entered: set[str] = set()
    starts = [_rank(str(folder))]
    while starts:  # links that are found are added
        _, start = heapq.heappop(starts)
        for place, folders, files in os.walk(start, onerror=_tell_closed):
            real = os.path.realpath(place)
            around = bool(entered) and top.is_relative_to(real) and real != str(top)
            if around or real in entered:
                folders.clear()
                if place == start:
                    which = f"a folder around {folder}" if around else "a folder that is looked through already"
                    tell_once(f"{place} is a link to {which}; it is left out")
                continue
            names = files if not entered else [*files, ""]
            entered.add(real)
            for path in (os.path.join(place, name) for name in folders):
                if os.path.islink(path):
                    heapq.heappush(starts, _rank(path))
            yield from (path for path in (Path(place, name) for name in names) if fnmatchcase(path.name, pattern))


def folder_above(folder: Path) -> Path:
    """The folder that holds a folder; ``Path.parent`` does not know it of ``.`` and of what ends in ``..``."""
    return folder / ".." if folder.name in ("", "..") else folder.parent


def _rank(path: str) -> tuple[int, str]:
    """Puts a link to a folder before links to what lies in it."""
    return os.path.realpath(path).count(os.sep), path


def _tell_closed(error: OSError) -> None:
    tell_once(f"{error.filename} cannot be looked through ({error.strerror})")

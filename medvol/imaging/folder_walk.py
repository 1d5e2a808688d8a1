"""What lies below a folder, links to other folders included: cohorts are often folders of links."""

from __future__ import annotations

import os
from collections.abc import Iterator
from fnmatch import fnmatchcase
from pathlib import Path

from medvol.core.notices import tell_once


def find_below(folder: Path, pattern: str = "*") -> Iterator[Path]:
    """Files and folders below a folder whose names match a pattern, in no order.

    Links to folders are followed. Each folder is entered once, under its own path before that of a link, so that links
    in a circle come to an end. A link that leads back to such a folder, or to one around ``folder``, is passed over
    with a warning, and so is a folder that the system does not open.
    """
    top = folder.resolve()
    entered: set[str] = set()
    starts = [str(folder)]
    for start in starts:  # links that are found are added to its end
        for place, folders, files in os.walk(start, onerror=_tell_closed):
            real = os.path.realpath(place)
            if real in entered or (entered and top.is_relative_to(real)):
                folders.clear()
                if place == start:
                    tell_once(f"{place} is a link back to a folder that is looked through already; it is left out")
                continue
            names = files if not entered else [*files, ""]
            entered.add(real)
            starts += [path for name in sorted(folders) if os.path.islink(path := os.path.join(place, name))]
            yield from (path for path in (Path(place, name) for name in names) if fnmatchcase(path.name, pattern))


def _tell_closed(error: OSError) -> None:
    tell_once(f"{error.filename} cannot be looked through ({error.strerror})")

"""Entry points of installed distributions, read from their metadata once for as long as these stay as they are."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from functools import lru_cache
from importlib.metadata import EntryPoint, entry_points

_OWN = "medvol."
"""Start of the names of all groups of components."""


def find_points(group: str) -> tuple[EntryPoint, ...]:
    """Entry points of a group of medvol.

    Reading the metadata of a whole environment takes a tenth of a second, and one command asks hundreds of times. They
    are read again when the search path, or a folder on it, has changed: what is installed meanwhile is found.
    """
    return _read(_search_path()).get(group, ())


def list_groups() -> list[str]:
    """Sorted names of all groups of medvol."""
    return sorted(_read(_search_path()))


@lru_cache(maxsize=2)
def _read(search_path: tuple[tuple[str, int], ...]) -> Mapping[str, tuple[EntryPoint, ...]]:
    points = entry_points()
    return {group: tuple(points.select(group=group)) for group in points.groups if group.startswith(_OWN)}


def _search_path() -> tuple[tuple[str, int], ...]:
    """Folders of the search path, and when something was last put into or taken out of each."""
    return tuple((place, _last_change(place)) for place in map(os.path.abspath, sys.path))


def _last_change(place: str) -> int:
    try:
        return os.stat(place).st_mtime_ns
    except OSError:
        return 0

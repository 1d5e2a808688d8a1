"""Folders that were made for files that never came."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from itertools import takewhile
from pathlib import Path


@contextmanager
def forget_empty(folder: Path) -> Iterator[None]:
    """Delete a folder and those above it that are made meanwhile, where they are empty in the end."""
    missing = list(takewhile(lambda place: not place.exists(), (folder, *folder.parents)))
    try:
        yield
    finally:
        for place in missing:
            with suppress(OSError):  # it is not there, or not empty
                place.rmdir()

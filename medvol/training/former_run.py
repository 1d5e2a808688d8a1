"""FormerRun: what ``--overwrite`` replaces, kept until the new run has taken a step."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from medvol.core.atomic_files import hold

CHECKPOINTS = "checkpoints"
"""Folder of a run's checkpoints; a fit holds its lock."""

_KEPT = ".former-run"
_DOOMED = ".former-run-doomed"


class FormerRun:
    """Results of a run that another one replaces. They are put back where that one comes to nothing.

    Args:
        folder: Folder of both runs.
        paths: What belongs to the former one; files and folders below ``folder``.
    """

    def __init__(self, folder: Path, paths: Sequence[Path]) -> None:
        self.folder = folder
        self.names = [path.relative_to(folder) for path in paths]

    def set_aside(self) -> None:
        """Move it out of the way."""
        for name in self.names:
            place = self.folder / _KEPT / name
            place.parent.mkdir(parents=True, exist_ok=True)
            with suppress(FileNotFoundError):
                (self.folder / name).rename(place)

    def drop(self) -> None:
        """Delete it for good."""
        kept, doomed = self.folder / _KEPT, self.folder / _DOOMED
        if kept.exists():
            kept.rename(doomed)  # from here on a stop cannot bring back a part of it
        if doomed.exists():
            shutil.rmtree(doomed)


def recover(folder: Path) -> None:
    """Put back what a fit set aside that was killed before its first step; a fit that goes on there is left alone.

    Args:
        folder: Of the run; need not be there.
    """
    with suppress(FileNotFoundError, NotADirectoryError, BlockingIOError), hold(folder / CHECKPOINTS, wait=False):
        put_back(folder)


def put_back(folder: Path) -> None:
    """Give a former run its place again, in place of what has the same name there.

    Also after a fit that was killed before its first step. What one left that was killed while it deleted is deleted.
    """
    if (folder / _DOOMED).exists():
        shutil.rmtree(folder / _DOOMED)
    kept = folder / _KEPT
    for path in sorted(path for path in kept.rglob("*") if not path.is_dir() or path.is_symlink()):
        place = folder / path.relative_to(kept)
        place.parent.mkdir(parents=True, exist_ok=True)
        path.replace(place)
    with suppress(FileNotFoundError):
        shutil.rmtree(kept)

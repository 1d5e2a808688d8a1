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
_PART = ".former-part"
_DOOMED = ".former-run-doomed"


class FormerRun:
    """Results of a run that another one replaces. They are put back where that one comes to nothing.

    Each of them is kept within its own folder, since ``checkpoints`` may be a link to another disk. While there is
    ``.former-run`` in the run folder, all of them are to be put back; without it they are to be deleted.

    Args:
        folder: Folder of both runs.
        paths: What belongs to the former one; files and folders in ``folder``, or in a folder of it.
    """

    def __init__(self, folder: Path, paths: Sequence[Path]) -> None:
        self.folder = folder
        self.names = [path.relative_to(folder) for path in paths]

    def set_aside(self) -> None:
        """Move it out of the way."""
        (self.folder / _KEPT).mkdir(parents=True, exist_ok=True)
        for name in self.names:
            place = self.folder / name.parent / (_PART if name.parent.parts else _KEPT) / name.name
            with suppress(FileNotFoundError):
                place.parent.mkdir(exist_ok=True)
                (self.folder / name).rename(place)

    def drop(self) -> None:
        """Delete it for good."""
        if (self.folder / _KEPT).exists():
            (self.folder / _KEPT).rename(self.folder / _DOOMED)  # from here on a stop cannot bring back a part of it
        _delete_kept(self.folder)


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
    if (folder / _KEPT).exists():
        for kept in (*_parts(folder), folder / _KEPT):
            for path in sorted(path for path in kept.rglob("*") if not path.is_dir() or path.is_symlink()):
                place = kept.parent / path.relative_to(kept)
                place.parent.mkdir(parents=True, exist_ok=True)
                path.replace(place)
    _delete_kept(folder)


def _parts(folder: Path) -> list[Path]:
    return sorted(folder.glob(f"*/{_PART}"))


def _delete_kept(folder: Path) -> None:
    for kept in (*_parts(folder), folder / _DOOMED, folder / _KEPT):
        with suppress(FileNotFoundError):
            shutil.rmtree(kept)

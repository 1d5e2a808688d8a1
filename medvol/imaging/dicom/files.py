"""The DICOM files of a folder, a zip archive, or one file; known by their content, whatever they are called.

Whatever else lies there is remembered in ``left_out`` with the reason.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from medvol.imaging.dicom.archives import ZipArchive
from medvol.imaging.file_names import ARCHIVE, SCANS, is_archive
from medvol.imaging.formats.problems import TooLargeError
from medvol.imaging.left_out import LeftOut, is_clutter

_MAGIC_AT, _MAGIC = 128, b"DICM"
_HEAD = 4096
_FIRST_GROUPS = (b"\x02\x00", b"\x08\x00", b"\x00\x02", b"\x00\x08")
_ROOT = b"1.2.840.10008."
"""Every class of object and every encoding that the standard defines has a name that starts so."""
_OTHER_FORMATS = (*SCANS, ARCHIVE)
_MAX_FILES = 100_000


class DicomFiles:
    """Reads the DICOM files that lie at a path; close it, or use it in a ``with`` block.

    Args:
        path: A folder, searched with its subfolders; a zip archive; or one file.
        max_bytes: Largest size of one file.

    Raises:
        BadArchiveError: The archive is damaged, locked or declares sizes that no scan has.
        TooLargeError: There are more files, or larger ones, than a scan has.
    """

    def __init__(self, path: Path, max_bytes: int) -> None:
        self.path = path
        self.max_bytes = max_bytes
        self._archive = ZipArchive(path) if is_archive(path) else None
        self.left_out: list[LeftOut] = [] if self._archive is None else list(self._archive.left_out)
        """What ``names`` passed over so far; clutter of systems and archives is not told."""

    def __enter__(self) -> DicomFiles:
        return self

    def __exit__(self, *exception: object) -> None:
        if self._archive is not None:
            self._archive.close()

    def names(self) -> Iterator[str]:
        """Name of every DICOM file, in the order of the names."""
        for count, (name, size) in enumerate(self._sizes()):
            if count >= _MAX_FILES:
                raise TooLargeError(self.path, f"it holds more than {_MAX_FILES:,} files; name the folder of one scan")
            if not size or not starts_as_dicom(self._head(name)):
                self.leave_out(name, _what_else(name, size))
            elif size > self.max_bytes:
                raise TooLargeError(
                    self.path,
                    f"a file in it has {size:,} bytes; the budget is {self.max_bytes:,}: raise max_bytes, which "
                    "`segment` and `view` take",
                )
            else:
                yield name

    def leave_out(self, name: str, reason: str) -> None:
        """Remember that a file is not used."""
        if not is_clutter(name):
            self.left_out.append(LeftOut(name or self.path.name, reason))

    @contextmanager
    def open(self, name: str) -> Iterator[BinaryIO]:
        """Open a file to read its header; a member of an archive is unpacked whole, since it cannot be searched.

        Raises:
            BadArchiveError: It lies in an archive and is damaged, or its header holds far more than one does.
        """
        if self._archive is not None:
            yield self._archive.load_header(name)
            return
        with self._place(name).open("rb") as file:
            yield file

    @contextmanager
    def open_whole(self, name: str) -> Iterator[BinaryIO]:
        """Open a file to read all of it.

        Raises:
            BadArchiveError: It lies in an archive and is damaged.
        """
        if self._archive is not None:
            yield self._archive.load(name)
            return
        with self._place(name).open("rb") as file:
            yield file

    def stored(self, names: set[str]) -> int:
        """How many bytes files take on disk; of an archive its whole size."""
        if self._archive is not None:
            return self._archive.stored
        return sum(self._place(name).stat().st_size for name in names)

    def _place(self, name: str) -> Path:
        return self.path / name if name else self.path

    def _head(self, name: str) -> bytes:
        if self._archive is not None:
            return self._archive.head(name, _HEAD)
        with self._place(name).open("rb") as file:
            return file.read(_HEAD)

    def _sizes(self) -> Iterator[tuple[str, int]]:
        if self._archive is not None:
            yield from self._archive.sizes()
        elif self.path.is_dir():
            for name in self._walk():
                place = self._place(name)
                if not place.exists():
                    self.leave_out(name, "is a link to nothing")
                elif stat.S_ISREG(place.stat().st_mode):
                    yield name, place.stat().st_size
                else:
                    self.leave_out(
                        name,
                        "is a link to a folder, which is not followed" if place.is_dir() else "is a device or a pipe",
                    )
        else:
            yield "", self.path.stat().st_size

    def _walk(self) -> Iterator[str]:
        """Names of files, and of links to folders, which are not followed."""

        def note(error: OSError) -> None:
            self.leave_out(os.path.relpath(str(error.filename), self.path), "is a folder that the system does not open")

        for folder, folders, files in os.walk(self.path, onerror=note):
            folders.sort()
            links = [name for name in folders if os.path.islink(os.path.join(folder, name))]
            for name in sorted([*files, *links]):
                yield os.path.relpath(os.path.join(folder, name), self.path)


def _what_else(name: str, size: int) -> str:
    if not size:
        return "is empty"
    return "is no DICOM, but can be named itself" if name.lower().endswith(_OTHER_FORMATS) else "is no DICOM"


def starts_as_dicom(head: bytes) -> bool:
    """True for the start of a DICOM file, with the preamble that files should have or without it."""
    if head[_MAGIC_AT : _MAGIC_AT + len(_MAGIC)] == _MAGIC:
        return True
    return head[:2] in _FIRST_GROUPS and _ROOT in head


def holds_dicom(path: Path) -> bool:
    """True for a folder, an archive or a file with DICOM in it; reads until the first is found."""
    if not path.exists():
        return False
    with DicomFiles(path, 2**63) as files:
        return next(files.names(), None) is not None

"""The DICOM files of a folder, a zip archive, or one file; known by their content, whatever they are called.

Nothing is ever extracted and no name in an archive is used as a path, so an archive cannot write anywhere. The sizes
that it declares are judged before a byte is inflated, and no member is inflated further than it declares.
"""

from __future__ import annotations

import io
import os
import stat
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import BinaryIO

from medvol.core.imaging.dicom.problems import BadArchiveError
from medvol.core.imaging.problems import TooLargeError

ARCHIVE_SUFFIX = ".zip"
FILE_SUFFIXES = (".dcm", ".dicom", ".ima")
"""Names of single files that are taken for DICOM; in folders and archives names do not matter."""

_MAGIC_AT, _MAGIC = 128, b"DICM"
_MAX_FILES = 100_000
_MAX_RATIO = 100
_SMALL = 64 * 1024**2
_DAMAGE = (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError, NotImplementedError, ValueError, OSError)


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
        self._archive = self._open_archive() if is_archive(path) else None

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
            if size > _MAGIC_AT and self._is_dicom(name):
                if size > self.max_bytes:
                    raise TooLargeError(
                        self.path, f"a file in it has {size:,} bytes; the budget is {self.max_bytes:,}, set max_bytes"
                    )
                yield name

    @contextmanager
    def open(self, name: str) -> Iterator[BinaryIO]:
        """Open a file for reading from its start.

        Raises:
            BadArchiveError: It lies in an archive and is damaged or locked.
        """
        if self._archive is None:
            with (self.path / name if name else self.path).open("rb") as file:
                yield file
            return
        with self._opened(name) as member:
            yield member

    def load(self, name: str) -> BinaryIO:
        """Read a file to its end; a member of an archive is held against its checksum.

        Raises:
            BadArchiveError: It lies in an archive and is damaged or locked.
        """
        with self.open(name) as stream:
            try:
                return io.BytesIO(stream.read())
            except _DAMAGE as error:
                raise self._damaged(error) from error

    def _sizes(self) -> Iterator[tuple[str, int]]:
        if self._archive is not None:
            for info in sorted(self._archive.infolist(), key=lambda info: info.filename):
                if not info.filename.endswith("/"):  # a folder; is_dir() fails for a name without a letter
                    yield info.filename, info.file_size
        elif self.path.is_dir():
            for folder, folders, files in os.walk(self.path):
                folders.sort()
                for file in sorted(files):
                    state = os.stat(os.path.join(folder, file))
                    if stat.S_ISREG(state.st_mode):
                        yield os.path.relpath(os.path.join(folder, file), self.path), state.st_size
        else:
            yield "", self.path.stat().st_size

    def _is_dicom(self, name: str) -> bool:
        with self.open(name) as stream:
            try:
                return stream.read(_MAGIC_AT + len(_MAGIC))[_MAGIC_AT:] == _MAGIC
            except _DAMAGE as error:
                raise self._damaged(error) from error

    def _open_archive(self) -> zipfile.ZipFile:
        try:
            archive = zipfile.ZipFile(self.path)
        except _DAMAGE as error:
            raise self._damaged(error) from error
        with ExitStack() as stack:
            stack.enter_context(archive)
            for info in archive.infolist():
                self._check_member(info)
            stack.pop_all()
        return archive

    def _check_member(self, info: zipfile.ZipInfo) -> None:
        if info.flag_bits & 1:
            raise BadArchiveError(self.path, "it is locked by a password; unlock it and pack it again")
        if info.file_size > _SMALL and info.file_size > _MAX_RATIO * info.compress_size:
            raise BadArchiveError(
                self.path, f"a file in it declares {info.file_size:,} bytes from {info.compress_size:,}; no scan does"
            )

    @contextmanager
    def _opened(self, name: str) -> Iterator[BinaryIO]:
        assert self._archive is not None
        try:
            member = self._archive.open(name)
        except _DAMAGE as error:
            raise self._damaged(error) from error
        with member:
            yield member  # type: ignore[misc]  # typeshed: IO[bytes]

    def _damaged(self, error: Exception) -> BadArchiveError:
        return BadArchiveError(self.path, f"it cannot be unpacked ({type(error).__name__}); copy or pack it again")


def is_archive(path: Path) -> bool:
    """True for the name of a zip archive."""
    return path.name.lower().endswith(ARCHIVE_SUFFIX)


def holds_dicom(path: Path) -> bool:
    """True for a folder, an archive or a file with DICOM in it; reads until the first is found."""
    if not path.exists():
        return False
    with DicomFiles(path, 2**63) as files:
        return next(files.names(), None) is not None

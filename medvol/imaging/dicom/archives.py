"""A zip archive as a source of files, judged before anything in it is unpacked.

Nothing is ever extracted and no name in an archive is used as a path, so an archive cannot write anywhere. What it
declares is judged before a byte is inflated: the size of its table, every member, all members together, and whether
members share bytes. No member is inflated further than it declares.
"""

from __future__ import annotations

import io
import stat
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from itertools import pairwise
from pathlib import Path

from medvol.imaging.dicom.problems import BadArchiveError
from medvol.imaging.formats.problems import TooLargeError
from medvol.imaging.left_out import LeftOut

MAX_RATIO = 100
"""No scan packs better; judged beyond ``SMALL``, since a few blank slices do."""
SMALL = 64 * 1024**2

_MAX_TABLE = 8 * 1024**2
_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
_DAMAGE = (
    *(zipfile.BadZipFile, zlib.error, struct.error, EOFError, RuntimeError, NotImplementedError, ValueError),
    *(OSError, LookupError, ArithmeticError),
)
_FREE_STEPS = 400_000
_BYTES_A_STEP = 16
_ITEM = b"\xfe\xff\x00\xe0"
_ITEM_STEPS = 10


class ZipArchive:
    """Members of a zip archive by name; two of one name are told apart by a number.

    Args:
        path: The archive.

    Raises:
        BadArchiveError: It is damaged, locked by a password, or declares what no scan does.
        TooLargeError: It has more members than a scan.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.stored = path.stat().st_size
        self._steps_left = _FREE_STEPS + self.stored // _BYTES_A_STEP
        with ExitStack() as stack:
            file = stack.enter_context(_TableReader(path))
            try:
                self._archive = stack.enter_context(zipfile.ZipFile(file))
            except _TableTooLargeError:
                raise TooLargeError(path, "it holds more files than a scan has; pack one scan by itself") from None
            except _DAMAGE as error:
                raise self._damaged(error) from error
            file.limit = None
            _check_members(path, self.stored, self._archive.infolist())
            self._members, self.left_out = _by_name(self._archive.infolist())
            self._stack = stack.pop_all()

    def close(self) -> None:
        """Close the file."""
        self._stack.close()

    def sizes(self) -> Iterator[tuple[str, int]]:
        """Name and unpacked size of every file, in the order of the names."""
        for name in sorted(self._members):
            yield name, self._members[name].file_size

    def head(self, name: str, count: int) -> bytes:
        """The first bytes of a member."""
        return self._read(name, count)

    def load(self, name: str) -> io.BytesIO:
        """A whole member, held against its checksum."""
        return io.BytesIO(self._read(name, None))

    def load_header(self, name: str) -> io.BytesIO:
        """As ``load``, but parsing it is refused when the headers of all members hold far more than a scan's do."""
        return _CountedBytes(self._read(name, None), self._spend)

    def _spend(self, steps: int) -> None:
        self._steps_left -= steps
        if self._steps_left < 0:
            raise BadArchiveError(self.path, "its headers hold far more elements than a scan has; export it again")

    def _read(self, name: str, count: int | None) -> bytes:
        try:
            with self._archive.open(self._members[name]) as member:
                return member.read() if count is None else member.read(count)
        except _DAMAGE as error:
            raise self._damaged(error) from error

    def _damaged(self, error: Exception) -> BadArchiveError:
        return BadArchiveError(self.path, f"it cannot be unpacked ({type(error).__name__}); copy or pack it again")


def _check_members(path: Path, stored: int, members: Sequence[zipfile.ZipInfo]) -> None:
    if any(member.flag_bits & 1 for member in members):
        raise BadArchiveError(path, "it is locked by a password; unlock it and pack it again")
    for member in members:
        if member.compress_type not in _METHODS:
            raise BadArchiveError(path, "it is not packed with deflate, the usual method; pack it again")
        if member.file_size > SMALL and member.file_size > MAX_RATIO * member.compress_size:
            raise BadArchiveError(
                path, f"a file in it declares {member.file_size:,} bytes from {member.compress_size:,}; no scan does"
            )
    total = sum(member.file_size for member in members)
    if total > SMALL and total > MAX_RATIO * stored:
        raise BadArchiveError(path, f"its files declare {total:,} bytes from {stored:,} in all; no scan does")
    placed = sorted(members, key=lambda member: member.header_offset)
    if any(one.header_offset + one.compress_size > other.header_offset for one, other in pairwise(placed)):
        raise BadArchiveError(path, "files in it share the same bytes, as in a bomb; pack the scan again")


def _by_name(members: Sequence[zipfile.ZipInfo]) -> tuple[dict[str, zipfile.ZipInfo], list[LeftOut]]:
    named: dict[str, zipfile.ZipInfo] = {}
    links = []
    for i, member in enumerate(members):
        if stat.S_ISLNK(member.external_attr >> 16):
            links.append(LeftOut(member.filename, "is a link, which is not followed in an archive"))
        elif not member.filename.endswith("/"):  # a folder; is_dir() fails for a name without a letter
            name = member.filename if member.filename not in named else f"{member.filename} [{i}]"
            while name in named:
                name += "'"
            named[name] = member
    return named, links


class _TableTooLargeError(Exception):
    """The table of members is larger than a scan's."""


class _TableReader(io.FileIO):
    """Reads an archive, but no more at once than the table of a scan has until ``limit`` is taken away."""

    limit: int | None = _MAX_TABLE

    def read(self, size: int | None = -1, /) -> bytes:
        if self.limit is not None and size is not None and size > self.limit:
            raise _TableTooLargeError
        return super().read(-1 if size is None else size) or b""


class _CountedBytes(io.BytesIO):
    """Counts what is read from it: each piece of a header is one step, an item of a sequence several."""

    def __init__(self, data: bytes, spend: Callable[[int], None]) -> None:
        super().__init__(data)
        self._spend = spend

    def read(self, size: int | None = -1, /) -> bytes:
        data = super().read(size)
        self._spend(1 + _ITEM_STEPS * data.count(_ITEM))
        return data

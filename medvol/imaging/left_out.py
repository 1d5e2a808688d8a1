"""What lies in a folder or an archive and is not used: said by name, with the reason."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath

log = logging.getLogger(__name__)

_MOST_NAMED = 12
_LONGEST_NAME = 120
_CLUTTER = {".ds_store", "thumbs.db", "desktop.ini", "dicomdir", "__macosx"}
_PAPERS = ("license", "licence", "notice", "readme")


@dataclass(frozen=True)
class LeftOut:
    """Something that was not used.

    Args:
        name: Of the file, within its folder or archive; or of a DICOM series, by its number.
        reason: What is said of it, such as ``is no DICOM``.
    """

    name: str
    reason: str

    def __str__(self) -> str:
        return f"{printable(self.name)} {self.reason}"


def tell_left_out(path: Path, left_out: Sequence[LeftOut]) -> None:
    """Warn once, with how many there are, and the names and reasons of the first twelve."""
    if left_out:
        named = "; ".join(map(str, left_out[:_MOST_NAMED]))
        rest = f"; and {len(left_out) - _MOST_NAMED:,} more" if len(left_out) > _MOST_NAMED else ""
        log.warning("%s: %d not used: %s%s", path, len(left_out), named, rest)


def is_clutter(name: str) -> bool:
    """True for what systems and archives add of their own: ``.DS_Store``, ``DICOMDIR``, a licence, a readme."""
    parts = [part.lower() for part in PurePath(name.replace("\\", "/")).parts]
    if not parts:
        return False
    paper = parts[-1].startswith(_PAPERS) and parts[-1].endswith(
        (".txt", ".md", "license", "licence", "notice", "readme")
    )
    return paper or not _CLUTTER.isdisjoint(parts) or parts[-1].startswith("._")


def printable(name: str) -> str:
    """A name in one line: what cannot be printed is written as Python writes it, and a long one is cut."""
    text = "".join(letter if letter.isprintable() else ascii(letter)[1:-1] for letter in name)
    return text if len(text) <= _LONGEST_NAME else f"{text[: _LONGEST_NAME - 3]}..."

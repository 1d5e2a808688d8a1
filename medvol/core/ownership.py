"""Which files medvol wrote: what a person or another program keeps under the same name is neither replaced nor deleted.

A mark that medvol writes near the beginning of a file tells it.
"""

from __future__ import annotations

import re
from pathlib import Path

from medvol.core.errors import RecordError

SETTINGS_MARK = r"\A# medvol \d"
"""How a configuration begins that a run keeps of itself."""

_HEAD_BYTES = 4096


def is_own(path: Path, mark: str) -> bool:
    """Whether a file has a mark; what is not there, or is no file, has none.

    Args:
        path: The file.
        mark: Regular expression, found near the beginning of what medvol writes.
    """
    if not path.is_file():
        return False
    with path.open("rb") as file:
        return re.search(mark.encode(), file.read(_HEAD_BYTES)) is not None


def require_own(path: Path, mark: str, remedy: str) -> None:
    """Refuse to replace what medvol did not write.

    Args:
        path: What will be written; nothing need be there.
        mark: As for ``is_own``.
        remedy: Where to write instead.

    Raises:
        RecordError: Something is there, without the mark.
    """
    if path.exists() and not is_own(path, mark):
        raise RecordError(f"{path} is there already and was not written by medvol; move it away, or {remedy}")

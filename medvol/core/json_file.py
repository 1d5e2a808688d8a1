"""JSON files, some of which people edit."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any, NoReturn

from medvol.core.atomic_files import write_whole
from medvol.core.errors import RecordError

MAX_BYTES = 256_000_000
"""No file of medvol's is larger."""

MAX_VALUES = 2_000_000
"""A value takes up to a hundred times the memory of its text."""


def read_json(path: Path, origin: str, remedy: str) -> Any:
    """Read a JSON file; the mark that some editors put before UTF-8 text is passed over.

    Args:
        path: The file.
        origin: Said of a file that is missing: who writes it, or what to name.
        remedy: Said of a file that cannot be read: what to do.

    Raises:
        RecordError: It is missing, too large, or not JSON, which NaN and Infinity are not, or has a key twice.
    """
    try:
        if path.stat().st_size > MAX_BYTES:
            raise RecordError(f"{path} has {path.stat().st_size} bytes, and at most {MAX_BYTES} are read; {remedy}")
        return parse_json(path.read_text(encoding="utf-8-sig"))
    except FileNotFoundError:
        raise RecordError(f"{path} does not exist; {origin}") from None
    except IsADirectoryError:
        raise RecordError(f"{path} is a folder, not a JSON file; {origin}") from None
    except (OSError, ValueError) as error:
        if isinstance(error, RecordError):
            raise
        raise RecordError(f"{path} cannot be read as JSON ({error}); {remedy}") from error


def parse_json(text: str) -> Any:
    """Read JSON text that may come from anywhere.

    Raises:
        ValueError: It is not JSON, which NaN and Infinity are not, is nested too deep, holds too many values, has a
            number of thousands of digits, or has a key twice, of which Python would keep the last.
    """
    if sum(map(text.count, ",[{")) > MAX_VALUES:
        raise ValueError(f"it holds more than {MAX_VALUES:,} values")
    try:
        return json.loads(text, parse_constant=_refuse, object_pairs_hook=_read_object)
    except RecursionError:
        raise ValueError("it is nested too deep") from None


def write_json(path: Path, content: Any) -> Path:
    """Write plain values under a temporary name in the same folder, then rename; values that JSON lacks become text."""
    data = to_json(content)
    with write_whole(path) as partial:
        partial.write_bytes(data)
    return path


def to_json(content: Any) -> bytes:
    """Plain values as JSON in UTF-8; values that JSON lacks become text.

    What UTF-8 lacks, such as a byte of a file name that is no UTF-8, is written as JSON's own escape and read back as
    it was.
    """
    text = json.dumps(content, indent=1, allow_nan=False, default=str, ensure_ascii=False)
    return f"{text}\n".encode(errors="backslashreplace")


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is not JSON")


def _read_object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        repeated = next(key for key, count in Counter(key for key, _ in pairs).items() if count > 1)
        raise ValueError(f"it has {repeated!r:.80} twice; keep one")
    return found

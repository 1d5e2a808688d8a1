"""JSON files, some of which people edit."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

from medvol.core.atomic_files import write_whole
from medvol.core.errors import RecordError

MAX_BYTES = 256_000_000
"""No file of medvol's is larger, but that of the cases of an evaluation."""

MAX_VALUES = 2_000_000
"""A value takes up to a hundred times the memory of its text."""

_STRING = re.compile(r'"[^"\\]*+(?:\\.[^"\\]*+)*+"?', re.DOTALL)


def read_json(path: Path, origin: str, remedy: str, max_bytes: int = MAX_BYTES, max_values: int = MAX_VALUES) -> Any:
    """Read a JSON file; the mark that some editors put before UTF-8 text is passed over.

    Args:
        path: The file.
        origin: Said of a file that is missing: who writes it, or what to name.
        remedy: Said of a file that cannot be read: what to do.
        max_bytes: Size of the largest file that is read.
        max_values: Most values that are read.

    Raises:
        RecordError: It is missing, too large, or not JSON, which NaN and Infinity are not; or it has a key twice.
    """
    try:
        if path.stat().st_size > max_bytes:
            raise RecordError(f"{path} has {path.stat().st_size} bytes, and at most {max_bytes} are read; {remedy}")
        return parse_json(path.read_text(encoding="utf-8-sig"), max_values=max_values)
    except FileNotFoundError:
        raise RecordError(f"{path} does not exist; {origin}") from None
    except IsADirectoryError:
        raise RecordError(f"{path} is a folder, not a JSON file; {origin}") from None
    except (OSError, ValueError) as error:
        if isinstance(error, RecordError):
            raise
        raise RecordError(f"{path} cannot be read as JSON ({error}); {remedy}") from error


def parse_json(text: str, repeats: bool = False, max_values: int = MAX_VALUES) -> Any:
    """Read JSON text that may come from anywhere.

    Args:
        text: The text.
        repeats: An object may have a key twice, and the last value counts. Otherwise it is refused: of two values that
            somebody wrote, one would be lost in silence.
        max_values: Most values that are read.

    Raises:
        ValueError: It is not JSON, which NaN and Infinity are not, is nested too deep, holds too many values, has a
            number of thousands of digits, or a key twice.
    """
    require_few_values(text, max_values)
    try:
        return json.loads(text, parse_constant=_refuse, object_pairs_hook=None if repeats else _require_single)
    except RecursionError:
        raise ValueError("it is nested too deep") from None
    except ValueError as error:
        if "int_max_str_digits" in str(error):  # Python names its own setting, which nobody should change
            raise ValueError("it has a number of thousands of digits") from None
        raise


def require_few_values(text: str, max_values: int) -> None:
    """Refuse JSON text that takes much memory; what stands in strings is not counted.

    Raises:
        ValueError: It holds more values.
    """
    if _count(text) > max_values and _count(_STRING.sub("", text)) > max_values:
        raise ValueError(f"it holds more than {max_values:,} values")


def _count(text: str) -> int:
    return sum(map(text.count, ",[{"))


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


def _require_single(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    """An object, each of whose keys is there once."""
    content = dict(pairs)
    if len(content) < len(pairs):
        keys = [key for key, _ in pairs]
        twice = next(key for key in keys if keys.count(key) > 1)
        raise ValueError(f"it has {twice!r:.80} twice; keep one")
    return content

"""The JSON document that ``--json`` prints; nothing else goes to standard output."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stdout
from contextvars import ContextVar
from typing import Any, TextIO

_OUTPUT: ContextVar[TextIO | None] = ContextVar("output", default=None)
"""Standard output, where it is kept for a document."""


@contextmanager
def keep_stdout(wanted: bool) -> Iterator[None]:
    """Keep standard output for ``print_document``; all else that is printed meanwhile goes to standard error.

    Args:
        wanted: False leaves both streams as they are.
    """
    if not wanted or _OUTPUT.get() is not None:
        yield
        return
    kept = _OUTPUT.set(sys.stdout)
    try:
        with redirect_stdout(sys.stderr):
            yield
    finally:
        _OUTPUT.reset(kept)


def print_document(schema: str, content: Mapping[str, Any]) -> None:
    """Print a document on standard output, in ASCII, which every stream takes.

    Args:
        schema: Name and number of its layout, such as ``medvol-list/1``.
        content: Plain values; a number that is not finite, which JSON lacks, becomes null.
    """
    output = _OUTPUT.get() or sys.stdout
    output.write(f"{json.dumps({'schema': schema, **_finite(content)}, indent=1, allow_nan=False)}\n")
    output.flush()


def _finite(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, Mapping):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [_finite(item) for item in value]
    return value

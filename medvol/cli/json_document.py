"""The JSON document that ``--json`` prints; nothing else goes to standard output."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stdout
from typing import Any


@contextmanager
def only_document(wanted: bool = True) -> Iterator[Callable[[Mapping[str, Any]], None]]:
    """Keep standard output free for one document; all else that is printed meanwhile goes to standard error.

    Args:
        wanted: False leaves both streams as they are.

    Yields:
        Prints the document: plain values with ``schema``. A number that is not finite, which JSON lacks, becomes null.
    """
    output = sys.stdout

    def write(content: Mapping[str, Any]) -> None:
        output.write(f"{json.dumps(_finite(content), indent=1, allow_nan=False)}\n")  # ASCII: every stream takes it
        output.flush()

    with redirect_stdout(sys.stderr if wanted else output):
        yield write


def _finite(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, Mapping):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [_finite(item) for item in value]
    return value

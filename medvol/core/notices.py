"""Warnings about a file, each given once, however often the file is read."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import lru_cache

log = logging.getLogger(__name__)

_quiet: ContextVar[bool] = ContextVar("quiet", default=False)


def tell_once(text: str) -> None:
    """Warn, unless the same was said before in this process."""
    if not _quiet.get():
        _tell(text)


@contextmanager
def keep_quiet() -> Iterator[None]:
    """Warn of nothing in this block, which reads a copy that nobody else sees."""
    before = _quiet.set(True)
    try:
        yield
    finally:
        _quiet.reset(before)


@lru_cache(maxsize=4096)
def _tell(text: str) -> None:
    log.warning("%s", text)

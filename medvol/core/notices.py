"""Warnings about a file, each given once, however often the file is read."""

from __future__ import annotations

import logging
from functools import lru_cache

log = logging.getLogger(__name__)


@lru_cache(maxsize=4096)
def tell_once(text: str) -> None:
    """Warn, unless the same was said before in this process."""
    log.warning("%s", text)

"""Address of a server: what is one, and how it is shown."""

from __future__ import annotations

import re
from urllib.parse import urlsplit

from medvol.core.errors import ConfigError


def require_address(url: str) -> None:
    """Refuse what is no address of a server.

    Raises:
        ConfigError: It is none.
    """
    try:
        parts = urlsplit(url)
        fine = parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port or 1) > 0
    except ValueError:
        fine = False
    if not fine:
        raise ConfigError(f"engine.url is an address such as http://127.0.0.1:8000; got {hide_user(url)!r}")


def hide_user(url: str) -> str:
    """An address as messages show it: a user and a password in it are secrets."""
    return re.sub(r"^(\w+://)?.*@", r"\1***@", url, flags=re.DOTALL)

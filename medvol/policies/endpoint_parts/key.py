"""Key: read from the environment when it is needed, sent to its server, and shown to nobody."""

from __future__ import annotations

import os
import re
from urllib.parse import urlsplit

from medvol.core.errors import ConfigError
from medvol.core.server_address import stays_here

DEFAULT_VARIABLE = "OPENAI_API_KEY"
"""A server without a key is asked as well where nobody named another variable."""

_SHORTEST = 8
"""Shorter keys are placeholders such as ``EMPTY``, which may be ordinary words of an answer."""

_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


class Key:
    """The key of a server, for as long as it is asked.

    Args:
        variable: Environment variable that holds it; None for a server without one.
        url: Address of the server.

    Raises:
        ConfigError: The variable holds what cannot be a key, or the key would go over the network unencrypted.
    """

    def __init__(self, variable: str | None, url: str) -> None:
        self.variable = variable or DEFAULT_VARIABLE
        self._key = os.environ.get(variable, "").strip() if variable else ""
        if not (self._key.isascii() and self._key.isprintable()) or " " in self._key:
            raise ConfigError(
                f"the environment variable {self.variable} holds what cannot be a key: a space, a line break, or a "
                "letter that is no ASCII; set it again"
            )
        if self._key and urlsplit(url).scheme == "http" and not stays_here(url):
            raise ConfigError(
                f"the key in {self.variable} would go to {url} unencrypted; use https, or a tunnel to 127.0.0.1, or "
                "send none (policy.key_variable null)"
            )

    @property
    def is_set(self) -> bool:
        """True when there is a key to send."""
        return bool(self._key)

    def __repr__(self) -> str:
        return f"Key({self.variable!r})"

    def headers(self) -> dict[str, str]:
        """Headers that carry it; none where there is no key."""
        return {"Authorization": f"Bearer {self._key}"} if self._key else {}

    def hide(self, text: str) -> str:
        """A text of the server without the key, should it repeat it."""
        return text.replace(self._key, "[key]") if len(self._key) >= _SHORTEST else text


def require_variable(name: str | None) -> None:
    """Refuse what is no name of an environment variable, without showing it: it may be the key itself.

    Raises:
        ConfigError: It is none.
    """
    if name and not _VARIABLE.fullmatch(name):
        raise ConfigError(
            "key_variable names an environment variable that holds the key, such as OPENAI_API_KEY; got something that "
            "is no such name (it is not shown, as it may be a key)"
        )

"""Address of a server: what is one, what may not stand in it, and what it needs of the network."""

from __future__ import annotations

from ipaddress import ip_address
from urllib.parse import urlsplit

from medvol.core.containment import say
from medvol.core.errors import ConfigError


def require_address(setting: str, url: str, example: str, instead: str = "") -> None:
    """Refuse what is no address of a server; one with a password or a query is not shown, as these are secrets.

    Args:
        setting: Name of the setting, for the message.
        url: Its value.
        example: An address that is one.
        instead: Where a secret belongs, after "give the address alone, such as ...".

    Raises:
        ConfigError: It is none, or holds a secret, which the settings that a run saves would show.
    """
    is_none = f"{setting} is the address of a server, such as {example}; got"
    try:
        parts = urlsplit(url)
        secret = parts.username is not None or parts.password is not None or parts.query or parts.fragment
        fine = parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port or 1) > 0
    except ValueError:
        raise ConfigError(f"{is_none} something that is none") from None
    if secret:
        raise ConfigError(
            f"{setting} holds a user, a password or a query, which records would show; give the address alone, such as "
            f"{example}{instead}"
        )
    if not fine or not url.isprintable() or " " in url:
        raise ConfigError(f"{is_none} {'something that is none' if set('@?#') & set(url) else repr(url)}")


def stays_here(url: str) -> bool:
    """True for an address of this very machine, whose traffic does not leave it and passes no proxy."""
    host = urlsplit(url).hostname or ""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")


def refuse_connection(url: str, error: BaseException) -> ConfigError:
    """What a library says of an address, or of the environment's settings, before it sends anything.

    Args:
        url: As it may be shown.
        error: What it raised.
    """
    return ConfigError(
        f"{url} cannot be asked ({say(error)}); check the address, and in the environment the proxies (HTTP_PROXY, "
        "HTTPS_PROXY, ALL_PROXY, NO_PROXY) and the certificates (SSL_CERT_FILE, SSL_CERT_DIR)"
    )

"""What of the network an address needs, and what the environment says of the network when that cannot be used."""

from __future__ import annotations

from ipaddress import ip_address
from urllib.parse import urlsplit

from medvol.core.containment import say
from medvol.core.errors import ConfigError


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

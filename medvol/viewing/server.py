"""The server: one session on this machine, until it is stopped."""

from __future__ import annotations

import secrets
import socket
from collections.abc import Callable

from medvol.core.errors import ConfigError, MissingExtraError
from medvol.terminal.progress import show_progress
from medvol.viewing.desk import Desk
from medvol.viewing.interface import Interface
from medvol.viewing.jobs import Jobs

ADDRESS = "127.0.0.1"
_KEY_BYTES = 18
_GOODBYE_S = 2


def require_extra() -> None:
    """Refuse to begin without the packages that serve.

    Raises:
        MissingExtraError: One of them is not installed.
    """
    for package in ("starlette", "uvicorn"):
        try:
            __import__(package)
        except ImportError as error:
            raise MissingExtraError(package, "view", "medvol view") from error


def serve(desk: Desk, tell: Callable[[str], None], port: int = 0) -> None:
    """Serve a session until Ctrl-C or SIGTERM.

    Args:
        desk: What the session works with.
        tell: Hears the address, with its key, when the server listens.
        port: Port on this machine; 0 takes a free one.

    Raises:
        ConfigError: The port cannot be had.
        MissingExtraError: uvicorn is not installed.
    """
    require_extra()
    import uvicorn

    key, jobs = secrets.token_urlsafe(_KEY_BYTES), Jobs()
    with _listen(port) as listener, show_progress(jobs.display):
        config = uvicorn.Config(
            Interface(desk, jobs).build(key),
            lifespan="off",
            ws="none",
            log_level="warning",
            access_log=False,  # it would write the key down
            server_header=False,
            timeout_graceful_shutdown=_GOODBYE_S,
        )
        tell(f"http://{ADDRESS}:{listener.getsockname()[1]}/{key}/")
        try:
            uvicorn.Server(config).run(sockets=[listener])
        finally:
            jobs.close()


def _listen(port: int) -> socket.socket:
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((ADDRESS, port))
    except (OSError, OverflowError) as error:
        listener.close()
        reason = getattr(error, "strerror", None) or error
        raise ConfigError(f"port {port} cannot be had ({reason}); choose another --port, or leave it out") from error
    listener.listen()
    return listener

"""The gate before the interface: who may ask, and what a browser may do with what it gets."""

from __future__ import annotations

import secrets
from collections.abc import MutableMapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Receive, Scope, Send

_HOSTS = ("127.0.0.1", "localhost", "[::1]")

POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self' data: blob:",
        "connect-src 'self' data: blob:",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
    )
)
"""Content security policy: scripts, styles and requests of this server alone; nothing is loaded from a network."""

HEADERS = {
    "content-security-policy": POLICY,
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "cache-control": "no-store",
}


class Gate:
    """Lets through what comes from this machine with the key of the session, from a page of the session or no page.

    A page of a stranger that the same browser shows could send requests here; the browser says so under ``Origin``.
    A name that a stranger lets point to this machine stands under ``Host``. Both are refused, and so is a wrong key.

    Args:
        app: The interface, which sees paths without the key.
        key: First part of every path.
    """

    def __init__(self, app: ASGIApp, key: str) -> None:
        self._app = app
        self._key = key.encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            return

        async def send_safely(message: MutableMapping[str, Any]) -> None:
            if message["type"] == "http.response.start":
                own = [(name.encode(), value.encode()) for name, value in HEADERS.items()]
                message["headers"] = [*message.get("headers", []), *own]
            await send(message)

        refusal = self._judge(scope)
        if refusal is not None:
            from starlette.responses import JSONResponse

            status, detail = refusal
            response = JSONResponse({"error": {"kind": "Refused", "detail": detail}}, status)
            await response(scope, receive, send_safely)
            return
        if scope["path"] == f"/{self._key.decode()}":  # the page finds its files from the folder of its address
            from starlette.responses import RedirectResponse

            await RedirectResponse(f"{scope['path']}/", 308)(scope, receive, send_safely)
            return
        await self._app({**scope, "path": _without_key(scope["path"]), "root_path": ""}, receive, send_safely)

    def _judge(self, scope: Scope) -> tuple[int, str] | None:
        """Status and reason of a refusal; None where the request may pass."""
        headers = {name: value.decode("latin-1") for name, value in scope["headers"]}
        host = headers.get(b"host", "")
        if host.rpartition(":")[0] not in _HOSTS and host not in _HOSTS:
            return 403, "this server answers to 127.0.0.1 and localhost only; open the address that medvol view printed"
        origin = headers.get(b"origin")
        if origin is not None and origin != f"http://{host}":
            return 403, "the request comes from another page; open the address that medvol view printed"
        given = scope["path"].partition("/")[2].partition("/")[0].encode(errors="replace")
        if not secrets.compare_digest(given, self._key):
            return 404, "the key in the address is not that of this session; open the address that medvol view printed"
        kind = headers.get(b"content-type", "").partition(";")[0].strip()
        if scope["method"] in ("POST", "PUT") and kind != "application/json":
            return 415, f"the body is {kind or 'of no kind'}; send JSON with the content type application/json"
        return None


def _without_key(path: str) -> str:
    return "/" + "/".join(path.split("/")[2:])

"""Requests to a vLLM server; what goes wrong is one sentence."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from medvol.core.containment import contained
from medvol.core.errors import EngineError, MissingExtraError
from medvol.core.json_file import parse_json
from medvol.core.server_address import refuse_connection, stays_here

if TYPE_CHECKING:
    import httpx

_CONNECT_S = 10.0
_MOST_BYTES = 64 * 2**20
"""Longest answer that is read: those of a large group take a tenth of it."""

_SHOWN = 200


class Connection:
    """Connections to one server; several threads may use them.

    Args:
        url: Address, without a path.
        timeout_s: Longest wait for an answer.

    Raises:
        ConfigError: The address has no meaning, or the environment's settings of the network have none.
        MissingExtraError: httpx is not installed.
    """

    def __init__(self, url: str, timeout_s: float) -> None:
        try:
            import httpx
        except ImportError as error:
            raise MissingExtraError("httpx", "vllm-server") from error
        self.url = url.rstrip("/")
        self.timeout_s = timeout_s
        timeout = httpx.Timeout(timeout_s, connect=min(_CONNECT_S, timeout_s))
        with contained(lambda error: refuse_connection(self.url, error)):
            _ = httpx.URL(url).host  # names of hosts are read late
            self._client: httpx.Client = httpx.Client(
                timeout=timeout,
                follow_redirects=False,
                verify=httpx.create_ssl_context(),
                trust_env=not stays_here(url),  # which names proxies
            )

    def close(self) -> None:
        """End all connections."""
        self._client.close()

    def get(self, path: str, absent: str = "") -> Any:
        """Ask for JSON; arguments and errors as for ``post``."""
        return self._exchange("GET", path, None, absent)

    def post(self, path: str, content: Any, absent: str) -> Any:
        """Send JSON and read what is answered: JSON, or nothing.

        Args:
            path: Of the server's interface.
            content: Plain values.
            absent: What to start the server with where it does not know the path.

        Raises:
            EngineError: Anything else came, or nothing.
        """
        return self._exchange("POST", path, json.dumps(content, allow_nan=False).encode(), absent)

    def _exchange(self, method: str, path: str, body: bytes | None, absent: str) -> Any:
        import httpx

        headers = {"Content-Type": "application/json", "Accept-Encoding": "identity"}
        try:
            with self._client.stream(method, f"{self.url}{path}", content=body, headers=headers) as answer:
                content = self._read(answer)
        except httpx.ConnectError as error:
            raise EngineError(
                f"the vLLM server {self.url} cannot be reached ({_shorten(str(error))}); start it, or check engine.url"
            ) from None
        except httpx.TimeoutException:
            raise EngineError(
                f"the vLLM server {self.url} did not answer {path} within {self.timeout_s:g} s; look into its log, "
                "or raise engine.timeout_s"
            ) from None
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise EngineError(
                f"the vLLM server {self.url} broke off at {path} ({_shorten(str(error))}); look into its log"
            ) from None
        text = content.decode(errors="replace")
        if answer.status_code == 404 and absent:
            raise EngineError(
                f"the vLLM server {self.url} does not know {path} ({_shorten(text)}); start it with {absent}"
            )
        if not answer.is_success:
            raise EngineError(
                f"the vLLM server {self.url} refused {path} with status {answer.status_code}: {_shorten(text)}"
            )
        return self._parse(text, path)

    def _read(self, answer: httpx.Response) -> bytes:
        content = bytearray()
        for piece in answer.iter_raw():
            content += piece
            if len(content) > _MOST_BYTES:
                raise EngineError(f"the vLLM server {self.url} sent more than {_MOST_BYTES} bytes; check engine.url")
        return bytes(content)

    def _parse(self, text: str, path: str) -> Any:
        if not text or text.startswith("Success"):  # of what has no other result
            return None
        try:
            return parse_json(text)
        except ValueError:
            raise EngineError(
                f"the vLLM server {self.url} answered {path} with something that is not JSON: {_shorten(text)}"
            ) from None


def _shorten(text: str) -> str:
    plain = " ".join(text.split())
    return plain if len(plain) <= _SHOWN else f"{plain[:_SHOWN]}..."

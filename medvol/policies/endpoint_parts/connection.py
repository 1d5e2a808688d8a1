"""Connection: one request to a chat server and its answer, bounded in time and size."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from types import TracebackType
from typing import Any

import httpx

from medvol.core.containment import contained
from medvol.core.json_file import parse_json
from medvol.core.server_address import refuse_connection, stays_here
from medvol.policies.endpoint_parts.fault import (
    RequestFaultError,
    name_status,
    quote,
    read_words,
    refuse_status,
    shorten,
)
from medvol.policies.endpoint_parts.key import Key

_NO_CHAT = "check that policy.url is the base address of an OpenAI chat server"
_FAULT_BYTES = 65_536
"""Bytes that are read of an answer that is no success."""


class Connection:
    """Connections to one server; used as an asynchronous context.

    No redirect is followed, the certificate is verified, and answers are asked for uncompressed, so that their size is
    known while they come.

    Args:
        url: Base address, such as ``http://127.0.0.1:8000/v1``.
        key: Sent with every request.
        timeout_s: Longest time for one request, until its whole answer is there.

    Raises:
        ConfigError: The address has no meaning, or the environment's settings of the network have none.
    """

    def __init__(self, url: str, key: Key, timeout_s: float) -> None:
        logging.getLogger("httpcore").setLevel(logging.INFO)  # its debug lines show headers, which may repeat the key
        self.url = url
        self.key = key
        self._timeout_s = timeout_s
        headers = {"Content-Type": "application/json", "Accept-Encoding": "identity", **key.headers()}
        with contained(lambda error: refuse_connection(url, error)):
            _ = httpx.URL(url).host  # names of hosts are read late
            self._client = httpx.AsyncClient(
                headers=headers,
                timeout=None,
                follow_redirects=False,
                verify=httpx.create_ssl_context(),
                trust_env=not stays_here(url),  # which names proxies
            )

    async def __aenter__(self) -> Connection:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._client.aclose()

    async def post(self, body: bytes, limit: int) -> Any:
        """Send a request and read the JSON of its answer.

        Args:
            body: JSON.
            limit: Most bytes of the answer.

        Raises:
            RequestFaultError: Anything else came, or nothing.
        """
        async with self._exchange("POST", "chat/completions", body) as answer:
            return await self._read(answer, limit)

    async def knock(self) -> None:
        """See that the server is there and takes the key, by asking which models it has; not all servers tell.

        Raises:
            RequestFaultError: It is not there, or wants another key.
        """
        async with self._exchange("GET", "models") as answer:
            if answer.status_code == HTTPStatus.UNAUTHORIZED:
                await self._read(answer, _FAULT_BYTES)

    @asynccontextmanager
    async def _exchange(self, method: str, place: str, body: bytes | None = None) -> AsyncIterator[httpx.Response]:
        """Send a request, and have its answer read within the time."""
        try:
            async with (
                asyncio.timeout(self._timeout_s),
                self._client.stream(method, f"{self.url.rstrip('/')}/{place}", content=body) as answer,
            ):
                yield answer
        except TimeoutError:
            raise RequestFaultError(
                f"did not answer within {self._timeout_s:g} s", "raise policy.requests.timeout_s", again=True
            ) from None
        except httpx.HTTPError as error:
            raise self._explain(error) from None

    async def _read(self, answer: httpx.Response, limit: int) -> Any:
        status = answer.status_code
        content = await _read_bounded(answer, limit if answer.is_success else _FAULT_BYTES)
        text = self.key.hide(content.decode(errors="replace"))
        if answer.has_redirect_location:
            place = shorten(self.key.hide(answer.headers["Location"].partition("?")[0]))
            raise RequestFaultError(
                f"sends the request on to {place} ({name_status(status)}), which is not followed",
                "give the address of the server itself as policy.url",
                status,
            )
        if not answer.is_success:
            raise refuse_status(status, read_words(text), self.key.variable, _read_wait(answer.headers))
        if len(content) > limit:
            raise RequestFaultError(
                f"answered {name_status(status)} with more than {limit} bytes, which no answer takes", _NO_CHAT
            )
        try:
            return parse_json(text)
        except ValueError:
            what = f"answered {name_status(status)} with something that is not JSON{quote(shorten(text))}"
            raise RequestFaultError(what, _NO_CHAT) from None

    def _explain(self, error: httpx.HTTPError) -> RequestFaultError:
        words = quote(shorten(self.key.hide(str(error))))
        if "CERTIFICATE" in words:
            remedy = "name the authority that signed it in the environment variable SSL_CERT_FILE"
            return RequestFaultError(f"has a certificate that is not trusted{words}", remedy)
        if isinstance(error, httpx.ConnectError):
            return RequestFaultError(f"cannot be reached{words}", "start the server, or check policy.url", again=True)
        what = f"broke off before its answer was whole{words}"
        return RequestFaultError(what, "look into the server's own log, or ask later", again=True)


async def _read_bounded(answer: httpx.Response, limit: int) -> bytes:
    """Content of an answer; a little more than ``limit`` bytes of one that is longer."""
    content = bytearray()
    async for piece in answer.aiter_raw():
        content += piece
        if len(content) > limit:
            break
    return bytes(content)


def _read_wait(headers: Mapping[str, str]) -> float | None:
    """Seconds that a server asks to wait, from a number or a date; None where it does not say, or not clearly."""
    said = headers.get("Retry-After", "").strip()
    try:
        return max(0.0, float(said))
    except ValueError:
        pass
    try:
        return max(0.0, parsedate_to_datetime(said).timestamp() - time.time())
    except (ValueError, OverflowError):
        return None

"""A client of `medvol view`: long work is a generator, which yields how far it is and ends with the result."""

from __future__ import annotations

import http.client
import json
import re
from collections.abc import Callable, Generator
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar
from urllib.parse import quote, urlsplit

import numpy as np
from numpy.typing import NDArray

from .anchors import Anchor
from .answers import Answer, Scan, State

HOSTS = ("127.0.0.1", "localhost", "::1")
_TIMEOUT_S = 120
_MOST_BYTES = 512 * 2**20
_SLAB_BYTES = 16 * 2**20

Result = TypeVar("Result")


class ClientError(Exception):
    """The interface refused, or cannot be reached; the message is one sentence that says what to do."""


class GoneError(ClientError):
    """Nobody answers at the address."""


class ConflictError(ClientError):
    """Somebody else has changed the answer meanwhile."""


@dataclass(frozen=True)
class Progress:
    """How far something is.

    Args:
        text: What is done, in words.
        share: From 0 to 1; None where that is not known.
    """

    text: str
    share: float | None = None


Steps = Generator[Progress, None, Result]
"""Work in steps; closing it cancels what the server does."""


class Client:
    """Talks to one session of `medvol view`.

    Args:
        address: As `medvol view` prints it, with its key.
        wait_s: Whole seconds that a question about a running job waits for its end. 0 comes back at once.

    Raises:
        ClientError: It is no such address, or one of another machine.
    """

    def __init__(self, address: str, wait_s: int = 0) -> None:
        self.address = address.strip()
        self.wait_s = wait_s
        found = None
        try:
            parts = urlsplit(self.address)
            self._host, self._port = parts.hostname or "", parts.port or 0
            found = re.fullmatch(r"/([\w-]+)/?", parts.path, re.ASCII)
        except ValueError:
            self._host, self._port = "", 0
        if found is None or not self.address.startswith("http://") or not self._port:
            raise ClientError(
                f"{self.address[:200]!r} is no address of `medvol view`; copy what it prints, as in "
                "http://127.0.0.1:PORT/KEY/"
            )
        if self._host not in HOSTS:
            raise ClientError(
                f"{self._host!r} is another machine, and `medvol view` answers on its own only; forward its port with "
                "`ssh -L PORT:127.0.0.1:PORT HOST`, and use http://127.0.0.1:PORT/KEY/"
            )
        self._key = found[1]

    def session(self) -> dict[str, Any]:
        """Who propagates, who answers, the scans, the folder of the readings."""
        return self._request("GET", "api/session")

    def list_answers(self) -> list[dict[str, Any]]:
        """The work list."""
        return self._understand(lambda: [dict(row) for row in self._request("GET", "api/answers")["answers"]])

    def ask(self, scan_id: str, query: str, policy: bool = True) -> Steps[str]:
        """A new question; returns the id of the answer.

        Args:
            scan_id: Of the scan.
            query: The question.
            policy: Let the policy answer; else the answer has no box, and the reader draws them.
        """
        reply = yield from self._work("api/answers", {"scan": scan_id, "query": query, "ask": policy})
        return self._understand(lambda: str(reply["id"]))

    def open(self, answer_id: str) -> Steps[Answer]:
        """Scan, anchors, masks and measures of an answer."""
        reply = yield from self._work(f"api/answers/{quote(answer_id, safe='')}/open", {})
        return self._understand(lambda: Answer.read(reply))

    def propagate(self, answer: Answer, anchor: Anchor) -> Steps[State]:
        """The mask of an anchor."""
        reply = yield from self._work(
            f"api/answers/{quote(answer.answer_id, safe='')}/mask", {"anchor": anchor.to_json()}
        )
        return self._understand(lambda: State.read(anchor, reply, answer.scan.shape))

    def save(self, answer: Answer, verdict: str, anchor: Anchor, remark: str) -> Steps[str]:
        """Keep a reading; returns the name of its record.

        Args:
            answer: As it was opened: the reading names its record as the parent, and ends its draft.
            verdict: ``corrected``, or ``accepted`` or ``rejected`` with the anchor as it was opened.
            anchor: Key slice and boxes as the reader leaves them.
            remark: The reader's own words.
        """
        parent = {"parent_sha256": answer.sha256, "revision": answer.revision}
        body = {"verdict": verdict, "anchor": anchor.to_json(), "remark": remark, **parent}
        reply = yield from self._work(f"api/answers/{quote(answer.answer_id, safe='')}/readings", body)
        return self._understand(lambda: str(reply["file"]))

    def open_scan(self, scan_id: str) -> Steps[Scan]:
        """Geometry and windows of a scan."""
        reply = yield from self._work(f"api/scans/{quote(scan_id, safe='')}/open", {})
        return self._understand(lambda: Scan.read(reply))

    def load_voxels(self, scan: Scan) -> Steps[NDArray[Any]]:
        """Intensities (Z, Y, X) of a scan: 16-bit whole numbers where they are exact, else 32-bit floats."""
        depth, height, width = scan.shape
        stored = np.empty(scan.shape, np.int16)
        most = max(1, _SLAB_BYTES // (2 * height * width))
        for first in range(0, depth, most):
            yield Progress(f"loading {scan.name}", first / depth)
            count = min(most, depth - first)
            path = f"api/scans/{quote(scan.scan_id, safe='')}/voxels?first={first}&count={count}"
            content = self._send("GET", path, None)
            stored[first : first + count] = self._understand(partial(_slab, content, (count, height, width)))
        return scan.intensities(stored)

    def _work(self, path: str, body: dict[str, Any]) -> Steps[dict[str, Any]]:
        """Do a job and return its result.

        Raises:
            ClientError: It failed, or was cancelled.
        """
        job = self._request("POST", path, body)
        try:
            while job.get("state") in ("waiting", "running"):
                yield self._understand(partial(_progress, job))
                job = self._request("GET", f"api/jobs/{job['job']}?wait={self.wait_s}")
        except GeneratorExit:
            with suppress(ClientError):
                self._request("DELETE", f"api/jobs/{job['job']}")
            raise
        if job.get("state") != "done":
            raise ClientError(f"{job.get('title')} was cancelled")
        return self._understand(lambda: dict(job["result"]))

    def _request(self, method: str, path: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
        return self._understand(partial(_object, self._send(method, path, body)))

    def _send(self, method: str, path: str, body: dict[str, Any] | None) -> bytes:
        """One request; what is refused is raised with the server's own sentence."""
        connection = http.client.HTTPConnection(self._host, self._port, timeout=_TIMEOUT_S)
        headers = {} if body is None else {"Content-Type": "application/json"}
        sent = None if body is None else json.dumps(body).encode()
        try:
            connection.request(method, f"/{self._key}/{path}", sent, headers)
            response = connection.getresponse()
            status, content = response.status, response.read(_MOST_BYTES + 1)
        except TimeoutError as error:
            raise GoneError(f"{self._place} has not answered for {_TIMEOUT_S} s; look at its terminal") from error
        except (OSError, http.client.HTTPException) as error:
            raise GoneError(
                f"nobody answers at {self._place} ({error or type(error).__name__}); start `medvol view` again, and "
                "use its new address"
            ) from error
        finally:
            connection.close()
        if len(content) > _MOST_BYTES:
            raise ClientError(f"{self._place} sent more than {_MOST_BYTES:,} bytes; nothing was taken")
        if status in (200, 202):
            return content
        detail = self._understand(lambda: str(_object(content)["error"]["detail"]))
        raise (ConflictError if status == 409 else ClientError)(detail)

    def _understand(self, read: Callable[[], Result]) -> Result:
        """Read what the server sent.

        Raises:
            ClientError: It cannot be read.
        """
        try:
            return read()
        except (ValueError, TypeError, KeyError, AttributeError, IndexError, RecursionError) as error:
            raise ClientError(
                f"{self._place} sent what cannot be read ({type(error).__name__}: {error}); use `medvol view` and this "
                "plug-in in the same version"
            ) from error

    @property
    def _place(self) -> str:
        """Where the server is, without its key."""
        return f"{self._host}:{self._port}"


def finish(steps: Steps[Result]) -> Result:
    """Do all steps and return the result."""
    while True:
        try:
            next(steps)
        except StopIteration as end:
            return end.value


def _object(content: bytes) -> dict[str, Any]:
    value = json.loads(content)
    if not isinstance(value, dict):
        raise TypeError("no JSON object")
    return value


def _slab(content: bytes, shape: tuple[int, int, int]) -> NDArray[np.int16]:
    return np.frombuffer(content, "<i2").reshape(shape)


def _progress(job: dict[str, Any]) -> Progress:
    told = job["progress"]
    share = told["share"]
    return Progress(str(told["text"] or job["title"]), None if share is None else min(1.0, max(0.0, float(share))))

"""The interface: what the page and other programs ask a desk over HTTP, see docs/how-to/view.md."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medvol.core.errors import MedvolError, MissingExtraError, explain_error
from medvol.pages.viewer import niivue_script
from medvol.viewing.desk import Desk
from medvol.viewing.entries import Entry
from medvol.viewing.gate import Gate
from medvol.viewing.jobs import ConflictError, Job, Jobs
from medvol.viewing.packing import pack_slab
from medvol.viewing.requests import MAX_QUERY, MAX_REMARK, read_body, read_number
from medvol.viewing.scans import Scan

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response
    from starlette.types import ASGIApp

PAGE = Path(__file__).parent / "page"
NIIVUE = "niivue.js"
_KINDS = {".html": "text/html", ".js": "text/javascript", ".css": "text/css", ".svg": "image/svg+xml"}
_READING = ("verdict", "anchor", "remark", "parent_sha256", "revision")
_PROMPT_S = 1.0
"""A job that ends within this is answered at once."""
_LONGEST_WAIT_S = 25
_SLAB_BYTES = 32 * 2**20
"""Most voxels of one answer."""


class UnknownError(MedvolError):
    """There is nothing of that name."""


class Interface:
    """The routes.

    Args:
        desk: Does what is asked for.
        jobs: Where it is done.
    """

    def __init__(self, desk: Desk, jobs: Jobs) -> None:
        self.desk = desk
        self.jobs = jobs

    def build(self, key: str) -> ASGIApp:
        """The application behind its gate.

        Args:
            key: First part of every path.

        Raises:
            MissingExtraError: starlette is not installed.
        """
        try:
            from starlette.applications import Starlette
            from starlette.routing import Route
        except ImportError as error:
            raise MissingExtraError("starlette", "view") from error
        answer, scan = "/api/answers/{answer}", "/api/scans/{scan}"
        routes = [
            Route("/", self.page),
            Route("/page/{file}", self.page),
            Route("/api/session", self.session),
            Route("/api/answers", self.answers),
            Route("/api/answers", self.add_answer, methods=["POST"]),
            Route(f"{answer}/open", self.open, methods=["POST"]),
            Route(f"{answer}/mask", self.mask, methods=["POST"]),
            Route(f"{answer}/readings", self.add_reading, methods=["POST"]),
            Route(f"{answer}/draft", self.keep_draft, methods=["PUT"]),
            Route(f"{answer}/draft", self.drop_draft, methods=["DELETE"]),
            Route(f"{scan}/open", self.open_scan, methods=["POST"]),
            Route(f"{scan}/voxels", self.voxels),
            Route("/api/jobs/{job}", self.job),
            Route("/api/jobs/{job}", self.cancel, methods=["DELETE"]),
        ]
        handlers: dict[Any, Any] = {MedvolError: _refuse, OSError: _refuse, 404: _nothing, 405: _nothing}
        return Gate(Starlette(routes=routes, exception_handlers=handlers), key)

    async def page(self, request: Request) -> Response:
        """The page and its parts."""
        from starlette.responses import Response

        name = request.path_params.get("file", "index.html")
        content = await asyncio.to_thread(_read_page_file, name)
        return Response(content, media_type=_KINDS[Path(name).suffix])

    async def session(self, request: Request) -> Response:
        """Who answers, who propagates, where readings go."""
        return _json(self.desk.describe())

    async def answers(self, request: Request) -> Response:
        """The work list."""
        return _json({"answers": await asyncio.to_thread(self.desk.list_entries)})

    async def add_answer(self, request: Request) -> Response:
        """A new question: the policy answers it, or the reader does."""
        body = await read_body(request, "scan", "query", "ask")
        scan, query, asks = self._scan(body.text("scan", 100)), body.text("query", MAX_QUERY), body.flag("ask")
        act = self.desk.ask if asks else self.desk.begin
        return await self._do("asking the policy" if asks else "reading the scan", lambda: act(scan, query).describe())

    async def open(self, request: Request) -> Response:
        """Everything about an answer."""
        entry = self._entry(request)
        await read_body(request)
        return await self._do("opening the scan", lambda: self.desk.open(entry))

    async def mask(self, request: Request) -> Response:
        """The mask of an anchor."""
        entry, body = self._entry(request), await read_body(request, "anchor")
        anchor = body.anchor()
        return await self._do("propagating", lambda: self.desk.propagate(entry, anchor))

    async def add_reading(self, request: Request) -> Response:
        """Keep a verdict."""
        entry, body = self._entry(request), await read_body(request, *_READING)
        verdict, anchor, parent = body.verdict(), body.anchor(), body.text("parent_sha256", 64)
        remark, revision = body.text("remark", MAX_REMARK, may_be_empty=True), body.revision(0)

        def save() -> dict[str, Any]:
            head = self.desk.save(entry, verdict, anchor, remark, parent, revision)
            return {"file": head.file, "sha256": head.sha256, "verdict": verdict}

        return await self._do("saving", save, saves=True)

    async def keep_draft(self, request: Request) -> Response:
        """Keep what is not finished."""
        entry, body = self._entry(request), await read_body(request, "anchor", "remark", "parent_sha256", "revision")
        remark, parent = body.text("remark", MAX_REMARK, may_be_empty=True), body.text("parent_sha256", 64)
        draft = entry, body.anchor(), remark, parent, body.revision()
        return _json(await asyncio.to_thread(self.desk.keep_draft, *draft))

    async def drop_draft(self, request: Request) -> Response:
        """Forget what is not finished."""
        entry, revision = self._entry(request), read_number(request, "revision", 0, 0, 10**8)
        await asyncio.to_thread(self.desk.readings.drop_draft, entry, revision)
        return _json({})

    async def open_scan(self, request: Request) -> Response:
        """Geometry, windows and scale of a scan, which is read where it is not in memory."""
        scan = self._scan(request.path_params["scan"])
        await read_body(request)
        return await self._do("reading the scan", lambda: self.desk.shelf.get(scan).describe())

    async def voxels(self, request: Request) -> Response:
        """Slices as 16-bit little-endian numbers."""
        from starlette.responses import Response

        scan = self._scan(request.path_params["scan"])
        opened = await asyncio.to_thread(self.desk.shelf.get, scan)
        depth, height, width = opened.volume.shape
        most = max(1, _SLAB_BYTES // (2 * height * width))
        first = read_number(request, "first", 0, 0, depth - 1)
        count = read_number(request, "count", min(most, depth), 1, most)
        slab = await asyncio.to_thread(pack_slab, opened.volume, opened.scale, first, count)
        return Response(slab, media_type="application/octet-stream")

    async def job(self, request: Request) -> Response:
        """How far a job is; waits for its end as long as ``wait`` says."""
        job = self._job(request)
        await asyncio.to_thread(job.wait, read_number(request, "wait", 0, 0, _LONGEST_WAIT_S))
        return _tell(job)

    async def cancel(self, request: Request) -> Response:
        """Cancel a job; one that saves goes on, and says so."""
        job = self._job(request)
        job.cancel()
        return _tell(job)

    async def _do(self, title: str, act: Callable[[], dict[str, Any]], saves: bool = False) -> Response:
        job = self.jobs.start(title, act, saves)
        await asyncio.to_thread(job.wait, _PROMPT_S)
        return _tell(job)

    def _entry(self, request: Request) -> Entry:
        entry = self.desk.entries.get(request.path_params["answer"])
        if entry is None:
            raise UnknownError(f"there is no answer {request.path_params['answer'][:80]!r}; api/answers lists them")
        return entry

    def _scan(self, scan_id: str) -> Scan:
        if scan_id not in self.desk.scans:
            raise UnknownError(f"there is no scan {scan_id[:80]!r} in this session; api/session lists them")
        return self.desk.scans[scan_id]

    def _job(self, request: Request) -> Job:
        job = self.jobs.find(request.path_params["job"])
        if job is None:
            raise UnknownError("there is no such job, or it ended long ago; ask again")
        return job


def _json(content: Any, status: int = 200) -> Response:
    """JSON in UTF-8; half a letter, as in names of files from a disk in Latin-1, becomes a question mark."""
    from starlette.responses import Response

    text = json.dumps(content, ensure_ascii=False, allow_nan=False)
    return Response(text.encode(errors="replace"), status, media_type="application/json")


def _tell(job: Job) -> Response:
    """A job's state: 200 when it has ended well or was cancelled, 202 while it runs, and what an error deserves."""
    described = job.describe()
    if described["state"] == "failed" and job.error is not None:
        return _json(described, _status(job.error))
    return _json(described, 202 if described["state"] in ("waiting", "running") else 200)


def _status(error: Exception) -> int:
    if isinstance(error, UnknownError):
        return 404
    if isinstance(error, ConflictError):
        return 409
    return 422 if isinstance(error, MedvolError) else 500


def _refuse(request: Request, error: Exception) -> Response:
    detail = {"kind": type(error).__name__, "detail": explain_error(error)}
    return _json({"error": detail}, _status(error))


def _nothing(request: Request, error: Exception) -> Response:
    detail = "there is nothing at this address; docs/how-to/view.md lists what there is"
    return _json({"error": {"kind": "UnknownError", "detail": detail}}, getattr(error, "status_code", 404))


def _read_page_file(name: str) -> bytes:
    """A file of the page; only those that are there by name, never a path."""
    if name == NIIVUE:
        return niivue_script()
    known = {path.name: path for path in PAGE.iterdir() if path.suffix in _KINDS}
    if name not in known:
        raise UnknownError(f"the page has no file {name[:80]!r}")
    return known[name].read_bytes()

"""Jobs: what may take long runs in one worker, tells how far it is, and can be cancelled."""

from __future__ import annotations

import logging
import secrets
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import TimeoutError as FutureTimeoutError
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from typing import Any, Literal

from medvol.core.errors import MedvolError, RecordError, explain_error
from medvol.terminal.progress import Display, Work

State = Literal["waiting", "running", "done", "failed", "cancelled"]

_KEPT = 64
"""Finished jobs that can still be asked for."""

log = logging.getLogger(__name__)


class CancelledError(MedvolError):
    """A job was cancelled while it ran."""


class ConflictError(RecordError):
    """Somebody else has changed what was to be saved."""


class Job:
    """One piece of work.

    Args:
        title: What is done, such as ``propagating``.
        act: Does it and returns plain values for JSON.
        saves: It writes what a reader made, so it is done to its end, whoever cancels it.
    """

    def __init__(self, title: str, act: Callable[[], dict[str, Any]], saves: bool = False) -> None:
        self.job_id = secrets.token_hex(8)
        self.title = title
        self.act = act
        self.saves = saves
        self.cancelled = threading.Event()
        self.work: Work | None = None
        self.began = time.monotonic()
        self.seconds = 0.0
        self.error: Exception | None = None
        self.future: Future[dict[str, Any]] = Future()

    @property
    def state(self) -> State:
        """Where it stands; a cancelled job counts as such at once, even where a library does not let go of it yet."""
        if self.cancelled.is_set():
            return "cancelled"
        if self.future.done():
            return "failed" if self.error is not None else "done"
        return "running" if self.future.running() else "waiting"

    def cancel(self) -> None:
        """Cancel it where it has not ended; a job that saves goes on."""
        if not self.saves and not self.future.done():
            self.cancelled.set()

    def wait(self, seconds: float) -> None:
        """Wait until it has ended, but no longer than this."""
        with suppress(FutureTimeoutError, Exception):
            self.future.result(timeout=seconds)

    def describe(self) -> dict[str, Any]:
        """Plain values: state, how far it is, and what came of it."""
        state, work = self.state, self.work
        described: dict[str, Any] = {"job": self.job_id, "title": self.title, "state": state}
        if state in ("waiting", "running"):
            now = time.monotonic()
            text = "" if work is None else f"{work.title}: {work.describe(now)}"
            share = work.done / work.total if work is not None and work.total else None
            return {**described, "progress": {"text": text, "share": share, "seconds": round(now - self.began, 1)}}
        if state == "done":
            return {**described, "seconds": round(self.seconds, 3), "result": self.future.result()}
        if state == "failed" and self.error is not None:
            detail = explain_error(self.error)
            return {**described, "error": {"kind": type(self.error).__name__, "detail": detail}}
        return described


class Jobs:
    """One worker that does jobs in the order in which they come: components need not be safe for threads."""

    def __init__(self) -> None:
        self._worker = ThreadPoolExecutor(1, "medvol-view")
        self._jobs: OrderedDict[str, Job] = OrderedDict()
        self._lock = threading.Lock()
        self.display = JobDisplay()

    def start(self, title: str, act: Callable[[], dict[str, Any]], saves: bool = False) -> Job:
        """Queue a job; arguments as of ``Job``."""
        job = Job(title, act, saves)
        with self._lock:
            self._jobs[job.job_id] = job
            ended = [name for name, other in self._jobs.items() if other.future.done()]
            for name in ended[: max(0, len(self._jobs) - _KEPT)]:
                del self._jobs[name]
        job.future = self._worker.submit(self._run, job)
        return job

    def find(self, job_id: str) -> Job | None:
        """A job by its id; None when it is not known any more."""
        with self._lock:
            return self._jobs.get(job_id)

    def close(self) -> None:
        """Cancel what runs and what waits, do what saves to its end, and take nothing more."""
        with self._lock:
            for job in self._jobs.values():
                job.cancel()
        self._worker.shutdown(wait=True)

    def _run(self, job: Job) -> dict[str, Any]:
        if job.cancelled.is_set():
            return {}
        job.began = time.monotonic()
        with self.display.listening(job):
            try:
                return job.act()
            except Exception as error:
                job.error = error
                if not isinstance(error, MedvolError | OSError) and not job.cancelled.is_set():
                    log.exception("%s failed", job.title)
                return {}
            finally:
                job.seconds = time.monotonic() - job.began


class JobDisplay(Display):
    """Hears the progress of whatever the worker does; a cancelled job is stopped where it says how far it is."""

    def __init__(self) -> None:
        self._here = threading.local()

    @contextmanager
    def listening(self, job: Job) -> Iterator[None]:
        """What this thread does belongs to the job."""
        self._here.job = job
        try:
            yield
        finally:
            self._here.job = None

    def begin(self, work: Work) -> None:
        """Show a work that starts."""
        self.change(work)

    def change(self, work: Work) -> None:
        """Note how far it is.

        Raises:
            CancelledError: The job was cancelled.
        """
        job: Job | None = getattr(self._here, "job", None)
        if job is None:
            return
        if job.cancelled.is_set():
            raise CancelledError(f"{job.title} was cancelled")
        job.work = work

    def end(self, work: Work) -> None:
        """Show a work no more."""
        job: Job | None = getattr(self._here, "job", None)
        if job is not None and job.work is work:
            job.work = None

    def say(self, text: str) -> None:
        """Lines that stay go to the log."""
        log.info("%s", text)

    def pause(self) -> AbstractContextManager[None]:
        """Nothing is on a screen."""
        return nullcontext()

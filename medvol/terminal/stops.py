"""Stops from outside: Ctrl-C and SIGTERM act where nothing is half done, and are never lost."""

from __future__ import annotations

import atexit
import os
import signal
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from functools import cache
from multiprocessing.process import BaseProcess
from types import FrameType
from typing import Any
from weakref import WeakSet

_SIGNALS = (signal.SIGINT, signal.SIGTERM)
_WORKERS: WeakSet[BaseProcess] = WeakSet()


class Terminated(KeyboardInterrupt):
    """The process was asked to end by SIGTERM."""


class Stops:
    """Remembers a stop until it is asked for: between two cases, between two steps of a fit.

    An exception that a signal raises wherever the program happens to be can end in a callback of a library, which
    prints and swallows it. So the first signal is only noted, and ``check`` raises it where it can act; a second one
    is raised at once.

    Args:
        at_once: Raise the first one at once too; it is noted as well, so that ``check`` finds what was swallowed.
        terminated: What a SIGTERM raises.
        place: Where the first one acts, as the user is told.
    """

    def __init__(
        self,
        at_once: bool = False,
        terminated: type[BaseException] = Terminated,
        place: str = "after this case",
    ) -> None:
        self.at_once = at_once
        self.terminated = terminated
        self.notice = f"\nmedvol: stopping {place}; a second signal stops at once\n".encode()
        self.held = False
        self.signal: int | None = None

    def listen(self) -> dict[signal.Signals, Any]:
        """Note signals from now on; returns what answered them before.

        A signal that the process was started to ignore stays ignored. Outside the main thread there are no signals.
        """
        if threading.current_thread() is not threading.main_thread():
            return {}
        heard = [number for number in _SIGNALS if signal.getsignal(number) is not signal.SIG_IGN]
        return {number: signal.signal(number, self._hear) for number in heard}

    def check(self) -> None:
        """Raise what was noted.

        Raises:
            KeyboardInterrupt: After Ctrl-C. After SIGTERM it is ``terminated``.
        """
        if self.signal is not None:
            raise self.terminated if self.signal == signal.SIGTERM else KeyboardInterrupt

    @contextmanager
    def hold(self) -> Iterator[None]:
        """Raise nothing while files are written that belong together."""
        before, self.held = self.held, True
        try:
            yield
        finally:
            self.held = before

    def _hear(self, number: int, frame: FrameType | None) -> None:
        first = self.signal is None
        self.signal = number
        if self.held:
            return
        if self.at_once or not first:
            self.check()
        with suppress(OSError):
            os.write(2, self.notice)  # not print, which a signal may have interrupted


@contextmanager
def hear_stops(at_once: bool = False) -> Iterator[Stops]:
    """Listen to Ctrl-C and SIGTERM while the block runs; in a thread, which hears no signals, nothing changes."""
    stops = Stops(at_once)
    before = stops.listen()
    try:
        yield stops
    finally:
        for number, handler in before.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)


def leave_stops_to_main(worker: int) -> None:
    """Ignore the signals in a process that prepares cases: a terminal sends them to all, and the main one decides.

    The main process has to end it by ``end_with_main``, since the standard library would wait for it for ever.
    """
    for number in _SIGNALS:
        signal.signal(number, signal.SIG_IGN)


def end_with_main(workers: Iterable[BaseProcess]) -> None:
    """End processes that ignore signals when this one ends, however it ends."""
    if found := set(workers):
        _end_at_exit()
        _WORKERS.update(found)


@cache
def _end_at_exit() -> None:
    """Once in a process, and after the standard library, so that it runs before that waits for the processes."""
    atexit.register(_end_workers)


def _end_workers() -> None:
    if hasattr(signal, "SIGCHLD") and threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # torch's answer to it raises
    for worker in list(_WORKERS):
        with suppress(OSError, ValueError):
            worker.kill()

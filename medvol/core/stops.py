"""Stops from outside: Ctrl-C and SIGTERM act where nothing is half done, and are never lost."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType

_NOTED = b"medvol: stopping after this case; stop again to leave it unfinished\n"


class Terminated(KeyboardInterrupt):
    """The process was asked to end by SIGTERM."""


class Stops:
    """Remembers a stop until it is asked for.

    An exception that a signal raises wherever the program happens to be can end in a callback of a library, which
    prints and swallows it. So the first signal is only noted, and ``check`` raises it where it can act; a second one
    is raised at once.

    Args:
        at_once: Raise the first one at once too; it is noted as well, so that ``check`` finds what was swallowed.
    """

    def __init__(self, at_once: bool = False) -> None:
        self.at_once = at_once
        self.held = False
        self.signal: int | None = None

    def check(self) -> None:
        """Raise what was noted.

        Raises:
            KeyboardInterrupt: After Ctrl-C; ``Terminated``, which is one, after SIGTERM.
        """
        if self.signal is not None:
            raise Terminated if self.signal == signal.SIGTERM else KeyboardInterrupt

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
            os.write(2, _NOTED)  # not print, which a signal may have interrupted


@contextmanager
def hear_stops(at_once: bool = False) -> Iterator[Stops]:
    """Listen to Ctrl-C and SIGTERM while the block runs; in a thread, which hears no signals, nothing changes."""
    stops = Stops(at_once)
    if threading.current_thread() is not threading.main_thread():
        yield stops
        return
    heard = [number for number in (signal.SIGINT, signal.SIGTERM) if signal.getsignal(number) != signal.SIG_IGN]
    before = {number: signal.signal(number, stops._hear) for number in heard}
    try:
        yield stops
    finally:
        for number, handler in before.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)

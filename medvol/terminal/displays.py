"""Progress on stderr: bars in a terminal, a line now and then in a file or a pipe."""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TextIO

from medvol.terminal.progress import Display, Work

INTERVAL_S = 30.0
"""Between two lines."""


class StderrDisplay(Display):
    """Bars when stderr is a terminal, lines otherwise; which of them is decided when the first work starts."""

    def __init__(self) -> None:
        self._shown: Display | None = None

    @property
    def _display(self) -> Display:
        if self._shown is None:
            self._shown = _choose()
        return self._shown

    def begin(self, work: Work) -> None:
        """Show a work that starts."""
        self._display.begin(work)

    def change(self, work: Work) -> None:
        """Hear that a work went on."""
        self._display.change(work)

    def end(self, work: Work) -> None:
        """Show a work no more."""
        self._display.end(work)

    def say(self, text: str) -> None:
        """Show a line that stays."""
        self._display.say(text)

    @contextmanager
    def pause(self) -> Iterator[None]:
        """Keep off the screen."""
        if self._shown is None:
            yield
        else:
            with self._shown.pause():
                yield


class Lines(Display):
    """A line for all that is under way, every so many seconds, also while nothing advances.

    Args:
        stream: Where to write; stderr when None.
        interval_s: Seconds between two lines.
        clock: Seconds from any start.
        watched: A thread looks at the clock; otherwise it is looked at only when work goes on.
    """

    def __init__(
        self,
        stream: TextIO | None = None,
        interval_s: float = INTERVAL_S,
        clock: Callable[[], float] = time.monotonic,
        watched: bool = True,
    ) -> None:
        self._stream = stream
        self._interval_s = interval_s
        self._clock = clock
        self._watched = watched
        self._works: list[Work] = []
        self._told = clock()
        self._process = os.getpid()
        self._turn = threading.RLock()
        self._over = threading.Event()

    def begin(self, work: Work) -> None:
        """Show a work that starts."""
        if os.getpid() != self._process:  # a worker process that prepares cases
            return
        with self._turn:
            first, self._works = not self._works, [*self._works, work]
            if first:
                self._told = self._clock()
                if self._watched:
                    self._over = threading.Event()
                    threading.Thread(target=self._watch, args=(self._over,), daemon=True).start()

    def change(self, work: Work) -> None:
        """Write a line when it is time for one."""
        if os.getpid() == self._process:
            self._tell_when_due()

    def end(self, work: Work) -> None:
        """Show a work no more."""
        if os.getpid() != self._process:
            return
        with self._turn:
            if work in self._works:  # and what began inside it and was left behind
                self._works = self._works[: self._works.index(work)]
            if not self._works:
                self._over.set()

    def say(self, text: str) -> None:
        """Write a line at once."""
        with self._turn:
            print(text, file=self._stream or sys.stderr, flush=True)

    @contextmanager
    def pause(self) -> Iterator[None]:
        """Write nothing meanwhile."""
        with self._turn:
            yield

    def _tell_when_due(self) -> None:
        with self._turn:
            now = self._clock()
            if self._works and now - self._told >= self._interval_s:
                self._told = now
                self.say("; ".join(f"{work.title}: {work.describe(now)}" for work in self._works))

    def _watch(self, over: threading.Event) -> None:
        while not over.wait(min(1.0, self._interval_s)):
            self._tell_when_due()


def _choose() -> Display:
    if not sys.stderr.isatty():
        return Lines()
    from rich.console import Console

    from medvol.terminal.bars import Bars

    console = Console(stderr=True)
    return Lines() if console.is_dumb_terminal else Bars(console)

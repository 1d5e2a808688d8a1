"""How far long work is.

Whatever takes long says so with ``Work``, wherever it is; it is shown only while somebody shows it, as the command line
does with ``show_progress``. A call from Python writes nothing.

    for job in counted(jobs, "segmenting", len(jobs), "queries"):
        ...
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from types import TracebackType
from typing import TypeVar

_HOUR, _MINUTE = 3600, 60

Item = TypeVar("Item")


class Display(ABC):
    """Shows the work that is under way, the outer before the inner."""

    @abstractmethod
    def begin(self, work: Work) -> None:
        """Show a work that starts."""

    @abstractmethod
    def change(self, work: Work) -> None:
        """Hear that a work went on."""

    @abstractmethod
    def end(self, work: Work) -> None:
        """Show a work no more."""

    @abstractmethod
    def say(self, text: str) -> None:
        """Show a line that stays."""

    @abstractmethod
    def pause(self) -> AbstractContextManager[None]:
        """Keep off the screen, so that something else can be printed."""


_displays: list[Display | None] = [None]
"""The last one shows; None shows nothing."""


class Work:
    """Something that takes long.

    Args:
        title: What is done, such as ``segmenting``.
        total: Units of it, when they are known.
        unit: What is counted, such as ``slices``.
    """

    def __init__(self, title: str, total: int | None = None, unit: str = "") -> None:
        self.title = title
        self.total = total
        self.unit = unit
        self.done = 0
        self.note = ""
        self._began = time.monotonic()
        self._done_before = 0
        self._display: Display | None = None

    def start(self) -> None:
        """Show it from now on."""
        self._display = _displays[-1]
        if self._display is not None:
            self._display.begin(self)

    def finish(self) -> None:
        """Show it no more; nothing happens when it is not shown."""
        display, self._display = self._display, None
        if display is not None:
            display.end(self)

    def count(self, total: int | None, unit: str = "", done: int = 0, now: float | None = None) -> None:
        """Count anew; the time left is worked out from here on.

        Args:
            total: Units from the beginning; None when they are not known.
            unit: What is counted.
            done: Units that are done already, by an earlier run.
            now: Time in seconds; that of ``time.monotonic`` when None.
        """
        self._began = time.monotonic() if now is None else now
        self.total, self.unit, self.done, self._done_before, self.note = total, unit, done, done, ""
        self._tell()

    def advance(self, units: int = 1, note: str | None = None) -> None:
        """Say that so many units are done, and perhaps something about them."""
        self.done += units
        self.note = self.note if note is None else note
        self._tell()

    def say(self, text: str) -> None:
        """Show a line that stays."""
        if self._display is not None:
            self._display.say(text)

    def describe(self, now: float) -> str:
        """``12 of 40 slices, 3 min left``, with the note between the two; what is known of it."""
        counted = f"{self.done} of {self.total}" if self.total else str(self.done) if self.done else ""
        counted = f"{counted} {self.unit}".strip() if counted else ""
        return ", ".join(filter(None, (counted, self.note, self._describe_time(now))))

    def seconds_left(self, now: float) -> float | None:
        """Seconds until it is done, if it goes on at its mean pace; None while that is not known."""
        done = self.done - self._done_before
        if not self.total or done <= 0:
            return None
        return (now - self._began) / done * max(0, self.total - self.done)

    def _describe_time(self, now: float) -> str:
        if self.total and self.done >= self.total:
            return ""
        left = self.seconds_left(now)
        return f"{describe_seconds(now - self._began)} so far" if left is None else f"{describe_seconds(left)} left"

    def _tell(self) -> None:
        if self._display is not None:
            self._display.change(self)

    def __enter__(self) -> Work:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.finish()


def counted(items: Iterable[Item], title: str, total: int | None = None, unit: str = "") -> Iterator[Item]:
    """Go through items, and say how far that is; arguments as those of ``Work``."""
    with Work(title, total, unit) as work:
        for item in items:
            yield item
            work.advance()


@contextmanager
def show_progress(display: Display) -> Iterator[None]:
    """Show the work of this process on a display, such as ``StderrDisplay()``."""
    _displays.append(display)
    try:
        yield
    finally:
        _displays.pop()


@contextmanager
def hide_progress() -> Iterator[None]:
    """Show no work that starts in here."""
    _displays.append(None)
    try:
        yield
    finally:
        _displays.pop()


def say(text: str) -> None:
    """Show a line that stays, where work is shown."""
    if _displays[-1] is not None:
        _displays[-1].say(text)


def pause_progress() -> AbstractContextManager[None]:
    """Keep progress off the screen, so that something else can be printed."""
    display = _displays[-1]
    return nullcontext() if display is None else display.pause()


def describe_seconds(seconds: float) -> str:
    """``40 s``, ``12 min``, ``3 h 20 min``."""
    whole = max(0, round(seconds))
    if whole < 2 * _MINUTE:
        return f"{whole} s"
    if whole < _HOUR:
        return f"{round(whole / _MINUTE)} min"
    hours, minutes = divmod(round(whole / _MINUTE), 60)
    return f"{hours} h {minutes} min"

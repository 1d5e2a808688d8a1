"""Keeps whatever a component raises inside the call, and lets the user's stop through.

A component may be a stranger's code. It may raise anything, an exception of its own or what ``sys.exit`` raises; none
of it may end more than the call. Only Ctrl-C and SIGTERM have to act at once. They are told apart by where they come
from: a stop is what a signal handler raises. A ``KeyboardInterrupt`` that no signal brought is the component's own.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

from medvol.core.visible_text import show

_STOPS = (signal.SIGINT, signal.SIGTERM)
_LONGEST = 300


@contextmanager
def contained(refuse: Callable[[BaseException], Exception], *passing: type[BaseException]) -> Iterator[None]:
    """Turn whatever the block raises into one error of medvol.

    Args:
        refuse: Makes that error.
        *passing: What is raised as it is, because it already says what is wrong.

    Raises:
        KeyboardInterrupt: The user pressed Ctrl-C meanwhile, even where the block swallowed it. What another handler
            of a stop raises is raised in the same way.
    """
    with _noted_stops() as stops:
        try:
            yield
        except BaseException as error:
            if not stops and isinstance(error, passing):
                raise
            if not stops:  # contextlib takes a RuntimeError from a StopIteration for its own
                raise refuse(error) from (None if isinstance(error, StopIteration) else error)
    if stops:
        raise stops[-1]


def say(value: object) -> str:
    """An exception with its type, or the repr of anything else: one bounded line without control characters.

    The value may be a stranger's; that its text cannot be had raises nothing.
    """
    try:
        text = f"{type(value).__name__}: {value}" if isinstance(value, BaseException) else repr(value)
    except Exception:
        text = type(value).__name__
    shown = show(" ".join(text[: 4 * _LONGEST].split()))
    return shown if len(shown) <= _LONGEST else f"{shown[: _LONGEST - 3]}..."


@contextmanager
def _noted_stops() -> Iterator[list[BaseException]]:
    """What handlers of Ctrl-C and SIGTERM raise during the block; only the main thread is ever interrupted by them."""
    stops: list[BaseException] = []
    replaced: list[tuple[signal.Signals, Any, Any]] = []
    if threading.current_thread() is threading.main_thread():
        for number in _STOPS:
            before = signal.getsignal(number)
            if callable(before):
                noting = _noting(before, stops)
                signal.signal(number, noting)
                replaced.append((number, noting, before))
    try:
        yield stops
    finally:
        for number, noting, before in replaced:
            if signal.getsignal(number) is noting:
                signal.signal(number, before)


def _noting(handler: Callable[..., Any], stops: list[BaseException]) -> Callable[[int, FrameType | None], Any]:
    def note(number: int, frame: FrameType | None) -> Any:
        try:
            return handler(number, frame)
        except BaseException as stop:
            stops.append(stop)
            raise

    return note

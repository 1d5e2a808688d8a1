"""Seconds by part, and peak memory, of programs that take turns on one device."""

from __future__ import annotations

import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import wraps
from typing import Any, Protocol

import torch

SHARED = "weights"
"""Name under which a ledger keeps what all programs use."""


class Memory(Protocol):
    """Counts bytes on a device."""

    def allocated(self) -> int:
        """Bytes that tensors hold now."""

    def peak(self) -> int:
        """The most that they held since ``reset``."""

    def reset(self) -> None:
        """Forget the peak."""


class CudaMemory:
    """Bytes of torch's allocator on the current CUDA device."""

    def allocated(self) -> int:
        """Bytes that tensors hold now."""
        return torch.cuda.memory_allocated()

    def peak(self) -> int:
        """The most that they held since ``reset``."""
        return torch.cuda.max_memory_allocated()

    def reset(self) -> None:
        """Forget the peak."""
        torch.cuda.reset_peak_memory_stats()


class Ledger:
    """Who holds what, so that the peak of one program leaves out what another keeps while it waits.

    Args:
        memory: Of the device; None where it cannot be counted.
    """

    def __init__(self, memory: Memory | None) -> None:
        self.memory = memory
        self.held: Counter[str] = Counter()
        self._before = 0

    def begin(self, name: str) -> None:
        """Start the turn of a program."""
        if self.memory is not None:
            self._before = self.memory.allocated()
            self.memory.reset()

    def end(self, name: str) -> int | None:
        """End its turn.

        Returns:
            Bytes at its peak, with what is shared and what it held before; None where memory cannot be counted.
        """
        if self.memory is None:
            return None
        shared = 0 if name == SHARED else self.held[SHARED]
        peak = shared + self.held[name] + self.memory.peak() - self._before
        self.held[name] += self.memory.allocated() - self._before
        return peak

    @contextmanager
    def turn(self, name: str) -> Iterator[None]:
        """Count what a block builds as held by a program."""
        self.begin(name)
        try:
            yield
        finally:
            self.end(name)


@dataclass(frozen=True)
class Step:
    """One step.

    Args:
        parts: Seconds by part; a part inside another counts once. ``rest`` is what belongs to none.
        peak: Bytes, or None; see ``Ledger.end``.
    """

    parts: dict[str, float]
    peak: int | None

    @property
    def seconds(self) -> float:
        """Of the whole step."""
        return sum(self.parts.values())


class Meter:
    """Measures the steps of one program.

    Args:
        name: Of the program.
        now: Seconds on the clock.
        ledger: Counts memory.
    """

    def __init__(self, name: str, now: Callable[[], float], ledger: Ledger) -> None:
        self.name = name
        self.steps: list[Step] = []
        self._now = now
        self._ledger = ledger
        self._seconds: defaultdict[str, float] = defaultdict(float)
        self._open: list[str] = []
        self._since = 0.0

    def start(self) -> None:
        """Start a step."""
        self._ledger.begin(self.name)
        self._seconds.clear()
        self._open = ["rest"]
        self._since = self._now()

    def stop(self) -> None:
        """End a step and keep it."""
        self._credit()
        self._open = []
        self.steps.append(Step(dict(self._seconds), self._ledger.end(self.name)))

    @contextmanager
    def step(self) -> Iterator[None]:
        """Measure a block as one step."""
        self.start()
        yield
        self.stop()

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        """Measure a block as one part of a step."""
        self._credit()
        self._open.append(name)
        try:
            yield
        finally:
            self._credit()
            self._open.pop()

    def wrap(self, owner: Any, method: str, part: str, within: str | None = None) -> None:
        """Measure every call of a method during a step.

        Args:
            owner: Object whose method is replaced by one that is measured.
            method: Its name.
            part: What its time is counted as.
            within: Count it only inside this part.
        """
        inner = getattr(owner, method)

        @wraps(inner)  # with its marks: a scheduler looks for the one that it left on an optimiser
        def call(*arguments: Any, **named: Any) -> Any:
            if not self._open or (within is not None and within not in self._open):
                return inner(*arguments, **named)
            with self.part(part):
                return inner(*arguments, **named)

        setattr(owner, method, call)

    def _credit(self) -> None:
        now = self._now()
        self._seconds[self._open[-1]] += now - self._since
        self._since = now


def device_clock(device: str) -> Callable[[], float]:
    """A wall clock that first waits until the device has done all it was asked."""

    def now() -> float:
        if device == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter()

    return now

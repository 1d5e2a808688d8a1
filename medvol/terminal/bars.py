"""Bars of progress in a terminal."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, SpinnerColumn, Task, TaskID, TextColumn
from rich.text import Text

from medvol.terminal.progress import Display, Work


class Bars(Display):
    """A bar for each work that is under way.

    Args:
        console: The terminal.
    """

    def __init__(self, console: Console) -> None:
        self._console = console
        self._process = os.getpid()
        self._tasks: dict[Work, TaskID] = {}
        self._bars: Progress | None = None

    def begin(self, work: Work) -> None:
        """Show a work that starts."""
        if os.getpid() != self._process:
            return
        if self._bars is None:
            self._bars = self._make()
            self._bars.start()
        self._tasks[work] = self._bars.add_task(work.title, total=work.total, completed=work.done, work=work)

    def change(self, work: Work) -> None:
        """Move its bar."""
        if self._bars is not None and work in self._tasks:
            self._bars.update(self._tasks[work], total=work.total, completed=work.done)

    def end(self, work: Work) -> None:
        """Take its bar away."""
        if self._bars is None or work not in self._tasks:
            return
        begun = list(self._tasks)
        for other in begun[begun.index(work) :]:  # itself, and what began inside it and was left behind
            self._bars.remove_task(self._tasks.pop(other))
        if not self._tasks:
            self._bars.stop()
            self._bars = None

    def say(self, text: str) -> None:
        """Write a line above the bars."""
        self._console.print(Text(text), soft_wrap=True)

    @contextmanager
    def pause(self) -> Iterator[None]:
        """Take the bars away meanwhile."""
        bars = self._bars
        if bars is not None:
            bars.stop()
        try:
            yield
        finally:
            if bars is not None and bars is self._bars:
                bars.start()

    def _make(self) -> Progress:
        """Bars above which other output is written; stdout that goes elsewhere is left alone."""
        return Progress(
            SpinnerColumn(finished_text=" "),
            TextColumn("{task.description}", markup=False),
            BarColumn(20),
            _Status(),
            console=self._console,
            transient=True,
            redirect_stdout=sys.stdout.isatty(),
        )


class _Status(ProgressColumn):
    """What is known about a work, in words."""

    def render(self, task: Task) -> Text:
        """Counts, note and time."""
        work: Work = task.fields["work"]
        return Text(work.describe(time.monotonic()))

"""The console for all of medvol's output: text is printed as plain text, never as markup."""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import Any

from rich.console import Console as RichConsole
from rich.console import ConsoleOptions, RenderableType
from rich.segment import Segment

from medvol.core.visible_text import show


class Console(RichConsole):
    """A console without markup, emoji codes and highlighting, where control characters are written out.

    A path such as ``scans [b]`` is printed as it is, and an escape sequence in a query or in a plug-in's message is
    shown instead of obeyed.

    Args:
        options: As for ``rich.console.Console``.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(markup=False, emoji=False, highlight=False, **options)

    def on_broken_pipe(self) -> None:
        """Say nothing more to a reader that has gone, as ``head`` does; the work goes on to its own exit code."""
        self.quiet = True
        os.dup2(os.open(os.devnull, os.O_WRONLY), self.file.fileno())

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        """Lay out anything that can be printed; rich's own steering of the cursor stays."""
        for segment in super().render(renderable, options):
            yield segment if segment.control else Segment(show(segment.text, keep="\n"), segment.style)

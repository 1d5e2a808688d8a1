"""The process's own streams: they take every letter, and what is logged on them is plain text."""

from __future__ import annotations

import logging
import os
import sys

from medvol.core.visible_text import show


class PlainFormatter(logging.Formatter):
    """Writes out the control characters of what is logged: paths, queries, words of a plug-in."""

    def format(self, record: logging.LogRecord) -> str:
        """Text of a record; the breaks between the lines of a traceback stay."""
        return show(super().format(record), keep="\n")


def prepare_streams() -> None:
    """Let the output take letters that it lacks, which it writes out; show warnings and log messages as plain text.

    A redirected output on Windows knows 256 letters, and a file name may hold bytes that are no letter at all; neither
    may cost an answer. Where a stream is closed, what it would take goes nowhere.
    """
    sys.stdout = sys.stdout or open(os.devnull, "w")  # noqa: SIM115 - as long as the process
    sys.stderr = sys.stderr or open(os.devnull, "w")  # noqa: SIM115
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
    logging.captureWarnings(True)
    if logging.lastResort is not None:
        logging.lastResort.setFormatter(PlainFormatter())

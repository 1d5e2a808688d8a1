"""Whether components can be imported, found out in processes of their own.

A plug-in's module may do anything when it is imported: end the process, loop, print, wait for input, crash. So all
components of one distribution are imported in one child process, distributions side by side. A component that ends its
child, or does not answer in time, is told so, and those after it get another child. What children print goes nowhere.
"""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import replace
from itertools import groupby, takewhile
from typing import NamedTuple

from medvol.core.docstrings import first_sentence
from medvol.core.errors import MedvolError
from medvol.core.registry import REGISTERED_HERE, REGISTRIES, Registration

LIMIT_S = 20.0
"""A component answers within this time; Python and medvol itself start in it too."""

_AT_ONCE = 8
_LONGEST_LINE = 10_000
_CHILD = (
    "import json, sys; sys.path[:] = json.loads(sys.argv[1]); "
    "from medvol.guarding.probing import answer; answer(json.loads(sys.argv[2]))"
)


class _Answer(NamedTuple):
    problem: str
    summary: str


def probe(rows: Sequence[Registration], limit_s: float = LIMIT_S) -> list[Registration]:
    """Find out which components can be used, and what they say of themselves.

    Args:
        rows: From ``Registry.describe``.
        limit_s: Time for each of them.

    Returns:
        The rows in order, each with its problem or its summary.
    """
    asked = sorted(
        (row for row in rows if row.distribution != REGISTERED_HERE and not row.problem),
        key=lambda row: row.distribution,
    )
    publishers = [list(group) for _, group in groupby(asked, key=lambda row: row.distribution)]
    with ThreadPoolExecutor(_AT_ONCE) as pool, _killed_at_the_end() as children:
        found = pool.map(lambda group: _probe_in_turn(group, limit_s, children), publishers)
        answers = {key: answer for answered in found for key, answer in answered.items()}
    return [replace(row, **answers[_key(row)]._asdict()) if _key(row) in answers else row for row in rows]


def answer(keys: Sequence[Sequence[str]]) -> None:
    """What a child does: import each component and write a line about it; nothing else leaves the process."""
    report = os.fdopen(os.dup(1), "w", encoding="utf-8")
    nowhere = os.open(os.devnull, os.O_RDWR)
    for standard in range(3):
        os.dup2(nowhere, standard)
    for kind, name in keys:
        report.write(json.dumps(_import(kind, name)) + "\n")
        report.flush()
    os._exit(0)  # threads and exit handlers of plug-ins do not hold it back


def _import(kind: str, name: str) -> _Answer:
    registry = next(registry for registry in REGISTRIES if registry.kind == kind)
    try:
        return _Answer("", first_sentence(registry.get(name).__doc__))
    except MedvolError as error:
        return _Answer(str(error), "")


def _key(row: Registration) -> tuple[str, str]:
    return row.kind, row.name


def _probe_in_turn(
    rows: Sequence[Registration], limit_s: float, children: list[subprocess.Popen[bytes]]
) -> dict[tuple[str, str], _Answer]:
    """Answers of one distribution; a child that ends early is followed by another one for what is left."""
    answers: dict[tuple[str, str], _Answer] = {}
    while waiting := [row for row in rows if _key(row) not in answers]:
        child = _start([_key(row) for row in waiting])
        children.append(child)
        read = map(_parse, _read_lines(child, len(waiting), limit_s))
        said = [found for found in takewhile(bool, read) if found]
        answers |= {_key(row): found for row, found in zip(waiting, said, strict=False)}
        if len(said) < len(waiting):
            end, module = _Answer(_say_end(child, limit_s), ""), _module(waiting[len(said)])
            answers |= {_key(row): end for row in waiting[len(said) :] if _module(row) == module}
        _kill(child)
    return answers


def _module(row: Registration) -> str:
    return row.target.partition(":")[0]


def _start(keys: Sequence[tuple[str, str]]) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-c", _CHILD, json.dumps(sys.path), json.dumps(keys)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )


def _read_lines(child: subprocess.Popen[bytes], count: int, limit_s: float) -> Iterator[bytes]:
    """Whole lines, up to the number expected; the time starts anew with each."""
    assert child.stdout is not None
    place, held, deadline = child.stdout.fileno(), b"", time.monotonic() + limit_s
    while count and len(held) < _LONGEST_LINE and (left := deadline - time.monotonic()) > 0:
        if not select.select([place], [], [], left)[0]:
            return
        piece = os.read(place, _LONGEST_LINE)
        if not piece:
            return
        *lines, held = (held + piece).split(b"\n")
        for line in lines[:count]:
            yield line
            count, deadline = count - 1, time.monotonic() + limit_s


def _parse(line: bytes) -> _Answer | None:
    """What a child wrote; None for anything else that came through its pipe."""
    try:
        problem, summary = json.loads(line)
    except (ValueError, TypeError):
        return None
    return _Answer(problem, summary) if isinstance(problem, str) and isinstance(summary, str) else None


def _say_end(child: subprocess.Popen[bytes], limit_s: float) -> str:
    """Why a child said no more; one that closed its pipe is about to end."""
    assert child.stdout is not None
    closed = select.select([child.stdout], [], [], 0)[0]  # the end of a pipe can be read at any time
    try:
        code = child.wait(timeout=limit_s if closed else 0.5)
    except subprocess.TimeoutExpired:
        return f"did not answer within {limit_s:g} s"
    name = f", {signal.Signals(-code).name}" if -code in list(signal.Signals) else ""
    return f"crashed (exit code {code}{name})"


@contextmanager
def _killed_at_the_end() -> Iterator[list[subprocess.Popen[bytes]]]:
    """Children that are killed whatever happens, so that threads that wait for them end."""
    children: list[subprocess.Popen[bytes]] = []
    try:
        yield children
    finally:
        for child in children:
            _kill(child)


def _kill(child: subprocess.Popen[bytes]) -> None:
    """End a child and whatever it started."""
    with suppress(ProcessLookupError, PermissionError):
        if hasattr(os, "killpg"):
            os.killpg(child.pid, signal.SIGKILL)
        else:
            child.kill()
    child.wait()
    if child.stdout is not None:
        child.stdout.close()

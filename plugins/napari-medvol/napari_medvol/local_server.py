"""A session of `medvol view` on this machine, in a process of its own, for as long as the viewer needs it."""

from __future__ import annotations

import atexit
import os
import re
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import IO

from napari_medvol.interface.client import ClientError, Progress, Steps

_LOOK_S = 0.2
_GOODBYE_S = 5
_ADDRESS = re.compile(r"^open (http://\S+)$", re.MULTILINE)


class LocalServer:
    """A server that was started here, and is stopped here.

    Args:
        process: It.
        address: Where it listens, with its key.
    """

    def __init__(self, process: subprocess.Popen[str], address: str) -> None:
        self.address = address
        self._process = process
        atexit.register(_end, process)

    def stop(self) -> None:
        """Ask it to end, and do not wait for that; a viewer that closes waits."""
        _ask_to_end(self._process)


def start_server(target: str, readings: str, policy: str, propagator: str, reader: str = "") -> Steps[LocalServer]:
    """Start `medvol view` and return it when it listens.

    Args:
        target: Scan, folder, record or run, as `medvol view` takes them.
        readings: Folder that readings go to.
        policy: Model folder or policy that answers; empty for none.
        propagator: Makes the masks; empty leaves that to `medvol view`.
        reader: How the reader calls themselves in the readings.

    Raises:
        ClientError: It ended before it listened; the message is its own.
    """
    if not target:
        raise ClientError("no scan was chosen; give a file, a folder, or a layer that was read from a file")
    options = {"out": readings, "policy": policy, "propagator": propagator, "reader": reader}
    given = [f"--{name}={value}" for name, value in options.items() if value]
    command = [sys.executable, "-m", "medvol", "view", str(Path(target).absolute()), "--no_browser", *given]
    with tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace") as complaints:
        process = _run(command, complaints)
        try:
            return LocalServer(process, (yield from _hear_address(process, complaints)))
        except BaseException:
            _end(process)
            raise


def _run(command: Sequence[str], complaints: IO[str]) -> subprocess.Popen[str]:
    environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
    return subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=complaints,
        encoding="utf-8",
        errors="replace",
        env=environment,
    )


def _hear_address(process: subprocess.Popen[str], complaints: IO[str]) -> Steps[str]:
    """Wait for the line with the address; what the server prints later is read and dropped, so that it never waits."""
    lines: SimpleQueue[str | None] = SimpleQueue()

    def listen() -> None:
        assert process.stdout is not None, "stdout is a pipe"
        with process.stdout:
            for line in process.stdout:
                lines.put(line)
        lines.put(None)

    threading.Thread(target=listen, name="medvol-view", daemon=True).start()
    began = time.monotonic()
    while True:
        yield Progress(f"starting medvol, {time.monotonic() - began:.0f} s so far")
        try:
            line = lines.get(timeout=_LOOK_S)
        except Empty:
            continue
        if line is None:
            process.wait()
            complaints.seek(0)
            raise ClientError(_last_words(complaints.read()))
        found = _ADDRESS.search(line)
        if found:
            return found[1]


def _last_words(text: str) -> str:
    """The sentence that a command of medvol ends with."""
    said = [line.strip() for line in text.splitlines() if line.strip()]
    if not said:
        return "medvol ended without a word; run `medvol view` in a terminal to see why"
    if said[-1].endswith("No module named medvol"):
        return f"medvol is not installed for {sys.executable}; pip install napari-medvol there"
    return said[-1].removeprefix("medvol: ")


def _end(process: subprocess.Popen[str]) -> None:
    _ask_to_end(process)
    try:
        process.wait(_GOODBYE_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _ask_to_end(process: subprocess.Popen[str]) -> None:
    if process.poll() is None:
        process.terminate()

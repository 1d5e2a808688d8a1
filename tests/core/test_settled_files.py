"""Digests of files that rest are kept, and no change goes unnoticed."""

import hashlib
import os
import time
from pathlib import Path

import pytest

from medvol.core import settled_files
from medvol.core.settled_files import settled_sha256


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Files that were read whole."""
    read: list[Path] = []
    whole = settled_files.file_sha256
    monkeypatch.setattr(settled_files, "file_sha256", lambda path: read.append(path) or whole(path))
    monkeypatch.setattr(settled_files, "_known", {})
    return read


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Seconds by which the clock is ahead of the files."""
    ahead = [0.0]
    now = time.time_ns
    monkeypatch.setattr(settled_files.time, "time_ns", lambda: now() + int(ahead[0] * 1e9))
    return ahead


@pytest.fixture
def file(tmp_path: Path) -> Path:
    (tmp_path / "weights").write_bytes(b"one")
    return tmp_path / "weights"


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def test_a_file_that_rests_is_read_once(file, reads, clock, monkeypatch):
    clock[0] = 60
    assert [settled_sha256(file) for _ in range(3)] == [sha256(b"one")] * 3
    monkeypatch.chdir(file.parent)
    assert settled_sha256(Path(file.name)) == sha256(b"one")
    assert len(reads) == 1


def test_a_file_that_has_just_changed_is_read_again(file, reads, clock):
    """Another change within one tick of the clock would leave size and times as they are."""
    times = os.stat(file).st_mtime_ns
    assert settled_sha256(file) == sha256(b"one")
    file.write_bytes(b"two")
    os.utime(file, ns=(times, times))
    assert settled_sha256(file) == sha256(b"two")
    assert len(reads) == 2
    clock[0] = 1.5
    settled_sha256(file)
    settled_sha256(file)
    assert len(reads) == 4


@pytest.mark.parametrize("put_back", [False, True])
def test_a_change_of_one_that_rested_is_seen(file, reads, clock, put_back):
    clock[0] = 60
    times = os.stat(file).st_mtime_ns
    settled_sha256(file)
    file.write_bytes(b"two")
    if put_back:
        os.utime(file, ns=(times, times))
    assert settled_sha256(file) == sha256(b"two")
    other = file.with_name("other")
    other.write_bytes(b"six")
    other.replace(file)
    assert settled_sha256(file) == sha256(b"six")


def test_a_change_while_it_is_read_is_not_kept(file, reads, clock, monkeypatch):
    clock[0] = 60

    def read_slowly(path: Path) -> str:
        content = path.read_bytes()
        path.write_bytes(b"changed")
        return sha256(content)

    monkeypatch.setattr(settled_files, "file_sha256", read_slowly)
    assert settled_sha256(file) == sha256(b"one")
    assert settled_sha256(file) == sha256(b"changed")

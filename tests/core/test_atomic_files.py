"""Files appear whole or not at all, and the error names the file that was wanted."""

import errno
import os
import threading
from pathlib import Path

import pytest

from medvol.core.atomic_files import write_together, write_whole, write_whole_folder

FULL = os.strerror(errno.ENOSPC)


class WrappedError(Exception):
    """A library's own error, with the system's words in it."""


def full_disk() -> OSError:
    return OSError(errno.ENOSPC, FULL)


@pytest.mark.parametrize(
    "error",
    [
        full_disk(),
        WrappedError(f"Error while serializing: I/O error: {FULL} (os error 28)"),
        RuntimeError(f"writing failed: {FULL}"),
    ],
    ids=["bare", "wrapped", "runtime"],
)
@pytest.mark.parametrize("writer", [write_whole, write_whole_folder, lambda path: write_together(path, "x")])
def test_a_full_disk_leaves_nothing_and_names_the_file(tmp_path: Path, writer, error):
    target = tmp_path / "name.json"

    def write() -> None:
        with writer(target) as partial:
            (partial / "x" if partial.is_dir() else partial).write_text("half")
            raise error

    with pytest.raises(OSError, match=FULL) as caught:
        write()
    assert (caught.value.errno, caught.value.filename) == (errno.ENOSPC, str(target))
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


def test_an_error_about_another_file_keeps_its_name(tmp_path: Path):
    with pytest.raises(FileNotFoundError) as caught, write_whole(tmp_path / "a"):
        (tmp_path / "missing").read_bytes()
    assert caught.value.filename == str(tmp_path / "missing")


def test_an_error_of_the_program_stays_what_it_is(tmp_path: Path):
    with pytest.raises(ZeroDivisionError), write_whole(tmp_path / "a"):
        1 / 0  # noqa: B018


@pytest.mark.parametrize("letter", ["x", "脾", "é"])
def test_the_longest_name_that_a_disk_takes(tmp_path: Path, letter):
    target = tmp_path / (letter * ((255 - 7) // len(letter.encode())) + ".nii.gz")
    with write_whole(target) as partial:
        assert partial.name.endswith(".nii.gz")
        partial.write_text("whole")
    assert [path.name for path in tmp_path.iterdir()] == [target.name]


def test_files_that_belong_together_appear_together(tmp_path: Path):
    (tmp_path / "old.json").write_text("old")
    with write_together(tmp_path, "a.json") as place:
        for name in ("a.json", "a.png", "b.nii"):
            (place / name).write_text(name)
        assert not (tmp_path / "b.nii").exists()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.json", "a.png", "b.nii", "old.json"]


def test_two_writers_do_not_mix_halves(tmp_path: Path, monkeypatch):
    """Each writes two files of one content; whoever is last, both are of one writer."""
    rename = Path.replace

    def slow(self, target):
        done.wait(0.01)  # gives the other writer every chance
        return rename(self, target)

    monkeypatch.setattr(Path, "replace", slow)
    done = threading.Event()

    def write(content: str) -> None:
        with write_together(tmp_path, "a.json") as place:
            (place / "a.json").write_text(content)
            (place / "a.nii").write_text(content)

    for _ in range(10):
        writers = [threading.Thread(target=write, args=(content,)) for content in "xyz"]
        for writer in writers:
            writer.start()
        for writer in writers:
            writer.join()
        assert (tmp_path / "a.json").read_text() == (tmp_path / "a.nii").read_text()

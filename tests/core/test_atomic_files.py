"""Files appear whole or not at all, and the error names the file that was wanted."""

import errno
import os
import stat
import subprocess
import sys
import threading
from contextlib import ExitStack
from pathlib import Path

import pytest

from medvol.core.atomic_files import delete_leftovers, hold, hold_made, write_together, write_whole, write_whole_folder

if sys.platform != "win32":
    import fcntl

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


@pytest.fixture(params=[0o077, 0o022, 0o002], ids=oct)
def umask(request):
    before = os.umask(request.param)
    yield request.param
    os.umask(before)


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def write_everywhere(place: Path) -> None:
    """One file by each writer, of which two are made as safetensors makes them: for their owner alone."""
    with write_whole(place / "alone" / "a.txt") as partial:
        partial.write_text("x")
    with write_whole_folder(place / "folder") as partial:
        (partial / "below").mkdir()
        os.close(os.open(partial / "below" / "a.txt", os.O_CREAT, 0o600))
    with write_together(place / "together", "a.txt") as partial:
        os.close(os.open(partial / "a.txt", os.O_CREAT, 0o600))


FILES = ("alone/a.txt", "folder/below/a.txt", "together/a.txt")


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no umask")
def test_new_files_and_folders_are_open_to_whom_the_umask_lets(tmp_path: Path, umask):
    write_everywhere(tmp_path)
    assert {name: mode(tmp_path / name) for name in FILES} == dict.fromkeys(FILES, 0o666 & ~umask)
    folders = [path for path in tmp_path.rglob("*") if path.is_dir()]
    assert {mode(path) for path in folders} == {0o777 & ~umask}
    assert len(folders) == 4


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such modes")
@pytest.mark.parametrize("kept", [0o600, 0o640, 0o444], ids=oct)
def test_what_is_written_anew_stays_as_open_as_it_was(tmp_path: Path, kept):
    write_everywhere(tmp_path)
    for name in FILES:
        (tmp_path / name).chmod(kept)
    (tmp_path / "folder").chmod(0o700)
    write_everywhere(tmp_path)
    assert {name: mode(tmp_path / name) for name in FILES} == dict.fromkeys(FILES, kept)
    assert mode(tmp_path / "folder") == 0o700


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such modes")
def test_a_private_file_is_private_while_it_is_written(tmp_path: Path):
    (tmp_path / "a").touch(0o600)
    with write_whole(tmp_path / "a") as partial:
        assert mode(partial) == 0o600


def test_a_folder_of_the_set_is_replaced_or_disappears(tmp_path: Path):
    for kept in ("first", "second", None):
        with write_together(tmp_path, "a.json", replaced=("masks",)) as place:
            (place / "a.json").write_text(str(kept))
            if kept is not None:
                (place / "masks").mkdir()
                (place / "masks" / kept).touch()
        found = {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*")}
        assert found == {"a.json", *(("masks", f"masks/{kept}") if kept else ())}


def test_a_writer_that_is_killed_between_two_files_leaves_no_file_that_vouches_for_them(tmp_path: Path, monkeypatch):
    def write(content: str) -> None:
        with write_together(tmp_path, "z.json", replaced=("masks",)) as place:
            (place / "masks").mkdir()
            for name in ("a.json", "z.json", "masks/m"):
                (place / name).write_text(content)

    write("old")
    rename = Path.replace

    def stop(self, target):
        if self.name != "masks":
            return rename(self, target)
        raise KeyboardInterrupt

    monkeypatch.setattr(Path, "replace", stop)
    with pytest.raises(KeyboardInterrupt):
        write("new")
    assert (tmp_path / "a.json").read_text() == "new"
    assert not (tmp_path / "z.json").exists()


def test_what_a_killed_writer_left_is_deleted_and_nothing_else(tmp_path: Path):
    code = (
        "import os, pathlib; from medvol.core.atomic_files import write_together; "
        f"writer = write_together(pathlib.Path({str(tmp_path)!r}), 'a.json'); writer.__enter__(); os._exit(0)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
    (left,) = tmp_path.iterdir()
    with write_together(tmp_path, "b.json") as other:
        delete_leftovers(tmp_path, "a.json")
        assert not left.exists()
        assert other.is_dir()


def test_who_does_not_wait_for_a_lock_is_refused(tmp_path: Path):
    with hold(tmp_path), pytest.raises(BlockingIOError), hold(tmp_path, wait=False):
        pass
    with hold(tmp_path, wait=False):
        pass


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such locks")
@pytest.mark.parametrize("moment", ["open", "flock"])
@pytest.mark.parametrize("again", [False, True])
def test_a_folder_that_is_deleted_before_its_lock_is_ours_is_made_again(tmp_path: Path, monkeypatch, moment, again):
    """A lock of what nobody finds any more keeps nobody out, and two would write in one folder."""
    folder = tmp_path / "held"
    first = ExitStack()
    first.enter_context(hold_made(folder))
    first.callback(folder.rmdir)
    module = {"open": os, "flock": fcntl}[moment]
    real = getattr(module, moment)

    def late(*arguments):
        monkeypatch.setattr(module, moment, real)
        first.close()
        if again:
            folder.mkdir()
        return real(*arguments)

    monkeypatch.setattr(module, moment, late)
    with hold_made(folder):
        assert folder.is_dir()
        with pytest.raises(BlockingIOError), hold_made(folder):
            pass


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

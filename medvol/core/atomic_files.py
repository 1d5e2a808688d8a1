"""Files as a whole: written entirely or not at all, and named by their content."""

from __future__ import annotations

import errno
import hashlib
import os
import secrets
import shutil
import stat
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from medvol.core.empty_folders import forget_empty
from medvol.core.errors import ConfigError, MedvolError

if sys.platform != "win32":
    import fcntl

PARTIAL = ".partial-"
"""Beginning of a temporary name; a program that was killed leaves such files."""
_ENDING = 16
"""Letters of the name that a temporary name keeps; writers choose the format by the suffix."""

_TRIES = 100
"""Of taking a lock; some network disks number one file differently at every look."""

_FILES, _OWN = 0o666, 0o600
"""Permissions that a file may have, and those without which it cannot be written."""

_REFUSALS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EPERM, errno.EIO, errno.EMLINK)
"""What a disk says when it takes no more; libraries hand it on as text in errors of their own."""


@contextmanager
def write_whole(path: Path, durable: bool = True) -> Iterator[Path]:
    """Give a temporary name in the folder of ``path`` and rename it to ``path`` when the block ends well.

    The temporary name keeps the suffix, since writers choose the format by it; the folder is made when it is absent.
    Who may read the file is what the user's umask says, or what the file that is replaced said; so it is for all that
    is written here.

    Args:
        path: The file.
        durable: Wait until the disk has it, so that a power cut leaves the old file or the new one; False for what
            is made anew when it is damaged.

    Raises:
        OSError: It cannot be written; the error names ``path``, whatever the writer said.
    """
    with _naming(path), forget_empty(path.parent):
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_name(f"{PARTIAL}{secrets.token_hex(4)}-{path.name[-_ENDING:]}")
        partial.touch(exist_ok=False)
        mode = _kept_mode(path, _mode(partial))
        try:
            partial.chmod(mode | _OWN)
            yield partial
            if durable:
                _flush(partial)
            partial.chmod(mode)
            partial.replace(path)
            if durable:
                _flush(path.parent)
        finally:
            partial.unlink(missing_ok=True)


@contextmanager
def write_whole_folder(folder: Path) -> Iterator[Path]:
    """Give a temporary folder beside ``folder`` and rename it to ``folder`` when the block ends well.

    A folder of that name is put aside before and deleted after, so that one of the two is there at any time.

    Raises:
        OSError: It cannot be written; the error names ``folder``, whatever the writer said.
    """
    with _naming(folder), forget_empty(folder.parent):
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=PARTIAL, dir=folder.parent) as place:
            partial, aside = Path(place) / "new", Path(place) / "old"
            partial.mkdir()
            usual = _mode(partial)
            yield partial
            for file in (file for file in partial.rglob("*") if file.is_file()):
                _flush(file)
                file.chmod(_kept_mode(folder / file.relative_to(partial), usual & _FILES))
            partial.chmod(_kept_mode(folder, usual))
            if folder.exists():
                folder.rename(aside)
            try:
                partial.rename(folder)
            except OSError:
                if aside.exists():
                    aside.rename(folder)
                raise
            _flush(folder.parent)


@contextmanager
def write_together(folder: Path, last: str, replaced: Sequence[str] = ()) -> Iterator[Path]:
    """Give a temporary folder in ``folder``, whose files are moved up together when the block ends well.

    Other processes of medvol that move files into the folder wait meanwhile, so two sets of the same names are not
    mixed; where the system or the disk knows no such lock, nothing is kept out.

    Args:
        folder: Made when it is absent.
        last: Name of the file that says that the others are there: an old one disappears first, the new one comes last.
        replaced: Names of folders that belong to the set: old ones disappear, whether or not new ones come.

    Raises:
        OSError: They cannot be written; the error names ``folder``, whatever the writer said.
    """
    with _naming(folder), forget_empty(folder):
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=_prefix(last), dir=folder) as place:
            partial = Path(place) / "new"
            partial.mkdir()
            usual = _mode(partial)
            yield partial
            files = sorted(partial.iterdir(), key=lambda file: file.name == last)
            for file in files:
                _flush(file)
                if file.name not in replaced:
                    require_no_folder(folder / file.name)
                    file.chmod(_kept_mode(folder / file.name, usual & _FILES))
            with hold(folder):
                (folder / last).unlink(missing_ok=True)
                for name in replaced:
                    if (folder / name).exists():
                        (folder / name).rename(Path(place) / f"former-{name}")  # deleted with the temporary folder
                for file in files:
                    file.replace(folder / file.name)
            _flush(folder)


def delete_leftovers(folder: Path, last: str) -> None:
    """Delete what ``write_together`` left where it was killed; nobody else may be writing these files in the folder.

    Args:
        folder: As there; need not exist.
        last: As there.
    """
    for place in folder.glob(f"{PARTIAL}*"):
        if place.name.startswith(_prefix(last)):
            shutil.rmtree(place, ignore_errors=True)


def find_leftover(folder: Path, last: str) -> Path | None:
    """The file ``last`` of a set that ``write_together`` was about to move up when it was killed; None without one."""
    return next(iter(sorted(folder.glob(f"{_prefix(last)}*/new/{last}"))), None)


def _prefix(last: str) -> str:
    """Beginning of the name of the temporary folder of a set."""
    return f"{PARTIAL}{last[-_ENDING:]}-"


def require_no_folder(path: Path) -> None:
    """Refuse to write a file where a folder is, before anything is moved or deleted.

    Raises:
        IsADirectoryError: It names ``path``.
    """
    if path.is_dir():
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))


def require_ending(path: Path, *endings: str) -> None:
    """Refuse to write a file under the name of another kind of file, which an overwrite would replace.

    Raises:
        ConfigError: The name has none of the endings, upper and lower case being alike.
    """
    if path.suffix.lower() not in endings:
        raise ConfigError(f"{str(path)!r} does not end in {' or '.join(endings)}; name a file that does")


def file_sha256(path: Path) -> str:
    """SHA-256 of a file, as hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextmanager
def hold(path: Path, wait: bool = True) -> Iterator[None]:
    """Hold the lock of a file or a folder, which is there; the system frees it when a process ends.

    Others that hold it wait meanwhile; where the system or the disk knows no such lock, nothing is kept out.

    Args:
        path: The file or folder.
        wait: Wait for another that holds it.

    Raises:
        BlockingIOError: Another holds it, and ``wait`` is off.
        FileNotFoundError: It is not there, or whoever held it before has deleted it.
    """
    if sys.platform == "win32":
        yield
        return
    with ExitStack() as held:
        for _ in range(_TRIES):
            held.close()  # the lock of what was deleted and made again before it was ours keeps nobody out
            handle = held.enter_context(_locked(path, wait))
            if os.path.samestat(os.fstat(handle), os.stat(path)):
                break
        yield


@contextmanager
def hold_made(folder: Path) -> Iterator[None]:
    """Make a folder and hold its lock, for a folder that whoever holds it deletes in the end.

    Raises:
        BlockingIOError: Another holds it.
    """
    with ExitStack() as held:
        while True:
            folder.mkdir(parents=True, exist_ok=True)
            try:
                held.enter_context(hold(folder, wait=False))
                break
            except FileNotFoundError:
                pass  # deleted just now by the one before
        yield


@contextmanager
def _locked(path: Path, wait: bool) -> Iterator[int]:
    """Lock what lies at a path now; gives the handle."""
    handle = os.open(path, os.O_RDONLY)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise
        except OSError:
            pass  # a file system without locks
        yield handle
    finally:
        with suppress(OSError):
            fcntl.flock(handle, fcntl.LOCK_UN)  # a process that was forked meanwhile has the handle too
        os.close(handle)


def _mode(path: Path) -> int:
    """Who may read and write a file or a folder; of one that was just made, as the user's umask has it."""
    return stat.S_IMODE(path.stat().st_mode)


def _kept_mode(path: Path, usual: int) -> int:
    """Mode of what is replaced; the usual one where nothing is. Some writers make files that nobody else may read."""
    try:
        return _mode(path)
    except OSError:
        return usual


@contextmanager
def _naming(path: Path) -> Iterator[None]:
    """Let errors of the disk name the file that was wanted, those that a library put into words of its own too."""
    try:
        yield
    except OSError as error:
        named = [str(name) for name in (error.filename, error.filename2) if name is not None]
        if named and not any(PARTIAL in name for name in named):
            raise
        number = error.errno or errno.EIO
        raise OSError(number, error.strerror or str(error) or os.strerror(number), str(path)) from error
    except MedvolError:
        raise
    except Exception as error:
        number = next((number for number in _REFUSALS if os.strerror(number) in str(error)), 0)
        if not number:
            raise
        raise OSError(number, os.strerror(number), str(path)) from error


def _flush(path: Path) -> None:
    """Wait until the disk has a file, or a folder's names where the system can wait for them."""
    folder = path.is_dir()
    with suppress(*((OSError,) if folder else ())):
        handle = os.open(path, os.O_RDONLY if folder else os.O_RDWR)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)

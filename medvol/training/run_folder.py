"""The folder of a run: it belongs to one experiment, and its checkpoints are called by a word."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from medvol.core.atomic_files import hold_made
from medvol.core.empty_folders import forget_empty
from medvol.core.errors import CheckpointError, ConfigError, MedvolError
from medvol.core.model_folder import is_model_folder, require_replaceable
from medvol.core.ownership import SETTINGS_MARK, is_own
from medvol.evaluation.run_files import CASES_FILE, MASKS_FOLDER, SUMMARY_FILE, is_evaluated
from medvol.inference.summary import is_summed_up
from medvol.training.former_run import CHECKPOINTS, put_back, recover

_WORDS = ("best", "last")
_MODEL = "model"
_PREDICTIONS = "predictions"
VOLUMES = (MASKS_FOLDER, f"{_PREDICTIONS}/*")
"""What data could be read from."""

_RESULTS = (f"{CHECKPOINTS}/*.ckpt", _MODEL, "rollouts/step-*.png", CASES_FILE, SUMMARY_FILE, *VOLUMES)
"""What would be taken for the next experiment's."""

_NOTES = (
    "fit.yaml",
    "validate.yaml",
    "test.yaml",
    "predict.yaml",
    "metrics/version_*",
    "events.out.tfevents.*",
)
"""What else medvol writes; a start that came to nothing leaves it."""


class RunFolder:
    """Folder in which a fit writes; validations and tests of the same experiment write there too.

    Args:
        path: The folder, which need not exist.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)

    def find(self, patterns: tuple[str, ...] = (*_RESULTS, *_NOTES)) -> list[Path]:
        """What medvol wrote in it; files of the user's own are not among it."""
        wrote = self._wrote()
        found = {path: path.relative_to(self.path).parts[0] for pattern in patterns for path in self.path.glob(pattern)}
        return sorted(path for path, name in found.items() if wrote.get(name, True) and _is_results(path, name))

    def find_checkpoint(self, word: str) -> Path:
        """File that a value of ``--ckpt_path`` stands for.

        Args:
            word: ``best`` or ``last`` of this folder, or a path.

        Raises:
            CheckpointError: The folder holds no such checkpoint, or the word has no meaning here.
        """
        if word == "hpc" or word.lower().startswith("registry"):
            raise CheckpointError(
                f"--ckpt_path {word} names a store of Lightning's that medvol does not use; give last, best or the "
                "path of a .ckpt file"
            )
        if word not in _WORDS:
            return Path(word)
        path = self.path / CHECKPOINTS / f"{word}.ckpt"
        if not path.is_file():
            others = ", ".join(map(str, self.find((f"{CHECKPOINTS}/*.ckpt",))))
            remedy = f"there is {others}" if others else "nor any other; a fit without --ckpt_path starts anew"
            raise CheckpointError(f"--ckpt_path {word}: there is no checkpoint {path}; {remedy}")
        return path

    def holds(self, path: Path) -> bool:
        """Whether a file lies in the folder."""
        return path.resolve().is_relative_to(self.path.resolve())

    def require_free(self) -> None:
        """Refuse to fit where another fit left its results.

        Raises:
            ConfigError: There are some.
        """
        found = self.find(_RESULTS)
        if not found:
            return
        names = ", ".join(str(path.relative_to(self.path)) for path in found[:4])
        saved = [word for word in ("last", "best") if (self.path / CHECKPOINTS / f"{word}.ckpt").is_file()]
        go_on = f"go on with that run (--ckpt_path {saved[0]}), " if saved else ""
        raise ConfigError(
            f"the run folder {str(self.path)!r} holds a run already ({names}{', ...' if len(found) > 4 else ''}): "
            f"{go_on}choose another folder (--trainer.default_root_dir FOLDER), or delete that run first (--overwrite)"
        )

    def require_model_place(self) -> None:
        """Refuse to fit where the model would replace something else.

        Raises:
            CheckpointError: There is something of that name that is no model folder.
        """
        require_replaceable(self.path / _MODEL)

    def _wrote(self) -> dict[str, bool]:
        """Whether medvol wrote what has a name that a person may have given to something else."""
        evaluated = is_evaluated(self.path)
        return {
            **dict.fromkeys((CASES_FILE, SUMMARY_FILE, MASKS_FOLDER), evaluated),
            _PREDICTIONS: is_summed_up(self.path / _PREDICTIONS),
            _MODEL: is_model_folder(self.path / _MODEL),
        }

    @contextmanager
    def claim(self, began: Callable[[], bool]) -> Iterator[None]:
        """Keep other fits out of the folder; the system ends the claim with the process, however it ends.

        Args:
            began: Whether the fit has trained a step. One that is refused before leaves nothing behind, and one that
                ends before in any way puts back the run that it would have replaced.

        Raises:
            ConfigError: Another fit writes in it.
        """
        with forget_empty(self.path / "metrics"), self._locked(self.path / CHECKPOINTS), self._undone(began):
            yield

    def recover(self) -> None:
        """Put back what a fit set aside that was killed before its first step."""
        recover(self.path)

    @contextmanager
    def _undone(self, began: Callable[[], bool]) -> Iterator[None]:
        before = set(self.find())
        try:
            yield
        except BaseException as error:
            if not began():
                if isinstance(error, MedvolError):
                    delete([path for path in self.find() if path not in before])
                put_back(self.path)
            raise

    @contextmanager
    def _locked(self, folder: Path) -> Iterator[None]:
        with ExitStack() as lock:
            try:
                lock.enter_context(hold_made(folder))
            except BlockingIOError as error:
                raise ConfigError(
                    f"another fit writes in {str(self.path)!r}; wait for it, or choose another folder "
                    "(--trainer.default_root_dir FOLDER)"
                ) from error
            try:
                for partial in folder.glob(".partial-*"):  # of a fit that was killed while it saved
                    partial.unlink()
                yield
            finally:
                with suppress(OSError):
                    folder.rmdir()


def delete(paths: list[Path]) -> None:
    """Delete files and folders."""
    for path in paths:
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)


def _is_results(path: Path, name: str) -> bool:
    """Whether it is no person's own: readings are a folder beside predictions, and configurations may lack the mark."""
    if name == _PREDICTIONS:
        return path.is_file()
    return path.suffix != ".yaml" or is_own(path, SETTINGS_MARK)

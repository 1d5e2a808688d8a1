"""Publishing a model folder on the Hugging Face hub, when somebody asks for it and never otherwise."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from huggingface_hub import CommitOperationAdd, HfApi
from huggingface_hub.errors import LocalTokenNotFoundError

from medvol.core.containment import contained, say
from medvol.core.errors import CheckpointError, ConfigError
from medvol.core.model_folder import ADAPTER_CONFIG, CONFIG
from medvol.core.sidecar import SIDECAR, read_sidecar
from medvol.core.training_data import TRAINING_DATA_FILE
from medvol.training.base_model import CARD_FILE, read_licence

_MESSAGE = "Upload with medvol push"
_NAME = re.compile(r"\w[\w.-]{0,95}/\w[\w.-]{0,95}", re.ASCII)


@dataclass(frozen=True)
class Publication:
    """What would be published, and where.

    Args:
        folder: The model folder.
        repository: ``owner/name``.
        files: Paths within the folder, in order.
        remarks: What to look at before.
    """

    folder: Path
    repository: str
    files: Sequence[str]
    remarks: Sequence[str]

    def describe(self) -> list[str]:
        """Lines: every file with its size, then the remarks."""
        sizes = [(self.folder / name).stat().st_size for name in self.files]
        rows = [f"{size:>15,} bytes  {name}" for name, size in zip(self.files, sizes, strict=True)]
        return [*rows, f"{sum(sizes):>15,} bytes  to {self.repository}", *self.remarks]

    def upload(self, private: bool, api: Any = None) -> str:
        """Create the repository where there is none, and upload all files in one commit.

        Args:
            private: Whether a new repository is seen by its owner alone; one that is there stays as it is.
            api: Of the hub; its own when None.

        Returns:
            Address of the commit.

        Raises:
            ConfigError: The hub refuses, or cannot be reached.
        """
        api = HfApi() if api is None else api
        operations = [CommitOperationAdd(name, str(self.folder / name)) for name in self.files]
        with contained(self._explain):
            api.create_repo(self.repository, private=private, exist_ok=True)
            found = api.create_commit(self.repository, operations, commit_message=_MESSAGE)
        return str(found.commit_url)

    def _explain(self, error: BaseException) -> ConfigError:
        """What the hub said; a network that fails says so in the words of a library that changes now and then."""
        if isinstance(error, LocalTokenNotFoundError):
            return ConfigError("you are not logged in to the hub; run `hf auth login` first")
        return ConfigError(f"the hub did not take {str(self.folder)!r} as {self.repository}: {say(error)}")


def plan_publication(folder: str | Path, repository: str) -> Publication:
    """Look at a model folder that somebody wants to publish; nothing is sent.

    Args:
        folder: A model folder, or that of an adapter.
        repository: ``owner/name``.

    Raises:
        CheckpointError: It is no model folder, or a file is not as medvol wrote it, or is no plain file.
        ConfigError: The name is none of the hub.
    """
    folder = Path(folder)
    if not any((folder / mark).is_file() for mark in (SIDECAR, CONFIG, ADAPTER_CONFIG)):
        raise CheckpointError(f"{str(folder)!r} is not a model folder; `medvol convert` makes one of a checkpoint")
    if _NAME.fullmatch(repository) is None:
        raise ConfigError(f"{repository!r} is no name of the hub; give owner/name")
    read_sidecar(folder)
    paths = sorted(path for path in folder.rglob("*") if not path.is_dir() or path.is_symlink())
    odd = next((path for path in paths if path.is_symlink() or not path.is_file()), None)
    if odd is not None:
        raise CheckpointError(f"{str(odd)!r} is no plain file; a model folder holds files only")
    names = [path.relative_to(folder).as_posix() for path in paths]
    return Publication(folder, repository, names, list(_remarks(folder, names)))


def _remarks(folder: Path, names: Sequence[str]) -> list[str]:
    remarks = []
    if CARD_FILE not in names:
        remarks.append(f"there is no card, {CARD_FILE}, that says what this model is; `medvol convert` writes one")
    elif not read_licence(folder / CARD_FILE):
        remarks.append(f"no licence is chosen: write it in {CARD_FILE}, under `license` and in its last section")
    if TRAINING_DATA_FILE in names:
        remarks.append(f"{TRAINING_DATA_FILE} holds every word of the training queries; look at it if they name people")
    return remarks

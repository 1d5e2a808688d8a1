"""How Lightning writes and reads checkpoint files here: whole or not at all, and through one gate."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Trainer
from lightning.pytorch.plugins import TorchCheckpointIO

from medvol.core.atomic_files import write_whole
from medvol.core.errors import CheckpointError

Read = Callable[[str | Path], dict[str, Any]]
"""Reads a checkpoint onto the CPU, or refuses it."""


class CheckpointFiles(TorchCheckpointIO):
    """Writes beside the target and renames; reads with one function, whatever the settings say.

    Lightning's own way writes into the folder for temporary files and moves from there, which is a copy when that
    folder lies on another device: a stop or a full disk then leaves part of a checkpoint under its final name.

    Args:
        read: Reads them.
    """

    def __init__(self, read: Read) -> None:
        self.read = read

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None) -> None:
        """Write a checkpoint; until the last moment the name holds the former one.

        Raises:
            CheckpointError: The disk does not take it; what was there stays.
        """
        if storage_options is not None:
            raise TypeError("storage_options have no meaning for files")
        try:
            with write_whole(Path(path)) as partial, partial.open("wb") as file:
                torch.save(checkpoint, file)
        except (OSError, RuntimeError) as error:
            reason = _find_os_error(error)
            if reason is None:
                raise
            raise CheckpointError(
                f"cannot write the checkpoint {str(path)!r}: {reason.strerror}; an earlier one of that name "
                "is complete. Make room, then go on with --ckpt_path last"
            ) from error

    def load_checkpoint(
        self, path: str | Path, map_location: Callable[..., Any] | None = None, weights_only: bool | None = None
    ) -> dict[str, Any]:
        """Read a checkpoint onto the CPU."""
        return self.read(path)


def use_whole_files(trainer: Trainer, read: Read) -> None:
    """Let a trainer that writes checkpoints in Lightning's usual way write them in this one."""
    if type(trainer.strategy.checkpoint_io) is TorchCheckpointIO:
        trainer.strategy.checkpoint_io = CheckpointFiles(read)


def _find_os_error(error: BaseException | None) -> OSError | None:
    """What the system said, beneath what torch made of it."""
    while error is not None and not isinstance(error, OSError):
        error = error.__cause__ or error.__context__
    return error

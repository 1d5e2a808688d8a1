"""Export: a trained policy as a model folder with what it was trained on, a card, and hashes of its files."""

from __future__ import annotations

from pathlib import Path

from medvol.core.errors import CheckpointError
from medvol.core.roles import TrainablePolicy
from medvol.core.training.card import CARD_FILE, write_card
from medvol.core.training_data import TRAINING_DATA_FILE, TrainingData, write_training_data
from medvol.core.whole_file import write_whole_folder

_MARKS = ("config.json", TRAINING_DATA_FILE)
"""A folder with one of these is a model folder, which an export replaces."""


def require_replaceable(folder: Path) -> None:
    """Refuse to replace what is no model folder.

    Raises:
        CheckpointError: There is something else of that name.
    """
    if folder.exists() and not any((folder / mark).is_file() for mark in _MARKS):
        raise CheckpointError(f"{str(folder)!r} is there already and is no model folder; choose another folder")


def export_model(policy: TrainablePolicy, folder: Path, data: TrainingData | None) -> None:
    """Write a model folder as a whole: what the policy saves, ``training_data.json`` and ``README.md``.

    Args:
        policy: Saved as it is now; from here on it knows what it was trained on.
        folder: An older model folder of that name is replaced.
        data: What it was trained on; None when that is not known, which the card then says.

    Raises:
        CheckpointError: There is something of that name that is no model folder.
    """
    require_replaceable(folder)
    policy.training_data = data
    with write_whole_folder(folder) as partial:
        partial.rmdir()  # a policy makes the folder that it saves to
        policy.save(partial)
        if data is not None:
            write_training_data(partial, data)
        write_card(partial / CARD_FILE, data or TrainingData())

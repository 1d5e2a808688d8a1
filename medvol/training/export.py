"""Export: a trained policy as a model folder with what it was trained on, a card, and hashes of its files."""

from __future__ import annotations

from pathlib import Path

from medvol.core.atomic_files import write_whole_folder
from medvol.core.model_folder import require_replaceable
from medvol.core.roles import TrainablePolicy
from medvol.core.training_data import TrainingData
from medvol.training.card import CARD_FILE, write_card


def export_model(policy: TrainablePolicy, folder: Path, data: TrainingData | None) -> None:
    """Write a model folder as a whole: what the policy saves, and ``README.md``.

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
        write_card(partial / CARD_FILE, data or TrainingData())

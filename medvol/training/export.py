"""Export: a trained policy as a model folder with what it was trained on, a card, and hashes of its files."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from medvol.core.atomic_files import write_whole_folder
from medvol.core.errors import RecordError
from medvol.core.model_folder import require_replaceable
from medvol.core.roles import TrainablePolicy
from medvol.core.specs import describe_component, rebuild
from medvol.core.training_data import TrainingData
from medvol.evaluation.archive import Evaluation, read_evaluation
from medvol.evaluation.run_files import SUMMARY_FILE
from medvol.training.base_model import CARD_FILE, find_base
from medvol.training.card import CardFacts, write_card

log = logging.getLogger(__name__)

NETWORK = "network."
"""Start of the names of the policy's weights in a module."""


def export_model(
    policy: TrainablePolicy,
    folder: Path,
    data: TrainingData | None,
    run: Path | None = None,
    adapter: bool = False,
) -> None:
    """Write a model folder as a whole: what the policy saves, and ``README.md``.

    Args:
        policy: Saved as it is now; from here on it knows what it was trained on.
        folder: An older model folder of that name is replaced.
        data: What it was trained on; None when that is not known, which the card then says.
        run: Folder of the run; an evaluation of these weights in it goes into the card.
        adapter: Write the adapter alone, without the weights that it was trained beside.

    Raises:
        CheckpointError: There is something of that name that is no model folder.
        ConfigError: There is no adapter.
    """
    require_replaceable(folder)
    policy.training_data = data
    with write_whole_folder(folder) as partial:
        partial.rmdir()  # a policy makes the folder that it saves to
        policy.save(partial, adapter)
        facts = CardFacts(data or TrainingData(), find_base(policy), find_evaluation(policy, run), adapter)
        write_card(partial / CARD_FILE, facts)


def copy_policy(policy: TrainablePolicy, weights: Mapping[str, torch.Tensor]) -> TrainablePolicy:
    """Build the policy anew with weights of a module, on this device and whole, where the first one is sharded."""
    fresh: TrainablePolicy = rebuild(describe_component(policy))
    own = {name.removeprefix(NETWORK): value for name, value in weights.items() if name.startswith(NETWORK)}
    fresh.load_for_training().load_state_dict(own)
    return fresh


def find_evaluation(policy: TrainablePolicy, run: Path | None) -> Evaluation | None:
    """The evaluation in the folder of a run, when it is of the weights that the policy has."""
    if run is None or not (run / SUMMARY_FILE).is_file():
        return None
    try:
        evaluation = read_evaluation(run)
    except RecordError as error:
        log.warning("%s; the card has no scores", error)
        return None
    tested, own = (_weights_of(identity) for identity in (evaluation.summary.get("policy"), policy.identity()))
    if own is None or tested != own:
        log.warning("%s is not known to be of these weights, and is left out of the card", run / SUMMARY_FILE)
        return None
    return evaluation


def _weights_of(identity: Any) -> Any:
    return identity.get("sha256") if isinstance(identity, Mapping) else None

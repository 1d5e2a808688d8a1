"""Gathering what a policy is trained on while it is: words and traits of every batch, and an account of the run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from importlib.metadata import version
from typing import Any

from lightning.pytorch import Trainer

from medvol.core.publishers import owner_of
from medvol.core.roles import CaseDataset, TrainablePolicy
from medvol.core.training_data import Cases, Stage, TrainingData
from medvol.core.types import Case
from medvol.evaluation.ranks import gather_ranks
from medvol.guarding.cases import list_patients
from medvol.training.augmentation import CARRIERS
from medvol.training.data import CaseDataModule
from medvol.training.volume_loader import group_by_volume

TRAINING_DATA = "medvol_training_data"
"""Key of the training data in a checkpoint."""

_MOST_NAMES = 100_000
"""Scans whose names are remembered, so that none is measured twice; forgotten together when there are more."""


class Gatherer:
    """Notes what a policy is trained on. Doing so twice changes nothing, so a resumed run knows what a whole one would.

    Args:
        module: Class name of the module that trains.
        reword: True when carrier phrases are put before training queries.
    """

    def __init__(self, module: str, reword: bool) -> None:
        self.module = module
        self.reword = reword
        self.data: TrainingData | None = None
        """What is known so far, without the run that goes on."""
        self._measured: set[str] = set()

    def start(self, policy: TrainablePolicy) -> None:
        """Go on from what the policy knew before, unless a checkpoint has said it."""
        if self.data is None:
            self.data = (policy.training_data or TrainingData()).join(TrainingData())
        if self.reword:
            for carrier in CARRIERS:
                self.data.meet_query(carrier)

    def meet(self, cases: Sequence[Case]) -> None:
        """Note the queries of a volume, and its traits when it was not measured lately."""
        assert self.data is not None, "start made it"
        for case in cases:
            self.data.meet_query(case.query.text)
        volume = cases[0].volume
        if volume.volume_id and volume.volume_id in self._measured:
            return
        self.data.meet_scan(volume)
        if len(self._measured) >= _MOST_NAMES:
            self._measured.clear()
        self._measured.add(volume.volume_id)

    def finish(self, trainer: Trainer, scores: Mapping[str, float]) -> TrainingData:
        """What is known with the run up to now, all ranks together; every rank has to call it.

        Args:
            trainer: Tells steps and data.
            scores: Means of the last validation.
        """
        own = self.data or TrainingData()
        joined = TrainingData(stages=own.stages)
        for part in gather_ranks(own):
            joined = joined.join(part)
        joined.add_stage(self._describe_run(trainer, scores))
        return joined

    def restore(self, checkpoint: Mapping[str, Any]) -> TrainingData | None:
        """Go on from a checkpoint, whose last run is the one that goes on.

        Returns:
            What the checkpoint's weights were trained on; None when it does not tell.

        Raises:
            CheckpointError: What it holds cannot be used.
        """
        data = read_trained_on(checkpoint)
        if data is not None:
            self.data = replace(data.join(TrainingData()), stages=data.stages[:-1])
        return data

    def _describe_run(self, trainer: Trainer, scores: Mapping[str, float]) -> Stage:
        data = getattr(trainer, "datamodule", None)
        splits = data.splits if isinstance(data, CaseDataModule) else {}
        return Stage(
            self.module,
            trainer.global_step,
            getattr(trainer.lightning_module, "seed", None),
            version("medvol-r1"),
            describe_cases(splits.get("train")),
            describe_cases(splits.get("val")),
            {name: round(float(value), 4) for name, value in sorted(scores.items())},
        )


def read_trained_on(checkpoint: Mapping[str, Any]) -> TrainingData | None:
    """What the weights of a checkpoint were trained on; None when it does not tell.

    Raises:
        CheckpointError: What it holds cannot be used.
    """
    content = checkpoint.get(TRAINING_DATA)
    return None if content is None else TrainingData.from_dict(content, "the checkpoint")


def describe_cases(dataset: CaseDataset | None) -> Cases | None:
    """A data set in a few words; reads no scan."""
    if dataset is None:
        return None
    split = getattr(dataset, "split", "")
    parts: Sequence[CaseDataset] = getattr(dataset, "parts", [dataset])
    return Cases(
        type(dataset).__name__,
        owner_of(dataset),
        split if isinstance(split, str) else "",
        len(dataset),
        len(group_by_volume(dataset)),
        dataset.drawn,
        dataset.licence,
        len({name for part in parts if not part.drawn for name in list_patients(part)}),
    )

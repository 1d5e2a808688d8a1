"""CaseDataModule: batches of volumes, each with the queries asked about it."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

from lightning.pytorch import LightningDataModule
from lightning.pytorch.trainer.states import TrainerFn
from torch.utils.data import DataLoader

from medvol.checking.leakage import shared_files, shared_patients, shared_scans
from medvol.core.errors import ConfigError, DatasetError
from medvol.core.ranges import require_whole
from medvol.core.roles import CaseDataset
from medvol.guarding.cases import count_cases
from medvol.training.volume_augmentation import VolumeAugmentation
from medvol.training.volume_loader import VolumeGroups, VolumeLoader, VolumeSampler, group_by_volume, load_volumes

log = logging.getLogger(__name__)


def require_enough_volumes(batch_size: int, ranks: int) -> None:
    """Refuse more devices than volumes in a batch.

    Raises:
        ConfigError: There are more.
    """
    if batch_size < ranks:
        raise ConfigError(
            f"data.batch_size is {batch_size}, and {ranks} devices share each batch, so that some would never have "
            f"anything to do; set data.batch_size to {ranks} or more, or use fewer devices"
        )


class CaseDataModule(LightningDataModule):
    """The cases to train, validate, test and predict on.

    Args:
        train: Cases to learn from.
        val: Cases for choices, such as the best checkpoint.
        test: Cases to report on.
        predict: Cases to answer; they need no masks.
        batch_size: Volumes a training batch, of all devices together: each device gets its part of every batch, so
            training goes the same way on any number of devices. At least one a device.
        queries_per_volume: Draw at most this many training queries a volume each time; all when None.
        num_workers: Processes that prepare cases; 0 prepares them in the main one.
        seed: Seed of the order. None takes that of the experiment (``seed_everything``); in Python it is 0.
        augment: Transforms of the training volumes, see ``VolumeAugmentation``; needs torchio.
        sides_may_swap: Declares that no training query names a side, so that ``augment`` may exchange left and right.
        allow_shared_patients: Accept a patient, or a scan, that is in two of train, val and test.
        compare_scans: Also refuse scans that look the same, turned and resampled copies included; reads every volume
            once at the start.
    """

    def __init__(
        self,
        train: CaseDataset | None = None,
        val: CaseDataset | None = None,
        test: CaseDataset | None = None,
        predict: CaseDataset | None = None,
        batch_size: int = 1,
        queries_per_volume: int | None = None,
        num_workers: int = 0,
        seed: int | None = None,
        allow_shared_patients: bool = False,
        augment: list[dict[str, Any]] | None = None,
        sides_may_swap: bool = False,
        compare_scans: bool = False,
    ) -> None:
        super().__init__()
        require_whole(1, batch_size=batch_size, queries_per_volume=queries_per_volume)
        require_whole(0, num_workers=num_workers, seed=seed)
        self.splits = {"train": train, "val": val, "test": test, "predict": predict}
        self.batch_size = batch_size
        self.queries_per_volume = queries_per_volume
        self.num_workers = num_workers
        self.seed = 0 if seed is None else seed
        self.allow_shared_patients = allow_shared_patients
        self.augment = augment
        self.sides_may_swap = sides_may_swap
        self.augmentation = VolumeAugmentation(augment, sides_may_swap) if augment else None
        self.compare_scans = compare_scans

    def setup(self, stage: str) -> None:
        """Check the splits before a run starts.

        Raises:
            ConfigError: The one that the stage needs is missing, a transform cannot be built, or there are more devices
                than volumes in a batch.
            DatasetError: It is empty, or two splits share a patient or a scan and ``allow_shared_patients`` is off.
        """
        stage = TrainerFn(stage).value
        needed = {"fit": "train", "validate": "val"}.get(stage, stage)
        dataset = self.splits[needed]
        if dataset is None:
            raise ConfigError(f"medvol {stage} needs the {needed} cases; set data.init_args.{needed} to a data set")
        ranks = self.trainer.world_size if self.trainer else 1
        if stage == "fit":
            require_enough_volumes(self.batch_size, ranks)
        for name in ("train", "val") if stage == "fit" else (needed,):
            chosen = self.splits[name]
            if chosen is not None and count_cases(chosen) == 0:
                raise DatasetError(f"the {name} data set holds no case; look at data.init_args.{name}")
        if self.trainer is None or self.trainer.is_global_zero:
            self._tell_dropped(("train", "val") if stage == "fit" else (needed,))
        if stage == "fit" and self.augmentation is not None:
            self.augmentation.load()
        if not self.allow_shared_patients:
            self._refuse_leaks()

    def _tell_dropped(self, names: Sequence[str]) -> None:
        for name in names:
            data = self.splits[name]
            if data is not None and data.dropped:
                counts = ", ".join(f"{form} {count}" for form, count in sorted(data.dropped.items()))
                log.warning("%s: relational questions without a single answer, not asked: %s", name, counts)

    def _refuse_leaks(self) -> None:
        splits = {name: data for name, data in self.splits.items() if data is not None and name != "predict"}
        patients = shared_patients(splits)
        if patients:
            first, second = patients[0].splits
            count = sum(leak.splits == (first, second) for leak in patients)
            raise DatasetError(
                f"{first} and {second} share {count} patient(s), for example {patients[0].names[0]!r}; "
                "split by patient, or set allow_shared_patients"
            )
        leaks = shared_files(splits) or (shared_scans(splits) if self.compare_scans else [])
        across = [leak for leak in leaks if leak.splits[0] != leak.splits[1]]
        if across:
            raise DatasetError(
                f"{across[0]}, and {len(across) - 1} more such pair(s); leave one of each out (`medvol check` lists "
                "them), or set allow_shared_patients"
            )

    def train_dataloader(self) -> DataLoader[Any]:
        """Shuffled volumes."""
        loader = self._loader("train", self.batch_size, self.queries_per_volume, shuffle=True)
        loader.trained = self._count_trained if self.trainer else None
        return loader

    def val_dataloader(self) -> DataLoader[Any] | list[Any]:
        """All cases, in order; nothing when there are none to validate on."""
        return [] if self.splits["val"] is None else self._loader("val")

    def test_dataloader(self) -> DataLoader[Any]:
        """All cases, in order."""
        return self._loader("test")

    def predict_dataloader(self) -> DataLoader[Any]:
        """All cases, in order."""
        return self._loader("predict")

    def _loader(
        self, split: str, batch_size: int | None = None, queries: int | None = None, shuffle: bool = False
    ) -> VolumeLoader:
        """A loader of this process's part; of one volume for each process at a time when no batch size is given."""
        dataset = self.splits[split]
        assert dataset is not None, "setup has looked"
        rank, ranks = (self.trainer.global_rank, self.trainer.world_size) if self.trainer else (0, 1)
        volumes = group_by_volume(dataset)
        sampler = VolumeSampler(volumes, batch_size or ranks, queries, shuffle, self.seed, rank, ranks)
        groups = VolumeGroups(dataset, self.augmentation if split == "train" else None, self.seed)
        return load_volumes(groups, sampler, self.num_workers)

    def _count_trained(self) -> int:
        """Batches of the epoch that the fit is done with: not one that a step is busy with, nor one drawn ahead."""
        assert self.trainer is not None, "train_dataloader has looked"
        progress: Any = self.trainer.fit_loop.epoch_loop.batch_progress.current
        done = int(progress.processed)
        return done if done < self.trainer.num_training_batches else 0

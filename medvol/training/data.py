"""CaseDataModule: batches of volumes, each with the queries asked about it."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from typing import Any, cast

import numpy as np
from lightning.pytorch import LightningDataModule
from lightning.pytorch.trainer.states import TrainerFn
from torch.utils.data import DataLoader, Dataset, Sampler

from medvol.checking.leakage import shared_files, shared_patients, shared_scans
from medvol.core.errors import ConfigError, DatasetError
from medvol.core.ranges import require_least
from medvol.core.roles import CaseDataset
from medvol.core.types import Case
from medvol.guarding.guard import list_volumes, look_up
from medvol.terminal.stops import leave_stops_to_main
from medvol.training.volume_augmentation import VolumeAugmentation

log = logging.getLogger(__name__)


def group_by_volume(dataset: CaseDataset) -> list[list[int]]:
    """Indices of the cases of each volume, in order of first appearance; reads no volume."""
    groups: dict[str, list[int]] = {}
    for index, key in enumerate(list_volumes(dataset)):
        groups.setdefault(key, []).append(index)
    return list(groups.values())


class VolumeBatchSampler(Sampler[list[list[int]]]):
    """Yields batches of volumes, each a list of case indices.

    The order depends on the seed and the epoch only, so a resumed run sees what an uninterrupted one would. Setting
    ``skipped`` leaves out the first batches of the next pass.

    Args:
        groups: Case indices of each volume.
        batch_size: Volumes a batch.
        queries_per_volume: Draw at most this many cases of a volume each time; all when None.
        shuffle: Draw the order of volumes anew in every epoch.
        seed: Seed of the draws.
    """

    def __init__(
        self, groups: Sequence[list[int]], batch_size: int, queries_per_volume: int | None, shuffle: bool, seed: int
    ) -> None:
        self.groups = groups
        self.batch_size = batch_size
        self.queries_per_volume = queries_per_volume
        self.shuffle = shuffle
        self.seed = seed
        self.epoch = 0
        self.skipped = 0

    @property
    def sampler(self) -> VolumeBatchSampler:
        """Itself: where Lightning looks for ``set_epoch``."""
        return self

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch whose order comes next; Lightning calls it."""
        self.epoch = epoch

    def __len__(self) -> int:
        return -(-len(self.groups) // self.batch_size)

    def __iter__(self) -> Iterator[list[list[int]]]:
        rng = np.random.default_rng([self.seed, self.epoch])
        order = rng.permutation(len(self.groups)) if self.shuffle else np.arange(len(self.groups))
        chosen = [self._draw(self.groups[i], rng) for i in order]
        first, self.skipped = self.skipped * self.batch_size, 0
        for start in range(first, len(chosen), self.batch_size):
            yield chosen[start : start + self.batch_size]

    def _draw(self, group: list[int], rng: np.random.Generator) -> list[int]:
        if self.queries_per_volume is None or len(group) <= self.queries_per_volume:
            return group
        return sorted(rng.choice(group, self.queries_per_volume, replace=False).tolist())


class VolumeGroups(Dataset[list[Case]]):
    """Looks a case data set up by lists of indices, each of one volume.

    Args:
        dataset: The cases.
        augmentation: Applied to the cases of a volume together; None leaves them as they are.
        seed: Seed of the augmentation; with the epoch and the first index it decides a draw.
    """

    def __init__(self, dataset: CaseDataset, augmentation: VolumeAugmentation | None = None, seed: int = 0) -> None:
        self.dataset = dataset
        self.augmentation = augmentation
        self.seed = seed
        self.epoch = 0

    def __getitem__(self, indices: list[int]) -> list[Case]:
        cases = [look_up(self.dataset, index) for index in indices]
        if self.augmentation is None:
            return cases
        return self.augmentation.apply(cases, (self.seed, self.epoch, indices[0]))


class VolumeLoader(DataLoader[Any]):
    """A loader that remembers how far it came in an epoch, so that a run stopped in the middle goes on there.

    Its batch sampler is a ``VolumeBatchSampler``.
    """

    _yielded = 0
    trained: Callable[[], int] | None = None
    """Tells how many batches of the epoch a fit has trained on; without a fit, those handed out count."""

    def __iter__(self) -> Any:
        sampler = cast(VolumeBatchSampler, self.batch_sampler)
        cast(VolumeGroups, self.dataset).epoch = sampler.epoch
        if self.trained:  # Lightning gives the state back too late where it counts batches to plan the schedule
            sampler.skipped = self.trained()
        self._yielded = sampler.skipped
        for batch in super().__iter__():
            self._yielded += 1
            yield batch
        self._yielded = 0

    def state_dict(self) -> dict[str, int]:
        """Batches of the current epoch that are done with; a finished epoch is followed by a whole one."""
        done = self.trained() if self.trained else self._yielded
        return {"yielded": done % len(cast(VolumeBatchSampler, self.batch_sampler))}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Go on after the batches that were done with."""
        cast(VolumeBatchSampler, self.batch_sampler).skipped = state["yielded"]


def keep_batch(batch: list[list[Case]]) -> list[list[Case]]:
    """Collate nothing: volumes differ in size."""
    return batch


class CaseDataModule(LightningDataModule):
    """The cases to train, validate, test and predict on.

    Args:
        train: Cases to learn from.
        val: Cases for choices, such as the best checkpoint.
        test: Cases to report on.
        predict: Cases to answer; they need no masks.
        batch_size: Volumes a training batch.
        queries_per_volume: Draw at most this many training queries a volume each time; all when None.
        num_workers: Processes that prepare cases; 0 prepares them in the main one.
        seed: Seed of the order.
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
        seed: int = 0,
        allow_shared_patients: bool = False,
        augment: list[dict[str, Any]] | None = None,
        sides_may_swap: bool = False,
        compare_scans: bool = False,
    ) -> None:
        super().__init__()
        require_least(1, batch_size=batch_size, queries_per_volume=queries_per_volume)
        require_least(0, num_workers=num_workers)
        self.splits = {"train": train, "val": val, "test": test, "predict": predict}
        self.batch_size = batch_size
        self.queries_per_volume = queries_per_volume
        self.num_workers = num_workers
        self.seed = seed
        self.allow_shared_patients = allow_shared_patients
        self.augment = augment
        self.sides_may_swap = sides_may_swap
        self.augmentation = VolumeAugmentation(augment, sides_may_swap) if augment else None
        self.compare_scans = compare_scans

    def setup(self, stage: str) -> None:
        """Check the splits before a run starts.

        Raises:
            ConfigError: The one that the stage needs is missing, or a transform cannot be built.
            DatasetError: It is empty, or two splits share a patient or a scan and ``allow_shared_patients`` is off.
        """
        stage = TrainerFn(stage).value
        needed = {"fit": "train", "validate": "val"}.get(stage, stage)
        dataset = self.splits[needed]
        if dataset is None:
            raise ConfigError(f"medvol {stage} needs the {needed} cases; set data.init_args.{needed} to a data set")
        for name in ("train", "val") if stage == "fit" else (needed,):
            chosen = self.splits[name]
            if chosen is not None and len(chosen) == 0:
                raise DatasetError(f"the {name} data set holds no case; look at data.init_args.{name}")
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
        self, split: str, batch_size: int = 1, queries: int | None = None, shuffle: bool = False
    ) -> VolumeLoader:
        dataset = self.splits[split]
        assert dataset is not None, "setup has looked"
        sampler = VolumeBatchSampler(group_by_volume(dataset), batch_size, queries, shuffle, self.seed)
        groups = VolumeGroups(dataset, self.augmentation if split == "train" else None, self.seed)
        return VolumeLoader(
            groups,
            batch_sampler=sampler,
            collate_fn=keep_batch,
            num_workers=self.num_workers,
            worker_init_fn=leave_stops_to_main,
        )

    def _count_trained(self) -> int:
        """Batches of the epoch that the fit is done with: not one that a step is busy with, nor one drawn ahead."""
        assert self.trainer is not None, "train_dataloader has looked"
        progress: Any = self.trainer.fit_loop.epoch_loop.batch_progress.current
        done = int(progress.processed)
        return done if done < self.trainer.num_training_batches else 0

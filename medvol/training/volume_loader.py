"""Batches of volumes, each with the queries asked about it, in an order that a stopped run takes up again."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from multiprocessing import active_children
from typing import Any, cast

import numpy as np
from torch.utils.data import DataLoader, Dataset, DistributedSampler, get_worker_info

from medvol.core.errors import DatasetError, MedvolError
from medvol.core.roles import CaseDataset
from medvol.core.types import Case
from medvol.guarding.cases import list_volumes, look_up
from medvol.terminal.stops import end_with_main, leave_stops_to_main
from medvol.training.volume_augmentation import VolumeAugmentation


def group_by_volume(dataset: CaseDataset) -> list[list[int]]:
    """Indices of the cases of each volume, in order of first appearance; reads no volume."""
    groups: dict[str, list[int]] = {}
    for index, key in enumerate(list_volumes(dataset)):
        groups.setdefault(key, []).append(index)
    return list(groups.values())


class VolumeSampler(DistributedSampler[list[list[int]]]):
    """Yields this rank's part of every batch of volumes, each volume a list of case indices.

    The batches depend on the seed and the epoch only, whatever the number of ranks, so a resumed run sees what an
    uninterrupted one would. The volumes of a batch are dealt out in order: the first rank has the first of them, no
    volume is in two parts, and a part is empty when there are fewer volumes than ranks. Every rank sees as many
    batches. Setting ``skipped`` leaves out the first batches of the next pass.

    It is a ``DistributedSampler`` in name, which is what Lightning leaves alone.

    Args:
        groups: Case indices of each volume.
        batch_size: Volumes a batch, of all ranks together.
        queries_per_volume: Draw at most this many cases of a volume each time; all when None.
        shuffle: Draw the order of volumes anew in every epoch.
        seed: Seed of the draws.
        rank: Whose part it is.
        ranks: How many share a batch.
    """

    def __init__(
        self,
        groups: Sequence[list[int]],
        batch_size: int,
        queries_per_volume: int | None,
        shuffle: bool,
        seed: int,
        rank: int = 0,
        ranks: int = 1,
    ) -> None:
        self.groups = groups
        self.batch_size = batch_size
        self.queries_per_volume = queries_per_volume
        self.shuffle = shuffle
        self.seed = seed
        self.rank = rank
        self.ranks = ranks
        self.epoch = 0
        self.skipped = 0

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
            yield deal(chosen[start : start + self.batch_size], self.rank, self.ranks)

    def _draw(self, group: list[int], rng: np.random.Generator) -> list[int]:
        if self.queries_per_volume is None or len(group) <= self.queries_per_volume:
            return group
        return sorted(rng.choice(group, self.queries_per_volume, replace=False).tolist())


def deal(batch: list[list[int]], rank: int, ranks: int) -> list[list[int]]:
    """Part of a batch that a rank gets: neighbours, and one more or less than another rank's."""
    first, last = (-(-len(batch) * place // ranks) for place in (rank, rank + 1))
    return batch[first:last]


@dataclass(frozen=True)
class Refusal:
    """Takes the place of a batch that could not be prepared; torch would make a long text of the error."""

    error: MedvolError


class VolumeGroups(Dataset[Any]):
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

    def __getitem__(self, batch: list[list[int]]) -> list[list[Case]] | Refusal:
        """The cases of a batch; in another process an error of ours is handed over, and raised in the main one."""
        try:
            return [self._look_up(indices) for indices in batch]
        except MedvolError as error:
            if get_worker_info() is None:
                raise
            return Refusal(error)

    def _look_up(self, indices: list[int]) -> list[Case]:
        cases = [look_up(self.dataset, index) for index in indices]
        _require_one_volume(cases)
        if self.augmentation is None:
            return cases
        return self.augmentation.apply(cases, (self.seed, self.epoch, indices[0]))


def _require_one_volume(cases: Sequence[Case]) -> None:
    """Refuse cases that a data set says are about one volume, where they are not: they are shown one drawing of it.

    Raises:
        DatasetError: Two of them have different volumes.
    """
    for case in cases[1:]:
        one, other = cases[0].volume, case.volume
        if (one.volume_id, one.shape) != (other.volume_id, other.shape):
            raise DatasetError(
                f"cases {cases[0].case_id} and {case.case_id} have one volume_key, and different volumes "
                f"({one.volume_id!r:.80} and {other.volume_id!r:.80}); give each volume a key of its own"
            )


class VolumeLoader(DataLoader[Any]):
    """A loader that remembers how far it came in an epoch, so that a run stopped in the middle goes on there.

    Its sampler is a ``VolumeSampler``, whose items are whole batches.
    """

    _yielded = 0
    trained: Callable[[], int] | None = None
    """Tells how many batches of the epoch a fit has trained on; without a fit, those handed out count."""

    def __iter__(self) -> Any:
        sampler = cast(VolumeSampler, self.sampler)
        cast(VolumeGroups, self.dataset).epoch = sampler.epoch
        if self.trained:  # Lightning gives the state back too late where it counts batches to plan the schedule
            sampler.skipped = self.trained()
        self._yielded = sampler.skipped
        others = set(active_children())
        batches = super().__iter__()
        end_with_main(worker for worker in active_children() if worker not in others)
        for batch in batches:
            if isinstance(batch, Refusal):
                raise batch.error
            self._yielded += 1
            yield batch
        self._yielded = 0

    def state_dict(self) -> dict[str, int]:
        """Batches of the current epoch that are done with; a finished epoch is followed by a whole one."""
        done = self.trained() if self.trained else self._yielded
        return {"yielded": done % len(cast(VolumeSampler, self.sampler))}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Go on after the batches that were done with."""
        cast(VolumeSampler, self.sampler).skipped = state["yielded"]


def load_volumes(groups: VolumeGroups, sampler: VolumeSampler, workers: int) -> VolumeLoader:
    """Loader of a sampler's batches.

    Args:
        groups: Where they are looked up.
        sampler: Says which.
        workers: Processes that prepare cases; 0 prepares them in the main one.
    """
    return VolumeLoader(
        groups,
        batch_size=None,
        sampler=sampler,
        collate_fn=keep_batch,
        num_workers=workers,
        worker_init_fn=leave_stops_to_main,
    )


def keep_batch(batch: Any) -> Any:
    """Collate nothing: volumes differ in size."""
    return batch

"""CasePass: the cases that a run meets, each once on all its processes, and what became of each."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from math import inf
from typing import Any, Generic, TypeVar

from torch.utils.data import DistributedSampler

from medvol.core.types import Case
from medvol.evaluation.case_ids import require_new
from medvol.evaluation.ranks import count_ranks, gather_ranks, own_rank

Row = TypeVar("Row")


class CasePass(Generic[Row]):
    """One pass over a data set, with a row of results for every case.

    Args:
        loader: Hands out the batches; None when there is none yet.
    """

    def __init__(self, loader: Any = None) -> None:
        sampler = getattr(loader, "sampler", None)
        dealt = getattr(sampler, "dataset", None) if isinstance(sampler, DistributedSampler) else None
        self._groups = inf if dealt is None else len(dealt)  # a sampler of our own deals none out twice
        self._met = 0
        self._ids: set[str] = set()
        self._rows: list[tuple[int, str, Row]] = []

    def take(self, batch: Iterable[list[Case]]) -> Iterator[list[Case]]:
        """Groups of a batch that are this process's to work on.

        Raises:
            DatasetError: A case has the id of an earlier one.
        """
        for cases in batch:
            place = self._met * count_ranks() + own_rank()
            self._met += 1
            if place >= self._groups:
                continue  # torch's sampler deals the first groups out again, so that every process has as many
            for case in cases:
                require_new(case.case_id, self._ids)
                self._ids.add(case.case_id)
            yield cases

    def add(self, batch_idx: int, case: Case, row: Row) -> None:
        """Note what became of a case."""
        self._rows.append((batch_idx, case.case_id, row))

    def gather(self) -> list[Row]:
        """Rows of all processes in the order of the data set, of which each batch holds one part a process.

        Raises:
            DatasetError: Two processes met cases of one id.
        """
        parts = enumerate(gather_ranks(self._rows))
        placed = [(batch, rank, case_id, row) for rank, part in parts for batch, case_id, row in part]
        found: dict[str, Row] = {}
        for _, _, case_id, row in sorted(placed, key=lambda own: own[:2]):
            require_new(case_id, found)
            found[case_id] = row
        return list(found.values())

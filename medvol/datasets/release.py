"""ReleaseDataset: what published data sets have in common."""

from __future__ import annotations

import logging
from collections import Counter
from functools import cached_property
from pathlib import Path

from medvol.core.errors import ConfigError, DatasetError
from medvol.core.grounding.queries import Phrasing, target_name
from medvol.datasets.found_targets import Found, find_targets, found_rows
from medvol.datasets.layout import LabelledScan, Layout, ScanFiles
from medvol.datasets.nifti import NiftiDataset, check_known
from medvol.datasets.nifti_table import TargetRow
from medvol.datasets.splits import Split, complete_split, read_split_file
from medvol.datasets.table_problems import Problem
from medvol.datasets.target_index import TargetIndex
from medvol.datasets.target_problems import find_target_problems

_MANY = 50
"""Label maps from which on a start that looks through all of them is announced."""

_log = logging.getLogger(__name__)


class ReleaseDataset(NiftiDataset):
    """A published data set, in the folders and under the names that it is released in.

    A subclass gives the layout; everything else is common to all of them.

    Args:
        root: Folder of the release.
        split: Part of the patients; the publisher's own parts where there are some; ``all`` takes everyone.
        val_share: Share of the patients that are validated on, where the release names none.
        test_share: Share that is tested on, where the release names none.
        split_file: JSON with lists of cases under ``train``, ``val`` and ``test``, instead of the release's own split.
        patients: Take only these of the split.
        exclude_patients: Leave these out, for example those that another data set shares.
        targets: Take only these targets; all when None.
        relations: Also ask relational questions, where they have one answer; ``dropped`` counts those that have none.
        absent_share: Share of the cases that ask for something the scan does not show, as far as there is such.
        min_voxels: Smaller targets are left out.
        phrasing: ``train`` asks with training phrasings, ``held_out`` with phrasings no training query uses, ``both``
            asks for each target once with each.
        phrasings_per_target: Ask for each target in this many different ways.
        seed: Seed of the split, the phrasings and the choice of absent targets.
        query_bank: YAML file of further phrasings, or None.
        index: Folder that remembers what the label maps hold, so that they are looked through once; None looks through
            them at every start.
        cache_size: Scans kept in memory.
        cache_folder: See ``NiftiDataset``.
        cache_gib: See ``NiftiDataset``.
    """

    layout: Layout
    """Where the scans lie and what the labels mean."""

    def __init__(
        self,
        root: str,
        split: Split = "all",
        val_share: float = 0.0,
        test_share: float = 0.2,
        split_file: str | None = None,
        patients: list[str] | None = None,
        exclude_patients: list[str] | None = None,
        targets: list[str] | None = None,
        relations: bool = False,
        absent_share: float = 0.0,
        min_voxels: int = 200,
        phrasing: Phrasing = "train",
        phrasings_per_target: int = 1,
        seed: int = 0,
        query_bank: str | None = None,
        index: str | None = None,
        cache_size: int = 4,
        cache_folder: str | None = None,
        cache_gib: float = 50.0,
    ) -> None:
        super().__init__(
            root,
            split=split,
            patients=patients,
            exclude_patients=exclude_patients,
            targets=targets,
            min_voxels=min_voxels,
            phrasing=phrasing,
            phrasings_per_target=phrasings_per_target,
            seed=seed,
            query_bank=query_bank,
            cache_size=cache_size,
            cache_folder=cache_folder,
            cache_gib=cache_gib,
            relations=relations,
            absent_share=absent_share,
        )
        if min(val_share, test_share) < 0 or val_share + test_share > 1:
            raise ConfigError(
                f"val_share and test_share are shares that sum to at most 1; got {val_share} and {test_share}"
            )
        self.val_share = val_share
        self.test_share = test_share
        self.split_file = split_file
        self.index = index

    @cached_property
    def dropped(self) -> dict[str, int]:
        """How many relational questions of each form were left out because they have no single answer."""
        total: Counter[str] = Counter()
        for _, found in self._found:
            total.update(found.dropped)
        return dict(total)

    @cached_property
    def _found(self) -> list[tuple[ScanFiles, Found]]:
        """Every scan of the chosen patients with its targets."""
        root = Path(self.root)
        if not root.is_dir():
            raise DatasetError(f"{root}: there is no such folder; set root to the folder of the release")
        scans = self._chosen(self.layout.find(root))
        index = TargetIndex(self.index)
        if self.index is None and len(scans) >= _MANY:
            _log.warning("%s: looking through %d label maps; set index to do that once", root, len(scans))
        settings = f"{type(self).__name__} {self.min_voxels} {self.relations}"
        return [(scan, index.get(scan, settings, lambda scan=scan: self._look(scan))) for scan in scans]  # type: ignore[misc]

    def find_problems(self) -> list[Problem]:
        """Scans of the chosen patients without a target, and names of targets that none of them shows."""
        if not Path(self.root).is_dir():
            return []
        rows = [row for scan, found in self._found for row in found_rows(scan, found)]
        return find_target_problems(rows, [scan.case for scan, _ in self._found], self.root, self.min_voxels)

    def _look(self, scan: ScanFiles) -> Found:
        return find_targets(scan, self.min_voxels, self.relations)

    def _rows(self) -> list[TargetRow]:
        """What the chosen scans show, and what they are asked for although they do not show it."""
        return [row for scan, found in self._found for row in found_rows(scan, found, self.layout.never_shown)]

    def _take(self, rows: list[TargetRow]) -> list[tuple[int, TargetRow]]:
        """Rows of the named targets, each with its number; patients have been chosen."""
        names = None if self.targets is None else {target_name(target) for target in self.targets}
        check_known("targets", names or (), {row.target for row in rows if self._is_asked(row)})
        kept = None if names is None else names | {row.target for row in rows if row.target in self.layout.never_shown}
        return [(n, row) for n, row in enumerate(rows, start=1) if kept is None or row.target in kept]

    def _open(self, row: TargetRow) -> LabelledScan:
        return self.layout.open(row, self._disk)

    def _chosen(self, scans: list[ScanFiles]) -> list[ScanFiles]:
        """Scans of the split and the named patients, so that no other label map is read."""
        everyone = {scan.patient for scan in scans}
        check_known("patients", [*(self.patients or []), *(self.exclude_patients or [])], everyone)
        chosen = self._deal(scans)[self.split] if self.split != "all" else everyone
        chosen = chosen & set(self.patients if self.patients is not None else everyone)
        return [scan for scan in scans if scan.patient in chosen - set(self.exclude_patients or [])]

    def _deal(self, scans: list[ScanFiles]) -> dict[str, set[str]]:
        published = {scan.patient: scan.split for scan in scans}
        if self.split_file is not None:
            named = read_split_file(Path(self.split_file))
            published = {scan.patient: named.get(scan.case, "") for scan in scans}
            if not any(published.values()):
                raise DatasetError(
                    f"{self.split_file}: it names no case of {self.root}; cases are like {scans[0].case}"
                )
        return complete_split(published, self.val_share, self.test_share, self.seed)

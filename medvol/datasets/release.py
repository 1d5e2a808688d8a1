"""ReleaseDataset: what published data sets have in common."""

from __future__ import annotations

import logging
from collections import Counter
from functools import cached_property
from pathlib import Path

from medvol.core.errors import DatasetError
from medvol.datasets.layout import LabelledScan, Layout, ScanFiles, one_each
from medvol.datasets.nifti_table import TargetRow
from medvol.datasets.scans import Member, ScanDataset
from medvol.datasets.settings import CacheSettings, PatientSettings, QuestionSettings
from medvol.datasets.shown_targets import Found, find_targets, found_rows
from medvol.datasets.splits import Split
from medvol.datasets.table_problems import Problem
from medvol.datasets.target_index import TargetIndex
from medvol.datasets.target_problems import describe_unlabelled, find_target_problems

_MANY = 50
"""Label maps from which on a start that looks through all of them is announced."""

_log = logging.getLogger(__name__)


class ReleaseDataset(ScanDataset):
    """A published data set, in the folders and under the names that it is released in.

    A subclass gives the layout; everything else is common to all of them.

    Args:
        root: Folder of the release.
        index: Folder that remembers what the label maps hold, so that they are looked through once; None looks through
            them at every start.
    """

    layout: Layout
    """Where the scans lie and what the labels mean."""

    def __init__(
        self,
        root: str,
        split: Split = "all",
        seed: int = 0,
        index: str | None = None,
        patients: PatientSettings = PatientSettings(),
        questions: QuestionSettings = QuestionSettings(),
        cache: CacheSettings = CacheSettings(),
    ) -> None:
        super().__init__(root=root, split=split, seed=seed, patients=patients, questions=questions, cache=cache)
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
        everything, unlabelled = self._files
        for modality in {scan.modality for scan in everything}:  # CT and MR of TotalSegmentator are numbered alike
            one_each((scan.case, scan.image) for scan in everything if scan.modality == modality)
        scans = self._chosen(everything)
        if unlabelled:
            _log.warning("%s: %s", root, describe_unlabelled(unlabelled))
        index = TargetIndex(self.index)
        if self.index is None and len(scans) >= _MANY:
            _log.warning("%s: looking through %d label maps; set index to do that once", root, len(scans))
        settings = f"{type(self).__name__} {self.questions.min_voxels} {self.questions.relations}"
        return [(scan, index.get(scan, settings, lambda scan=scan: self._look(scan))) for scan in scans]  # type: ignore[misc]

    @cached_property
    def _files(self) -> tuple[list[ScanFiles], list[Path]]:
        """Scans with a label map, and those without."""
        return self.layout.find(Path(self.root))

    def find_problems(self) -> list[Problem]:
        """Scans without a label map, chosen ones without a target, and names of targets that none of those shows."""
        if not Path(self.root).is_dir():
            return []
        rows = [row for scan, found in self._found for row in found_rows(scan, found)]
        cases = [scan.case for scan, _ in self._found]
        return find_target_problems(rows, cases, self._files[1], self.root, self.questions.min_voxels)

    def _look(self, scan: ScanFiles) -> Found:
        return find_targets(scan, self.questions.min_voxels, self.questions.relations)

    def _open(self, row: TargetRow) -> LabelledScan:
        return self.layout.open(row, self._disk)

    def _rows(self) -> list[tuple[int, TargetRow]]:
        """What the chosen scans show, and what they are asked for although they do not show it."""
        never_shown = self.layout.never_shown
        rows = [row for scan, found in self._found for row in found_rows(scan, found, never_shown)]
        names = self._choose_targets(rows)
        kept = None if names is None else names | {row.target for row in rows if row.target in never_shown}
        return [(n, row) for n, row in enumerate(rows, start=1) if kept is None or row.target in kept]

    def _chosen(self, scans: list[ScanFiles]) -> list[ScanFiles]:
        """Scans of the split and the named patients, so that no other label map is read."""
        patients = self._choose_patients(Member(scan.patient, scan.case, scan.split) for scan in scans)
        return [scan for scan in scans if scan.patient in patients]

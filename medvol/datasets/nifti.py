"""NiftiDataset: scans and masks on disk, from a folder or a table."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from functools import cached_property
from pathlib import Path

from medvol.core.errors import DatasetError
from medvol.core.ranges import require_choice
from medvol.core.types import Modality
from medvol.datasets.layout import LabelledScan, NiftiScan
from medvol.datasets.nifti_folder import FolderRows, find_rows
from medvol.datasets.nifti_table import TargetRow, read_table
from medvol.datasets.scans import Member, ScanDataset
from medvol.datasets.settings import CacheSettings, PatientSettings, QuestionSettings
from medvol.datasets.splits import Split
from medvol.datasets.table_problems import Problem, find_table_problems
from medvol.datasets.target_problems import find_target_problems


class NiftiDataset(ScanDataset):
    """Scans and masks on disk: NIfTI, NRRD or MHA.

    Without a table the folder is searched for pairs of ``*image*`` and ``*label*`` or ``*mask*``, with the names of
    the labels in ``labels.json``. A table (see ``nifti_table.COLUMNS``) says more: patients, modalities, queries, and
    in its column ``absent`` what a scan does not show. A fifth of the patients are validated on.

    Args:
        root: Folder that the paths of the table are relative to, or the folder to search.
        table: CSV or JSON table, or None to search the folder.
        modality: Modality of scans for which the table says nothing.
        modalities: Take only scans of these modalities; needs the table's column ``modality``.
        target: What the masks show, where neither a table nor ``labels.json`` says it.
    """

    def __init__(
        self,
        root: str,
        table: str | None = None,
        split: Split = "all",
        seed: int = 0,
        modality: Modality | None = None,
        modalities: list[Modality] | None = None,
        target: str | None = None,
        patients: PatientSettings = PatientSettings(val_share=0.2),
        questions: QuestionSettings = QuestionSettings(),
        cache: CacheSettings = CacheSettings(),
    ) -> None:
        super().__init__(root=root, split=split, seed=seed, patients=patients, questions=questions, cache=cache)
        if modality is not None:
            require_choice(Modality, modality=modality)
        for name in modalities or []:
            require_choice(Modality, modalities=name)
        self.table = table
        self.modality = modality
        self.modalities = modalities
        self.target = target

    @property
    def dropped(self) -> Mapping[str, int]:
        """How many relational questions of each form the chosen scans of a folder have no single answer for."""
        if self.table is not None:
            return {}
        chosen = {self.patient_id(index) for index in range(len(self))}
        return +sum((unclear for patient, unclear in self._folder.dropped.items() if patient in chosen), Counter[str]())

    def find_problems(self) -> list[Problem]:
        """Every bad row of the table; of a folder, scans without a label map, and scans and names without a target."""
        root = Path(self.root)
        if self.table is not None:
            return find_table_problems(Path(self.table), root) if root.is_dir() else []
        if not root.is_dir():
            return []
        found = self._folder
        return find_target_problems(found.rows, found.dropped, found.unlabelled, self.root, self.questions.min_voxels)

    @property
    def _states_absence(self) -> bool:
        return self.table is not None

    def _open(self, row: TargetRow) -> LabelledScan:
        return NiftiScan(row, self._disk)

    def _rows(self) -> list[tuple[int, TargetRow]]:
        rows = self._everything()
        others = () if self.table is not None else self._folder.dropped
        patients = self._choose_patients((Member(row.patient, row.case) for row in rows), others)
        targets = self._choose_targets(rows)
        return [
            (number, row)
            for number, row in enumerate(rows, start=1)
            if row.patient in patients
            and (targets is None or row.target in targets)
            and (self.modalities is None or row.modality in self.modalities)
        ]

    def _everything(self) -> list[TargetRow]:
        """Every target of the folder or table."""
        root = Path(self.root)
        if not root.is_dir():
            raise DatasetError(f"{root}: there is no such folder; set root to the folder of the scans")
        if self.table is None:
            return self._folder.rows
        rows = read_table(Path(self.table), root)
        return [replace(row, modality=row.modality or self.modality) for row in rows]

    @cached_property
    def _folder(self) -> FolderRows:
        asked = self.questions
        return find_rows(Path(self.root), self.modality, self.target, asked.min_voxels, asked.relations)

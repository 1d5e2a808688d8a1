"""NiftiDataset: scans and masks on disk, from a folder or a table."""

from __future__ import annotations

import zlib
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, get_args

import numpy as np

from medvol.core.cache import LastUsed
from medvol.core.errors import ConfigError, DatasetError, MedvolError
from medvol.core.grounding.queries import RELEASE_BANK, Phrasing, QueryBank, target_name
from medvol.core.reprs import describe_settings
from medvol.core.roles import CaseDataset
from medvol.core.types import Case, Modality, Query
from medvol.datasets.layout import LabelledScan, NiftiScan
from medvol.datasets.nifti_folder import find_rows
from medvol.datasets.nifti_table import TargetRow, read_table
from medvol.datasets.splits import Split, split_patients
from medvol.datasets.table_problems import Problem, find_table_problems
from medvol.datasets.target_problems import find_target_problems

if TYPE_CHECKING:
    from medvol.core.imaging.slice_cache import SliceCache


@dataclass(frozen=True)
class _Question:
    """One case before its volume is read."""

    case_id: str
    row: TargetRow
    query: Query


class NiftiDataset(CaseDataset):
    """Scans and masks on disk: NIfTI, NRRD or MHA.

    Without a table the folder is searched for pairs of ``*image*`` and ``*label*`` or ``*mask*``, with the names of
    the labels in ``labels.json``. A table (see ``nifti_table.COLUMNS``) says more: patients, modalities, queries.

    A case whose mask does not hold its label is refused by row. Only what a table's column ``absent`` or
    ``absent_share`` asks for is a question about something that the scan does not show.

    Args:
        root: Folder that the paths of the table are relative to, or the folder to search.
        table: CSV or JSON table, or None to search the folder.
        split: Part of the patients; ``all`` takes everyone.
        fractions: Shares of the patients in train, val and test; who is where depends on ``seed`` and the names of the
            patients.
        patients: Take only these of the split.
        exclude_patients: Leave these out.
        targets: Take only these targets.
        modalities: Take only scans of these modalities; needs the table's column ``modality``.
        modality: Modality of scans for which the table says nothing.
        target: What the masks show, where neither a table nor ``labels.json`` says it.
        min_voxels: Smaller targets of a folder are left out.
        relations: Also ask a folder's scans for the only, largest, smallest, highest, lowest and nearest of their
            findings, and for the one of a pair with or without them, where there is one answer.
        absent_share: Share of a folder's cases that ask for something the scan does not show, as far as ``labels.json``
            names such.
        phrasing: ``train`` asks with training phrasings, ``held_out`` with phrasings no training query uses, ``both``
            asks for each target once with each. A table's own query is asked as it is, once.
        phrasings_per_target: Ask for each target in this many different ways.
        seed: Seed of the split and the phrasings.
        query_bank: YAML file of further phrasings, or None.
        cache_size: Scans kept in memory.
        cache_folder: Folder that keeps scans and label maps unpacked, slice by slice, for later epochs and runs; None
            reads the files each time.
        cache_gib: Bound on the size of that folder, in GiB; what was used longest ago is dropped.
    """

    surface_tolerances_mm: ClassVar[Mapping[str, float]] = {}
    """Tolerance of the surface Dice of targets for which a challenge sets one."""

    def __init__(
        self,
        root: str,
        table: str | None = None,
        split: Split = "all",
        fractions: tuple[float, float, float] = (0.6, 0.2, 0.2),
        patients: list[str] | None = None,
        exclude_patients: list[str] | None = None,
        targets: list[str] | None = None,
        modalities: list[Modality] | None = None,
        modality: Modality | None = None,
        target: str | None = None,
        min_voxels: int = 200,
        phrasing: Phrasing = "train",
        phrasings_per_target: int = 1,
        seed: int = 0,
        query_bank: str | None = None,
        cache_size: int = 4,
        relations: bool = False,
        absent_share: float = 0.0,
        cache_folder: str | None = None,
        cache_gib: float = 50.0,
    ) -> None:
        for name, value, choices in (("split", split, get_args(Split)), ("phrasing", phrasing, get_args(Phrasing))):
            if value not in choices:
                raise ConfigError(f"{name} is one of {', '.join(choices)}; got {value!r}")
        if len(fractions) != 3 or min(fractions) < 0 or not np.isclose(sum(fractions), 1):
            raise ConfigError(f"fractions are three shares (train, val, test) that sum to 1; got {tuple(fractions)}")
        if not 0 <= absent_share < 1:
            raise ConfigError(f"absent_share is a share of the cases, from 0 to below 1; got {absent_share}")
        self.root = root
        self.table = table
        self.split = split
        self.fractions = fractions
        self.patients = patients
        self.exclude_patients = exclude_patients
        self.targets = targets
        self.modalities = modalities
        self.modality = modality
        self.target = target
        self.min_voxels = min_voxels
        self.phrasing = phrasing
        self.phrasings_per_target = phrasings_per_target
        self.seed = seed
        self.query_bank = query_bank
        self.cache_size = cache_size
        self.relations = relations
        self.absent_share = absent_share
        self.cache_folder = cache_folder
        self.cache_gib = cache_gib
        self._scans: LastUsed[LabelledScan] = LastUsed(cache_size)

    def __repr__(self) -> str:
        known = vars(self).get("_questions")  # read at first use, and not for this
        return describe_settings(self, "" if known is None else f"{len(known)} cases")

    def __len__(self) -> int:
        return len(self._questions)

    def __getitem__(self, index: int) -> Case:
        question = self._questions[index]
        row = question.row
        try:
            scan = self._scans.get(self.volume_key(index), lambda: self._open(row))
            mask = scan.mask(row)
        except MedvolError as error:
            error.args = (f"{row.where}: {error}" if row.where else str(error),)
            raise
        tolerance = self.surface_tolerances_mm.get(row.target)
        return Case(question.case_id, scan.volume, question.query, mask, row.patient, surface_tolerance_mm=tolerance)

    def volume_key(self, index: int) -> str:
        """Path of the scan of a case, with the modality it is read as."""
        row = self._questions[index].row
        return f"{row.image}:{row.modality or 'guessed'}"

    def patient_id(self, index: int) -> str:
        """Patient of a case."""
        return self._questions[index].row.patient

    def scan_file(self, index: int) -> Path:
        """File of the scan of a case."""
        return self._questions[index].row.image

    def case_source(self, index: int) -> str:
        """Row of the table that a case is written in; empty without a table."""
        return self._questions[index].row.where

    @property
    def dropped(self) -> Mapping[str, int]:
        """How many relational questions of each form the chosen scans of a folder have no single answer for."""
        if self.table is not None:
            return {}
        chosen = {question.row.patient for question in self._questions}
        return +sum((unclear for patient, unclear in self._folder[1].items() if patient in chosen), Counter[str]())

    def find_problems(self) -> list[Problem]:
        """Every bad row of the table; of a folder, scans and names without a target."""
        root = Path(self.root)
        if self.table is not None:
            return find_table_problems(Path(self.table), root) if root.is_dir() else []
        rows, dropped = self._folder if root.is_dir() else ([], {})
        return find_target_problems(rows, dropped, self.root, self.min_voxels)

    @cached_property
    def _disk(self) -> SliceCache | None:
        from medvol.core.imaging.slice_cache import SliceCache

        return None if self.cache_folder is None else SliceCache(self.cache_folder, self.cache_gib)

    @cached_property
    def _questions(self) -> list[_Question]:
        rows = self._draw_absent(self._take(self._rows()))
        by_scan: dict[tuple[Path, Modality | None], list[tuple[int, TargetRow]]] = {}
        for number, row in rows:
            by_scan.setdefault((row.image, row.modality), []).append((number, row))
        if not rows:
            raise DatasetError(
                f"{self.root}: no case is left in split {self.split!r}; choose other patients, targets, modalities or "
                "fractions"
            )
        bank = QueryBank.load(RELEASE_BANK, *([self.query_bank] if self.query_bank else []))
        return [question for group in by_scan.values() for n, row in group for question in self._ask(n, row, bank)]

    def _open(self, row: TargetRow) -> LabelledScan:
        """Read the scan of a target."""
        return NiftiScan(row, self._disk)

    def _rows(self) -> list[TargetRow]:
        """Every target of the folder or table."""
        root = Path(self.root)
        if not root.is_dir():
            raise DatasetError(f"{root}: there is no such folder; set root to the folder of the scans")
        if self.table is None:
            return self._folder[0]
        rows = read_table(Path(self.table), root)
        return [replace(row, modality=row.modality or self.modality) for row in rows]

    @cached_property
    def _folder(self) -> tuple[list[TargetRow], dict[str, Counter[str]]]:
        return find_rows(Path(self.root), self.modality, self.target, self.min_voxels, self.relations)

    def _take(self, rows: list[TargetRow]) -> list[tuple[int, TargetRow]]:
        """Rows of the split and the selections, each with its number."""
        everyone = {row.patient for row in rows}
        check_known("patients", [*(self.patients or []), *(self.exclude_patients or [])], everyone)
        chosen = self._parts(rows)[self.split] if self.split != "all" else everyone
        chosen = chosen & set(self.patients if self.patients is not None else everyone)
        chosen = chosen - set(self.exclude_patients or [])
        targets = None if self.targets is None else {target_name(target) for target in self.targets}
        check_known("targets", targets or (), {row.target for row in rows if self._is_asked(row)})
        return [
            (number, row)
            for number, row in enumerate(rows, start=1)
            if row.patient in chosen
            and (targets is None or row.target in targets)
            and (self.modalities is None or row.modality in self.modalities)
        ]

    def _is_asked(self, row: TargetRow) -> bool:
        """True for a target that a scan shows, and for an absent one that is asked for all the same."""
        return not row.absent or self.table is not None or self.absent_share > 0

    def _draw_absent(self, rows: list[tuple[int, TargetRow]]) -> list[tuple[int, TargetRow]]:
        """Keep so many of a folder's absent targets that they make up their share of each scan's cases."""
        if self.table is not None:
            return rows
        kept = {number for number, row in rows if not row.absent}
        scans: dict[str, list[tuple[int, TargetRow]]] = {}
        for number, row in rows:
            scans.setdefault(row.case, []).append((number, row))
        for case, own in scans.items():
            hidden = [number for number, row in own if row.absent]
            rng = np.random.default_rng([self.seed, zlib.crc32(case.encode())])
            wanted = int((len(own) - len(hidden)) * self.absent_share / (1 - self.absent_share) + rng.random())
            kept |= set(rng.permutation(hidden)[:wanted].tolist())
        return [(number, row) for number, row in rows if number in kept]

    def _parts(self, rows: list[TargetRow]) -> dict[str, set[str]]:
        """Patients of each split."""
        return split_patients((row.patient for row in rows), self.fractions, self.seed)

    def _ask(self, number: int, row: TargetRow, bank: QueryBank) -> list[_Question]:
        """Questions about one target."""
        name = f"{row.case}_{number if row.number is None else row.number:04d}"
        if row.query:
            return [_Question(name, row, Query(row.query, row.target, "absent" if row.absent else "free"))]
        rng = np.random.default_rng([self.seed, number])
        questions: list[_Question] = []
        for held_out in {"train": (False,), "held_out": (True,), "both": (False, True)}[self.phrasing]:
            queries = bank.phrasings(row.target, held_out, row.modality)
            for i in rng.permutation(len(queries))[: self.phrasings_per_target]:
                query = replace(queries[i], target=row.target, meaning=row.meaning)
                query = replace(query, kind="absent") if row.absent else query
                questions.append(_Question(f"{name}_{len(questions)}", row, query))
        return questions


def check_known(what: str, names: Iterable[str], known: set[str]) -> None:
    """Refuse a name that the data do not have.

    Raises:
        DatasetError: There is one; the message names it and some that there are.
    """
    unknown = sorted(set(names) - known)
    if unknown:
        some = ", ".join(sorted(known)[:8])
        raise DatasetError(f"{what}: {unknown[0]!r} is not in the data; there are {len(known)}: {some or 'none'} ...")

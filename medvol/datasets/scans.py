"""ScanDataset: scans with masks on disk, asked about their targets; where they come from is the subclass's."""

from __future__ import annotations

import zlib
from abc import abstractmethod
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, get_args
from unicodedata import normalize

import numpy as np

from medvol.core.errors import ConfigError, DatasetError, MedvolError
from medvol.core.last_used import LastUsed
from medvol.core.notices import tell_once
from medvol.core.ranges import require_whole
from medvol.core.reprs import describe_settings
from medvol.core.roles import CaseDataset
from medvol.core.types import Case, Modality, Query
from medvol.datasets.layout import LabelledScan
from medvol.datasets.nifti_table import TargetRow
from medvol.datasets.reader_anchor import require_within
from medvol.datasets.settings import CacheSettings, PatientSettings, QuestionSettings
from medvol.datasets.splits import Split, complete_split, read_split_file
from medvol.queries.query_bank import QueryBank, target_name

_SHOWN = 8
"""Names that an error lists."""

if TYPE_CHECKING:
    from medvol.imaging.cache.slice_cache import SliceCache


@dataclass(frozen=True)
class _Question:
    """One case before its volume is read."""

    case_id: str
    row: TargetRow
    query: Query


@dataclass(frozen=True)
class Member:
    """One scan, when patients are dealt to splits.

    Args:
        patient: Whose it is.
        case: Its name, as a split file may say it.
        part: Part that the publisher put it into; empty when there is none.
    """

    patient: str
    case: str
    part: str = ""


class ScanDataset(CaseDataset):
    """Scans and masks on disk.

    A case whose mask does not hold its label is refused. Only what is said to be absent, or ``absent_share`` asks for,
    is a question about something that the scan does not show.

    Args:
        root: Folder of the scans.
        split: Part of the patients; ``all`` takes everyone.
        seed: Seed of the split, the phrasings and the choice of absent targets.
        patients: Whose scans are taken, and how patients are dealt to the splits.
        questions: What is asked, and how.
        cache: What is kept of scans that were read.
    """

    surface_tolerances_mm: ClassVar[Mapping[str, float]] = {}
    """Tolerance of the surface Dice of targets for which a challenge sets one."""

    def __init__(
        self,
        root: str,
        split: Split = "all",
        seed: int = 0,
        patients: PatientSettings = PatientSettings(),
        questions: QuestionSettings = QuestionSettings(),
        cache: CacheSettings = CacheSettings(),
    ) -> None:
        if split not in get_args(Split):
            raise ConfigError(f"split is one of {', '.join(get_args(Split))}; got {split!r}")
        self.root = root
        self.split = split
        require_whole(0, seed=seed)
        self.seed = seed
        self.patients = patients
        self.questions = questions
        self.cache = cache
        self._scans: LastUsed[LabelledScan] = LastUsed(cache.scans)

    def __repr__(self) -> str:
        known = vars(self).get("_cases")  # read at first use, and not for this
        return describe_settings(self, "" if known is None else f"{len(known)} cases")

    def __len__(self) -> int:
        return len(self._cases)

    def __getitem__(self, index: int) -> Case:
        question = self._cases[index]
        row = question.row
        try:
            scan = self._scans.get(self.volume_key(index), lambda: self._open(row))
            mask = scan.mask(row)
            require_within(row.anchor, scan.volume.shape)
        except MedvolError as error:
            error.args = (f"{row.where}: {error}" if row.where else str(error),)
            raise
        tolerance = self.surface_tolerances_mm.get(row.target)
        return Case(question.case_id, scan.volume, question.query, mask, row.patient, tolerance, row.anchor)

    def volume_key(self, index: int) -> str:
        """Path of the scan of a case, with the modality it is read as."""
        row = self._cases[index].row
        return f"{row.image}:{row.modality or 'guessed'}"

    def patient_id(self, index: int) -> str:
        """Patient of a case."""
        return self._cases[index].row.patient

    def case_id(self, index: int) -> str:
        """Id of a case."""
        return self._cases[index].case_id

    def scan_file(self, index: int) -> Path:
        """File of the scan of a case."""
        return self._cases[index].row.image

    def case_source(self, index: int) -> str:
        """Row of the table that a case is written in; empty without a table."""
        return self._cases[index].row.where

    @abstractmethod
    def _rows(self) -> list[tuple[int, TargetRow]]:
        """Rows of the chosen patients and targets, each with its number, which seeds its phrasings."""

    @abstractmethod
    def _open(self, row: TargetRow) -> LabelledScan:
        """Read the scan of a target."""

    @property
    def _states_absence(self) -> bool:
        """True where the rows themselves say which absent targets are asked for."""
        return False

    @cached_property
    def _disk(self) -> SliceCache | None:
        from medvol.imaging.cache.slice_cache import SliceCache

        return None if self.cache.folder is None else SliceCache(self.cache.folder, self.cache.gib)

    @cached_property
    def _cases(self) -> list[_Question]:
        rows = self._draw_absent(self._rows())
        by_scan: dict[tuple[Path, Modality | None], list[tuple[int, TargetRow]]] = {}
        for number, row in rows:
            by_scan.setdefault((row.image, row.modality), []).append((number, row))
        if not rows:
            raise DatasetError(
                f"{self.root}: no case is left in split {self.split!r}; choose other patients, targets, modalities or "
                "shares"
            )
        bank = self.questions.load_bank()
        return [question for group in by_scan.values() for n, row in group for question in self._ask(n, row, bank)]

    def _choose_patients(self, members: Iterable[Member], others: Collection[str] = ()) -> set[str]:
        """Patients of the split, as far as the settings take them.

        Args:
            members: Scans that are asked about.
            others: Names of further scans, which a split file may say too.
        """
        scans, settings = list(dict.fromkeys(members)), self.patients
        everyone = {scan.patient for scan in scans}
        check_known("patients", [*(settings.only or []), *(settings.exclude or [])], everyone)
        return settings.take(self._deal(scans, others)[self.split] if self.split != "all" else everyone)

    def _deal(self, scans: list[Member], others: Collection[str]) -> dict[str, set[str]]:
        """Patients of each split."""
        settings, source = self.patients, self.patients.split_file or self.root
        parts = {scan.case: scan.part for scan in scans}
        if settings.split_file is not None:
            parts = read_split_file(Path(settings.split_file), {*parts, *others})
        published: dict[str, str] = {}
        for scan in scans:
            part, known = parts.get(scan.case, ""), published.get(scan.patient, "")
            if part and known and part != known:
                raise DatasetError(
                    f"{source}: scans of patient {scan.patient!r} are in {known} and in {part}; put them into one "
                    "part, in a file for patients.split_file"
                )
            published[scan.patient] = part or known
        lost = [scan.case for scan in scans if not published[scan.patient]]
        if len(lost) < len(scans) and lost:
            tell_once(f"{source}: {len(lost)} of {len(scans)} scans are in no part and left out, such as {lost[0]}")
        return complete_split(published, settings.val_share, settings.test_share, self.seed)

    def _choose_targets(self, rows: Iterable[TargetRow]) -> set[str] | None:
        """Names of the targets that the settings name; None when they name none."""
        if self.questions.targets is None:
            return None
        names = {target_name(target) for target in self.questions.targets}
        check_known("targets", names, {row.target for row in rows if self._is_asked(row)})
        return names

    def _is_asked(self, row: TargetRow) -> bool:
        """True for a target that a scan shows, and for an absent one that is asked for all the same."""
        return not row.absent or self._states_absence or self.questions.absent_share > 0

    def _draw_absent(self, rows: list[tuple[int, TargetRow]]) -> list[tuple[int, TargetRow]]:
        """Keep so many of the absent targets that were found that they make up their share of each scan's cases."""
        if self._states_absence:
            return rows
        share = self.questions.absent_share
        kept = {number for number, row in rows if not row.absent}
        scans: dict[tuple[str, Path], list[tuple[int, TargetRow]]] = {}
        for number, row in rows:
            scans.setdefault((row.case, row.image), []).append((number, row))
        for (case, _), own in scans.items():
            hidden = [number for number, row in own if row.absent]
            rng = np.random.default_rng([self.seed, zlib.crc32(case.encode(errors="surrogatepass"))])
            wanted = int((len(own) - len(hidden)) * share / (1 - share) + rng.random())
            kept |= set(rng.permutation(hidden)[:wanted].tolist())
        return [(number, row) for number, row in rows if number in kept]

    def _ask(self, number: int, row: TargetRow, bank: QueryBank) -> list[_Question]:
        """Questions about one target."""
        name = f"{row.case}_{number if row.number is None else row.number:04d}"
        if row.query:
            return [_Question(name, row, Query(row.query, row.target, "absent" if row.absent else "free"))]
        rng = np.random.default_rng([self.seed, number])
        questions: list[_Question] = []
        for held_out in self.questions.uses:
            queries = bank.phrasings(row.target, held_out, row.modality)
            for i in rng.permutation(len(queries))[: self.questions.phrasings_per_target]:
                query = replace(queries[i], target=row.target, meaning=row.meaning)
                query = replace(query, kind="absent") if row.absent else query
                questions.append(_Question(f"{name}_{len(questions)}", row, query))
        return questions


def check_known(what: str, names: Iterable[str], known: set[str]) -> None:
    """Refuse a name that the data do not have.

    Raises:
        DatasetError: There is one; the message names it and some that there are.
    """
    spelt = {normalize("NFC", name) for name in known}
    unknown = sorted(name for name in set(names) if normalize("NFC", name) not in spelt)
    if unknown:
        some = ", ".join(sorted(known)[:_SHOWN]) + (", ..." if len(known) > _SHOWN else "")
        raise DatasetError(f"{what}: {unknown[0]!r} is not in the data; there are {len(known)}: {some or 'none'}")

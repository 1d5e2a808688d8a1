"""JoinedDataset: several data sets as one."""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter
from collections.abc import Iterable, Mapping
from functools import cached_property
from itertools import accumulate
from pathlib import Path

from medvol.core.errors import ConfigError, DatasetError
from medvol.core.notices import tell_once
from medvol.core.reprs import describe_settings
from medvol.core.roles import CaseDataset
from medvol.core.types import Case


class JoinedDataset(CaseDataset):
    """Several data sets as one: phantoms beside made scans, or two releases.

    Cases keep their order, their ids and their patients. Two parts must not give one volume key to different volumes:
    where they do, and both do not read it from one file, they are refused. So are two that give one id to two cases.
    Scans of two parts that name one patient count as one person's, which is said.

    Args:
        parts: Data sets, at least one.
    """

    def __init__(self, parts: list[CaseDataset]) -> None:
        if not parts:
            raise ConfigError("parts is empty; name at least one data set")
        self.parts = parts

    @property
    def drawn(self) -> bool:  # type: ignore[override]
        """True if a program draws the scans of all parts."""
        return all(part.drawn for part in self.parts)

    @property
    def licence(self) -> str:  # type: ignore[override]
        """Terms of all parts."""
        return "; ".join(dict.fromkeys(part.licence for part in self.parts if part.licence))

    def __repr__(self) -> str:
        return describe_settings(self)

    def __len__(self) -> int:
        return self._ends[-1]

    def __getitem__(self, index: int) -> Case:
        part, own = self._find(index)
        return part[own]

    def volume_key(self, index: int) -> str:
        """Identity of the volume of a case."""
        part, own = self._find(index)
        return part.volume_key(own)

    def patient_id(self, index: int) -> str:
        """Patient of a case."""
        part, own = self._find(index)
        return part.patient_id(own)

    def case_id(self, index: int) -> str:
        """Id of a case."""
        part, own = self._find(index)
        return part.case_id(own)

    def scan_file(self, index: int) -> Path | None:
        """File that the scan of a case is read from."""
        part, own = self._find(index)
        return part.scan_file(own)

    def case_source(self, index: int) -> str:
        """Where a case is written down."""
        part, own = self._find(index)
        return part.case_source(own)

    @property
    def dropped(self) -> Mapping[str, int]:
        """Questions that are not asked, of all parts."""
        return +sum((Counter(part.dropped) for part in self.parts), Counter[str]())

    def find_problems(self) -> Iterable[tuple[str, str, str]]:
        """Problems of all parts."""
        return [problem for part in self.parts for problem in part.find_problems()]

    @cached_property
    def _ends(self) -> list[int]:
        """Cases up to the end of each part; the parts are compared once for it.

        Raises:
            DatasetError: Two parts give one volume key to what may be different volumes, or one id to two cases.
        """
        owners: dict[str, tuple[int, Path | None]] = {}
        names: dict[str, int] = {}
        people: dict[str, tuple[int, set[Path]]] = {}
        for place, part in enumerate(self.parts):
            for index in range(len(part)):
                key, file = part.volume_key(index), part.scan_file(index)
                owner, known = owners.setdefault(key, (place, file))
                if owner != place and (file is None or file != known):
                    raise DatasetError(
                        f"parts {owner} and {place} both have a volume {key!r}; give data sets that make their scans "
                        "different seeds, and name different scans differently"
                    )
                name = part.case_id(index)
                owner = names.setdefault(name, place)
                if name and owner != place:
                    raise DatasetError(
                        f"parts {owner} and {place} both have a case {name!r}; name cases and patients apart, in the "
                        "columns case and patient of their tables, or put the scans into folders below one root"
                    )
                if file is not None:
                    _tell_namesakes(people, part.patient_id(index), place, file)
        return list(accumulate(len(part) for part in self.parts))

    def _find(self, index: int) -> tuple[CaseDataset, int]:
        """The part that holds a case, and its index there."""
        ends = self._ends
        count = ends[-1]
        if not -count <= index < count:
            raise IndexError(f"there is no case {index} among {count}")
        index %= count
        place = bisect_right(ends, index)
        return self.parts[place], index - (ends[place - 1] if place else 0)


def _tell_namesakes(people: dict[str, tuple[int, set[Path]]], patient: str, place: int, file: Path) -> None:
    """Warn where a part names a patient that an earlier one has other scans of: it may be another person."""
    owner, files = people.setdefault(patient, (place, set()))
    if owner == place:
        files.add(file)
    elif file not in files:
        tell_once(
            f"parts {owner} and {place} both have scans of the patient {patient!r}, who counts as one person; name "
            "different people differently, in the column patient of a table"
        )

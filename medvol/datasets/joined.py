"""JoinedDataset: several data sets as one."""

from __future__ import annotations

import re
from bisect import bisect_right
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import replace
from functools import cached_property
from itertools import accumulate
from pathlib import Path

from medvol.core.errors import ConfigError, DatasetError
from medvol.core.notices import tell_once
from medvol.core.reprs import describe_settings
from medvol.core.roles import CaseDataset
from medvol.core.types import Case

_NUMBERED = re.compile(r"part\d+-")


class JoinedDataset(CaseDataset):
    """Several data sets as one: phantoms beside made scans, or two releases.

    Cases keep their order and their patients. They keep their ids too, unless two parts have one id: then both get the
    number of their part, ``part0-s0000_0001_0`` and ``part1-s0000_0001_0``. So do ids that begin like that already, and
    all ids of a part that does not tell them without reading its cases.

    Two parts must not give one volume key to different volumes: where they do, and both do not read it from one file,
    they are refused. Scans of two parts that name one patient count as one person's, which is said.

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
        place, own = self._find(index)
        case = self.parts[place][own]
        told = self.parts[place].case_id(own)
        return replace(case, case_id=f"part{place}-{case.case_id}") if self._is_numbered(told) else case

    def volume_key(self, index: int) -> str:
        """Identity of the volume of a case."""
        place, own = self._find(index)
        return self.parts[place].volume_key(own)

    def patient_id(self, index: int) -> str:
        """Patient of a case."""
        place, own = self._find(index)
        return self.parts[place].patient_id(own)

    def case_id(self, index: int) -> str:
        """Id of a case; empty where its part does not tell it."""
        place, own = self._find(index)
        told = self.parts[place].case_id(own)
        return f"part{place}-{told}" if told and self._is_numbered(told) else told

    def scan_file(self, index: int) -> Path | None:
        """File that the scan of a case is read from."""
        place, own = self._find(index)
        return self.parts[place].scan_file(own)

    def case_source(self, index: int) -> str:
        """Where a case is written down."""
        place, own = self._find(index)
        return self.parts[place].case_source(own)

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
            DatasetError: Two parts give one volume key to what may be different volumes.
        """
        owners: dict[str, tuple[int, Path | None]] = {}
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
                if file is not None:
                    _tell_namesakes(people, part.patient_id(index), place, file)
        return list(accumulate(len(part) for part in self.parts))

    @cached_property
    def _shared(self) -> set[str]:
        """Ids that several parts have."""
        counts = Counter(name for part in self.parts for name in {part.case_id(index) for index in range(len(part))})
        return {name for name, count in counts.items() if count > 1}

    def _is_numbered(self, told: str) -> bool:
        """Whether an id gets the number of its part; one that is not told might be another part's too."""
        if len(self.parts) == 1:
            return False
        return not told or told in self._shared or _NUMBERED.match(told) is not None

    def _find(self, index: int) -> tuple[int, int]:
        """Place of the part that holds a case, and the index of the case there."""
        ends = self._ends
        count = ends[-1]
        if not -count <= index < count:
            raise IndexError(f"there is no case {index} among {count}")
        index %= count
        place = bisect_right(ends, index)
        return place, index - (ends[place - 1] if place else 0)


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

"""Settings that data sets share: whose scans are taken, what is asked of them, and what is kept of them.

YAML nests each group under its name: ``questions: {phrasing: both}``, ``patients: {val_share: 0.1}``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import get_args
from unicodedata import normalize

from medvol.core.errors import ConfigError
from medvol.core.ranges import require_between, require_whole
from medvol.core.reprs import Brief
from medvol.queries.query_bank import RELEASE_BANK, Phrasing, QueryBank


@dataclass(frozen=True, repr=False)
class PatientSettings(Brief):
    """Which patients are used, and how they are divided into training, validation and test.

    Patients are divided in the order of a seeded hash of their names: splits with one seed and the same shares never
    have a patient in common. If the publisher has its own parts, those are used.

    Args:
        val_share: Share of the patients that are validated on, where the publisher names none.
        test_share: Share that is tested on, where the publisher names no part at all.
        split_file: JSON with lists of cases under ``train``, ``val`` and ``test``; counts before the publisher's parts.
        only: Take only these patients of the split.
        exclude: Leave these out, for example those that another data set shares.

    Raises:
        ConfigError: The shares are negative, or sum to more than 1.
    """

    val_share: float = 0.0
    test_share: float = 0.2
    split_file: str | None = None
    only: list[str] | None = None
    exclude: list[str] | None = None

    def __post_init__(self) -> None:
        if not (min(self.val_share, self.test_share) >= 0 and self.val_share + self.test_share <= 1):
            raise ConfigError(
                f"val_share and test_share are shares that sum to at most 1; got {self.val_share} and {self.test_share}"
            )

    def take(self, patients: set[str]) -> set[str]:
        """Those of some patients that ``only`` and ``exclude`` leave."""
        only, exclude = ({normalize("NFC", name) for name in names or ()} for names in (self.only, self.exclude))
        left = {patient for patient in patients if normalize("NFC", patient) not in exclude}
        return left if self.only is None else {patient for patient in left if normalize("NFC", patient) in only}


@dataclass(frozen=True, repr=False)
class PhrasingSettings(Brief):
    """How targets are asked for.

    Args:
        phrasing: ``train`` asks with training phrasings, ``held_out`` with phrasings no training query uses, ``both``
            asks for each target once with each. A table's own query is asked as it is, once.
        phrasings_per_target: Ask for each target in this many different ways.
        query_bank: YAML file of further phrasings, or None.
        absent_share: Share of the cases that ask for something the scan does not show, as far as there is such.

    Raises:
        ConfigError: A value is out of its range.
    """

    phrasing: Phrasing = "train"
    phrasings_per_target: int = 1
    query_bank: str | None = None
    absent_share: float = 0.0

    def __post_init__(self) -> None:
        if self.phrasing not in get_args(Phrasing):
            raise ConfigError(f"phrasing is one of {', '.join(get_args(Phrasing))}; got {self.phrasing!r}")
        require_whole(1, phrasings_per_target=self.phrasings_per_target)
        require_between("[0, 1)", absent_share=self.absent_share)

    @property
    def uses(self) -> tuple[bool, ...]:
        """For each query of a target, whether its phrasing is a held-out one."""
        return {"train": (False,), "held_out": (True,), "both": (False, True)}[self.phrasing]

    def load_bank(self, released: bool = True) -> QueryBank:
        """The phrasings that come with the package and the further ones.

        Args:
            released: Also those of the classes of published data sets; phantoms are asked without.
        """
        return QueryBank.load(*([RELEASE_BANK] if released else []), *([self.query_bank] if self.query_bank else []))


@dataclass(frozen=True, repr=False)
class QuestionSettings(PhrasingSettings):
    """What is asked of scans, and how.

    Args:
        targets: Ask for these targets only; for all when None.
        min_voxels: Smaller targets that are found in label maps are left out; a table's rows never are.
        relations: Also ask label maps for the only, largest, smallest, highest, lowest and nearest of their findings,
            and for the one of a pair with or without them, where there is one answer; ``dropped`` counts the others.
    """

    targets: list[str] | None = None
    min_voxels: int = 200
    relations: bool = False


@dataclass(frozen=True, repr=False)
class CacheSettings(Brief):
    """How scans that were read are kept for the next time.

    Args:
        scans: Scans kept in memory, at least one.
        folder: Folder that keeps scans and label maps unpacked, slice by slice, for later epochs and runs; None reads
            the files each time.
        gib: Bound on the size of that folder, in GiB; what was used longest ago is dropped.

    Raises:
        ConfigError: The bound is not above 0.
    """

    scans: int = 4
    folder: str | None = None
    gib: float = 50.0

    def __post_init__(self) -> None:
        require_between("(0, inf]", "cache", gib=self.gib)

"""The role of a data set. ``medvol.core.roles`` has all roles."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Mapping
from pathlib import Path

from medvol.core.specs import Component
from medvol.core.types import Case


class CaseDataset(Component):
    """An indexed collection of cases; cases of one volume lie next to one another."""

    component_kind = "datasets"

    drawn: bool = False
    """True if a program draws the scans: a policy that was trained on these alone knows no real scan."""

    licence: str = ""
    """Terms of the data, as their publisher states them; model cards repeat it. Empty if they are not known."""

    @abstractmethod
    def __len__(self) -> int:
        """Number of cases."""

    @abstractmethod
    def __getitem__(self, index: int) -> Case:
        """Case number ``index``; the same index always gives the same case."""

    @abstractmethod
    def volume_key(self, index: int) -> str:
        """Identity of the volume of a case, without reading it; used to group queries of one volume."""

    @abstractmethod
    def patient_id(self, index: int) -> str:
        """Patient of a case, without reading it; used to keep splits apart."""

    def case_id(self, index: int) -> str:
        """Id of a case, without reading it; empty where only reading tells. Joined data sets are compared by it."""
        return ""

    def scan_file(self, index: int) -> Path | None:
        """File or folder of DICOM that the scan of a case is read from, without reading it; None when it is neither.

        Splits are searched for one scan under two names by it.
        """
        return None

    def case_source(self, index: int) -> str:
        """Where a case is written down, such as ``t.csv: row 2``, without reading it; empty where it is not."""
        return ""

    @property
    def dropped(self) -> Mapping[str, int]:
        """How many questions of each form are not asked because they have no single answer; may read label maps."""
        return {}

    def find_problems(self) -> Iterable[tuple[str, str, str]]:
        """Everything wrong with its tables and lists, without reading a scan; ``medvol check`` asks.

        Returns:
            For each problem its name in ``medvol.PROBLEMS``, the place, and what to do. Nothing for a
            data set that finds its problems when it is read.
        """
        return ()

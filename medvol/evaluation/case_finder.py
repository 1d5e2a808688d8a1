"""The cases that a run scored, found again in its data set."""

from __future__ import annotations

from medvol.core.errors import DatasetError
from medvol.core.roles import CaseDataset
from medvol.core.types import Case
from medvol.evaluation.case_identity import require_scored
from medvol.evaluation.case_score import CaseScore
from medvol.guarding.cases import count_cases, look_up


class CaseFinder:
    """Finds cases of a data set by their ids, which only reading them tells; they mostly lie in the run's order."""

    def __init__(self, dataset: CaseDataset) -> None:
        self._dataset = dataset
        self._places: dict[str, int] = {}

    def find(self, score: CaseScore, place: int) -> Case:
        """The case that was scored.

        Args:
            score: What it earned.
            place: Where it lies in the run's list.

        Raises:
            DatasetError: There is none of its id, or the one of its id is another one.
        """
        case = self._find(score.case_id, place)
        require_scored(case, score)
        return case

    def _find(self, case_id: str, place: int) -> Case:
        known = self._places.get(case_id)
        if known is not None:
            return look_up(self._dataset, known)
        order = sorted(range(count_cases(self._dataset)), key=lambda index: abs(index - place))
        for index in order:
            if index in self._places.values():
                continue
            case = look_up(self._dataset, index)
            self._places[case.case_id] = index
            if case.case_id == case_id:
                return case
        raise DatasetError(f"the data set of the run has no case {case_id!r}; its data have changed since the test")

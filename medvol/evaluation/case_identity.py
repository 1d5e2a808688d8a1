"""What was asked, beyond an id: another data set may give the same id to another question, patient or true mask."""

from __future__ import annotations

from typing import NamedTuple

from medvol.core.errors import DatasetError
from medvol.core.metrics import volume_ml
from medvol.core.types import Case, require_target
from medvol.evaluation.case_score import CaseScore


class CaseIdentity(NamedTuple):
    """What makes two cases the same one, as far as a score keeps it.

    Args:
        case_id: Unique within a data set.
        patient_id: Whose scan it is.
        query: Words of the question.
        target: Name of what was asked for.
        present: Whether the scan shows the target.
        true_ml: Volume of the true mask to nine digits, which rounding on another machine does not reach.
    """

    case_id: str
    patient_id: str
    query: str
    target: str
    present: bool
    true_ml: float


_WORDS = {
    "case_id": "id",
    "patient_id": "patient",
    "query": "question",
    "target": "target",
    "present": "presence of the target",
    "true_ml": "true volume in ml",
}


def name_patient(case: Case) -> str:
    """Patient of a case; the scan's identity where the data set names no patient."""
    return case.patient_id or case.volume.volume_id or case.case_id


def identify_case(case: Case) -> CaseIdentity:
    """Identity of a case of a data set.

    Raises:
        DatasetError: It has no true mask.
    """
    truth = require_target(case)
    volume = _round(volume_ml(truth, case.volume.spacing))
    return CaseIdentity(case.case_id, name_patient(case), case.query.text, case.query.target, bool(truth.any()), volume)


def identify_score(score: CaseScore) -> CaseIdentity:
    """Identity of a case that was scored."""
    return CaseIdentity(
        score.case_id, score.patient_id, score.query, score.target, score.present, _round(score.true_ml)
    )


def tell_apart(one: CaseIdentity, other: CaseIdentity) -> str:
    """The first thing in which two cases differ, such as ``true volume in ml (0.16 and 0.064)``; empty without one."""
    rows = zip(CaseIdentity._fields, one, other, strict=True)
    return next(
        (f"{_WORDS[name]} ({mine!r:.80} and {theirs!r:.80})" for name, mine, theirs in rows if mine != theirs), ""
    )


def require_scored(case: Case, score: CaseScore) -> None:
    """Refuse a case that is another one than was scored under its id.

    Raises:
        DatasetError: It differs, or has no true mask.
    """
    difference = tell_apart(identify_score(score), identify_case(case))
    if difference:
        raise DatasetError(
            f"case {case.case_id!r} is not the one that was scored: score and data differ in {difference}; give the "
            "data of the run (--data), or test or evaluate anew if they have changed since the test"
        )


def _round(millilitres: float) -> float:
    return float(f"{millilitres:.9g}")

"""Completions are read in one way: into an anchor, or into a named failure."""

from __future__ import annotations

from medvol.core.errors import EvidenceParseError
from medvol.core.types import Case, Completion, Rollout
from medvol.grounding.grammar import parse_evidence


def read_completion(case: Case, completion: Completion) -> Rollout:
    """Parse what was said about a case.

    Args:
        case: The question.
        completion: The answer.

    Returns:
        A rollout without a mask; an answer that does not follow the grammar is a failure, one of
        ``medvol.grounding.grammar.FAILURES``.
    """
    try:
        return Rollout(case.case_id, completion, parse_evidence(completion.text, case.volume.shape))
    except EvidenceParseError as error:
        return Rollout(case.case_id, completion, failure=error.failure, detail=str(error))

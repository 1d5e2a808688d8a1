"""Completions are read in one way: into anchors, or into a named failure."""

from __future__ import annotations

from medvol.core.errors import EvidenceParseError
from medvol.core.types import Case, Completion, Rollout
from medvol.grounding.grammar import parse_evidence


def read_completion(case: Case, completion: Completion, max_anchors: int = 1) -> Rollout:
    """Parse what was said about a case.

    Args:
        case: The question.
        completion: The answer.
        max_anchors: Most anchors that the prompt allowed, see ``PromptTemplate``.

    Returns:
        A rollout without a mask; an answer that does not follow the grammar is a failure, one of
        ``medvol.grounding.grammar.FAILURES``.
    """
    try:
        evidence = parse_evidence(completion.text, case.volume.shape, max_anchors)
    except EvidenceParseError as error:
        detail = str(error)
        return Rollout(case.case_id, completion, failure=error.failure, detail=detail, max_anchors=max_anchors)
    return Rollout(case.case_id, completion, evidence, max_anchors=max_anchors)

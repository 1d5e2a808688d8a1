"""An answer that gives no mask leaves a file with what was said, which nothing takes for an answer."""

from __future__ import annotations

import logging
from importlib.metadata import version
from pathlib import Path

from medvol.core.errors import EvidenceParseError, PropagationError, UntrustedAnswerError, explain_os_error
from medvol.core.json_file import write_json
from medvol.inference.answers import Question
from medvol.inference.record_content import describe_looks, describe_scan
from medvol.inference.records import FAILED_SUFFIX
from medvol.rollouts.groups import Group

SCHEMA = "medvol-failure/1"
_OF_THE_ANSWER = EvidenceParseError | PropagationError | UntrustedAnswerError

log = logging.getLogger(__name__)


def save_failure(question: Question, group: Group, error: Exception) -> Path | None:
    """Write the policy's own words beside the place of the answer, as ``NAME.failed.json``.

    Args:
        question: What was asked.
        group: Its scan, and what was said.
        error: Why there is no mask.

    Returns:
        Path of the file; None when the answer is not at fault, or when the file cannot be written, which is logged.
    """
    if not isinstance(error, _OF_THE_ANSWER):
        return None
    job, completion = question.job, group.answer.completion
    content = {
        "schema": SCHEMA,
        "medvol": version("medvol-r1"),
        "query": job.query,
        "failure": error.failure if isinstance(error, EvidenceParseError) else type(error).__name__,
        "detail": str(error),
        "completion": completion.text,
        **describe_looks(completion.looks),
        "scan": {**describe_scan(group.case.volume), "path": str(job.scan), "series": job.series},
        **question.identity,
    }
    try:
        return write_json(job.folder / f"{question.name}{FAILED_SUFFIX}", content)
    except OSError as refusal:
        log.warning("what was said is not kept: %s", explain_os_error(refusal))
        return None

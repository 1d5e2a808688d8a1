"""An answer that gives no mask leaves a file with what was said, which nothing takes for an answer."""

from __future__ import annotations

import logging
from importlib.metadata import version
from pathlib import Path

from medvol.core.errors import EvidenceParseError, PropagationError, UntrustedAnswerError, explain_os_error
from medvol.core.json_file import write_json
from medvol.core.types import Completion
from medvol.inference.answers import Question
from medvol.inference.record_content import describe_looks
from medvol.inference.records import FAILED_SUFFIX

SCHEMA = "medvol-failure/1"
_OF_THE_ANSWER = EvidenceParseError | PropagationError | UntrustedAnswerError

log = logging.getLogger(__name__)


def save_failure(question: Question, completion: Completion, error: Exception) -> Path | None:
    """Write the policy's own words beside the place of the answer, as ``NAME.failed.json``.

    Args:
        question: What was asked.
        completion: What was said.
        error: Why there is no mask.

    Returns:
        Path of the file; None when the answer is not at fault, or when the file cannot be written, which is logged.
    """
    if not isinstance(error, _OF_THE_ANSWER):
        return None
    job = question.job
    content = {
        "schema": SCHEMA,
        "medvol": version("medvol-r1"),
        "query": job.query,
        "failure": error.failure if isinstance(error, EvidenceParseError) else type(error).__name__,
        "detail": str(error),
        "completion": completion.text,
        **describe_looks(completion.looks),
        "scan": {"path": str(job.scan), "series": job.series, "sha256": question.scan_sha256},
        **question.identity,
    }
    try:
        return write_json(job.folder / f"{question.name}{FAILED_SUFFIX}", content)
    except OSError as refusal:
        log.warning("what was said is not kept: %s", explain_os_error(refusal))
        return None

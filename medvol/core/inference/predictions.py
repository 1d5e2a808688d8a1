"""Predictions: the answer to a case of a data set, written as ``medvol segment`` writes its answers."""

from __future__ import annotations

import hashlib
import json
import logging
import re
from pathlib import Path

from medvol.core.errors import MedvolError
from medvol.core.inference.batch import Outcome
from medvol.core.inference.records import hash_volume, plain_values, save_segmentation
from medvol.core.inference.segmenter import follow_answer
from medvol.core.json_file import write_json
from medvol.core.roles import Policy, Propagator
from medvol.core.types import Case, Completion, Sampling

FAILED_SUFFIX = ".failed.json"
"""Ending of the file that keeps the words of an answer without a mask."""

_READABLE_BYTES = 120
_DIGEST_LENGTH = 12

log = logging.getLogger(__name__)


def save_prediction(
    case: Case, completion: Completion, policy: Policy, propagator: Propagator, sampling: Sampling, folder: Path
) -> Outcome:
    """Follow an answer and write mask, record and picture; what was said is kept where there is no mask.

    Args:
        case: The question.
        completion: The answer.
        policy: Wrote it.
        propagator: Turns its anchor into a mask.
        sampling: How it was drawn.
        folder: Of the files; see ``name_prediction`` for what they are called.
    """
    name = name_prediction(case, policy, propagator)
    try:
        segmentation = follow_answer(case.volume, case.query.text, completion, policy, propagator, sampling)
        record = str(save_segmentation(segmentation, folder, name)["record"])
    except Exception as error:  # a plug-in may fail in any way; the others go on and the summary names it
        return fail_prediction(case, error, name, _keep_words(case, completion, error, folder / name))
    warnings = () if segmentation.confidence is None else segmentation.confidence.warnings
    return Outcome(name, _scan(case), case.query.text, "done", record, warnings=tuple(w.detail for w in warnings))


def fail_prediction(case: Case, error: Exception, name: str = "", kept: str = "") -> Outcome:
    """The outcome of a case without a mask; ``kept`` says where its words are."""
    log.warning("case %s: %s", case.case_id, error, exc_info=not isinstance(error, MedvolError | OSError))
    detail = f"{error}{kept}"
    return Outcome(name or case.case_id, _scan(case), case.query.text, "failed", "", type(error).__name__, detail)


def name_prediction(case: Case, policy: Policy, propagator: Propagator) -> str:
    """Stem of a case's files: its id as far as a file name can hold it, and a digest of what is asked, and of whom.

    Two cases, two scans under one id, and two models have different names.
    """
    readable = re.sub(r"[^\w.+-]+", "-", case.case_id).strip("-.")
    shown = readable.encode(errors="ignore")[:_READABLE_BYTES].decode(errors="ignore") or "case"
    asked = [case.case_id, case.query.text, hash_volume(case.volume)]
    who = [plain_values(policy.identity()), plain_values(propagator.identity())]
    digest = hashlib.sha256(json.dumps([*asked, *who], sort_keys=True).encode()).hexdigest()
    return f"{shown}_{digest[:_DIGEST_LENGTH]}"


def _keep_words(case: Case, completion: Completion, error: Exception, stem: Path) -> str:
    """Write what was said; tells where, as the end of a sentence."""
    said = {"case_id": case.case_id, "query": case.query.text, "completion": completion.text}
    try:
        failure = {"failure": getattr(error, "failure", type(error).__name__), "detail": str(error)}
        path = write_json(stem.with_name(f"{stem.name}{FAILED_SUFFIX}"), {**failure, **said})
    except OSError as refusal:
        log.warning("what was said is not kept: %s", refusal)
        return ""
    return f"; what was said is in {path}"


def _scan(case: Case) -> str:
    """Path of the scan, or the identity of one that was made in memory."""
    source = case.volume.source
    return case.volume.volume_id if source is None or source.path is None else str(source.path)

"""Predictions: the answer to a case of a data set, written as ``medvol segment`` writes its answers."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from medvol.core.errors import PolicyError
from medvol.core.inference.answers import pose
from medvol.core.inference.jobs import Job
from medvol.core.inference.names import DIGEST_LENGTH, cut, readable
from medvol.core.inference.outcomes import write_answer
from medvol.core.inference.segmenter import follow_answer
from medvol.core.inference.summary import Outcome
from medvol.core.roles import Policy, Propagator
from medvol.core.types import Case, Completion, Sampling

_READABLE_BYTES = 120


def predict_case(
    case: Case,
    completion: Completion | PolicyError,
    policy: Policy,
    propagator: Propagator,
    sampling: Sampling,
    folder: Path,
    identity: Mapping[str, Any],
) -> Outcome:
    """Follow an answer and write mask, record and picture; what was said is kept where there is no mask.

    Args:
        case: The question.
        completion: The answer, or the error that kept the policy from answering.
        policy: Wrote it.
        propagator: Turns its anchor into a mask.
        sampling: How it was drawn.
        folder: Of the files.
        identity: Of the policy and the propagator, as plain values.
    """
    volume, query = case.volume, case.query.text
    return write_answer(
        pose(as_job(case, folder), volume, identity),
        completion,
        lambda: follow_answer(volume, query, completion, policy, propagator, sampling),
    )


def as_job(case: Case, folder: Path) -> Job:
    """A case as a job: its files are called by its id, as far as a file name can hold that.

    Where it cannot, a digest of the id follows, so that two cases have two names.
    """
    source = case.volume.source
    scan = case.volume.volume_id if source is None or source.path is None else source.path
    name = cut(readable(case.case_id), _READABLE_BYTES).strip("-. ") or "case"
    if name != case.case_id:
        name = f"{name}_{hashlib.sha256(case.case_id.encode(errors='surrogatepass')).hexdigest()[:DIGEST_LENGTH]}"
    return Job(Path(scan), case.query.text, folder, name, None if source is None else source.series or None)

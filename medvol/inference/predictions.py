"""Predictions: the answer to a case of a data set, written as ``medvol segment`` writes its answers."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from medvol.core.roles import Policy, Propagator
from medvol.core.types import Case, Sampling
from medvol.inference.answers import pose
from medvol.inference.jobs import Job
from medvol.inference.names import DIGEST_LENGTH, cut, is_taken, readable
from medvol.inference.outcomes import write_answers
from medvol.inference.segmenter import follow_answers
from medvol.inference.summary import Outcome
from medvol.rollouts.groups import Group

_READABLE_BYTES = 120


def write_predictions(
    groups: Sequence[Group],
    policy: Policy,
    propagator: Propagator,
    sampling: Sampling,
    folder: Path,
    identity: Mapping[str, Any],
) -> list[Outcome]:
    """Follow the answers about one volume and write masks, records and pictures, or what was said without a mask.

    Args:
        groups: The cases, each with its answer.
        policy: Wrote them.
        propagator: Turns their anchors into masks.
        sampling: How they were drawn.
        folder: Of the files.
        identity: Of the policy and the propagator, as plain values.

    Returns:
        What became of each case.
    """
    questions = [pose(as_job(group.case, folder), group.case.volume, identity) for group in groups]
    outcomes = dict(write_answers(questions, groups, follow_answers(groups, policy, propagator, sampling)))
    return [outcomes[place] for place in range(len(groups))]


def as_job(case: Case, folder: Path) -> Job:
    """A case as a job: its files are called by its id, as far as a file name can hold that.

    Where it cannot, a digest of the id follows, so that two cases have two names.
    """
    source = case.volume.source
    scan = case.volume.volume_id if source is None or source.path is None else source.path
    name = cut(readable(case.case_id), _READABLE_BYTES).strip("-. ") or "case"
    if name != case.case_id or is_taken(name):
        name = f"{name}_{hashlib.sha256(case.case_id.encode(errors='surrogatepass')).hexdigest()[:DIGEST_LENGTH]}"
    return Job(Path(scan), case.query.text, folder, name, None if source is None else source.series or None)

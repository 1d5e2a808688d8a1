"""The cases of a run that was tested: what the policy answered to each, with the true mask beside it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from hashlib import sha256
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medvol.core.roles import CaseDataset
from medvol.core.types import Volume
from medvol.evaluation.archive import Evaluation
from medvol.evaluation.case_finder import CaseFinder
from medvol.evaluation.case_identity import identify_score
from medvol.evaluation.case_score import CaseScore
from medvol.evaluation.run_files import CASES_FILE
from medvol.grounding.grammar import parse_evidence
from medvol.inference.names import cut, readable
from medvol.inference.records import EvidenceRecord
from medvol.viewing.entries import NOTHING, Entry, question_about
from medvol.viewing.opening import READINGS, Opened
from medvol.viewing.scans import Scan, make_id

_NAME_BYTES = 120
_KEPT = ("completion", "policy", "propagator")


def open_run(run: Evaluation, dataset: CaseDataset) -> Opened:
    """The cases that a run was tested on.

    The scans are read when they are looked at; the order is that of ``cases.json``.

    Args:
        run: The run.
        dataset: The cases that it was tested on; others are refused when they are looked at.
    """
    finder = CaseFinder(dataset)
    entries = [_entry(score, place, finder, run.summary) for place, score in enumerate(run.scores)]
    return Opened(entries, [], run.folder / READINGS)


def _entry(score: CaseScore, place: int, finder: CaseFinder, about: Mapping[str, Any]) -> Entry:
    said = [*identify_score(score), score.completion]  # an id alone may be that of a case of another data set
    digest = sha256(json.dumps(said).encode()).hexdigest()
    name = cut(readable(score.case_id), _NAME_BYTES).strip("-. ") or "case"
    entry_id = make_id(digest)

    def read() -> tuple[Volume, NDArray[np.bool_] | None]:
        case = finder.find(score, place)
        return case.volume, case.target

    record = replace(
        EvidenceRecord(score.query, NOTHING, score.completion, None, "", ""),
        policy=_identity(about, "policy"),
        propagator=_identity(about, "propagator"),
    )
    scan = Scan(entry_id, score.case_id, read)
    settle = partial(_settle, score.max_anchors if score.failure is None else None)
    return Entry(entry_id, name, scan, record, digest, None, CASES_FILE, score.detail, score.patient_id, settle)


def _settle(max_anchors: int | None, record: EvidenceRecord, volume: Volume) -> EvidenceRecord:
    """The record of a case whose scan is read: only then it is known where its boxes lie; None where it has no mask."""
    evidence = NOTHING if max_anchors is None else parse_evidence(record.completion, volume.shape, max_anchors)
    asked = question_about(volume, record.query)
    return replace(asked, evidence=evidence, **{name: getattr(record, name) for name in _KEPT})


def _identity(about: Mapping[str, Any], kind: str) -> dict[str, Any]:
    found = about.get(kind)
    return dict(found) if isinstance(found, Mapping) else {}

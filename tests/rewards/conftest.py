"""A rollout about a box-shaped target, without policy or propagator."""

import numpy as np
import pytest

from medvol.core.errors import EvidenceParseError
from medvol.core.types import Case, Completion, Evidence, Query, Rollout, Volume
from medvol.grounding.grammar import format_evidence, parse_evidence


@pytest.fixture(scope="session")
def make_case():
    """Case whose target is the given mask."""

    def make(target):
        volume = Volume(np.zeros(target.shape, np.float32), np.eye(4), volume_id="v")
        query = Query("the box", "box") if target.any() else Query("the box", "box", kind="absent")
        return Case("case", volume, query, target)

    return make


@pytest.fixture(scope="session")
def make_rollout():
    """Rollout of a text, with the mask given."""

    def make(text, case, mask=None):
        try:
            evidence, failure = parse_evidence(text, case.volume.shape), None
        except EvidenceParseError as error:
            evidence, failure = None, error.failure
        return Rollout(case.case_id, Completion(text), evidence, failure, mask)

    return make


@pytest.fixture(scope="session")
def write_answer():
    """Text of an answer about a volume of that shape; ``[]`` without a slice."""

    def write(shape, key_slice=None, boxes=(), step=1):
        evidence = Evidence(key_slice, np.array(boxes, float).reshape(-1, 4), "it is here")
        return format_evidence(evidence, *shape[1:], step=step)

    return write

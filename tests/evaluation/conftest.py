"""A small volume with two targets, a propagator that extrudes boxes, and a policy with written answers."""

import numpy as np
import pytest

from medvol.core.errors import PropagationError
from medvol.core.prompts import PromptTemplate
from medvol.core.roles import Policy, Propagator
from medvol.core.types import Case, Completion, Evidence, Query, Volume
from medvol.evaluation.scoring import score_groups
from medvol.grounding.boxes import rasterise
from medvol.grounding.grammar import format_evidence
from medvol.grounding.prompts import build_prompt
from medvol.rollouts.completions import read_completion
from medvol.rollouts.groups import Group

SHAPE = (12, 40, 50)


class BoxPropagator(Propagator):
    """Fills the boxes on the key slice and ``reach`` slices to either side; fails on a slice that is named."""

    def __init__(self, reach: int = 2, fails_at: int | None = None) -> None:
        self.reach = reach
        self.fails_at = fails_at

    def propagate(self, volume, evidence, z_range=None):
        mask = np.zeros(volume.shape, bool)
        if evidence.key_slice is None:
            return mask
        if evidence.key_slice == self.fails_at:
            raise PropagationError(f"{volume.volume_id}: slice {evidence.key_slice} cannot be propagated")
        low, high = z_range or (0, volume.shape[0])
        for z in range(max(low, evidence.key_slice - self.reach), min(high, evidence.key_slice + self.reach + 1)):
            mask[z] = rasterise(evidence.boxes, *volume.shape[1:])
        return mask


class WrittenPolicy(Policy):
    """Answers each query with the text written for it."""

    def __init__(self, answers: dict[str, str] | None = None, needs_truth: bool = False) -> None:
        self.answers = answers or {}
        self.needs_truth = needs_truth
        self.calls = []

    @property
    def template(self):
        return PromptTemplate(num_slices=6, height_px=16, width_px=16)

    def generate(self, prompts, n=1, sampling=None):
        self.calls.append(prompts)
        height, width = prompts[0].slices.volume_shape[1:]
        texts = [
            format_evidence(prompt.truth, height, width) if prompt.truth else self.answers[prompt.query]
            for prompt in prompts
        ]
        return [[Completion(text)] * n for text in texts]

    def identity(self):
        return {"name": "WrittenPolicy", "answers": len(self.answers)}


@pytest.fixture
def make_case():
    """Case about a box-shaped target on slices 4..8, 20 px wide and 10 px high, or about none."""
    volume = Volume(np.zeros(SHAPE, np.float32), np.diag([1.0, 1.0, 4.0, 1.0]), "CT", "volume-1")

    def make(case_id="a", present=True, patient="", **query):
        target = np.zeros(SHAPE, bool)
        if present:
            target[4:9, 10:20, 15:35] = True
        kind = {} if present else {"kind": "absent"}
        return Case(case_id, volume, Query(**{"text": case_id, "target": "box", **kind, **query}), target, patient)

    return make


@pytest.fixture
def write_answer():
    """Text of an answer that names a slice and boxes in pixels; ``[]`` without a slice."""

    def write(key_slice=None, *boxes):
        return format_evidence(Evidence(key_slice, np.array(boxes, float).reshape(-1, 4), "it is here"), *SHAPE[1:])

    return write


@pytest.fixture
def score_answer():
    """Function that follows and scores one answer, as a run does: case, text, propagator, what is measured, truth."""

    def score(case, text, propagator, scoring=None, truth=None):
        prompt = build_prompt(case.volume, case.query.text, PromptTemplate(num_slices=2, height_px=16, width_px=16))
        group = Group(case, prompt, (read_completion(case, Completion(text)),))
        return score_groups([group], propagator, scoring, None if truth is None else [truth])[0]

    return score


@pytest.fixture
def box_propagator():
    return BoxPropagator


@pytest.fixture
def written_policy():
    return WrittenPolicy

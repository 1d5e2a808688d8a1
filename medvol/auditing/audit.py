"""The reward audit: does each altered answer earn less than the true one, and each exploit less than an honest one?"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from medvol.auditing.alterations import EXPLOITS, PERTURBATIONS, Alteration, Scene, write_honest, write_truth
from medvol.auditing.perfect_propagator import PerfectPropagator
from medvol.auditing.ranks import HONEST, TOTAL, TRUTH, Rank, RewardAudit, State
from medvol.auditing.several_anchors import SEVERAL_EXPLOITS, SEVERAL_PERTURBATIONS
from medvol.core.errors import ConfigError
from medvol.core.ranges import require_whole
from medvol.core.roles import Aspect, CaseDataset, Propagator, RewardTerm
from medvol.core.types import Case, Completion, Rollout, require_target
from medvol.guarding.cases import count_cases, list_volumes, look_up
from medvol.rollouts.completions import read_completion
from medvol.rollouts.scorer import RewardScorer
from medvol.terminal.progress import counted
from medvol.testing.fixtures import make_case, make_organ_cases, make_scattered_case

_HONEST = Alteration(HONEST, frozenset({"boxes"}), write_honest)
_TINY = 1e-9


def audit_rewards(
    rewards: Iterable[RewardTerm],
    weights: Mapping[str, float] | None = None,
    cases: Sequence[Case] | CaseDataset | None = None,
    propagator: Propagator | None = None,
    max_anchors: int = 1,
) -> RewardAudit:
    """Rank true answers, altered ones and exploits by what they earn.

    A term is tested on the aspects that it ``judges``. If an answer is worse in one of them, the term has to pay less
    than for the truth. For an exploit it has to pay less than for an honest, mediocre answer. If an answer is worse in
    nothing that the term judges, the term must not pay more than for the truth. The weighted sum is tested on all that
    any term judges.

    Args:
        rewards: The terms, a plug-in's too.
        weights: Weight of each term by its name, as in ``RewardScorer``.
        cases: Questions with masks; small ones made in memory when None.
        propagator: Turns answers into masks when a weighted term reads them; when None a perfect one, which knows the
            targets of all cases, so that the ranks depend on the rewards alone.
        max_anchors: Most anchors of an answer. With more than 1 there are further alterations and exploits, such as one
            part on many slices.

    Returns:
        The audit; nothing is raised for what is violated.

    Raises:
        ConfigError: The weights do not fit the terms, there is no case, or ``max_anchors`` is out of range.
        DatasetError: A case has no target mask.
        RewardError: A term failed, or its score is NaN or outside [0, 1].
    """
    scorer = RewardScorer(rewards, weights)
    require_whole(1, max_anchors=max_anchors)
    questions = default_cases(max_anchors) if cases is None else cases
    count = count_cases(questions)
    if not count:
        raise ConfigError("there is no case to audit the rewards on; give at least one")
    told = counted(_scenes(questions, list(scorer.terms.values()), max_anchors), "auditing", count, "cases")
    marked = [_mark(scene, scorer, propagator) for scene in told]
    judged = _judged(scorer, marked)
    ranks = [rank for scene in marked for rank in scene.ranks(judged)]
    return RewardAudit(tuple(ranks), judged)


def default_cases(max_anchors: int = 1) -> list[Case]:
    """Two masses, and a volume with two organs of two lobes each; every kind of answer finds its place in one.

    Where answers may have several anchors, also three masses at different heights.
    """
    scattered = [make_scattered_case()] if max_anchors > 1 else []
    return [make_case(8), make_case(12), *make_organ_cases(), *scattered]


def _scenes(
    questions: Sequence[Case] | CaseDataset, rewards: Sequence[RewardTerm], max_anchors: int
) -> Iterator[Scene]:
    """The truth in the terms' own coordinates and boxes; other targets are those of the same volume."""
    step = max(int(getattr(term, "coordinate_step", 1)) for term in rewards)
    split_boxes = all(getattr(term, "split_boxes", True) for term in rewards)
    for cases in _read_by_volume(questions):
        targets = [require_target(case) for case in cases]
        for case, target in zip(cases, targets, strict=True):
            others = [mask for mask in targets if mask.any() and not (mask & target).any()]
            yield Scene(case, others, step, split_boxes, max_anchors)
        del cases, targets, case, target, others  # the next volume is read when this one is let go


def _read_by_volume(questions: Sequence[Case] | CaseDataset) -> Iterator[list[Case]]:
    """The cases of one volume after those of another one, so that a data set is not in memory as a whole."""
    if isinstance(questions, CaseDataset):
        keys = list_volumes(questions)
    else:
        keys = [look_up(questions, index).volume.volume_id for index in range(len(questions))]
    places: dict[str, list[int]] = {}
    for index, key in enumerate(keys):
        places.setdefault(key or f"case {index}", []).append(index)
    for same in places.values():
        yield [look_up(questions, index) for index in same]


@dataclass(frozen=True)
class _Marked:
    """The answers of one case with their scores, in each term and in sum.

    ``held`` are the scores with the target in place of what was propagated: what a term that does not judge the boxes
    sees of them through the propagator is left out.
    """

    case_id: str
    altered: Mapping[str, Alteration]
    scores: Mapping[str, Mapping[str, float]]
    held: Mapping[str, Mapping[str, float]]

    def ranks(self, judged: Mapping[str, frozenset[Aspect]]) -> Iterator[Rank]:
        """Ranks of all answers in all terms."""
        for name, alteration in self.altered.items():
            exploit = alteration in (*EXPLOITS, *SEVERAL_EXPLOITS)
            for term, aspects in judged.items():
                seen = bool(alteration.spoils & aspects)
                against = HONEST if exploit and seen and HONEST in self.scores else TRUTH
                score, bar = self.scores[name][term], self.scores[against][term]
                yield Rank(self.case_id, name, exploit, term, score, against, bar, _state(score, bar, seen))


def _state(score: float, bar: float, seen: bool) -> State:
    if score < bar - _TINY:
        return "below"
    return "violated" if seen or score > bar + _TINY else "cannot see"


def _mark(scene: Scene, scorer: RewardScorer, propagator: Propagator | None) -> _Marked:
    """Score the answers of one case."""
    written = _write_altered(scene, scorer.needs_mask)
    texts = {TRUTH: write_truth(scene), **{alteration.name: text for alteration, text in written}}
    answers = _follow(scene, texts, scorer, propagator)
    held = {name: replace(rollout, mask=scene.target) for name, rollout in answers.items()}
    for alteration, _ in written:
        if not alteration.mask:
            answers[alteration.name] = held[alteration.name] = _emptied(answers[alteration.name], scene.case)
    altered = {alteration.name: alteration for alteration, _ in written}
    return _Marked(scene.case.case_id, altered, _score(scorer, answers, scene), _score(scorer, held, scene))


def _write_altered(scene: Scene, needs_mask: bool) -> list[tuple[Alteration, str]]:
    """The altered answers that this case leaves room for."""
    present = bool(scene.target.any())
    several = (*SEVERAL_PERTURBATIONS, *SEVERAL_EXPLOITS) if scene.max_anchors > 1 else ()
    fitting = [
        alteration
        for alteration in (_HONEST, *PERTURBATIONS, *EXPLOITS, *several)
        if alteration.absent != present and (alteration.mask or needs_mask)
    ]
    texts = [(alteration, alteration.write(scene)) for alteration in fitting]
    return [(alteration, text) for alteration, text in texts if text is not None]


def _follow(
    scene: Scene, texts: Mapping[str, str], scorer: RewardScorer, propagator: Propagator | None
) -> dict[str, Rollout]:
    """Answers by name, followed to their masks where a term reads them."""
    rollouts = [read_completion(scene.case, Completion(text), scene.max_anchors) for text in texts.values()]
    used = propagator or PerfectPropagator([*_targets(scene), *scene.others])
    followed = dict(scorer.follow(scene.case.volume, rollouts, used))
    return {name: followed[place] for place, name in enumerate(texts)}


def _targets(scene: Scene) -> list[NDArray[np.bool_]]:
    """What a propagator can find of the target from one anchor."""
    return [part.target for part in scene.parts] or [scene.target]


def _emptied(rollout: Rollout, case: Case) -> Rollout:
    return replace(rollout, mask=np.zeros(case.volume.shape, bool))


def _score(scorer: RewardScorer, rollouts: Mapping[str, Rollout], scene: Scene) -> dict[str, dict[str, float]]:
    """Scores of each term and, when there are several terms, their weighted sum."""
    found = {}
    for name, rollout in rollouts.items():
        earned = scorer.score(rollout, scene.case)
        found[name] = {**earned.scores, **({TOTAL: earned.total} if len(earned.scores) > 1 else {})}
    return found


def _judged(scorer: RewardScorer, marked: Sequence[_Marked]) -> dict[str, frozenset[Aspect]]:
    """Aspects that each term says it judges, else those whose spoiling alone changes its score; of the sum, all."""
    terms = [term for term in marked[0].scores[TRUTH] if term != TOTAL]
    judged = {}
    for name in terms:
        declared = scorer.claims[name].judges
        judged[name] = frozenset(_reacts(name, marked)) if declared is None else declared
    if len(terms) > 1:
        judged[TOTAL] = frozenset().union(*(judged[name] for name in terms if scorer.weights[name] > 0))
    return judged


def _reacts(term: str, marked: Sequence[_Marked]) -> Iterator[Aspect]:
    for scene in marked:
        for name, alteration in scene.altered.items():
            if alteration is _HONEST:  # it may have another slice too
                continue
            if len(alteration.spoils) == 1 and abs(scene.held[name][term] - scene.held[TRUTH][term]) > _TINY:
                yield from alteration.spoils

"""The reward audit: does each altered answer earn less than the true one, and each exploit less than an honest one?"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal, get_args

import numpy as np

from medvol.core.evaluation.report import Report, Sheet
from medvol.core.evaluation.scoring import follow_completion, require_target
from medvol.core.roles import Aspect, CaseDataset, Propagator, RewardTerm
from medvol.core.training.rollouts import follow_rollouts
from medvol.core.training.scorer import RewardScorer
from medvol.core.types import Case, Completion, Rollout
from medvol.testing.alterations import EXPLOITS, PERTURBATIONS, Alteration, Scene, write_honest, write_truth
from medvol.testing.fixtures import make_case, make_organ_cases
from medvol.testing.perfect_propagator import PerfectPropagator

State = Literal["below", "cannot see", "violated"]
MARKS: Mapping[State, str] = {"below": "  ", "cannot see": " ~", "violated": " !"}

TOTAL = "sum"
"""Name of the weighted sum among the terms."""
TRUTH = "the truth"
HONEST = "an honest, mediocre answer"
_HONEST = Alteration(HONEST, frozenset({"slice", "boxes"}), write_honest)
_TINY = 1e-9


@dataclass(frozen=True)
class Rank:
    """How an altered answer ranks in one term.

    Args:
        case_id: The question.
        answer: Name of the alteration.
        term: Name of the term, or ``sum``.
        score: What it earns.
        against: What it has to rank below.
        bar: What that earns.
        state: ``below`` the bar; ``cannot see`` when the term does not judge what is wrong with the answer, and pays no
            more than for the truth; ``violated`` otherwise.
    """

    case_id: str
    answer: str
    term: str
    score: float
    against: str
    bar: float
    state: State


@dataclass(frozen=True)
class RewardAudit:
    """What the audit found; print it with rich.

    Args:
        ranks: One for each case, answer and term.
        judged: Aspects that each term is held to.
        truths: Least score of the truth in each term.
        honest: Least score of the honest, mediocre answer in each term.
    """

    ranks: tuple[Rank, ...]
    judged: Mapping[str, frozenset[Aspect]]
    truths: Mapping[str, float]
    honest: Mapping[str, float]

    @property
    def violations(self) -> tuple[Rank, ...]:
        """Ranks that do not hold."""
        return tuple(rank for rank in self.ranks if rank.state == "violated")

    def worst(self, answer: str, term: str) -> Rank | None:
        """The rank nearest to a violation, over all cases; None when no case has such an answer."""
        found = [rank for rank in self.ranks if (rank.answer, rank.term) == (answer, term)]
        return max(found, key=lambda rank: (get_args(State).index(rank.state), rank.score - rank.bar), default=None)

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        judged = {term: sorted(aspects) for term, aspects in self.judged.items()}
        return {"judged": judged, "ranks": [asdict(rank) for rank in self.ranks]}

    def report(self) -> Report:
        """Tables of the worst score of each answer, and what is violated in words."""
        terms = list(self.judged)
        answers = list(dict.fromkeys(rank.answer for rank in self.ranks))
        exploits = {exploit.name for exploit in EXPLOITS}
        sheets = []
        for title, bars, names in (
            (f"below {TRUTH}", self.truths, [name for name in answers if name not in exploits]),
            (f"below {HONEST}", self.honest, [name for name in answers if name in exploits]),
        ):
            rows = [[title.removeprefix("below "), *(f"{bars[term]:.2f}  " for term in terms)]]
            rows += [[name, *(_cell(self.worst(name, term)) for term in terms)] for name in names]
            sheets.append(Sheet(f"Each {title}", ["answer", *terms], rows))
        return Report(sheets, [*self._remarks()])

    def _remarks(self) -> Iterator[str]:
        for term, aspects in self.judged.items():
            yield f"{term} judges {', '.join(sorted(aspects)) or 'nothing that was altered'}"
        yield "~ cannot see: the term does not judge what is wrong with the answer   ! violated"
        for term in self.judged:
            for answer in dict.fromkeys(rank.answer for rank in self.violations if rank.term == term):
                rank = self.worst(answer, term)
                assert rank is not None
                yield f"! {term}: {answer!r} earns {rank.score:.3f}, {rank.against} {rank.bar:.3f} ({rank.case_id})"
        yield f"{len(self.violations)} of {len(self.ranks)} ranks are violated"

    def __rich__(self) -> Report:
        """For the terminal."""
        return self.report()


def _cell(rank: Rank | None) -> str:
    return "" if rank is None else f"{rank.score:.2f}{MARKS[rank.state]}"


def audit_rewards(
    rewards: Sequence[RewardTerm],
    weights: Mapping[str, float] | None = None,
    cases: Sequence[Case] | CaseDataset | None = None,
    propagator: Propagator | None = None,
) -> RewardAudit:
    """Rank true answers, altered ones and exploits by what they earn.

    A term is held to the aspects that it ``judges``. Where an answer is worse in one of them, the term has to pay less
    than for the truth, and for an exploit less than for an honest, mediocre answer. Where it is worse in nothing that the
    term judges, the term must not pay more than for the truth. The weighted sum is held to what any of its terms judges.

    Args:
        rewards: The terms, a plug-in's too.
        weights: Weight of each term by its name, as in ``RewardScorer``.
        cases: Questions with masks; small ones made in memory when None.
        propagator: Turns answers into masks when a weighted term reads them; when None a perfect one, which knows the
            targets of all cases, so that the ranks tell about the rewards alone.

    Returns:
        The audit; nothing is raised for what is violated.

    Raises:
        ConfigError: The weights do not fit the terms.
        DatasetError: A case has no target mask.
        RewardError: A term failed, or its score is NaN or outside [0, 1].
    """
    scorer = RewardScorer(rewards, weights)
    questions = default_cases() if cases is None else [cases[index] for index in range(len(cases))]
    marked = [_mark(scene, scorer, propagator) for scene in _scenes(questions, rewards)]
    judged = _judged(scorer, marked)
    ranks = [rank for scene in marked for rank in scene.ranks(judged)]
    lowest = [
        {term: min((scene.scores[name][term] for scene in marked if name in scene.scores), default=0) for term in judged}
        for name in (TRUTH, HONEST)
    ]
    return RewardAudit(tuple(ranks), judged, *lowest)


def default_cases() -> list[Case]:
    """A small and a larger mass, and a volume with two organs of two lobes each; every kind of answer finds its place."""
    return [make_case(8), make_case(12), *make_organ_cases()]


def _scenes(cases: Sequence[Case], rewards: Sequence[RewardTerm]) -> Iterator[Scene]:
    """The truth in the terms' own coordinates and boxes; other targets are those of the same volume."""
    step = max(int(getattr(term, "coordinate_step", 1)) for term in rewards)
    split_boxes = all(getattr(term, "split_boxes", True) for term in rewards)
    for case in cases:
        target = require_target(case)
        same = [require_target(other) for other in cases if other.volume.volume_id == case.volume.volume_id]
        others = [mask for mask in same if mask.any() and not (mask & target).any()]
        yield Scene(case, others, step, split_boxes)


@dataclass(frozen=True)
class _Marked:
    """The answers of one case with their scores, in each term and in sum.

    ``held`` are the scores with the mask of the truth in place of the answer's own: what a term that does not judge the
    boxes sees of them through the propagator is left out.
    """

    case_id: str
    altered: Mapping[str, Alteration]
    scores: Mapping[str, Mapping[str, float]]
    held: Mapping[str, Mapping[str, float]]

    def ranks(self, judged: Mapping[str, frozenset[Aspect]]) -> Iterator[Rank]:
        """Ranks of all answers in all terms."""
        exploits = {exploit.name for exploit in EXPLOITS} if HONEST in self.scores else set()
        for name, alteration in self.altered.items():
            against = HONEST if name in exploits else TRUTH
            for term, aspects in judged.items():
                score, truth, bar = (self.scores[answer][term] for answer in (name, TRUTH, against))
                seen = bool(alteration.spoils & aspects)
                state = _state(score, bar if seen else truth, seen)
                yield Rank(self.case_id, name, term, score, against if seen else TRUTH, bar if seen else truth, state)


def _state(score: float, bar: float, seen: bool) -> State:
    if score < bar - _TINY:
        return "below"
    return "violated" if seen or score > bar + _TINY else "cannot see"


def _mark(scene: Scene, scorer: RewardScorer, propagator: Propagator | None) -> _Marked:
    """Score the answers of one case."""
    present = bool(scene.target.any())
    tried = [_HONEST, *PERTURBATIONS, *EXPLOITS] if present else EXPLOITS
    written = {
        alteration.name: (alteration, text)
        for alteration in tried
        if alteration.absent != present
        and (alteration.mask or scorer.needs_mask)
        and (text := alteration.write(scene)) is not None
    }
    altered = {name: alteration for name, (alteration, _) in written.items()}
    texts = {TRUTH: write_truth(scene), **{name: text for name, (_, text) in written.items()}}
    rollouts = [follow_completion(scene.case, Completion(text)) for text in texts.values()]
    if scorer.needs_mask:
        followed_by = propagator or PerfectPropagator([scene.target, *scene.others])
        rollouts = follow_rollouts(scene.case, rollouts, followed_by, scorer.delta)
    answers = dict(zip(texts, rollouts, strict=True))
    for name, alteration in altered.items():
        answers[name] = answers[name] if alteration.mask else _emptied(answers[name], scene.case)
    held = {name: replace(rollout, mask=answers[TRUTH].mask) for name, rollout in answers.items()}
    held |= {name: answers[name] for name, alteration in altered.items() if not alteration.mask}
    return _Marked(scene.case.case_id, altered, _score(scorer, answers, scene), _score(scorer, held, scene))


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
    terms = [term for term in marked[0].scores[TRUTH] if term != TOTAL] if marked else []
    judged = {}
    for name in terms:
        declared = scorer.terms[name].judges
        judged[name] = frozenset(_reacts(name, marked)) if declared is None else declared
    if len(terms) > 1:
        judged[TOTAL] = frozenset().union(*(judged[name] for name in terms if scorer.weights[name] > 0))
    return judged


def _reacts(term: str, marked: Sequence[_Marked]) -> Iterator[Aspect]:
    for scene in marked:
        for name, alteration in scene.altered.items():
            if len(alteration.spoils) == 1 and abs(scene.held[name][term] - scene.held[TRUTH][term]) > _TINY:
                yield from alteration.spoils

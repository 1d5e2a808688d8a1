"""What the reward audit found: ranks, and tables of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal, get_args

from medvol.core.roles import Aspect
from medvol.evaluation.report import EvaluationReport, Sheet

State = Literal["below", "cannot see", "violated"]
MARKS: Mapping[State, str] = {"below": "  ", "cannot see": " ~", "violated": " !"}

TOTAL = "sum"
"""Name of the weighted sum among the terms."""
TRUTH = "the truth"
HONEST = "an honest, mediocre answer"


@dataclass(frozen=True)
class Rank:
    """How an altered answer ranks in one term.

    Args:
        case_id: The question.
        answer: Name of the alteration.
        exploit: It has to rank below an honest, mediocre answer, and not only below the truth.
        term: Name of the term, or ``sum``.
        score: What it earns.
        against: What it is compared with.
        bar: What that earns.
        state: ``below`` the bar; ``cannot see`` when the term does not judge what is wrong with the answer, and pays no
            more than for the truth; ``violated`` otherwise.
    """

    case_id: str
    answer: str
    exploit: bool
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
        judged: Aspects that each term is tested on.
    """

    ranks: tuple[Rank, ...]
    judged: Mapping[str, frozenset[Aspect]]

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

    def report(self) -> EvaluationReport:
        """Tables of the worst score of each answer, and what is violated in words."""
        return EvaluationReport([self._sheet(TRUTH, False), self._sheet(HONEST, True)], [*self._remarks()])

    def _sheet(self, against: str, exploit: bool) -> Sheet:
        answers = dict.fromkeys(rank.answer for rank in self.ranks if rank.exploit == exploit)
        rows = [[name, *(_cell(self.worst(name, term)) for term in self.judged)] for name in answers]
        return Sheet(f"{'Exploits' if exploit else 'Answers'}, each below {against}", ["answer", *self.judged], rows)

    def _remarks(self) -> Iterator[str]:
        for term, aspects in self.judged.items():
            yield f"{term} judges {', '.join(sorted(aspects)) or 'nothing that was altered'}"
        yield "~ cannot see: the term does not judge what is wrong with the answer   ! violated"
        for term in self.judged:
            for answer in dict.fromkeys(rank.answer for rank in self.violations if rank.term == term):
                rank = self.worst(answer, term)
                assert rank is not None
                yield f"! {term}: {_compare(rank)}"
        total = [rank for rank in self.ranks if rank.term == TOTAL]
        if total:
            rank = max(total, key=lambda rank: rank.score - rank.bar)
            yield f"closest in sum: {_compare(rank)}"
        yield f"{len(self.violations)} of {len(self.ranks)} ranks are violated"

    def __rich__(self) -> EvaluationReport:
        """For the terminal."""
        return self.report()


def _cell(rank: Rank | None) -> str:
    return "" if rank is None else f"{rank.score:.2f}{MARKS[rank.state]}"


def _compare(rank: Rank) -> str:
    return f"{rank.answer!r} earns {rank.score:.3f}, {rank.against} {rank.bar:.3f} ({rank.case_id})"

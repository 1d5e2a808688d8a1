"""Means over cases, with intervals by patient, for all cases and for every group of them.

Slice, box and mask scores are averaged over the cases whose target is present, failures included as 0; answers about
absent targets are counted apart (``absent_accuracy``), so that easy ``[]`` answers cannot lift a Dice.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict
from math import inf
from operator import attrgetter
from typing import Any, NamedTuple

from medvol.evaluation.case_score import CaseScore
from medvol.evaluation.error_budget import ErrorBudget, mean_budget
from medvol.evaluation.statistics import bootstrap_interval

PRESENT_METRICS = ("key_slice_score", "box_iou", "dsc", "iou", "nsd", "hd95_mm")
"""Averaged over cases whose target is present."""

LESION_METRICS = ("hit", "precision", "recall", "f1", "dice", "panoptic")
"""Averaged, as ``lesion_...``, over cases whose target is present and scored lesion by lesion."""

UNBOUNDED = ("hd95_mm", "reward")
"""Metrics that may exceed 1; all are at least 0."""

GROUPINGS = ("phrasing", "kind", "target", "modality")
"""Ways in which ``summarise`` splits the cases."""


class Column(NamedTuple):
    """Values of one metric, one a case that has it, with the patient and the id of each case."""

    values: list[float]
    patients: list[str]
    cases: list[str]


def metric_values(scores: Sequence[CaseScore]) -> dict[str, Column]:
    """Values of every metric that these cases have.

    Returns:
        By name: ``format_rate`` over all cases that were answered in words, ``PRESENT_METRICS`` and ``LESION_METRICS``
        over those whose target is present, ``absent_accuracy`` over the others, ``reward`` over those with rewards;
        metrics without a case are left out.
    """
    present = [score for score in scores if score.present]
    table = {"format_rate": _column(scores, lambda score: score.parsed)}
    table |= {name: _column(present, attrgetter(name)) for name in PRESENT_METRICS}
    counted = [score for score in present if score.lesions is not None]
    table |= {f"lesion_{name}": _column(counted, attrgetter(f"lesions.{name}")) for name in LESION_METRICS}
    table["absent_accuracy"] = _column([score for score in scores if not score.present], attrgetter("dsc"))
    table["reward"] = _column(scores, lambda score: None if score.rewards is None else score.rewards["total"])
    return {name: column for name, column in table.items() if column.values}


def _column(scores: Sequence[CaseScore], read: Callable[[CaseScore], float | None]) -> Column:
    """Values of one metric; cases without a value are left out."""
    rows = [(float(value), score) for score in scores if (value := read(score)) is not None]
    known = [score for _, score in rows]
    return Column([value for value, _ in rows], [s.patient_id for s in known], [s.case_id for s in known])


def mean_scores(scores: Sequence[CaseScore]) -> dict[str, float]:
    """Mean of every metric, without intervals."""
    return {name: sum(column.values) / len(column.values) for name, column in metric_values(scores).items()}


def summarise(scores: Sequence[CaseScore], seed: int = 0) -> dict[str, Any]:
    """Means with intervals for all cases and for each group, failures by name, and the error budget.

    Args:
        scores: Scores of all cases.
        seed: Seed of the bootstrap.

    Returns:
        Plain values for JSON: ``all``, ``groups`` (by grouping, then by value), ``failures``, ``error_budget``.
    """
    budget = mean_budget(score.budget for score in scores if score.budget)
    return {
        "all": _row(scores, seed),
        "groups": {grouping: _split(scores, grouping, seed) for grouping in GROUPINGS},
        "failures": dict(sorted(Counter(score.failure for score in scores if score.failure).items())),
        "error_budget": budget and _describe_budget(budget, sum(score.budget is not None for score in scores)),
    }


def _describe_budget(budget: ErrorBudget, cases: int) -> dict[str, float]:
    """Means and losses; the best anchors only where they were searched for."""
    known = {
        **asdict(budget),
        "cases": cases,
        "propagation_loss": budget.propagation_loss,
        "slice_loss": budget.slice_loss,
        "box_loss": budget.box_loss,
        "headroom": budget.headroom,
    }
    return {name: value for name, value in known.items() if value is not None}


def _row(scores: Sequence[CaseScore], seed: int) -> dict[str, Any]:
    counts = {
        "cases": len(scores),
        "patients": len({score.patient_id for score in scores}),
        "present": sum(score.present for score in scores),
        "failures": sum(score.failure is not None for score in scores),
    }
    intervals = {
        name: asdict(bootstrap_interval(values, patients, seed=seed, limits=(0.0, inf if name in UNBOUNDED else 1.0)))
        for name, (values, patients, _) in metric_values(scores).items()
    }
    return {**counts, "metrics": intervals}


def _split(scores: Sequence[CaseScore], grouping: str, seed: int) -> dict[str, Any]:
    groups: dict[str, list[CaseScore]] = {}
    for score in scores:
        groups.setdefault(_group(score, grouping), []).append(score)
    return {name: _row(members, seed) for name, members in sorted(groups.items())}


def _group(score: CaseScore, grouping: str) -> str:
    if grouping == "phrasing":
        return "held-out" if score.held_out else "seen"
    return str(getattr(score, grouping)) or "(not named)"

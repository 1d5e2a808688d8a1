"""Runs of the same cases, compared: paired differences with intervals and p values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import inf
from typing import Any

from medvol.evaluation.archive import Evaluation
from medvol.evaluation.case_identity import identify_score, tell_apart
from medvol.evaluation.statistics import Interval, adjust_holm, paired_difference, paired_test
from medvol.evaluation.summary import LESION_METRICS, UNBOUNDED, Column, metric_values

MEANINGS: dict[tuple[str, ...], tuple[str, ...]] = {
    ("surface", "tolerance_mm"): ("nsd",),
    ("surface",): ("hd95_mm",),
    ("split_boxes",): ("box_iou",),
    ("max_anchors",): ("key_slice_score", "box_iou"),
    ("reward_weights", "rewards"): ("reward",),
    ("lesions",): tuple(f"lesion_{name}" for name in LESION_METRICS),
}
"""Settings that decide what metrics mean, and these metrics: runs that differ there are not compared in them."""


@dataclass(frozen=True)
class Difference:
    """Mean difference of a metric between two runs.

    Args:
        interval: Second run minus first, over the cases of both, with its interval by patient.
        p: Two-sided p of the permutation test by patient, adjusted for the number of compared runs (Holm).
    """

    interval: Interval
    p: float


def same_cases(first: Evaluation, second: Evaluation) -> bool:
    """Whether two runs answered the same cases with the same truth, so that they can be compared case by case."""
    return set(map(identify_score, first.scores)) == set(map(identify_score, second.scores))


def tell_runs_apart(first: Evaluation, second: Evaluation) -> str:
    """In what a case of one id differs between two runs, in words; empty where none does."""
    known = {score.case_id: identify_score(score) for score in first.scores}
    for score in second.scores:
        one = known.get(score.case_id)
        difference = one and tell_apart(one, identify_score(score))
        if difference:
            return f"case {score.case_id!r} differs in {difference}"
    return ""


def alike(runs: Mapping[str, Evaluation]) -> list[dict[str, Evaluation]]:
    """Runs that answered the same cases, together; each group in the order of the runs, the first of it first."""
    groups: list[dict[str, Evaluation]] = []
    for label, run in runs.items():
        group = next((group for group in groups if same_cases(next(iter(group.values())), run)), None)
        if group is None:
            groups.append({label: run})
        else:
            group[label] = run
    return groups


@dataclass(frozen=True)
class LeftOut:
    """Metrics that two runs have, and in which they are not compared.

    Args:
        metrics: Their names.
        why: What the runs do, such as ``differ in tolerance_mm (1.0 and 2.0)``.
    """

    metrics: tuple[str, ...]
    why: str


def find_left_out(run: Evaluation, first: Evaluation) -> list[LeftOut]:
    """Metrics of two runs of the same cases in which they are not compared; ``why`` tells of ``run`` first."""
    own, others = _columns(run), _columns(first)
    both = own.keys() & others.keys()
    found = [
        LeftOut(metrics, f"differ in {difference}")
        for names, metrics in MEANINGS.items()
        if both.intersection(metrics) and (difference := _differ_in(run, first, names))
    ]
    told = {metric for left_out in found for metric in left_out.metrics}
    uneven = tuple(name for name in own if name in both - told and own[name].cases != others[name].cases)
    return [*found, LeftOut(uneven, "have values of different cases")] if uneven else found


def _differ_in(run: Evaluation, first: Evaluation, names: Sequence[str]) -> str:
    """The settings of two runs that differ, such as ``tolerance_mm (1.0 and 2.0)``; empty where none does."""
    rows = zip(names, _settings(run, names), _settings(first, names), strict=True)
    return " and ".join(f"{name} ({one} and {other})" for name, one, other in rows if one != other)


def _settings(run: Evaluation, names: Sequence[str]) -> list[Any]:
    said: dict[str, Any] = dict(run.summary.get("settings", {}))
    said["max_anchors"] = max(score.max_anchors for score in run.scores)
    measured = sorted({score.tolerance_mm for score in run.scores if score.tolerance_mm is not None})
    if measured:  # a case may bring its own
        said["tolerance_mm"] = measured if len(measured) > 1 else measured[0]
    return [run.summary[name] if name in run.summary else said.get(name) for name in names]


def compare_runs(first: Evaluation, others: Mapping[str, Evaluation]) -> dict[str, dict[str, Difference]]:
    """Compare runs with the first one.

    Args:
        first: What the others are compared with.
        others: Runs by label, which answered the same cases.

    Returns:
        By metric, then by label, without what ``find_left_out`` tells of.
    """
    known = _columns(first)
    columns = {label: _columns(run) for label, run in others.items()}
    left_out = {
        label: {metric for part in find_left_out(run, first) for metric in part.metrics}
        for label, run in others.items()
    }
    found = {}
    for name, own in known.items():
        compared = [label for label in others if name in columns[label] and name not in left_out[label]]
        pairs = {label: (own.values, columns[label][name].values, own.patients) for label in compared}
        p_values = adjust_holm({label: paired_test(*pair) for label, pair in pairs.items()})
        most = inf if name in UNBOUNDED else 1.0
        found[name] = {
            label: Difference(paired_difference(*pair, limits=(-most, most)), p_values[label])
            for label, pair in pairs.items()
        }
    return found


def _columns(run: Evaluation) -> dict[str, Column]:
    """Values of every metric, in the order of the ids of the cases."""
    return metric_values(sorted(run.scores, key=lambda score: score.case_id))

"""Runs of the same cases, compared: paired differences with intervals and p values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import inf
from typing import Any

from medvol.evaluation.archive import Evaluation
from medvol.evaluation.case_identity import identify_score, tell_apart
from medvol.evaluation.statistics import Interval, adjust_holm, paired_difference, paired_test
from medvol.evaluation.summary import UNBOUNDED, metric_values

MEANINGS: dict[tuple[str, ...], tuple[str, ...]] = {
    ("surface", "tolerance_mm"): ("nsd", "hd95_mm"),
    ("split_boxes",): ("box_iou",),
    ("max_anchors",): ("key_slice_score", "box_iou"),
    ("reward_weights", "rewards"): ("reward",),
}
"""Settings that decide what metrics mean, and these metrics: runs that differ there are not compared in them."""

Pair = tuple[list[float], list[float], list[str]]


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


def find_unlike(first: Evaluation, second: Evaluation) -> list[tuple[str, ...]]:
    """Settings of ``MEANINGS`` in which two runs differ, where both have such metrics."""
    known = [metric_values(run.scores).keys() for run in (first, second)]
    return [
        names
        for names, metrics in MEANINGS.items()
        if settings_of(first, names) != settings_of(second, names)
        and any(all(metric in found for found in known) for metric in metrics)
    ]


def settings_of(run: Evaluation, names: tuple[str, ...]) -> list[Any]:
    """What a run says of settings of ``MEANINGS``."""
    said = {**run.summary.get("settings", {}), "max_anchors": max(score.max_anchors for score in run.scores)}
    return [run.summary[name] if name in run.summary else said.get(name) for name in names]


def compare_runs(first: Evaluation, others: Mapping[str, Evaluation]) -> dict[str, dict[str, Difference]]:
    """Compare runs with the first one.

    Args:
        first: What the others are compared with.
        others: Runs by label, which answered the same cases.

    Returns:
        By metric, then by label; a run that does not measure the same of the same cases is left out there.
    """
    found = {}
    unlike = {
        label: {metric for names in find_unlike(first, run) for metric in MEANINGS[names]}
        for label, run in others.items()
    }
    for name in metric_values(first.scores):
        pairs = {label: _pair(first, run, name) for label, run in others.items() if name not in unlike[label]}
        known = {label: pair for label, pair in pairs.items() if pair is not None}
        p_values = adjust_holm({label: paired_test(*pair) for label, pair in known.items()})
        most = inf if name in UNBOUNDED else 1.0
        found[name] = {
            label: Difference(paired_difference(*pair, limits=(-most, most)), p_values[label])
            for label, pair in known.items()
        }
    return found


def _pair(first: Evaluation, second: Evaluation, name: str) -> Pair | None:
    """Values of one metric in two runs and the patients; None where they do not have it of the same cases."""
    columns = [metric_values(sorted(run.scores, key=lambda score: score.case_id)).get(name) for run in (first, second)]
    if columns[0] is None or columns[1] is None or columns[0][1] != columns[1][1]:
        return None
    return columns[0][0], columns[1][0], columns[0][1]

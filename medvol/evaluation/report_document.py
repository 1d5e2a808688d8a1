"""A report for programs: the numbers behind the tables of ``medvol report``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from medvol.evaluation.archive import Evaluation
from medvol.evaluation.comparison import Difference, alike, compare_runs, find_left_out
from medvol.evaluation.named_runs import read_runs
from medvol.evaluation.risk_coverage import describe_confidence

_PARTS = ("all", "groups", "failures", "error_budget")
"""Of ``evaluation.json``."""


def describe_runs(folders: Sequence[str | Path]) -> dict[str, Any]:
    """Read evaluations; each is compared with the first one that answered the same cases.

    Args:
        folders: Run folders, each with ``evaluation.json`` and ``cases.json``.

    Returns:
        Plain values for JSON: ``runs``, and ``differences`` in the order of the runs, the first run left out.

    Raises:
        ConfigError: There is no folder, or one is named twice.
        RecordError: A file is missing, damaged, or of another version.
    """
    runs = read_runs(folders)
    found = {run: difference for group in alike(runs) for run, difference in _compare(group).items()}
    return {
        "runs": [_describe(label, run) for label, run in runs.items()],
        "differences": [{"run": label, **found[label]} for label in list(runs)[1:]],
    }


def _compare(group: Mapping[str, Evaluation]) -> dict[str, dict[str, Any]]:
    """Runs of the same cases against the first of them, which has nothing to be compared with."""
    (first_label, first), *rest = group.items()
    found = compare_runs(first, dict(rest))
    return {
        first_label: {"against": None, "metrics": None, "left_out": None},
        **{
            label: {"against": first_label, "metrics": _metrics(found, label), "left_out": _left_out(run, first)}
            for label, run in rest
        },
    }


def _left_out(run: Evaluation, first: Evaluation) -> dict[str, str]:
    """Why two runs are not compared, by metric."""
    return {metric: f"the runs {part.why}" for part in find_left_out(run, first) for metric in part.metrics}


def _describe(label: str, run: Evaluation) -> dict[str, Any]:
    parts = {part: run.summary[part] for part in _PARTS}
    confidence = describe_confidence(run.scores, run.summary["bootstrap_seed"])
    return {"run": label, "folder": str(run.folder), **parts, "confidence": confidence}


def _metrics(found: Mapping[str, Mapping[str, Difference]], label: str) -> dict[str, Any]:
    return {
        name: {**asdict(by_run[label].interval), "p": by_run[label].p}
        for name, by_run in found.items()
        if label in by_run
    }

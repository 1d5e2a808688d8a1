"""A report for programs: the numbers behind the tables of ``medvol report``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from medvol.evaluation.archive import Evaluation
from medvol.evaluation.report import difference, read_runs, same_cases
from medvol.evaluation.summary import metric_values

_PARTS = ("all", "groups", "failures", "error_budget")
"""Of ``evaluation.json``."""


def describe_runs(folders: Sequence[str | Path]) -> dict[str, Any]:
    """Read evaluations; the first one is what the others are compared with.

    Args:
        folders: Run folders, each with ``evaluation.json`` and ``cases.json``.

    Returns:
        Plain values for JSON: ``runs``, and ``differences`` to the first run.

    Raises:
        ConfigError: There is no folder, or one is named twice.
        RecordError: A file is missing, damaged, or of another version.
    """
    runs = read_runs(folders)
    (first_label, first), *others = runs.items()
    return {
        "runs": [_describe(label, run) for label, run in runs.items()],
        "differences": [
            {"run": label, "against": first_label, "metrics": _compare(first, run)} for label, run in others
        ],
    }


def _describe(label: str, run: Evaluation) -> dict[str, Any]:
    return {"run": label, "folder": str(run.folder), **{part: run.summary[part] for part in _PARTS}}


def _compare(first: Evaluation, second: Evaluation) -> Mapping[str, Any] | None:
    """Paired difference of every metric that both have; None when they did not answer the same cases."""
    if not same_cases(first, second):
        return None
    common = [name for name in metric_values(first.scores) if name in metric_values(second.scores)]
    return {name: asdict(difference(first, second, name)) for name in common}

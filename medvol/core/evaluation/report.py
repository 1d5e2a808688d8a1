"""Tables of one or several evaluations, for the terminal and as Markdown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table

from medvol.core.errors import ConfigError
from medvol.core.evaluation.archive import Evaluation, read_evaluation
from medvol.core.evaluation.statistics import paired_difference
from medvol.core.evaluation.summary import GROUPINGS, metric_values

LABELS = {
    "format_rate": "format",
    "key_slice_score": "key slice",
    "box_iou": "box IoU",
    "dsc": "DSC",
    "iou": "IoU",
    "nsd": "NSD",
    "hd95_mm": "HD95 mm",
    "absent_accuracy": "absent",
}
"""Column head of every metric, in order."""


@dataclass(frozen=True)
class Sheet:
    """A table of text.

    Args:
        title: What it shows.
        head: Column heads.
        rows: One cell a column.
    """

    title: str
    head: Sequence[str]
    rows: Sequence[Sequence[str]]

    def __rich__(self) -> Table:
        """For the terminal."""
        table = Table(title=self.title, title_justify="left")
        for index, head in enumerate(self.head):
            table.add_column(head, justify="left" if index == 0 else "right", overflow="fold")
        for row in self.rows:
            table.add_row(*row)
        return table

    def to_markdown(self) -> str:
        """As a Markdown table under a heading."""
        lines = [self.head, ["---"] * len(self.head), *self.rows]
        body = "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)
        return f"## {self.title}\n\n{body}\n"


@dataclass(frozen=True)
class Report:
    """Several tables and remarks; print it with rich, or as Markdown.

    Args:
        sheets: Tables in order.
        remarks: Sentences below them.
    """

    sheets: Sequence[Sheet]
    remarks: Sequence[str] = ()

    def __rich__(self) -> RenderableType:
        """For the terminal."""
        return Group(*self.sheets, *self.remarks)

    def to_markdown(self) -> str:
        """As a Markdown document."""
        return "\n".join([*(sheet.to_markdown() for sheet in self.sheets), *(f"{line}\n" for line in self.remarks)])


def report_runs(folders: Sequence[str | Path]) -> Report:
    """Read evaluations and lay them side by side; the first one is what the others are compared with.

    Args:
        folders: Run folders, each with ``evaluation.json`` and ``cases.json``.

    Raises:
        ConfigError: There is no folder, or one is named twice.
        RecordError: A file is missing, damaged, or of another version.
    """
    paths = [Path(folder) for folder in folders]
    if not paths or len({path.resolve() for path in paths}) < len(paths):
        raise ConfigError(f"a report needs one or more different run folders; got {[str(path) for path in paths]}")
    runs = {str(path): read_evaluation(path) for path in paths}
    sheets = [_overview(runs), *_differences(runs), *_budgets(runs)]
    if len(runs) == 1:
        sheets += summary_sheets(next(iter(runs.values())).summary)[1:]
    else:
        sheets += [_side_by_side(runs, grouping) for grouping in GROUPINGS]
    return Report(sheets, [*_failures(runs), *_unlike(runs)])


def summary_sheets(summary: Mapping[str, Any]) -> list[Sheet]:
    """Tables of one evaluation: all cases, then every grouping with more than one group."""
    names = _metric_names([summary])
    title = "mean [95 % interval by patient]; failures count as 0"
    sheets = [Sheet(title, _head("cases", names), [_line("all", summary["all"], names)])]
    for grouping, groups in summary["groups"].items():
        if len(groups) > 1:
            rows = [_line(name, row, names) for name, row in groups.items()]
            sheets.append(Sheet(f"by {grouping}", _head(grouping, names), rows))
    return sheets


def format_interval(interval: Mapping[str, Any] | None) -> str:
    """``0.812 [0.774, 0.846]``; a dash without cases, the mean alone without an interval."""
    if interval is None:
        return "-"
    mean = f"{interval['mean']:.3f}"
    return mean if interval["low"] is None else f"{mean} [{interval['low']:.3f}, {interval['high']:.3f}]"


def _metric_names(summaries: Sequence[Mapping[str, Any]]) -> list[str]:
    return [name for name in LABELS if any(name in summary["all"]["metrics"] for summary in summaries)]


def _head(first: str, names: Sequence[str]) -> list[str]:
    return [first, "n", "patients", "failed", *(LABELS[name] for name in names)]


def _line(label: str, row: Mapping[str, Any], names: Sequence[str]) -> list[str]:
    counts = [str(row[key]) for key in ("cases", "patients", "failures")]
    return [label, *counts, *(format_interval(row["metrics"].get(name)) for name in names)]


def _overview(runs: Mapping[str, Evaluation]) -> Sheet:
    names = _metric_names([run.summary for run in runs.values()])
    rows = [_line(label, run.summary["all"], names) for label, run in runs.items()]
    return Sheet("mean [95 % interval by patient]; failures count as 0", _head("run", names), rows)


def _differences(runs: Mapping[str, Evaluation]) -> list[Sheet]:
    """Paired differences to the first run, for the runs that answered the same cases."""
    (first_label, first), *others = runs.items()
    rows = []
    names = [name for name in LABELS if name in metric_values(first.scores)]
    for label, run in others:
        if _cases(run) == _cases(first):
            rows.append([label, *(_difference(first, run, name) for name in names)])
    title = f"difference to {first_label}, same cases [95 % interval by patient]"
    return [Sheet(title, ["run", *(LABELS[name] for name in names)], rows)] if rows else []


def _difference(first: Evaluation, second: Evaluation, name: str) -> str:
    columns = [metric_values(sorted(run.scores, key=lambda score: score.case_id)) for run in (first, second)]
    if name not in columns[1]:
        return "-"
    (before, patients), (after, _) = (column[name] for column in columns)
    return format_interval(asdict(paired_difference(before, after, patients)))


def _cases(run: Evaluation) -> set[tuple[str, bool]]:
    return {(score.case_id, score.present) for score in run.scores}


def _budgets(runs: Mapping[str, Evaluation]) -> list[Sheet]:
    keys = ("true_anchor", "true_boxes", "predicted", "propagation_loss", "slice_loss", "box_loss")
    head = ["run", "n", "DSC: true anchor", "true boxes", "as predicted", "lost: propagation", "slice", "boxes"]
    rows = []
    for label, run in runs.items():
        budget = run.summary["error_budget"]
        if budget:
            rows.append([label, str(budget["cases"]), *(f"{budget[key]:.3f}" for key in keys)])
    return [Sheet("error budget, cases whose target is present", head, rows)] if rows else []


def _side_by_side(runs: Mapping[str, Evaluation], grouping: str) -> Sheet:
    """DSC of every group, one column a run."""
    groups = {label: run.summary["groups"][grouping] for label, run in runs.items()}
    names = sorted({name for rows in groups.values() for name in rows})
    rows = [
        [name, *(format_interval(groups[label].get(name, {}).get("metrics", {}).get("dsc")) for label in runs)]
        for name in names
    ]
    return Sheet(f"DSC by {grouping}", [grouping, *runs], rows)


def _failures(runs: Mapping[str, Evaluation]) -> list[str]:
    texts = {
        label: ", ".join(f"{name} {count}" for name, count in run.summary["failures"].items())
        for label, run in runs.items()
    }
    return [f"failures of {label}: {text}" for label, text in texts.items() if text]


def _unlike(runs: Mapping[str, Evaluation]) -> list[str]:
    (first_label, first), *others = runs.items()
    return [
        f"{label} did not answer the same cases as {first_label}: no paired difference"
        for label, run in others
        if _cases(run) != _cases(first)
    ]

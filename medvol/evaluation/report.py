"""Tables of one or several evaluations, for the terminal and as Markdown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from medvol.core.errors import ConfigError
from medvol.evaluation.archive import Evaluation, read_evaluation
from medvol.evaluation.scoring import CaseScore
from medvol.evaluation.statistics import Interval, paired_difference
from medvol.evaluation.summary import GROUPINGS, mean_scores, metric_values

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

    def __rich__(self) -> RenderableType:
        """For the terminal; names from data are never read as markup."""
        table = Table()
        for index, head in enumerate(self.head):
            table.add_column(Text(head), justify="left" if index == 0 else "right", overflow="fold")
        for row in self.rows:
            table.add_row(*map(Text, row))
        return Group(Text(self.title, style="bold"), table)

    def to_markdown(self) -> str:
        """As a Markdown table under a heading."""
        lines = [self.head, ["---"] * len(self.head), *self.rows]
        body = "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)
        return f"## {self.title}\n\n{body}\n"


@dataclass(frozen=True)
class EvaluationReport:
    """Several tables and remarks; print it with rich, or as Markdown.

    Args:
        sheets: Tables in order.
        remarks: Sentences below them.
    """

    sheets: Sequence[Sheet]
    remarks: Sequence[str] = ()

    def __rich__(self) -> RenderableType:
        """For the terminal."""
        return Group(*self.sheets, *map(Text, self.remarks))

    def to_markdown(self) -> str:
        """As a Markdown document."""
        return "\n".join([*(sheet.to_markdown() for sheet in self.sheets), *(f"{line}\n" for line in self.remarks)])


def report_runs(folders: Sequence[str | Path]) -> EvaluationReport:
    """Read evaluations and lay them side by side; the first one is what the others are compared with.

    Args:
        folders: Run folders, each with ``evaluation.json`` and ``cases.json``.

    Raises:
        ConfigError: There is no folder, or one is named twice.
        RecordError: A file is missing, damaged, or of another version.
    """
    runs = read_runs(folders)
    groups = [sheet for grouping in GROUPINGS for sheet in _groups(runs, grouping)]
    return EvaluationReport(
        [_overview(runs), *_differences(runs), *_budgets(runs), *groups], [*_failures(runs), *_unlike(runs)]
    )


def read_runs(folders: Sequence[str | Path]) -> dict[str, Evaluation]:
    """Read evaluations; each is labelled by the name of its folder, or by its path where names are equal.

    Raises:
        ConfigError: There is no folder, or one is named twice.
        RecordError: A file is missing, damaged, or of another version.
    """
    paths = [Path(folder) for folder in folders]
    if not paths or len({path.resolve() for path in paths}) < len(paths):
        raise ConfigError(f"a report needs one or more different run folders; got {[str(path) for path in paths]}")
    names = [path.name for path in paths]
    labels = names if len(set(names)) == len(names) else [str(path) for path in paths]
    return dict(zip(labels, map(read_evaluation, paths), strict=True))


def same_cases(first: Evaluation, second: Evaluation) -> bool:
    """Whether two runs answered the same cases, so that they can be compared case by case."""
    return _cases(first) == _cases(second)


def difference(first: Evaluation, second: Evaluation, name: str) -> Interval:
    """Mean difference of a metric over cases that both runs answered, with its interval by patient."""
    columns = [metric_values(sorted(run.scores, key=lambda score: score.case_id)) for run in (first, second)]
    (before, patients), (after, _) = (column[name] for column in columns)
    return paired_difference(before, after, patients)


def show_means(scores: Sequence[CaseScore]) -> Sheet:
    """Means over the cases of a validation, without intervals."""
    means = mean_scores(scores)
    rows = [[LABELS.get(name, name), f"{value:.3f}"] for name, value in means.items()]
    return Sheet(f"mean over {len(scores)} cases; failures count as 0", ["", "validation"], rows)


def format_interval(interval: Mapping[str, Any] | None) -> str:
    """``0.812 [0.774, 0.846]``; a dash without cases, the mean alone without an interval."""
    if interval is None:
        return "-"
    mean = f"{interval['mean']:.3f}"
    return mean if interval["low"] is None else f"{mean} [{interval['low']:.3f}, {interval['high']:.3f}]"


def _overview(runs: Mapping[str, Evaluation]) -> Sheet:
    parts = [run.summary["all"] for run in runs.values()]
    rows = [[key, *(str(part[key]) for part in parts)] for key in ("cases", "patients", "present", "failures")]
    for name, label in LABELS.items():
        if any(name in part["metrics"] for part in parts):
            rows.append([label, *(format_interval(part["metrics"].get(name)) for part in parts)])
    return Sheet("mean [95 % interval by patient]; failures count as 0", ["", *runs], rows)


def _differences(runs: Mapping[str, Evaluation]) -> list[Sheet]:
    """Paired differences to the first run, for the runs that answered the same cases."""
    (first_label, first), *rest = runs.items()
    others = {label: run for label, run in rest if same_cases(first, run)}
    if not others:
        return []
    rows = [
        [LABELS[name], *(_difference(first, run, name) for run in others.values())]
        for name in LABELS
        if name in metric_values(first.scores)
    ]
    return [Sheet(f"difference to {first_label}, same cases [95 % interval by patient]", ["", *others], rows)]


def _difference(first: Evaluation, second: Evaluation, name: str) -> str:
    if name not in metric_values(second.scores):
        return "-"
    return format_interval(asdict(difference(first, second, name)))


def _cases(run: Evaluation) -> set[tuple[str, bool]]:
    return {(score.case_id, score.present) for score in run.scores}


def _budgets(runs: Mapping[str, Evaluation]) -> list[Sheet]:
    budgets = {label: run.summary["error_budget"] for label, run in runs.items() if run.summary["error_budget"]}
    rows = [
        [label, *(f"{budget[key]:.3f}" for budget in budgets.values())]
        for key, label in (
            ("true_anchor", "DSC from the true slice and boxes"),
            ("true_boxes", "DSC from the true boxes of the chosen slice"),
            ("predicted", "DSC as predicted"),
            ("propagation_loss", "lost by propagation"),
            ("slice_loss", "lost by the slice"),
            ("box_loss", "lost by the boxes"),
        )
    ]
    return [Sheet("error budget, cases whose target is present", ["", *budgets], rows)] if budgets else []


def _groups(runs: Mapping[str, Evaluation], grouping: str) -> list[Sheet]:
    """DSC of every group, one column a run; nothing when there is only one group."""
    groups = {label: run.summary["groups"][grouping] for label, run in runs.items()}
    rows = [
        [name, *(_group_cell(groups[label].get(name)) for label in runs)]
        for name in sorted({name for members in groups.values() for name in members})
    ]
    return [Sheet(f"DSC by {grouping}", [grouping, *runs], rows)] if len(rows) > 1 else []


def _group_cell(row: Mapping[str, Any] | None) -> str:
    if row is None:
        return "-"
    return f"{format_interval(row['metrics'].get('dsc'))} (n={row['cases']})"


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
        if not same_cases(first, run)
    ]

"""Tables of one or several evaluations, for the terminal and as Markdown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from medvol.evaluation.archive import Evaluation
from medvol.evaluation.case_score import CaseScore
from medvol.evaluation.comparison import (
    Difference,
    alike,
    compare_runs,
    find_left_out,
    tell_runs_apart,
)
from medvol.evaluation.named_runs import read_runs
from medvol.evaluation.risk_coverage import describe_confidence
from medvol.evaluation.summary import GROUPINGS, mean_scores

LABELS = {
    "format_rate": "format",
    "key_slice_score": "key slice",
    "box_iou": "box IoU",
    "dsc": "DSC",
    "iou": "IoU",
    "nsd": "NSD",
    "hd95_mm": "HD95 mm",
    "lesion_hit": "HIT",
    "lesion_precision": "lesion precision",
    "lesion_recall": "lesion recall",
    "lesion_f1": "lesion F1",
    "lesion_dice": "lesion DSC",
    "lesion_panoptic": "panoptic quality",
    "absent_accuracy": "absent",
    "reward": "reward",
}
"""Column head of every metric, in order."""

TOPICS = ("scores", "differences", "budget", "groups", "confidence")
"""Parts of a report that tables belong to; a table may belong to none."""


@dataclass(frozen=True)
class Sheet:
    """A table of text.

    Args:
        title: What it shows.
        head: Column heads.
        rows: One cell a column.
        topic: Part of a report that it belongs to, one of ``TOPICS``.
    """

    title: str
    head: Sequence[str]
    rows: Sequence[Sequence[str]]
    topic: str = ""

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
        body = "\n".join("| " + " | ".join(map(_to_cell, line)) + " |" for line in lines)
        return f"## {_to_cell(self.title)}\n\n{body}\n"


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
        return "\n".join(
            [*(sheet.to_markdown() for sheet in self.sheets), *(f"{_to_cell(line)}\n" for line in self.remarks)]
        )


def _to_cell(text: str) -> str:
    """A text on one line of Markdown, where a name from data is neither HTML nor the end of a cell."""
    plain = " ".join(text.split())
    return plain.replace("&", "&amp;").replace("<", "&lt;").replace("|", "\\|")


def report_runs(folders: Sequence[str | Path]) -> EvaluationReport:
    """Read evaluations and lay them side by side; each is compared with the first that answered the same cases.

    Args:
        folders: Run folders, each with ``evaluation.json`` and ``cases.json``.

    Raises:
        ConfigError: There is no folder, or one is named twice.
        RecordError: A file is missing, damaged, or of another version.
    """
    return lay_out(read_runs(folders))


def lay_out(runs: Mapping[str, Evaluation]) -> EvaluationReport:
    """Lay evaluations by label side by side; those of the same cases are compared with the first of them."""
    groups = [sheet for grouping in GROUPINGS for sheet in _groups(runs, grouping)]
    return EvaluationReport(
        [_overview(runs), *_differences(runs), *_budgets(runs), *_confidences(runs), *groups],
        [*_failures(runs), *_unlike(runs)],
    )


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


def format_p(p: float) -> str:
    """``0.032``; ``<0.001`` for less than that, since no p is 0."""
    return f"{p:.3f}" if p >= 0.001 else "<0.001"


def _overview(runs: Mapping[str, Evaluation]) -> Sheet:
    parts = [run.summary["all"] for run in runs.values()]
    rows = [[key, *(str(part[key]) for part in parts)] for key in ("cases", "patients", "present", "failures")]
    for name, label in LABELS.items():
        if any(name in part["metrics"] for part in parts):
            rows.append([label, *(format_interval(part["metrics"].get(name)) for part in parts)])
    return Sheet("mean [95 % interval by patient]; failures count as 0", ["", *runs], rows, "scores")


def _differences(runs: Mapping[str, Evaluation]) -> list[Sheet]:
    """Paired differences among the runs that answered the same cases, to the first of them."""
    return [sheet for group in alike(runs) for sheet in _differences_to_first(group)]


def _differences_to_first(group: Mapping[str, Evaluation]) -> list[Sheet]:
    (first_label, first), *rest = group.items()
    others = dict(rest)
    found = compare_runs(first, others)
    rows = [
        [LABELS[name], *(_difference_cell(found[name].get(label)) for label in others)]
        for name in LABELS
        if found.get(name)
    ]
    title = f"difference to {first_label}, same cases [95 % interval by patient], p of the permutation test by patient"
    return [Sheet(f"{title}, after Holm over the runs", ["", *others], rows, "differences")] if rows else []


def _difference_cell(difference: Difference | None) -> str:
    if difference is None:
        return "-"
    return f"{format_interval(asdict(difference.interval))} p {format_p(difference.p)}"


def _budgets(runs: Mapping[str, Evaluation]) -> list[Sheet]:
    budgets = {label: run.summary["error_budget"] for label, run in runs.items() if run.summary["error_budget"]}
    rows = [
        [label, *(f"{budget[key]:.3f}" if key in budget else "-" for budget in budgets.values())]
        for key, label in (
            ("true_anchor", "DSC from the true slice and boxes"),
            ("true_boxes", "DSC from the true boxes of the chosen slice"),
            ("predicted", "DSC as predicted"),
            ("propagation_loss", "lost by propagation"),
            ("slice_loss", "lost by the slice"),
            ("box_loss", "lost by the boxes"),
            ("best_slice", "DSC from the true boxes of the best slice"),
            ("best_anchor", "DSC from the best anchor found"),
            ("headroom", "left to gain: best anchor found, less the prediction"),
        )
        if any(key in budget for budget in budgets.values())
    ]
    return [Sheet("error budget, cases whose target is present", ["", *budgets], rows, "budget")] if budgets else []


def _confidences(runs: Mapping[str, Evaluation]) -> list[Sheet]:
    """What the confidence of each run is worth, and its cases of least confidence; nothing where no run has one."""
    described = {label: describe_confidence(run.scores, run.summary["bootstrap_seed"]) for label, run in runs.items()}
    known = {label: found for label, found in described.items() if found is not None}
    if not known:
        return []
    rows = [
        ["cases with a confidence", *(str(found["cases"]) for found in known.values())],
        ["rank correlation with DSC", *(_worth(found["rank_correlation"]) for found in known.values())],
        ["AURC: area of risk and coverage", *(f"{found['curve']['area']:.3f}" for found in known.values())],
        ["the same in random order", *(f"{found['curve']['random']:.3f}" for found in known.values())],
        ["the same in perfect order", *(f"{found['curve']['perfect']:.3f}" for found in known.values())],
        ["gain: 0 random, 1 perfect", *(_worth(found["gain"]) for found in known.values())],
    ]
    title = "confidence from sampled answers; risk is 1 - DSC [95 % percentile interval by patient]"
    return [
        Sheet(title, ["", *known], rows, "confidence"),
        *(_look_first(label, found) for label, found in known.items()),
    ]


def _worth(found: Mapping[str, Any]) -> str:
    return format_interval(None if found["value"] is None else {"mean": found["value"], **found})


def _look_first(label: str, found: Mapping[str, Any]) -> Sheet:
    rows = [
        [
            row["case_id"],
            row["target"] or row["query"],
            f"{row['confidence']:.3f}",
            f"{row['dsc']:.3f}" + (f" ({row['failure']})" if row["failure"] else ""),
        ]
        for row in found["look_first"]
    ]
    title = f"look at these first: least confidence in {label}"
    return Sheet(title, ["case", "target", "confidence", "DSC"], rows, "confidence")


def _groups(runs: Mapping[str, Evaluation], grouping: str) -> list[Sheet]:
    """DSC of every group, one column a run; nothing when there is only one group."""
    groups = {label: run.summary["groups"][grouping] for label, run in runs.items()}
    rows = [
        [name, *(_group_cell(groups[label].get(name)) for label in runs)]
        for name in sorted({name for members in groups.values() for name in members})
    ]
    return [Sheet(f"DSC by {grouping}", [grouping, *runs], rows, "groups")] if len(rows) > 1 else []


def _group_cell(row: Mapping[str, Any] | None) -> str:
    """The mean with the number of cases that it is over, which are those whose target is present."""
    dsc = row and row["metrics"].get("dsc")
    return f"{format_interval(dsc)} (n={dsc['cases']})" if dsc else "-"


def _failures(runs: Mapping[str, Evaluation]) -> list[str]:
    texts = {
        label: ", ".join(f"{name} {count}" for name, count in run.summary["failures"].items())
        for label, run in runs.items()
    }
    return [f"failures of {label}: {text}" for label, text in texts.items() if text]


def _unlike(runs: Mapping[str, Evaluation]) -> list[str]:
    """Of runs that are compared with no other, or not in everything."""
    groups = alike(runs)
    alone = [label for group in groups for label in group if len(group) == 1] if len(runs) > 1 else []
    unlike = [
        f"{label} and {first_label} {part.why}, so they are not compared in {_list_metrics(part.metrics)}"
        for group in groups
        for (first_label, first), *others in [group.items()]
        for label, run in others
        for part in find_left_out(run, first)
    ]
    nobody = [f"no other run answered the cases of {label}: no paired difference" for label in alone]
    return [*nobody, *_apart(groups), *unlike]


def _apart(groups: Sequence[Mapping[str, Evaluation]]) -> list[str]:
    """Of runs whose cases have the ids of another run's and are other ones."""
    firsts = [next(iter(group.items())) for group in groups]
    found = []
    for place, (label, run) in enumerate(firsts):
        told = ((earlier, tell_runs_apart(run, other)) for earlier, other in firsts[:place])
        said = next(((earlier, words) for earlier, words in told if words), None)
        if said is not None:
            found.append(f"{label} and {said[0]} did not answer the same cases: {said[1]}")
    return found


def _list_metrics(names: Sequence[str]) -> str:
    *most, last = (LABELS[name] for name in names)
    return f"{', '.join(most)} and {last}" if most else last

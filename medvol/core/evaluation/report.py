"""Tables of one or several evaluations."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.table import Table

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


def score_table(summary: Mapping[str, Any]) -> Table:
    """Table of one evaluation: all cases, then every group."""
    names = [name for name in LABELS if name in summary["all"]["metrics"]]
    table = Table(title="mean [95 % interval by patient]; failures count as 0")
    for head in ("cases of", "n", "failed", *(LABELS[name] for name in names)):
        table.add_column(head)
    rows = {"all": summary["all"]}
    for grouping, groups in summary["groups"].items():
        rows |= {f"{grouping} {name}": row for name, row in groups.items()}
    for name, row in rows.items():
        cells = [format_interval(row["metrics"].get(metric)) for metric in names]
        table.add_row(name, str(row["cases"]), str(row["failures"]), *cells)
    return table


def format_interval(interval: Mapping[str, Any] | None) -> str:
    """``0.812 [0.774, 0.846]``; a dash without cases, the mean alone without an interval."""
    if interval is None:
        return "-"
    mean = f"{interval['mean']:.3f}"
    return mean if interval["low"] is None else f"{mean} [{interval['low']:.3f}, {interval['high']:.3f}]"

"""Cells of ``finite.py``, what is worked out from them, and how it is shown."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from crossed import crossed_interval

from medvol.evaluation.case_score import CaseScore

PHRASINGS = ("seen", "held_out")

Scores = Mapping[str, Mapping[str, Mapping[str, Mapping[str, float]]]]
"""DSC by ``PHRASINGS``, target, phrasing and number of the volume; a failed answer is 0."""

_MEANS = ("format_rate", "key_slice", "box_iou")

ROWS = {
    "plateau": "SFT to its plateau",
    "beyond": "SFT beyond it",
    "more_sft": "plateau + more SFT",
    "gentle_sft": "plateau + SFT at GRPO's rate, best by validation",
    "grpo": "plateau + GRPO",
    "grpo_best": "plateau + GRPO, best by validation",
    "rejection": "plateau + rejection sampling",
    "grpo_16": "plateau + GRPO, groups of 16",
    "grpo_32": "plateau + GRPO, groups of 32",
}

SUPERVISED = ("plateau", "more_sft", "gentle_sft")
"""Of which the best is what GRPO has to beat."""


@dataclass(frozen=True)
class FiniteCell:
    """What one row scored with one seed.

    Args:
        setting: Name of the setting.
        row: Name of the row.
        seed: Of volumes, phrasings and draws.
        steps: Optimiser steps of its own.
        cpu_s: Processor seconds of its own training.
        curve: Validation DSC by optimiser step; of the cold start only.
        means: Mean format rate, key-slice score and box IoU.
        dsc: Every test score.
        device: What the network ran on.
    """

    setting: str
    row: str
    seed: int
    steps: int
    cpu_s: float
    curve: Sequence[Sequence[float]]
    means: Mapping[str, float]
    dsc: Scores
    device: str = "cpu"


def sort_scores(scores: Sequence[CaseScore]) -> Scores:
    """The DSC of every question."""
    found: dict[str, dict[str, dict[str, dict[str, float]]]] = {}
    for score in scores:
        targets = found.setdefault(PHRASINGS[score.held_out], {})
        own = targets.setdefault(score.target, {}).setdefault(score.query, {})
        own[str(int(score.patient_id.rpartition("-")[2]))] = round(score.dsc, 4)
    return found


def read_cells(folder: Path) -> dict[str, dict[str, dict[int, FiniteCell]]]:
    """All cells that were kept, by setting, row and seed."""
    cells: dict[str, dict[str, dict[int, FiniteCell]]] = {}
    for path in sorted(folder.glob("*.json")):
        cell = FiniteCell(**json.loads(path.read_text(encoding="utf-8")))
        cells.setdefault(cell.setting, {}).setdefault(cell.row, {})[cell.seed] = cell
    return cells


def list_scores(cell: FiniteCell, phrasing: str) -> Iterator[tuple[tuple[str, str, str], float]]:
    """Volume, target and phrasing of every question, with its DSC."""
    for target, texts in cell.dsc.get(phrasing, {}).items():
        for text, volumes in texts.items():
            for volume, value in volumes.items():
                yield (volume, target, text), value


def mean_of(cells: Mapping[int, FiniteCell], phrasing: str) -> dict[str, float | None]:
    """Mean DSC with its interval over volumes, phrasings and seeds."""
    rows = [(seed, key, value) for seed, cell in cells.items() for key, value in list_scores(cell, phrasing)]
    return _interval(rows)


def difference(
    first: Mapping[int, FiniteCell], second: Mapping[int, FiniteCell], phrasing: str | None = None
) -> dict[str, Any]:
    """``second - first`` in points over the seeds of both; over all questions when no phrasing is named."""
    rows: list[tuple[int, tuple[str, str, str], float]] = []
    seeds = sorted(first.keys() & second.keys())
    for seed in seeds:
        for name in (phrasing,) if phrasing else PHRASINGS:
            before, after = (dict(list_scores(cells[seed], name)) for cells in (first, second))
            rows += [(seed, key, 100 * (after[key] - before[key])) for key in before]
    by_seed = [round(float(np.mean([gain for own, _, gain in rows if own == seed])), 2) for seed in seeds]
    return {**_interval(rows), "by_seed": by_seed}


def _interval(rows: Sequence[tuple[int, tuple[str, str, str], float]]) -> dict[str, float | None]:
    """Over volumes, phrasings and seeds; without the seeds where there is one, which the table then says."""
    kinds: list[Sequence[Any]] = [[key[0] for _, key, _ in rows], [key[1:] for _, key, _ in rows]]
    seeds = [seed for seed, _, _ in rows]
    if len(set(seeds)) > 1:
        kinds.append(seeds)
    found = crossed_interval([value for _, _, value in rows], *kinds)
    return {
        name: None if value is None else round(value, 4)
        for name, value in zip(("mean", "low", "high"), found, strict=True)
    }


def summarise(cells: Mapping[str, Mapping[str, Mapping[int, FiniteCell]]]) -> dict[str, Any]:
    """What is committed: every row of every setting, and GRPO against the best SFT and against rejection sampling."""
    return {
        "command": "python benchmarks/finite.py",
        "settings": {name: _setting(rows) for name, rows in cells.items()},
    }


def _setting(rows: Mapping[str, Mapping[int, FiniteCell]]) -> dict[str, Any]:
    found: dict[str, Any] = {"rows": {}}
    for row in (row for row in ROWS if row in rows):
        own = rows[row]
        found["rows"][row] = {
            "title": ROWS[row],
            "seeds": sorted(own),
            "steps": [own[seed].steps for seed in sorted(own)],
            "cpu_s": [round(own[seed].cpu_s) for seed in sorted(own)],
            "means": {key: round(float(np.mean([c.means[key] for c in own.values()])), 4) for key in _MEANS},
            **{phrasing: mean_of(own, phrasing) for phrasing in PHRASINGS},
        }
    for name in (*SUPERVISED, "rejection"):
        if "grpo" in rows and name in rows:
            found[f"grpo_minus_{name}"] = _compare(rows[name], rows["grpo"])
    for name in ("grpo_16", "grpo_32"):
        if "grpo" in rows and name in rows:
            found[f"{name}_minus_grpo"] = _compare(rows["grpo"], rows[name])
    return found


def _compare(first: Mapping[int, FiniteCell], second: Mapping[int, FiniteCell]) -> dict[str, Any]:
    return {**difference(first, second), **{name: difference(first, second, name) for name in PHRASINGS}}


def best_difference(summary: Mapping[str, Any]) -> dict[str, Any] | None:
    """GRPO against the best SFT of a setting, at the plateau or from there; of all settings the largest difference.

    Cold starts on labels of any slice are left out: their SFT is worse than that on the paper's labels, so there is a
    better SFT on the same volumes.
    """
    found = []
    for name, setting in summary["settings"].items():
        if name.endswith("-any"):
            continue
        pairs = [setting[f"grpo_minus_{row}"] for row in SUPERVISED if f"grpo_minus_{row}" in setting]
        if len(pairs) == len(SUPERVISED):
            least = min(pairs, key=lambda pair: pair["mean"])
            found.append({**{key: least[key] for key in ("mean", "low", "high", "by_seed")}, "setting": name})
    return max(found, key=lambda row: row["mean"], default=None)


def show(interval: Mapping[str, float | None], digits: int = 3) -> str:
    """A mean with its interval."""
    mean, low, high = (interval[key] for key in ("mean", "low", "high"))
    return f"{mean:.{digits}f}" + ("" if low is None else f" [{low:.{digits}f}, {high:.{digits}f}]")


def print_tables(summary: Mapping[str, Any]) -> None:
    """Every setting as Markdown."""
    for name, setting in summary["settings"].items():
        print(
            f"\n{name}\n\n| training | seeds | steps | cpu s | format | key slice | box IoU | DSC seen | DSC held out |"
        )
        print("|---|---|---|---|---|---|---|---|---|")
        for row in setting["rows"].values():
            lists = [", ".join(map(str, row[key])) for key in ("seeds", "steps", "cpu_s")]
            means = [f"{row['means'][key]:.3f}" for key in _MEANS]
            print(f"| {' | '.join([row['title'], *lists, *means, *(show(row[key]) for key in PHRASINGS)])} |")
        for key, value in setting.items():
            if "_minus_" in key:
                parts = {"all": value, **{name: value[name] for name in PHRASINGS}}
                words = (
                    "" if len(value["by_seed"]) > 1 else " (one seed: the interval is over volumes and phrasings only)"
                )
                told = "; ".join(f"{part} {show(own, 1)} {own['by_seed']}" for part, own in parts.items())
                print(f"{key}: {told}{words}")

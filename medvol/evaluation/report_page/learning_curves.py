"""Learning curves: what the loggers of a run wrote down while it was trained."""

from __future__ import annotations

import csv
import math
from collections.abc import Iterator, Mapping
from itertools import groupby
from pathlib import Path

from medvol.core.errors import RecordError
from medvol.pages.blocks import CurvesBlock
from medvol.pages.plots import Line, draw_lines

METRICS = "metrics/*/metrics.csv"
"""Tables of a run folder, one for each start."""

MAX_CURVES = 40
"""Most plots of a report."""

MAX_POINTS = 300
"""Most points of a line; of more, means of neighbours are drawn."""

_MAX_BYTES = 64_000_000
_MAX_COLUMNS = 500
_BESIDE = ("epoch", "step")
_FIRST = ("val/dsc", "train/loss", "train/reward", "train/kl", "val/", "train/")
"""Beginnings of names, in the order of their plots."""

_NOT_TRAINING = "test/"

_SHOWN = 6
"""Plots that are seen at once; the others are folded."""

Curve = list[tuple[float, float]]


def read_curves(folder: Path) -> dict[str, Curve]:
    """Curves of a run by name, over steps.

    Starts follow one another; where a later one repeats steps, it replaces them.

    Args:
        folder: Run folder.

    Returns:
        Points (step, value), finite, by step; empty for a run that was not trained, or logged nothing.

    Raises:
        RecordError: A table is damaged or too large.
    """
    curves: dict[str, dict[float, float]] = {}
    for path in sorted(folder.glob(METRICS), key=lambda path: (len(path.parent.name), path.parent.name)):
        for name, points in _read_table(path).items():
            known = curves.setdefault(name, {})
            first = min(points)
            curves[name] = {step: value for step, value in known.items() if step < first} | points
    return {name: sorted(points.items()) for name, points in curves.items()}


def plot_curves(curves: Mapping[str, Mapping[str, Curve]]) -> Iterator[CurvesBlock]:
    """Plots of the curves of several runs, one a name.

    Args:
        curves: By label of the run; its place gives the colour.
    """
    names = sorted({name for known in curves.values() for name in known}, key=_order)
    drawn = []
    for name in names[:MAX_CURVES]:
        lines = [
            Line(label, _thin(known[name]), number)
            for number, (label, known) in enumerate(curves.items())
            if name in known
        ]
        drawn.append(draw_lines(name, lines, "step"))
    if drawn:
        yield CurvesBlock("What was logged while training", tuple(drawn[:_SHOWN]))
    if drawn[_SHOWN:]:
        note = f"{len(names) - MAX_CURVES} further ones are not drawn." if len(names) > MAX_CURVES else ""
        yield CurvesBlock(f"{len(drawn) - _SHOWN} more curves", tuple(drawn[_SHOWN:]), note, folded=True)


def _read_table(path: Path) -> dict[str, dict[float, float]]:
    try:
        if path.stat().st_size > _MAX_BYTES:
            raise RecordError(f"{path} has {path.stat().st_size} bytes, and at most {_MAX_BYTES} are read")
        with path.open(encoding="utf-8", newline="") as file:
            rows = csv.DictReader(file)
            if len(rows.fieldnames or ()) > _MAX_COLUMNS:
                raise RecordError(f"{path} has {len(rows.fieldnames or ())} columns; at most {_MAX_COLUMNS} are read")
            curves: dict[str, dict[float, float]] = {}
            for row in rows:
                for name, step, value in _values(row):
                    curves.setdefault(name, {})[step] = value
            return curves
    except (OSError, ValueError, csv.Error) as error:
        if isinstance(error, RecordError):
            raise
        raise RecordError(f"{path} cannot be read as a table of a training ({error})") from error


def _values(row: Mapping[str | None, str | None]) -> Iterator[tuple[str, float, float]]:
    step = _number(row.get("step"))
    for name, text in row.items():
        value = _number(text) if name and name not in _BESIDE and not name.startswith(_NOT_TRAINING) else None
        if name and step is not None and value is not None:
            yield name, step, value


def _number(text: object) -> float | None:
    """A finite number; None for an empty cell and for anything else."""
    try:
        value = float(text) if isinstance(text, str) else math.nan
    except ValueError:
        return None
    return value if math.isfinite(value) and abs(value) < 1e300 else None


def _order(name: str) -> tuple[int, str]:
    return next((i for i, start in enumerate(_FIRST) if name.startswith(start)), len(_FIRST)), name


def _thin(points: Curve) -> Curve:
    if len(points) <= MAX_POINTS:
        return points
    groups = groupby(enumerate(points), lambda item: item[0] * MAX_POINTS // len(points))
    parts = ([point for _, point in members] for _, members in groups)
    return [(_mean([x for x, _ in part]), _mean([y for _, y in part])) for part in parts]


def _mean(values: list[float]) -> float:
    return sum(values) / len(values)

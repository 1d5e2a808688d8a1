"""Plots of a report: means with intervals, differences, the error budget, and how scores are spread."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from medvol.evaluation.archive import Evaluation
from medvol.evaluation.case_score import CaseScore
from medvol.evaluation.comparison import alike, compare_runs
from medvol.evaluation.report import LABELS, format_interval, format_p
from medvol.pages.blocks import Strip, StripsBlock
from medvol.pages.plots import Axis, draw_bar, draw_dots, draw_interval, quantile

MAX_ROWS = 60
"""Most groups of a plot; the largest ones are drawn."""

HEADLINES = ("key_slice_score", "box_iou", "dsc", "nsd", "lesion_hit", "lesion_f1", "absent_accuracy")
"""Metrics that are drawn, all between 0 and 1; the tables have the others."""

_UNIT = Axis(0.0, 1.0)
_UNIT_TICKS = ("0", "0.25", "0.5", "0.75", "1")
_REACHES = (0.02, 0.04, 0.1, 0.2, 0.4, 1.0)
_BUDGET = (
    ("true_anchor", "true slice, true boxes", "propagation_loss", "lost by propagation"),
    ("true_boxes", "chosen slice, true boxes", "slice_loss", "lost by the slice"),
    ("predicted", "as predicted", "box_loss", "lost by the boxes"),
)
_HEADROOM = (
    ("best_anchor", "best anchor found", "headroom", "more than predicted"),
    ("best_slice", "best slice, true boxes", "", ""),
)


def plot_means(runs: Mapping[str, Evaluation]) -> Iterator[StripsBlock]:
    """Means of the headline metrics with their intervals."""
    strips: list[Strip] = []
    for name in HEADLINES:
        rows = [
            (number, label, run.summary["all"]["metrics"].get(name)) for number, (label, run) in enumerate(runs.items())
        ]
        opens = True
        for number, label, row in rows:
            if row is not None:
                text = format_interval(row)
                drawing = draw_interval(
                    row["mean"], row["low"], row["high"], _UNIT, f"{LABELS[name]} of {label}: {text}"
                )
                strips.append(Strip(LABELS[name] if opens else "", label, number, drawing, (text,), opens))
                opens = False
    if strips:
        head = ("metric", "0 is worst, 1 is best", "mean")
        yield StripsBlock("Means and 95 % intervals", _UNIT_TICKS, head, tuple(strips), several=len(runs) > 1)


def plot_differences(runs: Mapping[str, Evaluation]) -> Iterator[StripsBlock]:
    """Differences between runs of the same cases, with intervals and p."""
    numbers = {label: number for number, label in enumerate(runs)}
    for group in alike(runs):
        yield from _plot_group(group, numbers)


def _plot_group(group: Mapping[str, Evaluation], numbers: Mapping[str, int]) -> Iterator[StripsBlock]:
    (first_label, first), *rest = group.items()
    found = {name: row for name, row in compare_runs(first, dict(rest)).items() if row and name in HEADLINES}
    ends = [
        abs(end)
        for row in found.values()
        for one in row.values()
        for end in (one.interval.mean, one.interval.low, one.interval.high)
        if end is not None
    ]
    if not ends:
        return
    reach = next((reach for reach in _REACHES if max(ends) <= reach), 1.0)
    strips = []
    for name, row in found.items():
        for place, (label, one) in enumerate(row.items()):
            part = one.interval
            text = format_interval({"mean": part.mean, "low": part.low, "high": part.high})
            words = f"{LABELS[name]} of {label} less {first_label}: {text}, p {format_p(one.p)}"
            drawing = draw_interval(part.mean, part.low, part.high, Axis(-reach, reach), words, zero=True)
            opens = not place
            cells = (text, format_p(one.p))
            strips.append(Strip(LABELS[name] if opens else "", label, numbers[label], drawing, cells, opens))
    low, half = f"\N{MINUS SIGN}{reach:g}", f"{reach / 2:g}"
    ticks = (low, f"\N{MINUS SIGN}{half}", "0", half, f"{reach:g}")
    head = ("metric", f"worse than {first_label} \N{LEFT RIGHT ARROW} better", "difference", "p (Holm)")
    yield StripsBlock(f"Difference to {first_label}, same cases", ticks, head, tuple(strips), several=True)


def plot_budget(runs: Mapping[str, Evaluation]) -> Iterator[StripsBlock]:
    """DSC from ever more of the answer, and what each step loses."""
    strips = []
    for number, (label, run) in enumerate(runs.items()):
        budget = run.summary["error_budget"] or {}
        parts = [part for part in (*_HEADROOM, *_BUDGET) if part[0] in budget]
        for place, (part, name, loss, lost) in enumerate(parts):
            text = f"{budget[part]:.3f}"
            drawing = draw_bar(budget[part], _UNIT, f"{label}: DSC {text} from {name}")
            cells = (text, f"{budget[loss]:.3f} {lost}" if loss else "")
            strips.append(Strip(name, label, number, drawing, cells, opens=not place))
    if strips:
        head = ("anchor", "DSC", "DSC", "what is lost there")
        yield StripsBlock("Where the DSC is lost", _UNIT_TICKS, head, tuple(strips), several=len(runs) > 1)


def plot_targets(runs: Mapping[str, Evaluation]) -> Iterator[StripsBlock]:
    """DSC of every case, by target."""
    return _spread(runs, "DSC by target, one dot a case", "target", lambda score: score.target or "(not named)", _cases)


def plot_patients(runs: Mapping[str, Evaluation]) -> Iterator[StripsBlock]:
    """Mean DSC of every patient, by run."""
    return _spread(runs, "DSC by patient, one dot a patient's mean", "run", None, _patients)


def worst_patients(runs: Mapping[str, Evaluation]) -> list[tuple[str, list[float | None]]]:
    """Patients by the mean DSC that they have in the first run that has them, lowest first.

    Returns:
        Each patient with the mean in every run, None where it has none.
    """
    means = [_patient_means(run.scores) for run in runs.values()]
    names = list(dict.fromkeys(name for known in means for name in known))
    rows = [(name, [known.get(name) for known in means]) for name in names]
    return sorted(rows, key=lambda row: (next(value for value in row[1] if value is not None), row[0]))


def _spread(
    runs: Mapping[str, Evaluation],
    title: str,
    grouping: str,
    group: Callable[[CaseScore], str] | None,
    values_of: Callable[[Sequence[CaseScore]], list[float]],
) -> Iterator[StripsBlock]:
    """One strip a group and run; without a group, one a run."""
    present = [[score for score in run.scores if score.present] for run in runs.values()]
    counts: dict[str, int] = {}
    for score in (score for scores in present for score in scores):
        name = group(score) if group else ""
        counts[name] = counts.get(name, 0) + 1
    chosen = sorted(sorted(counts, key=lambda name: (-counts[name], name))[:MAX_ROWS])
    strips: list[Strip] = []
    for name in chosen:
        opens = group is not None
        for number, (label, scores) in enumerate(zip(runs, present, strict=True)):
            values = values_of([score for score in scores if group is None or group(score) == name])
            if not values:
                continue
            median, mean = quantile(sorted(values), 0.5), sum(values) / len(values)
            words = f"{name or label}: {len(values)} values, median {median:.3f}, mean {mean:.3f}"
            cells = (f"{median:.3f}", f"{mean:.3f}", str(len(values)))
            shown = label if group is None else name if opens else ""
            strips.append(Strip(shown, label, number, draw_dots(values, _UNIT, words), cells, opens))
            opens = False
    if strips:
        note = "The box reaches from the lower to the upper quartile, the bar is the median. Failures count as 0."
        if len(counts) > MAX_ROWS:
            note += f" {len(counts) - MAX_ROWS} smaller groups are not drawn; the tables have all."
        head = (grouping, "DSC", "median", "mean", "n")
        yield StripsBlock(title, _UNIT_TICKS, head, tuple(strips), note, several=group is not None and len(runs) > 1)


def _cases(scores: Sequence[CaseScore]) -> list[float]:
    return [score.dsc for score in scores]


def _patients(scores: Sequence[CaseScore]) -> list[float]:
    return list(_patient_means(scores).values())


def _patient_means(scores: Sequence[CaseScore]) -> dict[str, float]:
    values: dict[str, list[Any]] = {}
    for score in scores:
        if score.present:
            values.setdefault(score.patient_id, []).append(score.dsc)
    return {name: sum(own) / len(own) for name, own in values.items()}

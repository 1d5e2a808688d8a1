"""Confidence of a run in a report: how well its scores rank the answers, and which ones to look at first."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from medvol.evaluation.archive import Evaluation
from medvol.evaluation.case_score import CaseScore
from medvol.pages.blocks import Block, CurvesBlock, TableBlock
from medvol.pages.plots import Line, draw_lines

MOST_LISTED = 20
"""Cases of a list of those to look at first."""

Sure = tuple[float, CaseScore]
"""A confidence and the case that has it."""


def confidences(scores: Sequence[CaseScore]) -> list[Sure]:
    """Cases that have a confidence, the least confident first; equal ones by id."""
    known = [(getattr(score, "confidence", None), score) for score in scores]
    rows = [(float(value), score) for value, score in known if value is not None]
    return sorted(rows, key=lambda row: (row[0], row[1].case_id))


def risk_curve(rows: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """Mean risk of the most confident part of the cases, from the smallest part to all of them.

    Args:
        rows: (confidence, risk) of each case; equal confidences are taken in together.

    Returns:
        Points (share of the cases, mean risk among them).
    """
    ordered = sorted(rows, key=lambda row: -row[0])
    points, total = [], 0.0
    for i, (confidence, risk) in enumerate(ordered, 1):
        total += risk
        if i == len(ordered) or ordered[i][0] != confidence:
            points.append((i / len(ordered), total / i))
    return points


def confidence_blocks(runs: Mapping[str, Evaluation]) -> Iterator[Block]:
    """Curves of all runs that have confidences, and the first cases to look at in each."""
    known = {label: found for label, run in runs.items() if (found := confidences(run.scores))}
    drawings = []
    for number, label in enumerate(runs):
        rows = [(value, 1.0 - score.dsc) for value, score in known.get(label, ()) if score.present]
        if not rows:
            continue
        risks = [risk for _, risk in rows]
        mean = sum(risks) / len(risks)
        lines = [
            Line(label, risk_curve(rows), number),
            Line("by chance", [(1 / len(rows), mean), (1.0, mean)], number, "dotted"),
            Line("at best", risk_curve([(-risk, risk) for risk in risks]), number, "dashed"),
        ]
        drawings.append(draw_lines(label, lines, "share of the cases, most confident first", (0.0, max(1e-3, *risks))))
    if drawings:
        note = (
            "Mean of 1 - DSC among the most confident cases. Whole line: by confidence; dotted: by chance; dashed: the "
            "best order there is. Cases without the target have no DSC and are left out."
        )
        yield CurvesBlock("Risk and coverage", tuple(drawings), note)
    for label, found in known.items():
        shown = tuple(
            (
                score.case_id,
                f"{value:.3f}",
                f"{score.dsc:.3f}" if score.present else "-",
                score.failure or "",
                score.query,
            )
            for value, score in found[:MOST_LISTED]
        )
        head = ("case", "confidence", "DSC", "failure", "question")
        yield TableBlock(f"Look at these first: {label}", head, shown, "The least confident answers.")

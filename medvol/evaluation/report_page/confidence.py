"""Confidence of a run in a report: how well it ranks the answers. The tables beside the curves are the report's own."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from medvol.evaluation.archive import Evaluation
from medvol.evaluation.risk_coverage import RiskCoverage, risk_coverage
from medvol.pages.blocks import Block, CurvesBlock
from medvol.pages.plots import Line, draw_lines


def confidence_blocks(runs: Mapping[str, Evaluation]) -> Iterator[Block]:
    """Curves of risk and coverage of all runs whose cases have a confidence."""
    drawings = []
    for number, (label, run) in enumerate(runs.items()):
        known = [(score.confidence, score.dsc) for score in run.scores if score.confidence is not None]
        if not known:
            continue
        trust, dice = zip(*known, strict=True)
        risks = [1.0 - score for score in dice]
        curve, best = risk_coverage(trust, risks), risk_coverage(dice, risks)
        lines = [
            Line(label, _points(curve), number),
            Line("by chance", [(1 / len(risks), curve.random), (1.0, curve.random)], number, "dotted"),
            Line("at best", _points(best), number, "dashed"),
        ]
        drawings.append(draw_lines(label, lines, "share of the cases, most confident first", (0.0, max(1e-3, *risks))))
    if drawings:
        note = (
            "Mean of 1 - DSC among the most confident cases. Whole line: by confidence; dotted: by chance; dashed: the "
            "best order there is."
        )
        yield CurvesBlock("Risk and coverage", tuple(drawings), note)


def _points(curve: RiskCoverage) -> list[tuple[float, float]]:
    return list(zip(curve.coverage, curve.risk, strict=True))

"""EvaluationSettings: how answers are asked for, and what is measured of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from medvol.core.ranges import require_least


@dataclass(frozen=True)
class EvaluationSettings:
    """How answers are asked for, and what is measured of them.

    Args:
        anchor_rule: How the true key slice is chosen among the slices shown.
        split_boxes: One true box for each part of a target on a slice; one box of the whole target otherwise. Training
            answers follow it too.
        max_new_tokens: Upper bound on the length of an answer, in training too.
        error_budget: In a test, also measure what slice choice, boxes and propagation lose (two more propagations a
            case).
        surface: In a test, also measure NSD and HD95.
        tolerance_mm: Tolerance of the NSD, for cases that name none.
        save_dir: Folder of the masks, records and pictures that ``predict`` writes; ``predictions`` in the run folder
            when None.
    """

    anchor_rule: Literal["paper", "largest"] = "paper"
    split_boxes: bool = True
    max_new_tokens: int = 256
    error_budget: bool = False
    surface: bool = False
    tolerance_mm: float = 2.0
    save_dir: str | None = None

    def __post_init__(self) -> None:
        """Check the ranges.

        Raises:
            ConfigError: A setting is out of range.
        """
        require_least(1, "evaluation", max_new_tokens=self.max_new_tokens)
        require_least(0, "evaluation", tolerance_mm=self.tolerance_mm)

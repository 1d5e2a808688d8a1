"""EvaluationSettings: how answers are asked for, and what is measured of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from medvol.core.errors import ConfigError
from medvol.core.ranges import require_between, require_choice, require_least, require_paths, require_whole
from medvol.evaluation.surfaces import SurfaceKind
from medvol.queries.findings import find_growth
from medvol.rollouts.samples import require_samples

AnchorRule = Literal["paper", "largest"]
LesionTargets = Literal["named", "all", "none"]

MEASURES = ("split_boxes", "surface", "tolerance_mm", "lesions")
"""Settings of what is measured of a mask or an answer."""


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
        headroom: In a test with an error budget, also search for the best anchor of each case: the best Dice that any
            slice and boxes reach with this propagator. So many anchors are propagated at most, 100 or so for each case;
            0 searches for none.
        surface: In a test, measure NSD and HD95 on the surfels of the surface, by area, as surface-distance, MONAI
            and KiTS23 do, or on its voxels; None measures neither.
        tolerance_mm: Tolerance of the NSD, for cases that name none.
        lesions: In a test, score these targets lesion by lesion: those that are named after a finding (tumour, cyst,
            lesion, nodule, metastasis, mass, cancer), all, or none.
        samples: In a test, draw this many more answers to each question and follow them to their masks; how well these
            agree is the ``confidence`` of the case. 0 draws none.
        masks_gib: In a test, most GiB of masks that are kept in the run folder for ``medvol rescore``; 0 keeps none.
        save_dir: Folder of the masks, records and pictures that ``predict`` writes; ``predictions`` in the run folder
            when None.
    """

    anchor_rule: AnchorRule = "paper"
    split_boxes: bool = True
    max_new_tokens: int = 256
    error_budget: bool = False
    headroom: int = 0
    surface: SurfaceKind | None = "surfels"
    tolerance_mm: float = 2.0
    lesions: LesionTargets = "named"
    samples: int = 0
    masks_gib: float = 1.0
    save_dir: str | None = None

    def __post_init__(self) -> None:
        """Check the ranges.

        Raises:
            ConfigError: A setting is out of range, none of its choices, or names nothing.
        """
        require_choice(AnchorRule, "evaluation", anchor_rule=self.anchor_rule)
        require_choice(LesionTargets, "evaluation", lesions=self.lesions)
        if self.surface is not None:
            require_choice(SurfaceKind, "evaluation", surface=self.surface)
        require_whole(1, "evaluation", max_new_tokens=self.max_new_tokens)
        require_between("[0, inf)", "evaluation", tolerance_mm=self.tolerance_mm)
        require_least(0, "evaluation", masks_gib=self.masks_gib)
        require_paths("evaluation", save_dir=self.save_dir)
        require_samples(self.samples, "evaluation.samples")
        require_whole(0, "evaluation", headroom=self.headroom)
        if self.headroom == 1 or (self.headroom and not self.error_budget):
            raise ConfigError(
                f"evaluation.headroom is {self.headroom} and evaluation.error_budget is {self.error_budget}; the "
                "search is a part of the error budget and needs 2 propagations or more: set error_budget to true and "
                "headroom to 100 or so, or headroom to 0"
            )

    @property
    def measures(self) -> dict[str, Any]:
        """Settings that decide the numbers of an evaluation, as ``evaluation.json`` states them."""
        return {name: getattr(self, name) for name in MEASURES}

    def counts_lesions(self, target: str) -> bool:
        """Whether a target of this name is scored lesion by lesion."""
        return self.lesions == "all" or (self.lesions == "named" and bool(find_growth(target)))

"""SFTModule: cold-start supervised fine-tuning on anchors worked out from masks.

Cross-entropy on the answer tokens only; all queries of a volume are packed behind its one slice prefix. A policy that
starts from random weights gets three helps, all off by default: a perception stage in which its slice encoder alone
learns what lies where, a curriculum that first shows a few slices at a time, each at its place in the full drawing, and
an occupancy loss on its image tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
import torch
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from numpy.typing import NDArray

from medvol.core.errors import ConfigError
from medvol.core.evaluation.metrics import slice_areas
from medvol.core.evaluation.module import Batch
from medvol.core.evaluation.scoring import require_target
from medvol.core.grounding.anchors import KeySliceRule, label_anchor
from medvol.core.grounding.gaze import answer_gazes
from medvol.core.grounding.grammar import format_evidence
from medvol.core.grounding.prompts import build_prompts
from medvol.core.limits import require_least, require_share
from medvol.core.notices import tell_once
from medvol.core.roles import Propagator, TrainablePolicy
from medvol.core.training.augmentation import reword_query
from medvol.core.training.module import TrainingModule
from medvol.core.training.occupancy import OccupancyHead, occupancy_labels, rarest_slices
from medvol.core.types import Case, Completion, Prompt, SliceStack
from medvol.policies.gaze_target import Gaze
from medvol.policies.scratch import ScratchPolicy
from medvol.policies.slice_subset import keep_slices

_CLEAR = 0.1
"""A slice shows a target clearly when it holds this share of the largest area."""


class SFTModule(TrainingModule):
    """Teaches a policy to write true anchors.

    Args:
        policy: Trained.
        propagator: Used in validation and test only.
        learning_rate: Peak of the schedule.
        weight_decay: Of AdamW, whose betas are 0.9 and 0.98.
        warmup_steps: Steps of linear warm-up.
        final_share: The cosine ends at this share of the peak.
        label_rule: How the key slice of a training answer is chosen among the slices shown.
        jitter: Move every edge of a training box by up to this share of its side: imperfect labels.
        think: Write a think block that names the target, or what a relational query means, and the slices it spans.
        reword: Probability that words of a training query are dropped; 0 leaves queries as they are.
        perception_steps: First steps, in which the slice encoder alone learns, by the occupancy loss.
        perception_slices: Slices of each volume in those steps; slices with a label that few show come first.
        curriculum_steps: Steps after those in which slices are dropped.
        curriculum_slices: Slices left in each row of those steps; the others of the volume fill further rows.
        curriculum_rows: Most rows of a volume in those steps, of slices with a label that few show before others; None
            keeps all of them.
        curriculum_queries: Most queries a row of those steps.
        occupancy_weight: Weight of the occupancy loss in the curriculum; a third of it afterwards; 0 leaves it out.
        occupancy_classes: Labels of the occupancy loss, background included.
        occupancy_balance: See ``OccupancyHead``: 0 weighs all labels the same, 0.5 a rare one more.
        extent_weight: See ``OccupancyHead``: above 0, image tokens also learn how far the region on them reaches.
        gaze_weight: Weight of the gaze loss: the part of its attention that the policy does not give to the target
            while it writes the target's slices and boxes, as a negative log; 0 leaves it out.
        seed: Seed of the draws; together with the step it decides them, so a resumed run repeats them.
        error_budget: See ``EvaluationModule``.
        surface: See ``EvaluationModule``.
        tolerance_mm: See ``EvaluationModule``.
        anchor_rule: See ``EvaluationModule``.
        split_boxes: See ``EvaluationModule``; training answers follow it too.
        max_new_tokens: See ``EvaluationModule``.
        save_dir: See ``EvaluationModule``.
    """

    def __init__(
        self,
        policy: TrainablePolicy,
        propagator: Propagator,
        learning_rate: float = 2e-5,
        weight_decay: float = 0.01,
        warmup_steps: int = 40,
        final_share: float = 0.02,
        label_rule: KeySliceRule = "paper",
        jitter: float = 0.0,
        think: bool = True,
        reword: float = 0.0,
        perception_steps: int = 0,
        perception_slices: int = 12,
        curriculum_steps: int = 0,
        curriculum_slices: int = 4,
        curriculum_rows: int | None = None,
        curriculum_queries: int = 4,
        occupancy_weight: float = 0.0,
        occupancy_classes: int = 16,
        occupancy_balance: float = 0.0,
        extent_weight: float = 0.0,
        gaze_weight: float = 0.0,
        seed: int = 0,
        error_budget: bool = False,
        surface: bool = False,
        tolerance_mm: float = 2.0,
        anchor_rule: Literal["paper", "largest"] = "paper",
        split_boxes: bool = True,
        max_new_tokens: int = 256,
        save_dir: str | None = None,
    ) -> None:
        super().__init__(
            policy,
            propagator,
            learning_rate,
            weight_decay,
            warmup_steps,
            final_share,
            reword,
            error_budget,
            surface,
            tolerance_mm,
            anchor_rule,
            split_boxes,
            max_new_tokens,
            save_dir,
        )
        require_least(1, perception_slices=perception_slices)
        require_least(1, curriculum_slices=curriculum_slices, curriculum_queries=curriculum_queries)
        if curriculum_rows is not None:
            require_least(1, curriculum_rows=curriculum_rows)
        require_least(0, jitter=jitter, perception_steps=perception_steps, curriculum_steps=curriculum_steps)
        require_least(0, occupancy_weight=occupancy_weight, occupancy_balance=occupancy_balance)
        require_least(0, extent_weight=extent_weight, gaze_weight=gaze_weight)
        require_least(2, occupancy_classes=occupancy_classes)
        require_share(reword=reword)
        self.label_rule: KeySliceRule = label_rule
        self.jitter = jitter
        self.think = think
        self.reword = reword
        self.perception_steps = perception_steps
        self.perception_slices = perception_slices
        self.curriculum_steps = curriculum_steps
        self.curriculum_slices = curriculum_slices
        self.curriculum_rows = curriculum_rows
        self.curriculum_queries = curriculum_queries
        self.occupancy_weight = occupancy_weight
        self.occupancy_classes = occupancy_classes
        self.occupancy_balance = occupancy_balance
        self.extent_weight = extent_weight
        self.gaze_weight = gaze_weight
        self.seed = seed
        self.occupancy: OccupancyHead | None = None

    def configure_model(self) -> None:
        """Load the network; add the occupancy head when its loss is weighted."""
        super().configure_model()
        if self.occupancy is None and (self.occupancy_weight > 0 or self.perception_steps > 0):
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(self.seed)
                self.occupancy = OccupancyHead(
                    self.student, self.occupancy_classes, self.occupancy_balance, self.extent_weight
                )

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """AdamW with warm-up and cosine, by steps."""
        head = list(self.occupancy.parameters()) if self.occupancy is not None else []
        parameters = [*self.student.trainable_parameters(), *head]
        return self.optimise(parameters, (0.9, 0.98), int(self.trainer.estimated_stepping_batches))

    def training_step(self, batch: Batch, batch_idx: int) -> torch.Tensor | None:
        """Negative log-likelihood of the true answers, a mean over their tokens, plus the occupancy loss."""
        rng = np.random.default_rng([self.seed, self.global_step])
        if self.global_step < self.perception_steps:
            return self._perceive(batch, rng)
        early = self.global_step < self.perception_steps + self.curriculum_steps
        prompts: list[Prompt] = []
        answers: list[Completion] = []
        gazes: list[list[Gaze]] = []
        drawn: list[tuple[Sequence[Case], SliceStack]] = []
        for cases in batch:
            for slices, members in self._rows(cases, early, rng):
                drawn.append((cases, slices))
                for case in members:
                    query = reword_query(case.query.text, rng, self.reword)
                    prompts.append(Prompt(slices, query, self.policy.template))
                    text, looks = self._answer(case, slices, rng)
                    answers.append(self.student.encode(text))
                    gazes.append(looks)
        if not prompts:
            return None
        return self._answer_loss(prompts, answers, gazes) + self._occupancy_loss(drawn, early)

    def _answer_loss(
        self, prompts: Sequence[Prompt], answers: Sequence[Completion], gazes: Sequence[Sequence[Gaze]]
    ) -> torch.Tensor:
        """Negative log-likelihood of the answers, and the gaze loss when it is weighted."""
        if self.gaze_weight > 0:
            scores, shares = self._scratch.log_probs_and_gaze(prompts, answers, gazes)
        else:
            scores = [rows[0] for rows in self.student.log_probs(prompts, [[answer] for answer in answers])]
            shares = torch.empty(0)
        loss = -torch.cat(scores).mean()
        self.log("train/answer_loss", loss.detach(), batch_size=len(prompts))
        if not len(shares):
            return loss
        self.log("train/gaze_loss", -shares.detach().mean(), batch_size=len(prompts))
        return loss - self.gaze_weight * shares.mean()

    @property
    def _scratch(self) -> ScratchPolicy:
        if not isinstance(self.student, ScratchPolicy):
            raise ConfigError(
                f"{type(self.student).__name__} does not tell where it looks; set gaze_weight and perception_steps to 0"
            )
        return self.student

    def _perceive(self, batch: Batch, rng: np.random.Generator) -> torch.Tensor:
        """Occupancy loss of chosen slices of every volume; the language model does not run."""
        labels = [occupancy_labels(cases) for cases in batch]
        drawings = [self._draw(cases) for cases in batch]
        stacks = [
            keep_slices(slices, rarest_slices(label, slices, self.perception_slices, rng))
            for label, slices in zip(labels, drawings, strict=True)
        ]
        self._scratch.encode_slices(stacks)
        return self._read_occupancy(labels, stacks)

    def _draw(self, cases: Sequence[Case]) -> SliceStack:
        """The full drawing of the volume that the cases share."""
        return build_prompts(cases[0].volume, [cases[0].query.text], self.policy.template)[0].slices

    def _rows(
        self, cases: Sequence[Case], early: bool, rng: np.random.Generator
    ) -> list[tuple[SliceStack, list[Case]]]:
        """Drawings of a volume with the cases asked of each: one full drawing, or a random partition of it."""
        for case in cases:
            require_target(case)
        slices = self._draw(cases)
        if not early:
            return [(slices, [case for case in cases if _is_taught(case, slices)])]
        if self.curriculum_rows is None:
            order = rng.permutation(len(slices.indices))
        else:
            count = self.curriculum_rows * self.curriculum_slices
            order = rng.permutation(rarest_slices(occupancy_labels(cases), slices, count, rng))
        rows: list[tuple[SliceStack, list[Case]]] = []
        for start in range(0, len(order), self.curriculum_slices):
            kept = keep_slices(slices, sorted(order[start : start + self.curriculum_slices].tolist()))
            clear = [case for case in cases if self._clear_slices(case, kept.indices)]
            chosen = rng.permutation(len(clear))[: self.curriculum_queries]
            if len(chosen):
                rows.append((kept, [clear[i] for i in sorted(chosen)]))
        return rows

    def _answer(self, case: Case, slices: SliceStack, rng: np.random.Generator) -> tuple[str, list[Gaze]]:
        """The true answer among the slices shown, and where to look while it is written."""
        target = require_target(case)
        clear = self._clear_slices(case, slices.indices)
        name = case.query.meaning or case.query.target or "target"
        rationale = ""
        if self.think:
            span = f"spans slices {clear[0]} to {clear[-1]}" if clear else "is not in the scan"
            rationale = f"the {name} {span}"
        anchor = label_anchor(
            target, slices.indices, self.label_rule, self.split_boxes, self.jitter, rng, rationale=rationale
        )
        _, height, width = target.shape
        text = format_evidence(anchor, height, width, self.policy.template.coordinate_step)
        spanned = [clear[0], clear[-1]] if self.think and clear else []
        return text, answer_gazes(text, anchor, target, slices.indices, spanned)

    @staticmethod
    def _clear_slices(case: Case, shown: Sequence[int]) -> list[int]:
        areas = slice_areas(require_target(case))
        return [z for z in shown if areas[z] > 0 and areas[z] >= _CLEAR * areas.max()]

    def _occupancy_loss(self, drawn: Sequence[tuple[Sequence[Case], SliceStack]], early: bool) -> torch.Tensor | float:
        if self.occupancy is None:
            return 0.0
        if self.occupancy_weight == 0:
            self.occupancy.forget()
            return 0.0
        loss = self._read_occupancy([occupancy_labels(cases) for cases, _ in drawn], [slices for _, slices in drawn])
        return self.occupancy_weight * (1.0 if early else 1 / 3) * loss

    def _read_occupancy(self, labels: Sequence[NDArray[np.uint8]], stacks: Sequence[SliceStack]) -> torch.Tensor:
        """Loss of what the slice encoder just saw."""
        assert self.occupancy is not None, "configure_model built it"
        loss = self.occupancy.loss(labels, stacks)
        self.log("train/occupancy_loss", loss.detach(), batch_size=len(stacks))
        return loss


def _is_taught(case: Case, slices: SliceStack) -> bool:
    """False for a target that the scan holds and no slice shown does: ``[]`` would be taught, which is not true."""
    areas = slice_areas(require_target(case))
    taught = not areas.any() or bool(areas[list(slices.indices)].any())
    if not taught:
        tell_once(f"{case.case_id}: its target lies on none of the {len(slices.indices)} slices shown; it is left out")
    return taught

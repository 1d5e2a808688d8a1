"""ScratchModule: SFT of a policy that starts from random weights.

It learns to see long before it learns to answer, so it gets four helps, all off by default: a perception stage in which
its slice encoder alone learns what lies where, a curriculum that first shows a few slices at a time, an occupancy loss
on its image tokens, and a gaze loss on its attention.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from medvol.core.errors import ConfigError
from medvol.core.roles import Propagator
from medvol.core.types import Case, SliceStack, require_target
from medvol.evaluation.module import Batch
from medvol.evaluation.ranks import gather_ranks, one_stream, share_of_ranks, sum_ranks, whole_loss
from medvol.evaluation.settings import EvaluationSettings
from medvol.policies.scratch import ScratchPolicy
from medvol.policies.slice_subset import keep_slices
from medvol.training.scratch.curriculum import deal_rows
from medvol.training.scratch.gaze import answer_gazes
from medvol.training.scratch.occupancy import OccupancyHead, occupancy_labels, rarest_slices
from medvol.training.scratch.settings import CurriculumSettings, GazeSettings, OccupancySettings, PerceptionSettings
from medvol.training.settings import AnswerSettings, OptimizerSettings
from medvol.training.sft import Lesson, Row, SFTModule
from medvol.training.strategies import sharded_layers


class ScratchModule(SFTModule):
    """Trains a policy from random weights: first to see, then to write the true anchors.

    Args:
        policy: Trained; one that starts from random weights.
        propagator: Used in validation and test only.
        answers: What is taught.
        perception: The first stage, in which the slice encoder alone learns.
        curriculum: The stage after it, in which a few slices are shown at a time.
        occupancy: The loss of both stages on image tokens, and afterwards.
        gaze: The loss on attention.
        optimizer: AdamW, with betas of 0.9 and 0.98, and its schedule.
        evaluation: How answers are asked for, and what is measured of them.
        reword: Probability that words of a training query are dropped; 0 leaves queries as they are.
        seed: Seed of the draws; together with the step it decides them, so a resumed run repeats them.
            None takes that of the experiment (``seed_everything``); in Python it is 0.
    """

    policy: ScratchPolicy

    def __init__(
        self,
        policy: ScratchPolicy,
        propagator: Propagator,
        answers: AnswerSettings = AnswerSettings(),
        perception: PerceptionSettings = PerceptionSettings(),
        curriculum: CurriculumSettings = CurriculumSettings(),
        occupancy: OccupancySettings = OccupancySettings(),
        gaze: GazeSettings = GazeSettings(),
        optimizer: OptimizerSettings = OptimizerSettings(),
        evaluation: EvaluationSettings = EvaluationSettings(),
        reword: float = 0.0,
        seed: int | None = None,
    ) -> None:
        super().__init__(
            policy=policy,
            propagator=propagator,
            answers=answers,
            optimizer=optimizer,
            evaluation=evaluation,
            reword=reword,
            seed=seed,
        )
        if not isinstance(policy, ScratchPolicy):
            raise ConfigError(
                f"{type(policy).__name__} cannot be taught to see; give ScratchModule a ScratchPolicy, which starts "
                "from random weights, or train this one with SFTModule"
            )
        self.perception = perception
        self.curriculum = curriculum
        self.occupancy = occupancy
        self.gaze = gaze
        self.occupancy_head: OccupancyHead | None = None

    def configure_model(self) -> None:
        """Load the network; add the occupancy head when its loss is weighted."""
        super().configure_model()
        if self.occupancy_head is None and (self.occupancy.weight > 0 or self.perception.steps > 0):
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(self.seed)
                self.occupancy_head = OccupancyHead(self.policy, self.occupancy)

    def on_fit_start(self) -> None:
        """Refuse to shard what one device holds many times over.

        Raises:
            ConfigError: The trainer's strategy shards layers.
        """
        super().on_fit_start()
        if sharded_layers(self.network):
            raise ConfigError(
                "ScratchModule trains small policies, which need no sharding; set trainer.strategy to ddp"
            )

    def trained_parameters(self) -> Iterable[torch.nn.Parameter]:
        """The policy's, and those of the occupancy head."""
        head = [] if self.occupancy_head is None else self.occupancy_head.parameters()
        return [*super().trained_parameters(), *head]

    @property
    def is_early(self) -> bool:
        """True until the curriculum ends."""
        return self.global_step < self.perception.steps + self.curriculum.steps

    def training_step(self, batch: Batch, batch_idx: int) -> torch.Tensor | None:
        """Loss of what the slice encoder sees in the stage of perception, and of the true answers afterwards."""
        if self.global_step < self.perception.steps:
            return self._perceive(batch, batch_idx)
        return super().training_step(batch, batch_idx)

    def choose_rows(self, cases: Sequence[Case], slices: SliceStack, rng: np.random.Generator) -> list[Row]:
        """Choose all of the drawing, or, in the curriculum, parts of it."""
        if not self.is_early:
            return super().choose_rows(cases, slices, rng)
        return deal_rows(cases, slices, self.curriculum, rng)

    def measure_loss(self, lessons: Sequence[Lesson]) -> torch.Tensor:
        """Measure the loss of the answers, and those of gaze and occupancy where they are weighted."""
        loss = self._gaze_loss(lessons) if self.gaze.weight > 0 else super().measure_loss(lessons)
        if self.occupancy_head is None:
            return loss
        if self.occupancy.weight == 0:
            self.occupancy_head.forget()
            return loss
        rows = {id(lesson.row): lesson.row for lesson in lessons}.values()
        seen = self._occupancy_loss([occupancy_labels(row.cases) for row in rows], [row.slices for row in rows])
        return loss + self.occupancy.weight * (1.0 if self.is_early else 1 / 3) * seen

    def _perceive(self, batch: Batch, batch_idx: int) -> torch.Tensor:
        """Occupancy loss of chosen slices of every volume; the language model does not run."""
        labels = [occupancy_labels(cases) for cases in batch]
        drawings = [self.draw(cases) for cases in batch]
        with one_stream(self.seed, *self.place_of(batch_idx)) as rng:
            stacks = [
                keep_slices(drawing, rarest_slices(label, drawing, self.perception.slices, rng))
                for label, drawing in zip(labels, drawings, strict=True)
            ]
        if stacks:
            self.policy.encode_slices(stacks)
        return whole_loss(self._occupancy_loss(labels, stacks))

    def _gaze_loss(self, lessons: Sequence[Lesson]) -> torch.Tensor:
        """Loss of the answers, and of where the policy looks while it writes them."""
        prompts, answers = [lesson.prompt for lesson in lessons], [lesson.answer for lesson in lessons]
        gazes = [
            answer_gazes(
                lesson.truth.text,
                lesson.truth.evidence,
                require_target(lesson.case),
                lesson.row.slices.indices,
                lesson.truth.span,
            )
            for lesson in lessons
        ]
        scores, shares = self.policy.log_probs_and_gaze(prompts, answers, gazes) if lessons else ([], torch.empty(0))
        loss = self.mean_loss(scores)
        part = share_of_ranks(len(shares))
        gaze = shares.mean() * part if len(shares) else torch.zeros((), device=self.device)
        if any(gather_ranks(len(shares))):
            self.log("train/gaze_loss", -sum_ranks(gaze.detach()), batch_size=max(1, len(lessons)))
        return loss - self.gaze.weight * gaze if len(shares) else loss

    def _occupancy_loss(self, labels: Sequence[NDArray[np.uint8]], stacks: Sequence[SliceStack]) -> torch.Tensor:
        """Loss of what the slice encoder just saw, of which this process has a part; logged as a whole."""
        assert self.occupancy_head is not None, "configure_model built it"
        loss = self.occupancy_head.loss(labels, stacks)
        self.log("train/occupancy_loss", sum_ranks(loss.detach()), batch_size=max(1, len(stacks)))
        return loss

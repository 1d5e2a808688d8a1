"""SFTModule: cold-start supervised fine-tuning on anchors worked out from masks.

Cross-entropy on the answer tokens only; all queries of a volume are packed behind its one slice prefix.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from lightning.pytorch.utilities.types import OptimizerLRScheduler

from medvol.core.prompts import Prompt
from medvol.core.roles import Propagator, TrainablePolicy
from medvol.core.types import Case, Completion, SliceStack, require_target
from medvol.evaluation.module import Batch
from medvol.evaluation.ranks import count_ranks, gather_ranks, one_stream, share_of_ranks, sum_ranks, whole_loss
from medvol.evaluation.settings import EvaluationSettings
from medvol.grounding.prompts import build_prompts
from medvol.training.augmentation import reword_query
from medvol.training.module import TrainingModule
from medvol.training.settings import AnswerSettings, OptimizerSettings
from medvol.training.true_answers import TrueAnswer, is_taught, write_answer


@dataclass(frozen=True, eq=False)
class Row:
    """A drawing of a volume with the cases that are taught on it.

    Args:
        cases: All cases of the volume in the batch.
        slices: What is shown.
        taught: Those of the cases that are asked of it.
    """

    cases: Sequence[Case]
    slices: SliceStack
    taught: Sequence[Case]


@dataclass(frozen=True, eq=False)
class Lesson:
    """One query with its true answer.

    Args:
        case: What is asked.
        row: Drawing that it is asked of.
        prompt: The query, reworded or not, behind the slices.
        truth: The true answer.
        answer: The same as the policy's tokens.
    """

    case: Case
    row: Row
    prompt: Prompt
    truth: TrueAnswer
    answer: Completion


class SFTModule(TrainingModule):
    """Trains a policy to write the true anchors (SFT).

    Args:
        policy: Trained.
        propagator: Used in validation and test only.
        answers: What is taught.
        optimizer: AdamW, with betas of 0.9 and 0.98, and its schedule.
        evaluation: How answers are asked for, and what is measured of them.
        reword: Probability that words of a training query are dropped; 0 leaves queries as they are.
        seed: Seed of the draws; together with the step it decides them, so a resumed run repeats them.
            None takes that of the experiment (``seed_everything``); in Python it is 0.
    """

    def __init__(
        self,
        policy: TrainablePolicy,
        propagator: Propagator,
        answers: AnswerSettings = AnswerSettings(),
        optimizer: OptimizerSettings = OptimizerSettings(),
        evaluation: EvaluationSettings = EvaluationSettings(),
        reword: float = 0.0,
        seed: int | None = None,
    ) -> None:
        super().__init__(
            policy=policy, propagator=propagator, optimizer=optimizer, evaluation=evaluation, reword=reword, seed=seed
        )
        self.answers = answers

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """AdamW with warm-up and cosine, by steps."""
        return self.optimise(self.trained_parameters(), (0.9, 0.98))

    def trained_parameters(self) -> Iterable[torch.nn.Parameter]:
        """What the optimiser may change."""
        return self.policy.trainable_parameters()

    def training_step(self, batch: Batch, batch_idx: int) -> torch.Tensor | None:
        """Loss of the true answers; None when nothing in the batch can be taught."""
        drawings = [self.draw(cases) for cases in batch]
        with one_stream(self.seed, *self.place_of(batch_idx)) as rng:
            lessons = [
                self._prepare(case, row, rng)
                for cases, slices in zip(batch, drawings, strict=True)
                for row in self.choose_rows(cases, slices, rng)
                for case in row.taught
            ]
        if not any(gather_ranks(len(lessons))):
            return None if count_ranks() == 1 else self.idle_loss()  # Lightning takes None from a process alone
        return whole_loss(self.measure_loss(lessons))

    def choose_rows(self, cases: Sequence[Case], slices: SliceStack, rng: np.random.Generator) -> list[Row]:
        """Choose what is shown of a volume, and which cases are asked of it: here all of its drawing, and all cases.

        Args:
            cases: Cases that share one volume, each with its target mask.
            slices: The full drawing.
            rng: Source of draws.
        """
        return [Row(cases, slices, [case for case in cases if is_taught(case, slices)])]

    def measure_loss(self, lessons: Sequence[Lesson]) -> torch.Tensor:
        """Measure this process's part of the negative log-likelihood of the true answers: a mean over all tokens."""
        if not lessons:
            return self.mean_loss([])
        prompts, answers = [lesson.prompt for lesson in lessons], [[lesson.answer] for lesson in lessons]
        return self.mean_loss([rows[0] for rows in self.policy.log_probs(prompts, answers)])

    def mean_loss(self, scores: Sequence[torch.Tensor]) -> torch.Tensor:
        """Negative mean over the tokens of all answers, of which this process has a part; logged as a whole.

        Args:
            scores: For each answer, (T,) log-probabilities of its tokens.
        """
        mean = -torch.cat([*scores]).mean() if scores else self.idle_loss()
        loss = mean * share_of_ranks(sum(map(len, scores)))
        self.log("train/answer_loss", sum_ranks(loss.detach()), batch_size=max(1, len(scores)))
        return loss

    def draw(self, cases: Sequence[Case]) -> SliceStack:
        """The full drawing of the volume that the cases share.

        Raises:
            DatasetError: A case has no target mask.
        """
        for case in cases:
            require_target(case)
        return build_prompts(cases[0].volume, [cases[0].query.text], self.policy.template)[0].slices

    def _prepare(self, case: Case, row: Row, rng: np.random.Generator) -> Lesson:
        template = self.policy.template
        prompt = Prompt(row.slices, reword_query(case.query, rng, self.reword), template)
        truth = write_answer(case, row.slices, self.answers, self.evaluation.split_boxes, template, rng)
        return Lesson(case, row, prompt, truth, self.policy.encode(truth.text))

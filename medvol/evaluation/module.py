"""The Lightning module that asks a policy, follows its answers to masks and scores them."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import torch
from lightning.pytorch import Callback, LightningModule
from torch.utils.data import DistributedSampler

from medvol.core.errors import DatasetError, PolicyError
from medvol.core.reprs import describe_settings
from medvol.core.roles import Policy, Propagator, RewardTerm, RolloutEngine, TrainablePolicy
from medvol.core.types import Case, Evidence, Sampling, require_target
from medvol.evaluation.archive import write_evaluation
from medvol.evaluation.case_score import CaseScore
from medvol.evaluation.fault_watch import FaultWatch
from medvol.evaluation.kept_masks import KeptMasks
from medvol.evaluation.ranks import gather_ranks
from medvol.evaluation.report import report_runs, show_means
from medvol.evaluation.scoring import Keeper, score_groups
from medvol.evaluation.settings import EvaluationSettings
from medvol.evaluation.summary import mean_scores
from medvol.grounding.anchors import label_anchor
from medvol.guarding.guard import identify, name_component, read_template, require_ready
from medvol.imaging.slices import shown_slices
from medvol.inference.outcomes import tell_failure
from medvol.inference.predictions import as_job, write_predictions
from medvol.inference.records import plain_values
from medvol.inference.summary import Outcome, Summary
from medvol.rollouts.failures import POLICY_FAILED
from medvol.rollouts.groups import Group, ask
from medvol.rollouts.samples import draw_samples
from medvol.terminal.console import Console
from medvol.terminal.progress import pause_progress

Batch = list[list[Case]]
"""Groups of cases; the cases of a group share one volume."""

Row = TypeVar("Row")

Placed = tuple[int, Row]
"""A row of results with the number of its batch."""

_HOW_ASKED = ("anchor_rule", "max_new_tokens", "samples", "headroom")


class EvaluationModule(LightningModule):
    """Answers, propagates and scores; ``medvol validate``, ``test`` and ``predict`` run it.

    Args:
        policy: Answers greedily.
        propagator: Turns its anchors into masks.
        evaluation: How answers are asked for, and what is measured of them.
    """

    def __init__(
        self, policy: Policy, propagator: Propagator, evaluation: EvaluationSettings = EvaluationSettings()
    ) -> None:
        super().__init__()
        self.policy = policy
        self.propagator = propagator
        self.evaluation = evaluation
        self.network: torch.nn.Module | None = None
        self._scores: list[Placed[CaseScore]] = []
        self._masks = KeptMasks(Path(), 0.0)
        self.validated: dict[str, float] = {}
        """Means of the last validation."""
        self._outcomes: list[Placed[Outcome]] = []
        self.failed = False
        """True when a case of the last prediction gave no mask."""

    __repr__ = describe_settings

    def configure_callbacks(self) -> list[Callback]:
        """End all processes when one fails; Lightning asks."""
        return [FaultWatch()] if self.trainer.world_size > 1 else []

    @property
    def is_trial(self) -> bool:
        """True in a trial run (``trainer.fast_dev_run``), which leaves nothing behind."""
        return bool(getattr(self.trainer, "fast_dev_run", False))

    def setup(self, stage: str) -> None:
        """Check that all components have what they need, before anything is loaded."""
        require_ready(*self.needed_components)

    @property
    def needed_components(self) -> tuple[Policy | Propagator | RewardTerm | RolloutEngine, ...]:
        """What must be ready before a run begins."""
        return (self.propagator, self.policy)

    def configure_model(self) -> None:
        """Load a trainable policy's network and register it, so that it is moved, trained and stored."""
        if self.network is None and isinstance(self.policy.inner, TrainablePolicy):
            self.network = self.policy.inner.load()

    def transfer_batch_to_device(self, batch: Batch, device: torch.device, dataloader_idx: int) -> Batch:
        """Leave cases as they are: they hold arrays, and the policy moves what it draws."""
        return batch

    def answer(self, cases: Sequence[Case]) -> list[Group]:
        """Answer all queries of one volume greedily, from one drawing of its slices; a group holds one rollout."""
        truths = [self.true_anchor(case) for case in cases] if self.policy.needs_truth else None
        return ask(self.policy, cases, self._sampling, truths=truths)

    def true_anchor(self, case: Case) -> Evidence:
        """True anchor of a case among the slices that the policy sees, or as many as its prompt allows.

        Raises:
            DatasetError: The case has no target mask.
        """
        template = read_template(self.policy)
        shown = shown_slices(case.volume, template.num_slices)
        own, target, most = self.evaluation, require_target(case), template.max_anchors
        return label_anchor(target, shown, rule=own.anchor_rule, split_boxes=own.split_boxes, max_anchors=most)

    def score_group(self, cases: Sequence[Case], thorough: bool = False, keep: Keeper | None = None) -> list[CaseScore]:
        """Answer and score all queries of one volume.

        Args:
            cases: Cases that share one volume, each with its target mask.
            thorough: Also measure what ``evaluation`` asks for in a test: surfaces, lesions, error budget, confidence.
            keep: Keeps masks.

        Raises:
            DatasetError: A case has no target mask.
        """
        for case in cases:
            require_target(case)
        quick = replace(self.evaluation, surface=None, lesions="none", error_budget=False, headroom=0, samples=0)
        settings = self.evaluation if thorough else quick
        truths = [self.true_anchor(case) for case in cases] if settings.error_budget else None
        groups = self.answer(cases)
        if settings.samples:
            groups = draw_samples(self.policy, groups, self._sampling, settings.samples)
        return score_groups(groups, self.propagator, settings, truths, keep)

    def on_validation_epoch_start(self) -> None:
        """Start a fresh list of scores."""
        self._scores = []

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Score a batch."""
        for cases in batch:
            self._scores += [(batch_idx, score) for score in self.score_group(cases)]

    def on_validation_epoch_end(self) -> None:
        """Log the means as ``val/...``; ``medvol validate`` also prints them.

        Raises:
            PolicyError: The policy answered no query at all.
        """
        scores = self._gather_scores(self.trainer.val_dataloaders)
        _require_answers(self.policy, [score.failure for score in scores])
        means = self._log_means("val", scores)
        if not self.trainer.sanity_checking:
            self.validated = means
        if self.trainer.state.fn == "validate" and self.trainer.is_global_zero:
            with pause_progress():
                Console().print(show_means(scores))

    def on_test_epoch_start(self) -> None:
        """Start a fresh list of scores, and a folder of masks where they are kept."""
        self.identity()  # what cannot be written down fails here, and not when the work is done
        self._scores = []
        gib = 0.0 if self.is_trial else self.evaluation.masks_gib / self.trainer.world_size
        self._masks = KeptMasks(Path(self.trainer.default_root_dir), gib)
        if self.trainer.is_global_zero and not self.is_trial:
            self._masks.start()
        self.trainer.strategy.barrier()

    def test_step(self, batch: Batch, batch_idx: int) -> None:
        """Score a batch thoroughly, and keep its masks."""
        for cases in batch:
            scores = self.score_group(cases, thorough=True, keep=self._masks.keep)
            self._scores += [(batch_idx, score) for score in scores]

    def on_test_epoch_end(self) -> None:
        """Log the means as ``test/...``, print a table; write masks, ``cases.json`` and ``evaluation.json``.

        Raises:
            PolicyError: The policy answered no query at all.
        """
        scores = self._gather_scores(self.trainer.test_dataloaders)
        _require_answers(self.policy, [score.failure for score in scores])
        self._log_means("test", scores)
        if self.trainer.is_global_zero and scores and not self.is_trial:
            self._masks.finish()
            path = write_evaluation(Path(self.trainer.default_root_dir), scores, self.identity())
            with pause_progress():
                console = Console()
                console.print(report_runs([path.parent]))
                said = f"means and intervals: {path}; every case: {path.with_name('cases.json')}"
                console.print(said, soft_wrap=True)

    def on_predict_epoch_start(self) -> None:
        """Start a fresh list of outcomes."""
        self._outcomes = []

    def predict_step(self, batch: Batch, batch_idx: int) -> list[str]:
        """Answer a batch, and write every answer as ``medvol segment`` does; the others go on after one that fails.

        Returns:
            Ids of the cases that gave a mask.
        """
        answered = []
        for cases in batch:
            for case, outcome in zip(cases, self._predict(cases), strict=True):
                self._outcomes.append((batch_idx, outcome))
                answered += [case.case_id] if outcome.status == "done" else []
        return answered

    def on_predict_epoch_end(self) -> None:
        """Write ``summary.json`` and ``answers.csv``: what became of every case.

        Raises:
            PolicyError: The policy answered no query at all.
        """
        outcomes = list({outcome.name: outcome for outcome in _gather_in_order(self._outcomes)}.values())
        self.failed = any(outcome.status == "failed" for outcome in outcomes)
        if self.trainer.is_global_zero:
            summary = Summary(tuple(outcomes), self._components())
            summary.write(self._prediction_folder())
            with pause_progress():
                console = Console()
                console.print(summary.table() if summary.needs_rows else summary.table().title)
                console.print(f"answers, summary.json and answers.csv: {self._prediction_folder()}", soft_wrap=True)
        failures = [POLICY_FAILED if outcome.error == PolicyError.__name__ else None for outcome in outcomes]
        _require_answers(self.policy, failures)

    def identity(self) -> dict[str, Any]:
        """Identity and settings of what is evaluated, as written to ``evaluation.json``."""
        seed = os.environ.get("PL_GLOBAL_SEED")  # where Lightning's seed_everything leaves it
        return {
            **self._components(),
            "seed": int(seed) if seed else None,
            "settings": {name: getattr(self.evaluation, name) for name in _HOW_ASKED} | self.evaluation.measures,
        }

    def _log_means(self, stage: str, scores: Sequence[CaseScore]) -> dict[str, float]:
        means = mean_scores(scores)
        for name, value in means.items():
            self.log(f"{stage}/{name}", value, prog_bar=name in ("format_rate", "dsc"), sync_dist=True)
        return means

    def _predict(self, cases: Sequence[Case]) -> list[Outcome]:
        """Answer and write all queries of one volume."""
        folder = self._prediction_folder()
        try:
            groups = self.answer(cases)
        except Exception as error:  # a plug-in may fail in any way; the other volumes go on
            return [tell_failure(as_job(case, folder), error) for case in cases]
        return write_predictions(groups, self.policy, self.propagator, self._sampling, folder, self._components())

    def _prediction_folder(self) -> Path:
        return Path(self.evaluation.save_dir or Path(self.trainer.default_root_dir) / "predictions")

    @property
    def _sampling(self) -> Sampling:
        return Sampling(temperature=0.0, max_new_tokens=self.evaluation.max_new_tokens)

    def _components(self) -> dict[str, Any]:
        return plain_values({"policy": identify(self.policy), "propagator": identify(self.propagator)})

    def _gather_scores(self, loader: Any) -> list[CaseScore]:
        """Scores of all processes, each case once.

        Raises:
            DatasetError: Two cases have the same id, so that one would be lost.
        """
        scores = _gather_in_order(self._scores)
        if type(getattr(loader, "sampler", None)) is DistributedSampler:  # Lightning's own hands some cases out twice
            return list({score.case_id: score for score in scores}.values())
        repeated = [case_id for case_id, count in Counter(s.case_id for s in scores).items() if count > 1]
        if repeated:
            raise DatasetError(f"several cases have the id {repeated[0]!r}; ids must be unique within a data set")
        return scores


def _gather_in_order(rows: Sequence[Placed[Row]]) -> list[Row]:
    """Rows of all processes in the order of the data set, of which each batch holds one part a process."""
    placed = [(batch, rank, row) for rank, part in enumerate(gather_ranks(rows)) for batch, row in part]
    return [row for _, _, row in sorted(placed, key=lambda own: own[:2])]


def _require_answers(policy: Policy, failures: Sequence[str | None]) -> None:
    """Stop a run whose policy failed on every query: that is a fault, and not a result of 0."""
    if failures and all(failure == POLICY_FAILED for failure in failures):
        raise PolicyError(
            f"{name_component(policy)} failed on each of {len(failures)} queries, so there is nothing to report; the "
            "warnings above say why"
        )

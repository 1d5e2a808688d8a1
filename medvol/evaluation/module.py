"""The Lightning module that asks a policy, follows its answers to masks and scores them."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer

from medvol.core.errors import PolicyError
from medvol.core.reprs import describe_settings
from medvol.core.roles import Policy, Propagator, RewardTerm, RolloutEngine, TrainablePolicy
from medvol.core.types import Case, Evidence, Sampling, require_target
from medvol.evaluation.archive import write_evaluation
from medvol.evaluation.case_pass import CasePass
from medvol.evaluation.case_score import CaseScore
from medvol.evaluation.fault_watch import FaultWatch
from medvol.evaluation.kept_masks import KeptMasks
from medvol.evaluation.precision import require_scans_as_they_are
from medvol.evaluation.ranks import gather_ranks
from medvol.evaluation.report import report_runs, show_means
from medvol.evaluation.scoring import Keeper, score_groups
from medvol.evaluation.settings import EvaluationSettings
from medvol.evaluation.summary import mean_scores
from medvol.grounding.anchors import label_anchor
from medvol.guarding.guard import identify, name_component, read_template, require_ready
from medvol.imaging.slices import shown_slices
from medvol.inference.predictions import Predictions
from medvol.inference.records import plain_values
from medvol.inference.segmenter import follow_answers
from medvol.inference.summary import Outcome, Summary
from medvol.rollouts.failures import POLICY_FAILED
from medvol.rollouts.groups import Group, ask
from medvol.rollouts.samples import draw_samples
from medvol.terminal.console import Console
from medvol.terminal.progress import pause_progress

Batch = list[list[Case]]
"""Groups of cases; the cases of a group share one volume."""

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
        self._scores = CasePass[CaseScore]()
        self._masks = KeptMasks(Path(), 0.0)
        self.beside: dict[str, str] = {}
        """Texts by file name that a test writes together with its scores, such as its configuration."""
        self.validated: dict[str, float] = {}
        """Means of the last validation."""
        self._outcomes = CasePass[Outcome]()
        self.failed = False
        """True when a case of the last prediction gave no mask."""

    __repr__ = describe_settings

    def configure_callbacks(self) -> list[Callback]:
        """Clear away when a run fails, and end all processes when one does; Lightning asks."""
        return [_ClearAway(), *([FaultWatch(self.clear_away)] if self.trainer.world_size > 1 else [])]

    @property
    def is_trial(self) -> bool:
        """True in a trial run (``trainer.fast_dev_run``), which leaves nothing behind."""
        return bool(getattr(self.trainer, "fast_dev_run", False))

    def setup(self, stage: str) -> None:
        """Check that all components have what they need, before anything is loaded."""
        require_scans_as_they_are(self.trainer.precision)
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
        self._scores = CasePass(self.trainer.val_dataloaders)

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Score a batch."""
        for cases in self._scores.take(batch):
            for case, score in zip(cases, self.score_group(cases), strict=True):
                self._scores.add(batch_idx, case, score)

    def on_validation_epoch_end(self) -> None:
        """Log the means as ``val/...``; ``medvol validate`` also prints them.

        Raises:
            PolicyError: The policy answered no query at all.
        """
        scores = self._scores.gather()
        _require_answers(self.policy, [score.failure for score in scores])
        means = self._log_means("val", scores)
        if not self.trainer.sanity_checking:
            self.validated = means
        if self.trainer.state.fn == "validate" and self.trainer.is_global_zero:
            with pause_progress():
                Console().print(show_means(scores))

    def on_test_epoch_start(self) -> None:
        """Start a fresh list of scores, and a folder of masks where they are kept.

        Raises:
            ConfigError: Another test writes in the run folder.
        """
        self.identity()  # what cannot be written down fails here, and not when the work is done
        self._scores = CasePass(self.trainer.test_dataloaders)
        gib = 0.0 if self.is_trial else self.evaluation.masks_gib / self.trainer.world_size
        self._masks = KeptMasks(Path(self.trainer.default_root_dir), gib)
        if self.trainer.is_global_zero and not self.is_trial:
            self._masks.start()
        self.trainer.strategy.barrier()

    def test_step(self, batch: Batch, batch_idx: int) -> None:
        """Score a batch thoroughly, and keep its masks."""
        for cases in self._scores.take(batch):
            scores = self.score_group(cases, thorough=True, keep=self._masks.keep)
            for case, score in zip(cases, scores, strict=True):
                self._scores.add(batch_idx, case, score)

    def on_test_epoch_end(self) -> None:
        """Log the means as ``test/...``, print a table; write masks, ``cases.json`` and ``evaluation.json``.

        Raises:
            PolicyError: The policy answered no query at all.
        """
        scores = self._scores.gather()
        _require_answers(self.policy, [score.failure for score in scores])
        self._log_means("test", scores)
        self._masks.left_out = sum(gather_ranks(self._masks.left_out))
        if self.trainer.is_global_zero and scores and not self.is_trial:
            folder, masks = Path(self.trainer.default_root_dir), self._masks
            path = write_evaluation(folder, scores, self.identity(), masks=masks, beside=self.beside)
            masks.close()
            with pause_progress():
                console = Console()
                console.print(report_runs([path.parent]))
                said = f"means and intervals: {path}; every case: {path.with_name('cases.json')}"
                console.print(said, soft_wrap=True)

    def clear_away(self) -> None:
        """Leave nothing half done behind when a run fails: masks without scores, a run folder kept from other tests."""
        self._masks.close()

    def on_predict_epoch_start(self) -> None:
        """Start a fresh list of outcomes, where they replace nothing that medvol did not write."""
        if self.trainer.is_global_zero and not self.is_trial:
            Summary.require_free(self._predictions().folder, "choose another folder (model.evaluation.save_dir)")
        self.trainer.strategy.barrier()
        self._outcomes = CasePass(self.trainer.predict_dataloaders)

    def predict_step(self, batch: Batch, batch_idx: int) -> list[str]:
        """Answer a batch, and write every answer as ``medvol segment`` does; the others go on after one that fails.

        Returns:
            Ids of the cases that gave a mask.
        """
        answered, predictions = [], self._predictions()
        for cases in self._outcomes.take(batch):
            for case, outcome in zip(cases, predictions.answer(cases), strict=True):
                self._outcomes.add(batch_idx, case, outcome)
                answered += [case.case_id] if outcome.status == "done" else []
        return answered

    def on_predict_epoch_end(self) -> None:
        """Write ``summary.json`` and ``answers.csv``: what became of every case.

        Raises:
            PolicyError: The policy answered no query at all.
        """
        outcomes = self._outcomes.gather()
        self.failed = any(outcome.status == "failed" for outcome in outcomes)
        if self.trainer.is_global_zero:
            folder, summary = self._predictions().folder, Summary(tuple(outcomes), self._components())
            files = "a trial run: nothing is written"
            if not self.is_trial:
                summary.write(folder)
                files = f"answers, summary.json and answers.csv: {folder}"
            with pause_progress():
                console = Console()
                console.print(summary.table() if summary.needs_rows else summary.table().title)
                console.print(files, soft_wrap=True)
        failures = [POLICY_FAILED if outcome.error == PolicyError.__name__ else None for outcome in outcomes]
        _require_answers(self.policy, failures)

    def identity(self) -> dict[str, Any]:
        """Identity and settings of what is evaluated, as written to ``evaluation.json``."""
        seed = vars(self).get("seed", os.environ.get("PL_GLOBAL_SEED"))  # where Lightning's seed_everything leaves it
        return {
            **self._components(),
            "seed": int(seed) if seed is not None else None,
            "precision": str(self.trainer.precision),
            "settings": {name: getattr(self.evaluation, name) for name in _HOW_ASKED} | self.evaluation.measures,
        }

    def _log_means(self, stage: str, scores: Sequence[CaseScore]) -> dict[str, float]:
        means = mean_scores(scores)
        for name, value in means.items():
            self.log(f"{stage}/{name}", value, prog_bar=name in ("format_rate", "dsc"), sync_dist=True)
        return means

    def _predictions(self) -> Predictions:
        follow = partial(follow_answers, policy=self.policy, propagator=self.propagator, sampling=self._sampling)
        folder = Path(self.evaluation.save_dir or Path(self.trainer.default_root_dir) / "predictions")
        return Predictions(self.answer, follow, folder, self._components(), writes=not self.is_trial)

    @property
    def _sampling(self) -> Sampling:
        return Sampling(temperature=0.0, max_new_tokens=self.evaluation.max_new_tokens)

    def _components(self) -> dict[str, Any]:
        return plain_values({"policy": identify(self.policy), "propagator": identify(self.propagator)})


class _ClearAway(Callback):
    """Tells the module that a run failed, which Lightning tells callbacks alone."""

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Leave nothing half done behind."""
        if isinstance(pl_module, EvaluationModule):
            pl_module.clear_away()


def _require_answers(policy: Policy, failures: Sequence[str | None]) -> None:
    """Stop a run whose policy failed on every query: that is a fault, and not a result of 0."""
    if failures and all(failure == POLICY_FAILED for failure in failures):
        raise PolicyError(
            f"{name_component(policy)} failed on each of {len(failures)} queries, so there is nothing to report; the "
            "warnings above say why"
        )

"""The Lightning module that asks a policy, follows its answers to masks and scores them."""

from __future__ import annotations

import logging
import os
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal, TypeVar
from urllib.parse import quote

import torch
from lightning.pytorch import LightningModule
from rich.console import Console

from medvol.core.errors import DatasetError
from medvol.core.evaluation.archive import write_evaluation
from medvol.core.evaluation.report import report_runs
from medvol.core.evaluation.scoring import CaseScore, Scoring, follow_completion, require_target, score_completion
from medvol.core.evaluation.summary import mean_scores
from medvol.core.grounding.anchors import label_anchor
from medvol.core.grounding.prompts import build_prompts
from medvol.core.imaging.slices import choose_slices
from medvol.core.json_file import write_json
from medvol.core.limits import require_least
from medvol.core.roles import Policy, Propagator, TrainablePolicy
from medvol.core.types import Case, Completion, Evidence, Rollout, Sampling, Segmentation

Batch = list[list[Case]]
"""Groups of cases; the cases of a group share one volume."""

Row = TypeVar("Row")

log = logging.getLogger(__name__)


class EvaluationModule(LightningModule):
    """Answers, propagates and scores; ``medvol validate``, ``test`` and ``predict`` run it as it is.

    Args:
        policy: Answers greedily.
        propagator: Turns its anchors into masks.
        error_budget: In a test, also measure what slice choice, boxes and propagation lose (two more propagations a
            case).
        surface: In a test, also measure NSD and HD95.
        tolerance_mm: Tolerance of the NSD.
        anchor_rule: How the true key slice is chosen among the slices shown.
        split_boxes: One true box for each part of a target on a slice; one box of the whole target otherwise.
        max_new_tokens: Upper bound on the length of an answer.
        save_dir: Folder of the masks, records and pictures that ``predict`` writes; when None nothing is written and
            the answers stay in ``segmentations``.
    """

    def __init__(
        self,
        policy: Policy,
        propagator: Propagator,
        error_budget: bool = False,
        surface: bool = False,
        tolerance_mm: float = 2.0,
        anchor_rule: Literal["paper", "largest"] = "paper",
        split_boxes: bool = True,
        max_new_tokens: int = 256,
        save_dir: str | None = None,
    ) -> None:
        super().__init__()
        require_least(1, max_new_tokens=max_new_tokens)
        require_least(0, tolerance_mm=tolerance_mm)
        self.policy = policy
        self.propagator = propagator
        self.error_budget = error_budget
        self.surface = surface
        self.tolerance_mm = tolerance_mm
        self.anchor_rule = anchor_rule
        self.split_boxes = split_boxes
        self.max_new_tokens = max_new_tokens
        self.save_dir = save_dir
        self.network: torch.nn.Module | None = None
        self._scores: list[CaseScore] = []
        self._predictions: list[dict[str, Any]] = []
        self.segmentations: list[Segmentation] = []

    def configure_model(self) -> None:
        """Load a trainable policy's network and register it, so that it is moved, trained and stored."""
        if self.network is None and isinstance(self.policy, TrainablePolicy):
            self.network = self.policy.load()

    def transfer_batch_to_device(self, batch: Batch, device: torch.device, dataloader_idx: int) -> Batch:
        """Leave cases as they are: they hold arrays, and the policy moves what it draws."""
        return batch

    def answer(self, cases: Sequence[Case]) -> list[Completion]:
        """Answer all queries of one volume greedily, from one drawing of its slices."""
        truths: list[Evidence | None] | None = None
        if self.policy.needs_truth:
            truths = [self.true_anchor(case) for case in cases]
        queries = [case.query.text for case in cases]
        prompts = build_prompts(cases[0].volume, queries, self.policy.template, truths)
        answers = self.policy.generate(prompts, 1, Sampling(temperature=0.0, max_new_tokens=self.max_new_tokens))
        return [completions[0] for completions in answers]

    def true_anchor(self, case: Case) -> Evidence:
        """True anchor of a case among the slices that the policy sees.

        Raises:
            DatasetError: The case has no target mask.
        """
        shown = choose_slices(case.volume.shape[0], self.policy.template.num_slices)
        return label_anchor(require_target(case), shown, rule=self.anchor_rule, split_boxes=self.split_boxes)

    def score_group(self, cases: Sequence[Case], thorough: bool = False) -> list[CaseScore]:
        """Answer and score all queries of one volume.

        Args:
            cases: Cases that share one volume, each with its target mask.
            thorough: Also measure what ``error_budget`` and ``surface`` ask for.

        Raises:
            DatasetError: A case has no target mask.
        """
        for case in cases:
            require_target(case)
        scoring = Scoring(self.split_boxes, thorough and self.surface, self.tolerance_mm)
        budget = thorough and self.error_budget
        return [
            score_completion(case, completion, self.propagator, scoring, self.true_anchor(case) if budget else None)
            for case, completion in zip(cases, self.answer(cases), strict=True)
        ]

    def on_validation_epoch_start(self) -> None:
        """Start a fresh list of scores."""
        self._scores = []

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Score a batch."""
        for cases in batch:
            self._scores.extend(self.score_group(cases))

    def on_validation_epoch_end(self) -> None:
        """Log the means as ``val/...``."""
        self._log_means("val", self._gather(self._scores, lambda score: score.case_id))

    def on_test_epoch_start(self) -> None:
        """Start a fresh list of scores."""
        self._scores = []

    def test_step(self, batch: Batch, batch_idx: int) -> None:
        """Score a batch, with the error budget and surface measures when they are asked for."""
        for cases in batch:
            self._scores.extend(self.score_group(cases, thorough=True))

    def on_test_epoch_end(self) -> None:
        """Log the means as ``test/...``, print a table and write ``cases.json`` and ``evaluation.json``."""
        scores = self._gather(self._scores, lambda score: score.case_id)
        self._log_means("test", scores)
        if self.trainer.is_global_zero and scores and not self.trainer.fast_dev_run:
            path = write_evaluation(Path(self.trainer.default_root_dir), scores, self.identity())
            console = Console()
            console.print(report_runs([path.parent]))
            console.print(f"means and intervals: {path}; every case: {path.with_name('cases.json')}", soft_wrap=True)

    def on_predict_epoch_start(self) -> None:
        """Start fresh lists of predictions."""
        self._predictions = []
        self.segmentations = []

    def predict_step(self, batch: Batch, batch_idx: int) -> list[str]:
        """Answer a batch; a failure is named in the log and in ``predictions.json``.

        The answers are written to ``save_dir``, or kept in ``segmentations`` when it is None.

        Returns:
            Ids of the cases that gave a mask.
        """
        answered = []
        for cases in batch:
            for case, completion in zip(cases, self.answer(cases), strict=True):
                rollout = follow_completion(case, completion, self.propagator)
                segmentation = self._segmentation(case, rollout)
                files = self._keep(segmentation, case.case_id) if segmentation else {}
                answered += [case.case_id] if segmentation else []
                self._predictions.append(
                    {"case_id": case.case_id, "query": case.query.text, "failure": rollout.failure, "files": files}
                )
        return answered

    def on_predict_epoch_end(self) -> None:
        """Write ``predictions.json``: every case, its files, its failure."""
        rows = self._gather(self._predictions, lambda row: row["case_id"])
        if self.save_dir and self.trainer.is_global_zero:
            path = write_json(Path(self.save_dir) / "predictions.json", rows)
            failed = sum(row["failure"] is not None for row in rows)
            Console().print(f"{len(rows) - failed} of {len(rows)} queries answered: {path}")

    def identity(self) -> dict[str, Any]:
        """Identity and settings of what is evaluated, as written to ``evaluation.json``."""
        seed = os.environ.get("PL_GLOBAL_SEED")  # where Lightning's seed_everything leaves it
        return {
            "policy": dict(self.policy.identity()),
            "propagator": dict(self.propagator.identity()),
            "seed": int(seed) if seed else None,
            "settings": {
                "anchor_rule": self.anchor_rule,
                "split_boxes": self.split_boxes,
                "tolerance_mm": self.tolerance_mm,
                "max_new_tokens": self.max_new_tokens,
            },
        }

    def _log_means(self, stage: str, scores: Sequence[CaseScore]) -> None:
        for name, value in mean_scores(scores).items():
            self.log(f"{stage}/{name}", value, prog_bar=name in ("format_rate", "dsc"), sync_dist=True)

    def _segmentation(self, case: Case, rollout: Rollout) -> Segmentation | None:
        if rollout.evidence is None or rollout.mask is None:
            log.warning("case %s has no mask: %s", case.case_id, rollout.detail)
            return None
        identity = {"policy": dict(self.policy.identity()), "propagator": dict(self.propagator.identity())}
        return Segmentation(
            case.volume, case.query.text, rollout.mask, rollout.evidence, rollout.completion, provenance=identity
        )

    def _keep(self, segmentation: Segmentation, case_id: str) -> dict[str, str]:
        """Write one answer, or keep it; a case's id is escaped, so that it is one file name and stays unique."""
        if self.save_dir is None:
            self.segmentations.append(segmentation)
            return {}
        paths = segmentation.save(self.save_dir, quote(case_id, safe=" "))
        return {kind: path.name for kind, path in paths.items()}

    def _gather(self, rows: list[Row], key: Callable[[Row], str]) -> list[Row]:
        """Rows of all ranks; a case that a sampler handed to two ranks counts once.

        Raises:
            DatasetError: Two cases of one rank have the same id, so that one would be lost.
        """
        repeated = [case_id for case_id, count in Counter(map(key, rows)).items() if count > 1]
        if repeated:
            raise DatasetError(f"several cases have the id {repeated[0]!r}; ids must be unique within a data set")
        gathered: list[list[Row] | None] = [rows]
        if self.trainer.world_size > 1:
            gathered = [None] * self.trainer.world_size
            torch.distributed.all_gather_object(gathered, rows)
        return list({key(row): row for part in gathered if part for row in part}.values())

"""Scores of a run again, from the words and masks that it kept: no policy and no propagator is asked."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from medvol.core.errors import ConfigError, RecordError
from medvol.core.metrics import Mask
from medvol.core.roles import CaseDataset
from medvol.core.types import Case, Completion, Rollout
from medvol.evaluation.archive import Evaluation
from medvol.evaluation.case_identity import require_scored
from medvol.evaluation.case_ids import require_new
from medvol.evaluation.case_score import CaseScore
from medvol.evaluation.kept_masks import read_kept_mask
from medvol.evaluation.scoring import MISSING_MASK, score_mask, score_rollout
from medvol.evaluation.settings import EvaluationSettings
from medvol.guarding.cases import count_cases, look_up
from medvol.rollouts.completions import read_completion
from medvol.rollouts.failures import POLICY_FAILED, PROPAGATION_FAILED
from medvol.rollouts.scorer import RewardScorer


def rescore(
    evaluation: Evaluation,
    dataset: CaseDataset,
    settings: EvaluationSettings,
    rewards: RewardScorer | None = None,
    hear: Callable[[int], None] = lambda done: None,
) -> list[CaseScore]:
    """Score every case of a run again; with the settings of the run, its scores come out to the bit.

    The error budget keeps what was propagated from true anchors; only its predicted part is measured again. Confidence
    is kept, since samples are no longer at hand.

    Args:
        evaluation: The run, with the masks that it kept.
        dataset: The cases that it scored, no more and no fewer.
        settings: What is measured.
        rewards: Reward terms, which are scored too.
        hear: Told how many are done.

    Raises:
        RecordError: The data are not those of the run, or a mask was not kept.
        ConfigError: Rewards are asked for masks of another system, which come without an answer.
        DatasetError: A case has no target mask, is another one than was scored under its id, or two have one id.
        RewardError: A term failed.
    """
    former = {score.case_id: score for score in evaluation.scores}
    found: dict[str, CaseScore] = {}
    for index in range(count_cases(dataset)):
        case = look_up(dataset, index)
        if case.case_id not in former:
            raise RecordError(
                f"{evaluation.folder} has not scored case {case.case_id!r}; give the data that it scored, and no more "
                "(--data). With trainer.limit_test_batches it scored a part: test it without"
            )
        require_new(case.case_id, found)
        require_scored(case, former[case.case_id])
        mask = read_kept_mask(evaluation.folder, former[case.case_id], case)
        found[case.case_id] = _score_again(former[case.case_id], case, mask, settings, rewards)
        hear(index + 1)
    lost = next((case_id for case_id in former if case_id not in found), None)
    if lost is not None:
        raise RecordError(f"the data have no case {lost!r}, which {evaluation.folder} scored; give its data (--data)")
    return [found[case_id] for case_id in former]


def _score_again(
    former: CaseScore, case: Case, mask: Mask, settings: EvaluationSettings, rewards: RewardScorer | None
) -> CaseScore:
    if former.parsed is None:
        if rewards is not None:
            raise ConfigError("masks of another system have no answers to reward; leave --rewards out")
        score = score_mask(None if former.failure == MISSING_MASK else mask, case, settings, former.detail)
    else:
        rollout = _restore(former, case, mask)
        score = score_rollout(rollout, case, settings)
        if rewards is not None:
            paid = rewards.score(rollout, case)
            score = replace(score, rewards={**paid.scores, "total": paid.total})
    budget = former.budget and replace(former.budget, predicted=score.dsc)
    return replace(
        score,
        budget=budget,
        mask_file=former.mask_file,
        mask_sha256=former.mask_sha256,
        confidence=former.confidence,
    )


def _restore(former: CaseScore, case: Case, mask: Mask) -> Rollout:
    """The answer as it was followed: read again, with its mask, or with the failure of a component."""
    rollout = read_completion(case, Completion(former.completion), former.max_anchors)
    if former.failure in (POLICY_FAILED, PROPAGATION_FAILED):
        return replace(rollout, failure=former.failure, detail=former.detail)
    return rollout if rollout.failure is not None else replace(rollout, mask=mask)

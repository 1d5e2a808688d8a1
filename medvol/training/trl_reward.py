"""Rewards of medvol under the contract of TRL, so that its trainers can use them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

from medvol.core.errors import ConfigError, DatasetError
from medvol.core.roles import CaseDataset, Propagator, RewardTerm
from medvol.core.types import Case, Completion, require_target
from medvol.grounding.box_units import read_pixels
from medvol.guarding.cases import look_up
from medvol.guarding.guard import require_ready
from medvol.rollouts.completions import read_completion
from medvol.rollouts.scorer import RewardScorer

CASE_COLUMN = "case"
"""Column of the training set that says which case a row asks about."""


class TRLReward:
    """A reward term that TRL's GRPOTrainer calls; see ``as_trl_reward``."""

    def __init__(
        self,
        term: RewardTerm,
        cases: CaseDataset | Sequence[Case],
        propagator: Propagator | None,
        max_anchors: int,
        seen_px: tuple[int, int] | None,
    ) -> None:
        self._scorer = RewardScorer([term])
        if propagator is None and self._scorer.needs_mask:
            raise ConfigError(f"{type(term).__name__} scores the mask; give as_trl_reward a propagator")
        require_ready(term, *([] if propagator is None else [propagator]))
        self.__name__ = type(term).__name__
        self._cases = cases
        self._propagator = propagator
        self._max_anchors = max_anchors
        self._seen_px = seen_px

    def __call__(self, completions: Sequence[Any], **columns: Any) -> list[float]:
        """Score a batch.

        Args:
            completions: Texts, or conversations whose last message is the answer.
            **columns: What else TRL passes; ``case`` holds an index into the cases for each completion.

        Returns:
            A score in [0, 1] for each.

        Raises:
            ConfigError: The training set has no column ``case``.
            DatasetError: A case has no target mask, or there is none of that index.
            RewardError: The term failed, or scored NaN or outside [0, 1].
        """
        indices = columns.get(CASE_COLUMN)
        if indices is None:
            raise ConfigError(f"the training set has no column {CASE_COLUMN!r}; it holds the index of each row's case")
        found = {index: self._find(index) for index in dict.fromkeys(indices)}
        cases = [found[index] for index in indices]
        rollouts = [
            read_completion(case, Completion(self._read(completion)), self._max_anchors)
            for case, completion in zip(cases, completions, strict=True)
        ]
        scores = {}
        for places in _by_volume(cases):
            read = [rollouts[place] for place in places]
            for i, rollout in self._scorer.follow(cases[places[0]].volume, read, self._propagator):
                scores[places[i]] = self._scorer.score(rollout, cases[places[i]]).total
        return [scores[place] for place in range(len(cases))]

    def _read(self, completion: Any) -> str:
        """Text of an answer, its boxes in thousandths."""
        text = _answer(completion)
        return text if self._seen_px is None else read_pixels(text, *self._seen_px)

    def _find(self, index: int) -> Case:
        if not 0 <= index < len(self._cases):
            raise DatasetError(f"column {CASE_COLUMN!r} says {index}, and there are {len(self._cases)} cases")
        case = look_up(self._cases, index)
        require_target(case)
        return case


def as_trl_reward(
    term: RewardTerm,
    cases: CaseDataset | Sequence[Case],
    propagator: Propagator | None = None,
    max_anchors: int = 1,
    seen_px: tuple[int, int] | None = None,
) -> TRLReward:
    """Turn a reward term into a reward function of TRL.

    Args:
        term: Any reward.
        cases: What the rows of the training set ask about: column ``case`` of it holds an index into them.
        propagator: Turns anchors into masks; needed by terms that read the mask, which is propagated once for equal
            anchors and only as far as the term reads it.
        max_anchors: Most anchors that the prompt allows in an answer.
        seen_px: Height and width of a slice as the model sees it, for a model that writes boxes in pixels, such as
            Qwen2.5-VL; None for one that writes them in thousandths of the slice.

    Returns:
        A function for ``reward_funcs`` of ``trl.GRPOTrainer``; TRL logs it under the name of the term. Weights belong
        to ``reward_weights`` of ``trl.GRPOConfig``.

    Raises:
        ConfigError: The term reads the mask and there is no propagator.
        CheckpointError: The propagator lacks its weights.

    Source: https://huggingface.co/docs/trl/grpo_trainer, "Using a custom reward function".
    """
    return TRLReward(term, cases, propagator, max_anchors, seen_px)


def _by_volume(cases: Sequence[Case]) -> list[list[int]]:
    """Places of the cases of each volume."""
    places: dict[int, list[int]] = defaultdict(list)
    for place, case in enumerate(cases):
        places[id(case.volume)].append(place)
    return list(places.values())


def _answer(completion: Any) -> str:
    """Text of an answer, plain or the last message of a conversation, whose content may come in parts."""
    if isinstance(completion, str):
        return completion
    content = completion[-1]["content"]
    if isinstance(content, str):
        return content
    return "".join(part.get("text", "") for part in content)

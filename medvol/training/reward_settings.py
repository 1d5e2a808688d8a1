"""Settings that rewards share with the prompt and with the labels: where they differ, no answer is paid in full."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from medvol.core.errors import ConfigError
from medvol.core.prompts import PromptTemplate
from medvol.core.roles import RewardTerm


def require_matching(terms: Sequence[RewardTerm], template: PromptTemplate, split_boxes: bool) -> None:
    """Refuse rewards that compare boxes in another way than answers are written and taught.

    Args:
        terms: The rewards.
        template: Of the policy.
        split_boxes: Of the evaluation, which labels follow.

    Raises:
        ConfigError: A setting differs.
    """
    for term in terms:
        for name, whose, expected in _shared(term, template, split_boxes):
            given = getattr(term, name, expected)
            if given != expected:
                kind = type(term).__name__
                raise ConfigError(
                    f"{name} of {kind} is {given}, and that of {whose} is {expected}, so no answer would be paid in "
                    f"full; set {name} of {kind} to {expected}"
                )


def _shared(term: RewardTerm, template: PromptTemplate, split_boxes: bool) -> Iterator[tuple[str, str, Any]]:
    """Name of a setting, what else has it, and its value there."""
    yield "coordinate_step", "the policy's prompt", template.coordinate_step
    yield "split_boxes", "model.evaluation", split_boxes
    if getattr(term, "boxes_of", "") == "labelled":  # the only boxes that depend on which slices are shown
        yield "num_slices", "the policy's prompt", template.num_slices

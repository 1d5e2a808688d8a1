"""The prompts of a step about made-up volumes, and their tokens."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from medvol.core.prompts import Prompt
from medvol.core.types import SliceStack
from medvol.planning.step import Step
from medvol.policies.vlm.network import VLMNetwork

TRUE_ANSWER = (
    "<think>The left kidney spans slices 110 to 172.</think>"
    '<answer>[{"slice": 140, "bbox_2d_list": [[512, 430, 620, 580]]}]</answer>'
)
"""An answer of usual length, as SFT teaches it."""


@dataclass(frozen=True)
class PromptTokens:
    """Tokens of a prompt.

    Args:
        slices: Shown.
        image: Of all slices.
        text: Tags of the slices and the instruction.
        query: Of the query.
        limit: Most tokens that the model reads and writes.
    """

    slices: int
    image: int
    text: int
    query: int
    limit: int

    @property
    def prefix(self) -> int:
        """Tokens that all queries of a volume share."""
        return self.image + self.text

    @property
    def total(self) -> int:
        """Tokens before an answer."""
        return self.prefix + self.query


def make_prompts(network: VLMNetwork, step: Step) -> list[Prompt]:
    """Prompts about one made-up volume."""
    template = network.template
    count = min(step.slices or template.num_slices, step.scan_shape[0])
    indices = tuple(int(index) for index in np.linspace(0, step.scan_shape[0] - 1, count))
    blank = np.broadcast_to(np.float32(0), (count, 3, template.height_px, template.width_px))
    stack = SliceStack(indices, blank, step.scan_shape)
    return [Prompt(stack, step.query, template) for _ in range(step.queries)]


def count_tokens(network: VLMNetwork, prompts: Sequence[Prompt], step: Step) -> PromptTokens:
    """Count the tokens of a prompt."""
    ids = network.prefix(prompts[0].slices).ids
    image = int((ids == network.image_id).sum())
    limit = int(network.model.config.text_config.max_position_embeddings)
    query = len(network.encode_query(step.query))
    return PromptTokens(len(prompts[0].slices.indices), image, len(ids) - image, query, limit)

"""Drawings of slices: prompts that hold the same slices are read together, and answers go back to their prompts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from medvol.core.errors import ConfigError
from medvol.core.prompts import Prompt, PromptTemplate
from medvol.core.types import Completion, SliceStack

if TYPE_CHECKING:
    import torch

Drawings = list[tuple[SliceStack, list[int]]]
"""Drawings of slices, each with the places of its prompts."""


def require_layout(prompts: Sequence[Prompt], template: PromptTemplate) -> None:
    """Refuse prompts that were built for another policy: their slices do not fit, and their instruction is not read.

    Raises:
        ConfigError: One has another layout than the weights were trained with.
    """
    for prompt in prompts:
        if prompt.template != template:
            raise ConfigError(
                f"the prompt {prompt.query[:80]!r} has another layout than this policy reads; build it with the "
                "policy's own: medvol.build_prompt(volume, query, policy.template)"
            )


def by_slices(prompts: Sequence[Prompt]) -> Drawings:
    """The prompts of each drawing of slices, in order of first appearance."""
    drawings: dict[int, tuple[SliceStack, list[int]]] = {}
    for i, prompt in enumerate(prompts):
        drawings.setdefault(id(prompt.slices), (prompt.slices, []))[1].append(i)
    return list(drawings.values())


def group(
    drawings: Drawings,
    prompts: Sequence[Prompt],
    completions: Sequence[Sequence[Completion]],
) -> list[tuple[SliceStack, list[tuple[str, list[list[int]]]]]]:
    """Queries and token ids of each drawing's prompts, as the network takes them."""
    return [
        (slices, [(prompts[i].query, [c.token_ids.tolist() for c in completions[i]]) for i in members])
        for slices, members in drawings
    ]


def ungroup(drawings: Drawings, grouped: Sequence[list[list[torch.Tensor]]]) -> list[list[torch.Tensor]]:
    """What the network gave, in the order of the prompts."""
    found = {
        i: rows
        for (_, members), scored in zip(drawings, grouped, strict=True)
        for i, rows in zip(members, scored, strict=True)
    }
    return [found[i] for i in range(len(found))]

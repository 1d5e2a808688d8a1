"""ScratchPolicy: what a policy that starts from random weights lets its training see and teach."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING

from medvol.core.prompts import Prompt
from medvol.core.roles import TrainablePolicy
from medvol.core.types import Completion, SliceStack
from medvol.policies.gaze_target import Gaze

if TYPE_CHECKING:
    import torch


class ScratchPolicy(TrainablePolicy):
    """A policy from random weights, which can be taught to see and where to look."""

    @abstractmethod
    def log_probs_and_gaze(
        self, prompts: Sequence[Prompt], answers: Sequence[Completion], gazes: Sequence[Sequence[Gaze]]
    ) -> tuple[list[torch.Tensor], torch.Tensor]:
        """``log_probs`` of one answer each, and whether the policy looks where it should while it writes them.

        Args:
            prompts: Questions.
            answers: For each prompt, the answer to score.
            gazes: For each answer, where to look during pieces of it.

        Returns:
            For each prompt a float tensor (T,); and (N,), for every token of every piece the log of the share of
            attention that goes to where it should, all <= 0, with gradient.
        """

    @abstractmethod
    def slice_encoder(self) -> torch.nn.Module:
        """Module that writes one feature row (N, C) for every image token, slice by slice.

        The auxiliary occupancy loss listens to it.
        """

    @abstractmethod
    def encode_slices(self, stacks: Sequence[SliceStack]) -> torch.Tensor:
        """Run ``slice_encoder`` alone over all slices of all stacks: features (N, C) with gradient."""

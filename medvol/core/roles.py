"""The four roles. A plug-in inherits from one of them.

Constructors only store settings: cheap, offline, every parameter typed and without ``**kwargs``, so that a component
can be named in YAML and described without importing anything heavy. Weights load at first use. A component's module
must not import torch or another heavy library at its top.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from medvol.core.errors import ConfigError
from medvol.core.grounding.gaze import Gaze
from medvol.core.grounding.prompts import PromptSize, PromptTemplate
from medvol.core.reprs import Brief
from medvol.core.types import Case, Completion, Evidence, Prompt, Rollout, Sampling, SliceStack, Volume

if TYPE_CHECKING:
    import torch

    from medvol.core.training_data import TrainingData

Need = Literal["text", "evidence", "mask"]
Aspect = Literal["form", "slice", "boxes", "mask"]
"""What can be wrong with an answer: its layout, the choice of the key slice, the boxes for that slice, the mask."""


class Policy(Brief, ABC):
    """Reads slices and a query, writes an answer."""

    needs_truth: ClassVar[bool] = False
    """True for an oracle: its prompts then carry the true anchor."""

    training_data: TrainingData | None = None
    """What it was trained on; None when that is not known. Training sets it, and so does a model folder that tells."""

    @property
    def template(self) -> PromptTemplate:
        """Layout of the prompts that this policy reads."""
        return PromptTemplate()

    @abstractmethod
    def generate(
        self, prompts: Sequence[Prompt], n: int = 1, sampling: Sampling | None = None
    ) -> list[list[Completion]]:
        """Write ``n`` completions for every prompt.

        Args:
            prompts: Questions; those that hold the same slices share one prefix.
            n: Completions a prompt.
            sampling: Greedy when None.

        Returns:
            One list of ``n`` completions for each prompt, in order.
        """

    def identity(self) -> Mapping[str, Any]:
        """What answers, as written to evidence records: name, distribution and its version, settings.

        A component with weights adds their content hash, and leaves out settings that do not change its answers.
        """
        from medvol.core.specs import identify_component

        return identify_component(self)


class TrainablePolicy(Policy):
    """A policy with parameters."""

    @abstractmethod
    def load(self) -> torch.nn.Module:
        """Build the network and load its weights on the first call; return the same network afterwards."""

    @abstractmethod
    def encode(self, text: str) -> Completion:
        """Turn an answer into the tokens that the policy would write, end token included."""

    @abstractmethod
    def log_probs(
        self, prompts: Sequence[Prompt], completions: Sequence[Sequence[Completion]], temperature: float = 1.0
    ) -> list[list[torch.Tensor]]:
        """Log-probability of every token of every completion, with gradient.

        Args:
            prompts: Questions; those that hold the same slices are packed behind one prefix.
            completions: For each prompt, the completions to score.
            temperature: Above 0; scores are those of sampling at this temperature.

        Returns:
            For each prompt and completion a float tensor (T,), all <= 0.
        """

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

        Raises:
            ConfigError: This policy does not tell where it looks.
        """
        raise ConfigError(f"{type(self).__name__} does not tell where it looks; set gaze.weight to 0")

    @abstractmethod
    def reference_log_probs(
        self, prompts: Sequence[Prompt], completions: Sequence[Sequence[Completion]], temperature: float = 1.0
    ) -> list[list[torch.Tensor]]:
        """The same under the reference policy (the weights at the start of training), without gradient."""

    @abstractmethod
    def trainable_parameters(self) -> Iterable[torch.nn.Parameter]:
        """Parameters that an optimiser may change."""

    def measure_prompt(self, prompt: Prompt) -> PromptSize | None:
        """Count what a prompt fills; None when the policy cannot tell.

        GRPO refuses to start when image tokens and image features disagree, or when prompt and answer do not fit.
        """
        return None

    def slice_encoder(self) -> torch.nn.Module | None:
        """Module that writes one feature row (N, C) for every image token, slice by slice; None when there is none.

        The auxiliary occupancy loss listens to it.
        """
        return None

    def encode_slices(self, stacks: Sequence[SliceStack]) -> torch.Tensor:
        """Run ``slice_encoder`` alone over all slices of all stacks: features (N, C) with gradient.

        Raises:
            ConfigError: This policy cannot look at slices without answering; SFT then has no perception stage.
        """
        raise ConfigError(f"{type(self).__name__} has no encode_slices; set perception.steps to 0")

    @abstractmethod
    def save(self, folder: str | Path) -> None:
        """Write weights (safetensors), configuration, tokenizer and prompt template, so that they load together."""


class Propagator(Brief, ABC):
    """Turns an evidence anchor into a 3D mask; frozen and deterministic."""

    @abstractmethod
    def propagate(
        self, volume: Volume, evidence: Evidence, z_range: tuple[int, int] | None = None
    ) -> NDArray[np.bool_]:
        """Follow the boxes of the key slice through the volume.

        Args:
            volume: The scan.
            evidence: Anchor; an absent one gives an empty mask.
            z_range: Half-open range of slices that may be filled; the whole volume when None.

        Returns:
            Mask (Z, Y, X) bool on the volume's grid, the union over the boxes, False outside ``z_range``.

        Raises:
            PropagationError: It failed; the message names the volume and the anchor.
        """

    def propagate_many(
        self,
        volume: Volume,
        evidences: Sequence[Evidence],
        z_ranges: Sequence[tuple[int, int] | None] | None = None,
    ) -> list[NDArray[np.bool_]]:
        """Propagate several anchors of one volume; equal to one at a time.

        Args:
            volume: The scan.
            evidences: Anchors, with different key slices or not.
            z_ranges: Half-open range of slices that may be filled, one an anchor, None in it for the whole volume; the
                whole volume for all when None.

        Raises:
            PropagationError: One of them failed.
        """
        ranges = [None] * len(evidences) if z_ranges is None else z_ranges
        return [self.propagate(volume, evidence, own) for evidence, own in zip(evidences, ranges, strict=True)]

    def identity(self) -> Mapping[str, Any]:
        """What answers, as written to evidence records: name, distribution and its version, settings.

        A component with weights adds their content hash, and leaves out settings that do not change its answers.
        """
        from medvol.core.specs import identify_component

        return identify_component(self)


class RewardTerm(Brief, ABC):
    """Scores one rollout against its case."""

    needs: ClassVar[frozenset[Need]] = frozenset({"text"})
    """What is read from the rollout; without ``mask`` in any weighted term nothing is propagated."""

    judges: ClassVar[frozenset[Aspect] | None] = None
    """Aspects by which a worse answer has to score less; ``medvol.testing.audit_rewards`` holds the term to them.

    None where a term does not say: it is held to the aspects that it is seen to react to.
    """

    @property
    def mask_delta(self) -> int | None:
        """Slices on either side of the key slice in which the mask is read; None when all of it is.

        What no weighted term reads is not propagated.
        """
        return None

    @abstractmethod
    def __call__(self, rollout: Rollout, case: Case) -> float:
        """Score in [0, 1]; 0 for an answer that could not be parsed (a term that reads the text only may grade it)."""


class CaseDataset(Brief, ABC):
    """An indexed collection of cases; cases of one volume lie next to one another."""

    drawn: ClassVar[bool] = False
    """True where a program draws the scans: a policy that learned from these alone knows no real scan."""

    @abstractmethod
    def __len__(self) -> int:
        """Number of cases."""

    @abstractmethod
    def __getitem__(self, index: int) -> Case:
        """Case number ``index``; the same index always gives the same case."""

    @abstractmethod
    def volume_key(self, index: int) -> str:
        """Identity of the volume of a case, without reading it; used to group queries of one volume."""

    @abstractmethod
    def patient_id(self, index: int) -> str:
        """Patient of a case, without reading it; used to keep splits apart."""

    def scan_file(self, index: int) -> Path | None:
        """File that the scan of a case is read from, without reading it; None when it is not a file.

        Splits are searched for one scan under two names by it.
        """
        return None

    def case_source(self, index: int) -> str:
        """Where a case is written down, such as ``t.csv: row 2``, without reading it; empty where it is not."""
        return ""

    @property
    def dropped(self) -> Mapping[str, int]:
        """How many questions of each form are not asked because they have no single answer; may read label maps."""
        return {}

    def find_problems(self) -> Iterable[tuple[str, str, str]]:
        """Everything wrong with its tables and lists, without reading a scan; ``medvol check`` asks.

        Returns:
            For each problem its name in ``medvol.core.checking.catalogue``, the place, and what to do. Nothing for a
            data set that finds its problems when it is read.
        """
        return ()

"""QwenVLPolicy: Qwen3-VL and Qwen2.5-VL through transformers, and the tiny model that trains on a CPU."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from medvol.core.errors import ConfigError
from medvol.core.grounding.gaze import Gaze
from medvol.core.grounding.prompts import PromptSize, PromptTemplate
from medvol.core.registry import owner_of
from medvol.core.roles import TrainablePolicy
from medvol.core.types import Completion, Prompt, Sampling, SliceStack

if TYPE_CHECKING:
    import torch

    from medvol.core.training_data import TrainingData
    from medvol.policies.gaze import Look
    from medvol.policies.qwen_vl_network import QwenVLNetwork


class QwenVLPolicy(TrainablePolicy):
    """A Qwen vision-language model.

    The tiny model and the published ones run the same code: only where the weights come from differs.

    Args:
        model: Folder of a model, or its name on the Hugging Face hub (the only use of the network).
        size: ``tiny`` builds a model of about 3 M parameters with random weights and no download.
        template: Layout of the prompts; a folder that was saved by medvol brings its own.
        seed: Seed of the weights of a model built from ``size``.
        query_banks: YAML files of queries whose words the tiny model's tokenizer should know too.
        dtype: Type of the weights.
        freeze_vision: Leave the vision tower out of training.
        lora_rank: Train low-rank adapters on the language model and nothing else (extra ``qwen``); 0 trains the weights
            themselves. A saved folder holds the sum of both.
        gradient_checkpointing: Recompute activations in the backward pass to save memory.
    """

    def __init__(
        self,
        model: str | None = None,
        size: Literal["tiny"] | None = None,
        template: PromptTemplate | None = None,
        seed: int = 0,
        query_banks: Sequence[str] = (),
        dtype: Literal["float32", "bfloat16"] = "float32",
        freeze_vision: bool = False,
        lora_rank: int = 0,
        gradient_checkpointing: bool = False,
    ) -> None:
        if model is None and size is None:
            raise ConfigError(
                "QwenVLPolicy needs weights: set model to a folder or a hub name, or set size to 'tiny' for a small "
                "model with random weights"
            )
        if lora_rank < 0:
            raise ConfigError(f"lora_rank is 0 (no adapters) or more; got {lora_rank}")
        self.model = model
        self.size = size
        self.seed = seed
        self.query_banks = tuple(query_banks)
        self.dtype = dtype
        self.freeze_vision = freeze_vision
        self.lora_rank = lora_rank
        self.gradient_checkpointing = gradient_checkpointing
        self._template = template
        self._network: QwenVLNetwork | None = None
        self._reference: QwenVLNetwork | None = None
        self._hash: tuple[int, str] | None = None
        self._training_data: TrainingData | None = None

    @property
    def training_data(self) -> TrainingData | None:
        """What it was trained on, as training or its model folder tells; None for published weights.

        Raises:
            CheckpointError: The folder's file does not hold what it should.
        """
        if self._training_data is None and self.model is not None:
            from medvol.core.training_data import read_training_data

            self._training_data = read_training_data(Path(self.model))
        return self._training_data

    @training_data.setter
    def training_data(self, data: TrainingData | None) -> None:
        self._training_data = data

    @property
    def template(self) -> PromptTemplate:
        """The layout that the weights were trained with."""
        return self.load().template

    def load(self) -> QwenVLNetwork:
        """Build the network and load its weights at the first call.

        Raises:
            CheckpointError: The folder is missing, incomplete, or holds another kind of model.
            MissingExtraError: ``lora_rank`` is set and peft is not installed.
        """
        if self._network is None:
            self._network = self._build()
            if self.lora_rank:
                from medvol.policies.low_rank import add_adapters

                add_adapters(self._network.model, self.lora_rank, self.seed)
            if self.freeze_vision or self.lora_rank:
                self._network.freeze_vision()
            if self.gradient_checkpointing:
                self._network.model.activation_checkpointing_enable()
        return self._network

    def generate(
        self, prompts: Sequence[Prompt], n: int = 1, sampling: Sampling | None = None
    ) -> list[list[Completion]]:
        """Write completions; the slices that several prompts share are read once."""
        import torch

        from medvol.policies.decoding import decode

        sampling = sampling or Sampling()
        network = self.load()
        training = network.training
        network.eval()
        generator = torch.Generator().manual_seed(sampling.seed)
        answers: list[list[Completion]] = [[] for _ in prompts]
        for slices, members in _by_slices(prompts):
            queries = [prompts[i].query for i in members]
            for i, written in zip(members, decode(network, slices, queries, n, sampling, generator), strict=True):
                answers[i] = [self._completion(ids, log_probs) for ids, log_probs in written]
        network.train(training)
        return answers

    def encode(self, text: str) -> Completion:
        """Tokens of an answer, end token included."""
        network = self.load()
        ids = [*network.encode(text), network.end_id]
        return Completion(text, np.array(ids, np.int64))

    def log_probs(
        self, prompts: Sequence[Prompt], completions: Sequence[Sequence[Completion]], temperature: float = 1.0
    ) -> list[list[torch.Tensor]]:
        """Score completions, packed: every drawing of slices is one row."""
        return self._score(self.load(), prompts, completions, temperature)

    def log_probs_and_gaze(
        self, prompts: Sequence[Prompt], answers: Sequence[Completion], gazes: Sequence[Sequence[Gaze]]
    ) -> tuple[list[torch.Tensor], torch.Tensor]:
        """Score answers, and read the attention of the layer in the middle."""
        from medvol.policies.gaze import score_with_gaze

        drawings = _by_slices(prompts)
        looks = [[self._looks(answers[i], gazes[i]) for i in members] for _, members in drawings]
        groups = _group(drawings, prompts, [[answer] for answer in answers])
        grouped, shares = score_with_gaze(self.load(), groups, looks)
        return [rows[0] for rows in _ungroup(drawings, grouped)], shares

    def _looks(self, answer: Completion, gazes: Sequence[Gaze]) -> list[Look]:
        """Token, slice and mask of every token that writes a piece of the answer with a gaze."""
        coded = self.load().tokenizer(answer.text, add_special_tokens=False, return_offsets_mapping=True)
        return [
            (token, gaze.position, gaze.mask)
            for gaze in gazes
            for token, (first, last) in enumerate(coded["offset_mapping"])
            if first < gaze.stop and last > gaze.start
        ]

    def reference_log_probs(
        self, prompts: Sequence[Prompt], completions: Sequence[Sequence[Completion]], temperature: float = 1.0
    ) -> list[list[torch.Tensor]]:
        """Score under the weights that this policy was built from: a frozen copy, or those beneath the adapters."""
        import torch

        if self.lora_rank:
            from medvol.policies.low_rank import adapters_off

            with torch.no_grad(), adapters_off(self.load().model):
                return self._score(self.load(), prompts, completions, temperature)
        if self._reference is None:
            self._reference = self._build().eval()
            self._reference.requires_grad_(False)
            if self.freeze_vision:
                self._reference.share_vision(self.load())
        with torch.no_grad():
            return self._score(self._reference.to(self.load().device), prompts, completions, temperature)

    def trainable_parameters(self) -> Iterable[torch.nn.Parameter]:
        """Everything that was not frozen."""
        return [parameter for parameter in self.load().parameters() if parameter.requires_grad]

    def measure_prompt(self, prompt: Prompt) -> PromptSize:
        """Count what a prompt fills; encodes its slices once."""
        return self.load().measure(prompt.slices, prompt.query)

    def slice_encoder(self) -> torch.nn.Module:
        """The projector behind the vision tower."""
        merger: torch.nn.Module = self.load().model.model.visual.merger
        return merger

    def encode_slices(self, stacks: Sequence[SliceStack]) -> torch.Tensor:
        """Features of every image token, as the language model gets them."""
        import torch

        return torch.cat(list(self.load().see(stacks).pooler_output))

    def save(self, folder: str | Path) -> None:
        """Write a model folder that ``model`` takes; an older one of that name is replaced as a whole."""
        from medvol.policies.qwen_vl_folder import save_network

        save_network(self.load(), Path(folder), self.training_data)

    def identity(self) -> Mapping[str, Any]:
        """Name, origin and sha256 of the weights as they are now."""
        from medvol.policies.qwen_vl_folder import hash_weights

        network = self.load()
        version = sum(parameter._version for parameter in network.parameters())
        if self._hash is None or self._hash[0] != version:
            self._hash = (version, hash_weights(network.model))
        origin = {"name": type(self).__name__, "distribution": owner_of(self), "model": self.model or self.size}
        return {**origin, "sha256": self._hash[1]}

    def _build(self) -> QwenVLNetwork:
        if self.model is not None:
            from medvol.policies.qwen_vl_folder import load_network

            return load_network(self.model, self._template, self.dtype)
        from medvol.core.grounding.queries import QueryBank
        from medvol.policies.tiny_network import TINY_TEMPLATE, build_tiny

        return build_tiny(self._template or TINY_TEMPLATE, QueryBank.load(*self.query_banks), self.seed)

    def _score(
        self,
        network: QwenVLNetwork,
        prompts: Sequence[Prompt],
        completions: Sequence[Sequence[Completion]],
        temperature: float,
    ) -> list[list[torch.Tensor]]:
        drawings = _by_slices(prompts)
        return _ungroup(drawings, network.log_probs(_group(drawings, prompts, completions), temperature))

    def _completion(self, ids: list[int], log_probs: list[float]) -> Completion:
        text = self.load().tokenizer.decode(ids, skip_special_tokens=True)
        return Completion(str(text), np.array(ids, np.int64), np.array(log_probs, np.float32))


def _by_slices(prompts: Sequence[Prompt]) -> list[tuple[SliceStack, list[int]]]:
    """The prompts of each drawing of slices, in order of first appearance."""
    drawings: dict[int, tuple[SliceStack, list[int]]] = {}
    for i, prompt in enumerate(prompts):
        drawings.setdefault(id(prompt.slices), (prompt.slices, []))[1].append(i)
    return list(drawings.values())


def _group(
    drawings: Sequence[tuple[SliceStack, list[int]]],
    prompts: Sequence[Prompt],
    completions: Sequence[Sequence[Completion]],
) -> list[tuple[SliceStack, list[tuple[str, list[list[int]]]]]]:
    """Queries and token ids of each drawing's prompts, as the network takes them."""
    return [
        (slices, [(prompts[i].query, [c.token_ids.tolist() for c in completions[i]]) for i in members])
        for slices, members in drawings
    ]


def _ungroup(
    drawings: Sequence[tuple[SliceStack, list[int]]], grouped: Sequence[list[list[torch.Tensor]]]
) -> list[list[torch.Tensor]]:
    """What the network gave, in the order of the prompts."""
    found = {
        i: rows
        for (_, members), group in zip(drawings, grouped, strict=True)
        for i, rows in zip(members, group, strict=True)
    }
    return [found[i] for i in range(len(found))]

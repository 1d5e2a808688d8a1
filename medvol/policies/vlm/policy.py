"""VLMPolicy: what every vision-language model does the same: answer, score, adapt, save, and tell who it is."""

from __future__ import annotations

import logging
from abc import abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from copy import copy
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from medvol.core.errors import ConfigError
from medvol.core.prompts import Prompt, PromptSize, PromptTemplate
from medvol.core.publishers import owner_of
from medvol.core.ranges import require_between, require_whole
from medvol.core.roles import TrainablePolicy
from medvol.core.served_form import ServedForm
from medvol.core.types import Completion, Sampling
from medvol.policies.vlm.drawings import by_slices, group, require_layout, ungroup

if TYPE_CHECKING:
    import torch

    from medvol.policies.vlm.network import VLMNetwork

log = logging.getLogger(__name__)


class VLMPolicy(TrainablePolicy):
    """A vision-language model; a family says how its network is built.

    Args:
        template: Layout of the prompts; a folder that was saved by medvol brings its own.
        freeze_vision: Leave the vision tower out of training.
        lora_rank: Train low-rank adapters on the language model and nothing else; 0 trains the weights themselves.
        gradient_checkpointing: Recompute activations in the backward pass to save memory.
        offload_reference: Keep the frozen copy that a divergence is measured from in the memory of the host while it
            is not used. Adapters need no copy.
        quantised: Keep the layers that get adapters in 4 bits.
        feature_memory_gb: Memory of the host, in GB, for what a frozen vision tower saw in earlier steps.
    """

    model: str | None
    """Folder of the weights; a family may take other names, or none."""

    def __init__(
        self,
        template: PromptTemplate | None,
        freeze_vision: bool = False,
        lora_rank: int = 0,
        gradient_checkpointing: bool = False,
        offload_reference: bool = False,
        quantised: bool = False,
        feature_memory_gb: float = 0.0,
    ) -> None:
        require_whole(0, lora_rank=lora_rank)
        if quantised and not lora_rank:
            raise ConfigError("quantised is true and lora_rank is 0: weights in 4 bits do not learn; set lora_rank")
        require_between("[0, inf)", feature_memory_gb=feature_memory_gb)
        if feature_memory_gb and not (freeze_vision or lora_rank):
            raise ConfigError(
                f"feature_memory_gb is {feature_memory_gb:g} and the vision tower learns, so what it saw is of no use "
                "later; set freeze_vision or lora_rank"
            )
        self.feature_memory_gb = feature_memory_gb
        self.freeze_vision = freeze_vision
        self.lora_rank = lora_rank
        self.gradient_checkpointing = gradient_checkpointing
        self.offload_reference = offload_reference
        self.quantised = quantised
        self._template = template
        self._network: VLMNetwork | None = None
        self._reference: VLMNetwork | None = None
        self._hash: tuple[int, str] | None = None

    def unloaded(self, **changes: Any) -> Self:
        """A policy of the same settings, but for some, that has loaded nothing yet."""
        other = copy(self)
        vars(other).update(changes, _network=None, _reference=None, _hash=None)
        return other

    @abstractmethod
    def build_network(self) -> VLMNetwork:
        """Build the network and load its weights, anew at every call."""

    @property
    def template(self) -> PromptTemplate:
        """The layout that the weights were trained with."""
        return self.load().template

    def load(self) -> VLMNetwork:
        """Build the network and load its weights at the first call.

        Raises:
            CheckpointError: The folder is missing, incomplete, or holds another kind of model.
            MissingExtraError: ``lora_rank`` is set and peft is not installed.
        """
        if self._network is None:
            from medvol.policies.vlm.dropout import switch_off_dropout

            self._network = self.build_network()
            switch_off_dropout(self._network)
            if self._network.by_habit and self._network.box_units != "thousandths":
                log.warning(
                    "boxes are read in %s, as a published model of this family writes them by habit; box_units says "
                    "otherwise",
                    self._network.box_units,
                )
            if self.quantised:
                from medvol.policies.vlm.four_bits import quantise_layers
                from medvol.policies.vlm.low_rank import adapted_layers

                quantise_layers(self._network.model, adapted_layers(self._network))
            if self.lora_rank:
                from medvol.policies.vlm.low_rank import add_adapters

                add_adapters(self._network, self.lora_rank)
            if self.freeze_vision or self.lora_rank:
                self._network.freeze_vision(int(self.feature_memory_gb * 1e9))
            if self.gradient_checkpointing:
                self._network.model.activation_checkpointing_enable()
        return self._network

    def load_for_training(self) -> VLMNetwork:
        """Keep what is trained in float32; it is computed with, and saved, in the type that it had."""
        from medvol.policies.vlm.precision import widen_trained

        network = self.load()
        network.narrow = network.narrow or widen_trained(network)
        return network

    def generate(
        self, prompts: Sequence[Prompt], n: int = 1, sampling: Sampling | None = None
    ) -> list[list[Completion]]:
        """Write completions; the slices that several prompts share are read once."""
        import torch

        from medvol.policies.vlm.decoding import as_completion, decode
        from medvol.policies.vlm.precision import arithmetic

        sampling = sampling or Sampling()
        network = self.load()
        require_layout(prompts, network.template)
        training = network.training
        network.eval()
        generator = torch.Generator().manual_seed(sampling.seed)
        answers: list[list[Completion]] = [[] for _ in prompts]
        try:
            for slices, members in by_slices(prompts):
                queries = [prompts[i].query for i in members]
                with arithmetic(network.device, network.narrow):
                    found = decode(network, slices, queries, n, sampling, generator)
                for i, written in zip(members, found, strict=True):
                    answers[i] = [as_completion(network, ids, log_probs) for ids, log_probs in written]
        finally:
            network.train(training)
        return answers

    def encode(self, text: str) -> Completion:
        """Tokens of an answer, end token included."""
        network = self.load()
        ids = [*network.encode(network.write_boxes(text)), network.end_id]
        return Completion(text, np.array(ids, np.int64))

    def log_probs(
        self, prompts: Sequence[Prompt], completions: Sequence[Sequence[Completion]], temperature: float = 1.0
    ) -> list[list[torch.Tensor]]:
        """Score completions, packed: every drawing of slices is one row."""
        return self._score(self.load(), prompts, completions, temperature)

    def reference_log_probs(
        self, prompts: Sequence[Prompt], completions: Sequence[Sequence[Completion]], temperature: float = 1.0
    ) -> list[list[torch.Tensor]]:
        """Score under the weights that this policy was built from: a frozen copy, or those beneath the adapters."""
        import torch

        from medvol.policies.vlm.precision import move_apart

        if self.lora_rank:
            from medvol.policies.vlm.low_rank import adapters_off

            with torch.no_grad(), adapters_off(self.load().model):
                return self._score(self.load(), prompts, completions, temperature)
        reference, network = self.load_reference(), self.load()
        move_apart(reference, network, network.device)
        try:
            with torch.no_grad():
                return self._score(reference, prompts, completions, temperature)
        finally:
            if self.offload_reference:
                move_apart(reference, network, torch.device("cpu"))

    def name_reference(self) -> str | None:
        """Hash of the frozen copy; adapters need none, since checkpoints hold the weights beneath them."""
        from medvol.policies.vlm.folder import hash_weights

        return None if self.lora_rank else hash_weights(self.load_reference())

    def load_reference(self) -> VLMNetwork:
        """Build the frozen copy of the weights that this policy was built from, at the first call."""
        if self._reference is None:
            network = self.load()
            self._reference = self.build_network().eval()
            self._reference.requires_grad_(False)
            self._reference.narrow = network.narrow
            if self.freeze_vision:
                self._reference.share_vision(network)
        return self._reference

    def trainable_parameters(self) -> Iterable[torch.nn.Parameter]:
        """Everything that was not frozen."""
        return [parameter for parameter in self.load().parameters() if parameter.requires_grad]

    def measure_prompt(self, prompt: Prompt) -> PromptSize:
        """Count what a prompt fills; encodes its slices once."""
        from medvol.policies.vlm.precision import arithmetic

        network = self.load()
        with arithmetic(network.device, network.narrow):
            return network.measure(prompt.slices, prompt.query)

    def served_form(self) -> ServedForm | None:
        """What a server has to know, where the family's slices are patches with a grid (Qwen)."""
        from medvol.policies.vlm.served import ServedNetwork

        network = self.load()
        return ServedNetwork(network, self.lora_rank) if "image_grid_thw" in network.blank else None

    def write_weights(self, folder: Path) -> None:
        """Write weights, configuration and tokenizer as transformers keeps them; adapters are folded in."""
        from medvol.policies.vlm.folder import write_network

        write_network(self.load(), folder)

    def identity(self) -> Mapping[str, Any]:
        """Name, origin and sha256 of the weights as they are now."""
        from medvol.policies.vlm.folder import hash_weights

        network = self.load()
        version = sum(parameter._version for parameter in network.parameters())
        if self._hash is None or self._hash[0] != version:
            self._hash = (version, hash_weights(network))
        origin = {"name": type(self).__name__, "distribution": owner_of(self), "model": self.model}
        return {**origin, "sha256": self._hash[1]}

    def _score(
        self,
        network: VLMNetwork,
        prompts: Sequence[Prompt],
        completions: Sequence[Sequence[Completion]],
        temperature: float,
    ) -> list[list[torch.Tensor]]:
        from medvol.policies.vlm.precision import arithmetic
        from medvol.policies.vlm.scoring import require_scorable, score

        require_layout(prompts, network.template)
        require_scorable(completions, temperature)
        drawings = by_slices(prompts)
        with arithmetic(network.device, network.narrow):
            return ungroup(drawings, score(network, group(drawings, prompts, completions), temperature))

"""VisionLanguagePolicy: a published vision-language model through transformers, whatever its family."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from medvol.core.errors import ConfigError, MissingExtraError
from medvol.core.prompts import PromptTemplate
from medvol.policies.vlm.policy import VLMPolicy

if TYPE_CHECKING:
    from medvol.policies.vlm.network import VLMNetwork


class VisionLanguagePolicy(VLMPolicy):
    """A vision-language model of any family that has an adapter; ``config.json`` of its folder says which.

    Args:
        model: Folder of a model, or its name on the Hugging Face hub (the only use of the network).
        template: Layout of the prompts; a folder that was saved by medvol brings its own.
        dtype: Type of the weights.
        freeze_vision: Leave the vision tower out of training.
        lora_rank: Train low-rank adapters on the language model and nothing else (extra ``qwen``); 0 trains the weights
            themselves. A saved folder holds the sum of both.
        gradient_checkpointing: Recompute activations in the backward pass to save memory.
        adapter: Folder of an adapter of ``model``, from ``medvol convert --adapter`` or from peft. It is folded into
            the weights; what is trained is trained on top of it.
    """

    model: str
    families: ClassVar[tuple[str, ...] | None] = None
    """Model types that are run; None for all that are registered."""

    def __init__(
        self,
        model: str,
        template: PromptTemplate | None = None,
        dtype: Literal["float32", "bfloat16"] = "float32",
        freeze_vision: bool = False,
        lora_rank: int = 0,
        gradient_checkpointing: bool = False,
        adapter: str | None = None,
    ) -> None:
        super().__init__(
            template=template,
            freeze_vision=freeze_vision,
            lora_rank=lora_rank,
            gradient_checkpointing=gradient_checkpointing,
        )
        self.model = model
        self.dtype: Literal["float32", "bfloat16"] = dtype
        self.adapter = adapter

    def folder_settings(self) -> Mapping[str, Any]:
        """The type of the weights. Adapters are part of them; what is left out of training is no part of a model."""
        return {"dtype": self.dtype}

    def require_ready(self) -> None:
        """Find the folder, or fetch it, and what trains adapters."""
        from medvol.policies.vlm.adapter_folder import read_scale
        from medvol.policies.vlm.folder import find_folder

        if self.lora_rank and find_spec("peft") is None:
            raise MissingExtraError("peft", "qwen")
        if self._network is None:
            find_folder(self.model)
            if self.adapter is not None:
                read_scale(Path(self.adapter))

    def write_adapter(self, folder: Path) -> None:
        """Write the adapters as peft does, for the base model that this policy names."""
        if not self.lora_rank:
            return super().write_adapter(folder)
        if self.adapter is not None:
            raise ConfigError(
                f"this adapter was trained on top of another one, {self.adapter!r}, and belongs to the sum of base and "
                "that one; leave --adapter out and write the whole model"
            )
        from medvol.policies.vlm.adapter_folder import write_adapter

        local = Path(self.model)
        return write_adapter(
            self.load(), folder, self.lora_rank, local.resolve().name if local.is_dir() else self.model
        )

    def build_network(self) -> VLMNetwork:
        """Load the folder, or fetch it first."""
        from medvol.policies.vlm.adapter_folder import fold_adapter
        from medvol.policies.vlm.folder import choose_template, find_folder, load_network

        base = find_folder(self.model)
        if self.adapter is None:
            return load_network(base, self._template, self.dtype, self.families)
        folder = Path(self.adapter)
        network = load_network(base, choose_template(folder, self._template), self.dtype, self.families)
        fold_adapter(network, folder)
        return network


class QwenVLPolicy(VisionLanguagePolicy):
    """A Qwen vision-language model: Qwen3-VL, Qwen2.5-VL or Qwen3.5.

    Args:
        model: Folder of a model, or its name on the Hugging Face hub (the only use of the network).
        template: Layout of the prompts; a folder that was saved by medvol brings its own.
        dtype: See ``VisionLanguagePolicy``.
        freeze_vision: Leave the vision tower out of training.
        lora_rank: See ``VisionLanguagePolicy``.
        gradient_checkpointing: Recompute activations in the backward pass to save memory.
        adapter: See ``VisionLanguagePolicy``.
    """

    families = ("qwen2_5_vl", "qwen3_5", "qwen3_vl")

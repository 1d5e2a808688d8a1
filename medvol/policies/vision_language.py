"""VisionLanguagePolicy: a published vision-language model through transformers, whatever its family."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Literal

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
    ) -> None:
        super().__init__(
            template=template,
            freeze_vision=freeze_vision,
            lora_rank=lora_rank,
            gradient_checkpointing=gradient_checkpointing,
        )
        self.model = model
        self.dtype: Literal["float32", "bfloat16"] = dtype

    def folder_settings(self) -> Mapping[str, Any]:
        """The type of the weights. Adapters are part of them; what is left out of training is no part of a model."""
        return {"dtype": self.dtype}

    def build_network(self) -> VLMNetwork:
        """Load the folder, or fetch it first."""
        from medvol.policies.vlm.folder import find_folder, load_network

        return load_network(find_folder(self.model), self._template, self.dtype, self.families)


class QwenVLPolicy(VisionLanguagePolicy):
    """A Qwen vision-language model: Qwen3-VL, Qwen2.5-VL or Qwen3.5.

    Args:
        model: Folder of a model, or its name on the Hugging Face hub (the only use of the network).
        template: Layout of the prompts; a folder that was saved by medvol brings its own.
        dtype: Type of the weights.
        freeze_vision: Leave the vision tower out of training.
        lora_rank: Train low-rank adapters on the language model and nothing else (extra ``qwen``); 0 trains the weights
            themselves. A saved folder holds the sum of both.
        gradient_checkpointing: Recompute activations in the backward pass to save memory.
    """

    families = ("qwen2_5_vl", "qwen3_5", "qwen3_vl")

"""VisionLanguagePolicy: a published vision-language model through transformers, whatever its family."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from medvol.core.errors import ConfigError, MissingExtraError
from medvol.core.model_folder import judge_folder
from medvol.core.prompts import PromptTemplate
from medvol.core.ranges import require_choice
from medvol.grounding.box_units import BoxUnits, require_units
from medvol.policies.vlm.policy import VLMPolicy

if TYPE_CHECKING:
    from medvol.policies.vlm.network import VLMNetwork

WeightType = Literal["float32", "bfloat16"]


class VisionLanguagePolicy(VLMPolicy):
    """A vision-language model of any family that has an adapter; ``config.json`` of its folder says which.

    Args:
        model: Folder of a model, or its name on the Hugging Face hub (the only use of the network).
        template: Layout of the prompts; a folder that was saved by medvol brings its own.
        dtype: Type of the weights.
        freeze_vision: Leave the vision tower out of training.
        lora_rank: Train low-rank adapters on all linear layers of the language model and nothing else (extra ``qwen``);
            0 trains the weights themselves. A saved folder holds the sum of both.
        gradient_checkpointing: Recompute activations in the backward pass to save memory.
        adapter: Folder of an adapter of ``model``, from ``medvol convert --adapter`` or from peft. It is folded into
            the weights; what is trained is trained on top of it.
        box_units: What the model writes boxes in: ``thousandths`` of the slice, as the grammar does, or ``pixels`` of
            the slice as its processor sizes it, which are brought to the grammar's units. None takes what a folder of
            medvol says, and of a published one the habit of its family; a fit wants to be told.
        offload_reference: Keep the frozen copy that a divergence is measured from in the memory of the host while it
            is not used. Adapters need no copy.
        quantised: Keep the frozen layers beneath the adapters in 4 bits (extra ``qlora``); a saved folder holds them as
            they were rounded. Needs ``lora_rank``.
        feature_memory_gb: Memory of the host, in GB, for what a frozen vision tower saw in earlier steps; 0 keeps it
            for a step. Needs ``freeze_vision`` or ``lora_rank``.
    """

    model: str
    families: ClassVar[tuple[str, ...] | None] = None
    """Model types that are run; None for all that are registered."""

    def __init__(
        self,
        model: str,
        template: PromptTemplate | None = None,
        dtype: WeightType = "float32",
        freeze_vision: bool = False,
        lora_rank: int = 0,
        gradient_checkpointing: bool = False,
        adapter: str | None = None,
        box_units: BoxUnits | None = None,
        offload_reference: bool = False,
        quantised: bool = False,
        feature_memory_gb: float = 0.0,
    ) -> None:
        require_choice(WeightType, dtype=dtype)
        if box_units is not None:
            require_units(box_units)
        super().__init__(
            template=template,
            freeze_vision=freeze_vision,
            lora_rank=lora_rank,
            gradient_checkpointing=gradient_checkpointing,
            offload_reference=offload_reference,
            quantised=quantised,
            feature_memory_gb=feature_memory_gb,
        )
        self.model = model
        self.dtype: WeightType = dtype
        self.adapter = adapter
        self.box_units = box_units

    def folder_settings(self) -> Mapping[str, Any]:
        """The type of the weights, and what it writes boxes in. Adapters are part of the weights."""
        return {"dtype": self.dtype, "box_units": self.load().box_units}

    def identity(self) -> Mapping[str, Any]:
        """Name, origin and sha256 of the weights as they are now, and in what they write boxes."""
        return {**super().identity(), "box_units": self.load().box_units}

    def load_for_training(self) -> VLMNetwork:
        """See ``VLMPolicy``.

        Raises:
            ConfigError: The model would be taught other units than those of its habit, and nobody said which it shall
                write.
        """
        network = super().load_for_training()
        if network.by_habit and network.box_units != "thousandths":
            raise ConfigError(
                f"as it was published, {self.model!r} writes boxes in {network.box_units}: set policy.box_units to "
                "thousandths to teach it the grammar's units, which are finer, or to pixels to keep its own"
            )
        return network

    def require_ready(self) -> None:
        """Find the folder, or fetch it, judge it, and find what its family and adapters want."""
        from medvol.policies.vlm.adapter_folder import read_scale
        from medvol.policies.vlm.families import find_family
        from medvol.policies.vlm.folder import find_folder

        if self.lora_rank and find_spec("peft") is None:
            raise MissingExtraError("peft", "qwen")
        if self.quantised and find_spec("bitsandbytes") is None:
            raise MissingExtraError("bitsandbytes", "qlora")
        if self._network is None:
            folder = find_folder(self.model)
            find_family(judge_folder(folder).get("model_type"), str(folder), self.families)
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
        return write_adapter(self.load(), folder, local.resolve().name if local.is_dir() else self.model)

    def build_network(self) -> VLMNetwork:
        """Load the folder, or fetch it first."""
        from medvol.policies.known_layouts import is_known, outline_known
        from medvol.policies.vlm.adapter_folder import fold_adapter
        from medvol.policies.vlm.folder import (
            choose_template,
            find_folder,
            load_network,
            read_units,
            weights_are_left_out,
        )

        if weights_are_left_out() and is_known(self.model):
            return outline_known(self.model, self._template, self.dtype)
        base = find_folder(self.model)
        if self.adapter is None:
            return load_network(base, self._template, self.dtype, self.families, self.box_units)
        folder = Path(self.adapter)
        units = self.box_units or read_units(folder)
        template = choose_template(folder, self._template, units or "thousandths")
        network = load_network(base, template, self.dtype, self.families, units)
        if not weights_are_left_out():
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
        box_units: See ``VisionLanguagePolicy``.
        offload_reference: See ``VisionLanguagePolicy``.
        quantised: See ``VisionLanguagePolicy``.
        feature_memory_gb: See ``VisionLanguagePolicy``.
    """

    families = ("qwen2_5_vl", "qwen3_5", "qwen3_vl")

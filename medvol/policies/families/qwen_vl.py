"""Qwen3-VL, Qwen2.5-VL and Qwen3.5: positions in three rows, slices cut into patches of any count."""

from __future__ import annotations

from typing import Any

import torch
from transformers import BatchFeature, PreTrainedModel, ProcessorMixin

from medvol.core.prompts import PromptTemplate
from medvol.policies.vlm.network import VLMNetwork
from medvol.policies.vlm.slice_attention import SLICE_ATTENTION


class Qwen3VLNetwork(VLMNetwork):
    """A Qwen3-VL model with its processor and prompt template.

    Args:
        model: The model of transformers.
        processor: Its processor.
        template: Layout of the prompts.
    """

    end_token = "<|im_end|>"
    vision_parts = ("model.visual",)
    three_rows = True
    sizes_in_pixels = True

    def __init__(self, model: PreTrainedModel, processor: ProcessorMixin, template: PromptTemplate) -> None:
        super().__init__(model=model, processor=processor, template=template)
        if hasattr(model.config.vision_config, "deepstack_visual_indexes"):
            model.model.visual.config._attn_implementation = SLICE_ATTENTION

    @classmethod
    def default_side(cls, config: Any) -> int:
        """256 px, rounded down to whole tokens."""
        token = int(config.vision_config.patch_size) * int(config.vision_config.spatial_merge_size)
        return super().default_side(config) // token * token

    def token_grid(self) -> tuple[int, int]:
        """Image tokens along y and x of a slice."""
        _, rows, columns = self.blank["image_grid_thw"][0].tolist()
        merge = self.model.config.vision_config.spatial_merge_size
        return rows // merge, columns // merge

    def seen_size(self) -> tuple[int, int]:
        """Rows and columns in px of a slice, which the processor makes a whole number of patches."""
        _, rows, columns = self.blank["image_grid_thw"][0].tolist()
        side = self.model.config.vision_config.patch_size
        return rows * side, columns * side

    def look(self, images: BatchFeature) -> Any:
        """Run the vision tower over all patches of all slices."""
        grid = images["image_grid_thw"].to(self.device)
        return self.model.model.get_image_features(images["pixel_values"], grid, return_dict=True)

    def place(self, ids: torch.Tensor, count: int) -> torch.Tensor:
        """Time, row and column of every token; of text all three are the same."""
        positions: torch.Tensor
        positions, _ = self.model.model.get_rope_index(
            ids[None],
            mm_token_type_ids=(ids == self.image_id).int()[None],
            image_grid_thw=self.blank["image_grid_thw"].repeat(count, 1),
        )
        return positions[:, 0]


class Qwen2_5_VLNetwork(Qwen3VLNetwork):
    """A Qwen2.5-VL model; as it was published, it writes boxes in pixels of the slice that it sees."""

    native_units = "pixels"


class Qwen3_5Network(Qwen3VLNetwork):
    """A Qwen3.5 model: linear attention carries a state from token to token, so no completion shares its prompt."""

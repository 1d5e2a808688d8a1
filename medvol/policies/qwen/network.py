"""The network of Qwen2.5-VL and Qwen3-VL."""

from __future__ import annotations

from math import prod
from typing import Any

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from medvol.core.prompts import PromptTemplate
from medvol.policies.qwen.patches import to_patches
from medvol.policies.vlm.network import VLMNetwork
from medvol.policies.vlm.packing import Prefix
from medvol.policies.vlm.slice_attention import SLICE_ATTENTION

_OPENING = "<|im_start|>user\n"


class QwenVLNetwork(VLMNetwork):
    """A Qwen2.5-VL or Qwen3-VL model with its tokenizer and prompt template.

    Args:
        model: The model of transformers.
        tokenizer: Its tokenizer.
        template: Layout of the prompts.
    """

    image_token = "<|image_pad|>"
    end_token = "<|im_end|>"
    closing = f"{end_token}\n<|im_start|>assistant\n"
    vision_path = "model.visual"

    def __init__(self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, template: PromptTemplate) -> None:
        super().__init__(model=model, tokenizer=tokenizer, template=template)
        vision = model.config.vision_config
        self.patch, self.merge = int(vision.patch_size), int(vision.spatial_merge_size)
        self.temporal = int(vision.temporal_patch_size)
        if hasattr(vision, "deepstack_visual_indexes"):
            model.model.visual.config._attn_implementation = SLICE_ATTENTION

    def token_grid(self) -> tuple[int, int]:
        """Image tokens along y and x of a slice."""
        side = self.patch * self.merge
        return self.template.height_px // side, self.template.width_px // side

    def encode_pixels(self, pixels: torch.Tensor) -> Any:
        """Cut slices into patches and run the vision tower over all of them."""
        patches = to_patches(pixels, self.patch, self.merge, self.temporal)
        return self.model.model.get_image_features(patches, self._grid(len(pixels)).to(self.device), return_dict=True)

    def run(
        self, ids: torch.Tensor, positions: torch.Tensor, mask: torch.Tensor | None, seen: Any, cache: Any
    ) -> torch.Tensor:
        """Run the whole model but its vision tower."""
        output = self.model.model(
            input_ids=ids,
            position_ids=positions,
            attention_mask=mask,
            mm_encoder_outputs={"image": seen},
            cache=cache,
            use_cache=cache is not None,
        )
        hidden: torch.Tensor = output.last_hidden_state
        return hidden

    def run_on(self, ids: torch.Tensor, positions: torch.Tensor, mask: torch.Tensor | None, cache: Any) -> torch.Tensor:
        """Run the language model alone."""
        output = self.model.model.language_model(
            inputs_embeds=self.model.get_input_embeddings()(ids),
            position_ids=positions,
            attention_mask=mask,
            cache=cache,
            use_cache=True,
        )
        states: torch.Tensor = output.last_hidden_state
        return states

    def placeholders(self) -> set[int]:
        """Images, videos and their borders."""
        config = self.model.config
        images = {config.image_token_id, config.video_token_id}
        return images | {config.vision_start_token_id, config.vision_end_token_id}

    def lay_out(self, indices: tuple[int, ...]) -> tuple[Prefix, torch.Tensor]:
        """Prefix of a full drawing, and for each token the position of its slice in the drawing (-1 for text)."""
        config = self.model.config
        tokens = prod(self.token_grid())
        ids, owners = list(self.encode(_OPENING)), [-1] * len(self.encode(_OPENING))
        for position, index in enumerate(indices):
            tag = self.encode(self.template.slice_tag.format(index=index))
            block = [*tag, config.vision_start_token_id, *[config.image_token_id] * tokens, config.vision_end_token_id]
            ids += block
            owners += [position] * len(block)
        tail = self.encode(f"{self.template.instruction}\n")
        ids += tail
        owners += [-1] * len(tail)
        token_ids = torch.tensor(ids)
        positions, _ = self.model.model.get_rope_index(
            token_ids[None],
            mm_token_type_ids=(token_ids == config.image_token_id).int()[None],
            image_grid_thw=self._grid(len(indices)),
        )
        return Prefix(token_ids, positions[:, 0], int(positions.max()) + 1), torch.tensor(owners)

    def _grid(self, count: int) -> torch.Tensor:
        rows, columns = self.template.height_px // self.patch, self.template.width_px // self.patch
        return torch.tensor([[1, rows, columns]]).repeat(count, 1)

"""Gemma 3 and MedGemma: the tokens of a slice see one another, and most layers look at a sliding window."""

from __future__ import annotations

from typing import Any

import torch
from transformers import BatchFeature

from medvol.policies.vlm.network import VLMNetwork
from medvol.policies.vlm.slice_features import SliceFeatures


class Gemma3Network(VLMNetwork):
    """A Gemma 3 model with its processor and prompt template.

    Args:
        model: The model of transformers.
        processor: Its processor.
        template: Layout of the prompts.
    """

    end_token = "<end_of_turn>"
    vision_parts = ("model.vision_tower", "model.multi_modal_projector")
    windows = True
    joins_features = True

    def look(self, images: BatchFeature) -> SliceFeatures:
        """Run the vision tower; every slice is one image of one size."""
        seen = self.model.model.get_image_features(images["pixel_values"], return_dict=True)
        return SliceFeatures(tuple(seen.pooler_output), ())

    def layer_masks(self, visible: torch.Tensor, places: torch.Tensor, images: torch.Tensor) -> Any:
        """One mask for each kind of layer.

        The tokens of a slice see those behind them too. A window counts tokens by their positions, so a branch far
        down a row is as near to its prompt as it would be alone.
        """
        rows = visible.shape[2]
        begins = images & ~images.roll(1, dims=1)
        slices = begins.cumsum(1).masked_fill(~images, -1)
        together = (slices[:, -rows:, None] == slices[:, None]) & images[:, None]
        full = visible | together[:, None]
        near = places[:, -rows:, None] - places[:, None] < self.model.config.text_config.sliding_window
        return {"full_attention": self.additive(full), "sliding_attention": self.additive(full & near[:, None])}

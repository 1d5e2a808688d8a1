"""InternVL3: slices are one tile or several, merged four tokens to one."""

from __future__ import annotations

from transformers import BatchFeature

from medvol.policies.vlm.network import VLMNetwork
from medvol.policies.vlm.slice_features import SliceFeatures


class InternVLNetwork(VLMNetwork):
    """An InternVL3 model with its processor and prompt template.

    Args:
        model: The model of transformers.
        processor: Its processor.
        template: Layout of the prompts.
    """

    end_token = "<|im_end|>"
    vision_parts = ("model.vision_tower", "model.multi_modal_projector")
    joins_features = True

    def look(self, images: BatchFeature) -> SliceFeatures:
        """Run the vision tower over all tiles of all slices."""
        seen = self.model.model.get_image_features(images["pixel_values"], return_dict=True)
        tiles = seen.pooler_output.split([int(count) for count in images["num_patches"]])
        return SliceFeatures(tuple(slice_.flatten(0, 1) for slice_ in tiles), ())

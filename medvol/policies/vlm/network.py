"""The network of a vision-language policy: slices and text in, log-probabilities and tokens out.

Prompts, packing, scoring and what a frozen tower saw are the same for every family. A family says how its vision tower
is fed, where its tokens stand and what they may see.
"""

from __future__ import annotations

import logging
import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from types import SimpleNamespace
from typing import Any, ClassVar

import numpy as np
import torch
from torch import nn
from transformers import BatchFeature, PreTrainedModel, ProcessorMixin

from medvol.core.prompts import PromptSize, PromptTemplate
from medvol.core.types import SliceStack
from medvol.grounding.box_units import BoxUnits, read_pixels, write_pixels
from medvol.policies.slice_subset import drawn_indices, keep_slices
from medvol.policies.vlm.image_sizes import require_sane_sizes
from medvol.policies.vlm.packed_attention import PACKED_ATTENTION
from medvol.policies.vlm.packing import PackedRow, Prefix, stack_rows, with_prefix
from medvol.policies.vlm.prompt_layout import PromptLayout
from medvol.policies.vlm.slice_features import FeatureStore, HostFeatures
from medvol.policies.vlm.vocabulary import suppressed_tokens, token_id

log = logging.getLogger(__name__)


class VLMNetwork(nn.Module, ABC):
    """A vision-language model with its processor and prompt template; a family's adapter is a subclass.

    Args:
        model: The model of transformers.
        processor: Its processor: tokenizer, chat template, and how images become what the vision tower reads.
        template: Layout of the prompts.
    """

    end_token: ClassVar[str]
    """Ends a turn and so an answer."""

    vision_parts: ClassVar[tuple[str, ...]]
    """Modules and parameters that make features of slices, by their places in the model (``model.visual``)."""

    language_part: ClassVar[str] = "model.language_model"
    """Where the language model lies in the model."""

    three_rows: ClassVar[bool] = False
    """True when positions are time, row and column; else tokens are counted."""

    inline_image: ClassVar[str | None] = None
    """See ``PromptLayout``."""

    sizes_in_pixels: ClassVar[bool] = False
    """True when the image processor's ``size`` counts all pixels of a slice; else those along a side."""

    joins_features: ClassVar[bool] = False
    """True when the model takes the features of all slices as one tensor; else as one a slice."""

    image_options: ClassVar[Mapping[str, Any]] = {}
    """What the image processor is asked beyond its own settings."""

    native_units: ClassVar[BoxUnits] = "thousandths"
    """What a published model of the family writes boxes in."""

    extra: ClassVar[tuple[str, str] | None] = None
    """A library that the family's processor wants, and medvol's extra that installs it."""

    windows: ClassVar[bool] = False
    """True when ``layer_masks`` makes the masks of layers that see part of a prompt only, so that it can be shared."""

    box_units: BoxUnits = "thousandths"
    """What this model writes boxes in."""
    by_habit: bool = False
    """True when nobody said what it writes them in, and the habit of its family was taken."""

    model: Any  # PreTrainedModel; its parts are reached by name, which its type does not know
    suppressed: torch.Tensor
    narrow: torch.dtype | None = None
    """Type that weights kept in float32 are computed with and saved in; None where all are as they are."""

    def __init__(self, model: PreTrainedModel, processor: ProcessorMixin, template: PromptTemplate) -> None:
        super().__init__()
        self.model = model
        self.processor: Any = processor
        self.tokenizer = self.processor.tokenizer
        self.template = template
        self.end_id = token_id(self.tokenizer, self.end_token)
        self.image_id = int(model.config.image_token_id)
        require_sane_sizes(self.processor.image_processor, self.sizes_in_pixels)
        self.blank = self.prepare(torch.zeros(1, 3, template.height_px, template.width_px))
        """What the image processor makes of one slice."""
        block = self.processor.replace_image_token(dict(self.blank), 0)
        self.layout = PromptLayout(processor, template, block, self.inline_image)
        self.packs = self.windows or can_pack(model.config.text_config)
        """True when completions share their prompt; each has a copy of its own otherwise."""
        if self.packs:
            self.language.config._attn_implementation = PACKED_ATTENTION
        else:
            log.warning(
                "some layers of this model do not look at all tokens before them (a sliding window, or linear "
                "attention), so every completion is computed with a prompt of its own"
            )
        self.register_buffer("suppressed", suppressed_tokens(model, self.tokenizer, self.end_id), persistent=False)
        self.features: FeatureStore | None = None
        """What a frozen vision tower saw; None while the tower may learn."""
        self._layouts: dict[tuple[int, ...], tuple[Prefix, torch.Tensor]] = {}

    @abstractmethod
    def look(self, images: BatchFeature) -> Any:
        """Run the vision tower over what ``prepare`` gave; the answer has the fields of ``SliceFeatures``."""

    @classmethod
    def default_side(cls, config: Any) -> int:
        """Sides in px of a slice where no template says."""
        return 256

    def token_grid(self) -> tuple[int, int]:
        """Image tokens along y and x of a slice."""
        side = math.isqrt(self.layout.encode_layout(self.layout.block).count(self.image_id))
        return side, side

    def seen_size(self) -> tuple[int, int]:
        """Rows and columns in px of a slice as the model sees it."""
        return self.template.height_px, self.template.width_px

    def read_boxes(self, answer: str) -> str:
        """An answer of the model in the grammar's units."""
        return answer if self.box_units == "thousandths" else read_pixels(answer, *self.seen_size())

    def write_boxes(self, answer: str) -> str:
        """An answer in the grammar's units as the model writes it."""
        return answer if self.box_units == "thousandths" else write_pixels(answer, *self.seen_size())

    def place(self, ids: torch.Tensor, count: int) -> torch.Tensor:
        """Positions (3, P) of the tokens (P,) of a prefix with so many slices."""
        return torch.arange(len(ids)).expand(3, -1)

    def layer_masks(self, visible: torch.Tensor, places: torch.Tensor, images: torch.Tensor) -> Any:
        """What the language model takes as its mask.

        Args:
            visible: (B, 1, S, K) bool, the columns that the last S tokens may see as far as branches go; of all K
                tokens when the family has ``windows`` and a prompt is read.
            places: (B, K) positions of all tokens.
            images: (B, K) bool, True for image tokens.
        """
        return self.additive(visible)

    def prepare(self, pixels: torch.Tensor) -> BatchFeature:
        """Have the family's image processor size, scale and cut slices (S, 3, H, W) in [0, 1]."""
        images = self.processor.image_processor
        scale = 255 * (images.rescale_factor if images.do_rescale else 1)
        options = {"do_rescale": False, **getattr(self.processor, "images_kwargs", {}), **self.image_options}
        prepared: BatchFeature = images(
            self.arrange(pixels if math.isclose(scale, 1, rel_tol=1e-6) else pixels * scale),
            input_data_format="channels_first",
            return_tensors="pt",
            **options,
        )
        return prepared

    def arrange(self, pixels: torch.Tensor) -> Any:
        """Slices as the image processor takes the images of one prompt."""
        return list(pixels)

    def run(self, ids: torch.Tensor, positions: torch.Tensor, mask: Any, seen: Any, cache: Any) -> torch.Tensor:
        """Last hidden states (B, L, C) of a prompt and what follows it.

        Args:
            ids: (B, L) token ids, image tokens among them.
            positions: (3, B, L) of time, row and column; of text all three are the same.
            mask: From ``layer_masks``; None for plain causal attention.
            seen: Features of the slices, from ``see``.
            cache: Filled with keys and values; None keeps none.
        """
        if self.joins_features:
            seen = SimpleNamespace(pooler_output=torch.cat(seen.pooler_output))
        output = self.model.model(
            input_ids=ids,
            position_ids=positions if self.three_rows else positions[0],
            attention_mask=mask,
            mm_encoder_outputs={"image": seen},
            cache=cache,
            use_cache=cache is not None,
        )
        hidden: torch.Tensor = output.last_hidden_state
        return hidden

    def run_on(self, ids: torch.Tensor, positions: torch.Tensor, mask: Any, cache: Any) -> torch.Tensor:
        """Last hidden states (B, R, C) of further tokens of text, behind what the cache holds."""
        output = self.language(
            inputs_embeds=self.model.get_input_embeddings()(ids),
            position_ids=positions if self.three_rows else positions[0],
            attention_mask=mask,
            cache=cache,
            use_cache=True,
        )
        states: torch.Tensor = output.last_hidden_state
        return states

    @property
    def language(self) -> Any:
        """The language model, without vision and head."""
        return self.model.get_submodule(self.language_part)

    @property
    def device(self) -> torch.device:
        """Where the model lies."""
        device: torch.device = self.model.device
        return device

    def encode(self, text: str) -> list[int]:
        """Token ids of what somebody says; the name of a special token in it is text like any other."""
        return self.layout.encode(text)

    def encode_query(self, query: str) -> list[int]:
        """Token ids between the prefix and the answer."""
        return self.layout.encode_query(query)

    def prefix(self, slices: SliceStack) -> Prefix:
        """Lay out the slices and the instruction; slices dropped from a drawing leave the other positions alone."""
        drawn = drawn_indices(slices)
        if drawn not in self._layouts:
            if len(self._layouts) >= 256:
                self._layouts.clear()
            ids, owners = self.layout.lay_out(drawn)
            positions = self.place(ids, len(drawn))
            self._layouts[drawn] = Prefix(ids, positions, int(positions.max()) + 1), owners
        prefix, owners = self._layouts[drawn]
        if slices.indices == drawn:
            return prefix
        keep = torch.isin(owners, torch.tensor([-1, *(drawn.index(index) for index in slices.indices)]))
        return Prefix(prefix.ids[keep], prefix.positions[:, keep], prefix.next_position)

    def see(self, stacks: Sequence[SliceStack]) -> Any:
        """Features of all slices of all stacks, for ``hidden_states``; a frozen tower reads a drawing once."""
        return self._encode(stacks) if self.features is None else self.features.look_up(stacks, self._encode)

    def _encode(self, stacks: Sequence[SliceStack]) -> Any:
        """Run the vision tower over all slices of all stacks at once."""
        pixels = np.concatenate([stack.pixels for stack in stacks])
        images = self.prepare(torch.from_numpy(pixels).to(self.device))
        return self.look(images.to(self.device, self.model.dtype))

    def freeze_vision(self, kept_bytes: int = 0) -> None:
        """Leave the vision tower out of training, and set so much memory of the host aside for what it saw."""
        for name, parameter in self.model.named_parameters():
            if f"{name}.".startswith(tuple(f"{part}." for part in self.vision_parts)):
                parameter.requires_grad_(False)
        self.features = FeatureStore(HostFeatures(kept_bytes) if kept_bytes else None)

    def share_vision(self, other: VLMNetwork) -> None:
        """See with the vision tower of another network, and what it has seen, in place of an equal one."""
        for part in self.vision_parts:
            place, _, name = part.rpartition(".")
            setattr(self.model.get_submodule(place), name, getattr(other.model.get_submodule(place), name))
        self.features = other.features

    def hidden_states(self, rows: Sequence[PackedRow], seen: Any, cache: Any = None) -> torch.Tensor:
        """Last hidden states (B, L, C) of packed rows that hold the images in ``seen``, row by row.

        Of a model that does not pack, each row is one line from the prefix to the end of a completion.
        """
        ids, positions, visible = stack_rows(rows, self.end_id)
        visible = with_prefix(visible) if self.windows else visible
        mask = self.layer_masks(visible, positions[0], ids == self.image_id) if self.packs else None
        return self.run(ids.to(self.device), positions.to(self.device), mask, seen, cache)

    def additive(self, mask: torch.Tensor) -> torch.Tensor:
        """Turn a bool mask into the additive one that every attention implementation takes."""
        zeros = torch.zeros(mask.shape, dtype=self.model.dtype, device=self.device)
        return zeros.masked_fill_(~mask.to(self.device), torch.finfo(self.model.dtype).min)

    def token_log_probs(self, hidden: torch.Tensor, temperature: float = 1.0) -> torch.Tensor:
        """Log-probabilities (..., V) of the next token, in float32; tokens an answer cannot hold have none."""
        logits = self.model.lm_head(hidden).float().masked_fill_(self.suppressed, float("-inf"))
        return torch.log_softmax(logits if temperature == 1 else logits / temperature, dim=-1)

    def measure(self, slices: SliceStack, query: str) -> PromptSize:
        """Count what a prompt fills; slices are of one size, so one of them is encoded."""
        ids = self.prefix(slices).ids
        with torch.no_grad():
            (features,) = self.see([keep_slices(slices, [0])]).pooler_output
        return PromptSize(
            tokens=len(ids) + len(self.encode_query(query)),
            image_tokens=int((ids == self.image_id).sum()),
            image_features=len(features) * len(slices.indices),
            limit=int(self.model.config.text_config.max_position_embeddings),
        )


def can_pack(text_config: Any) -> bool:
    """True when every layer sees all tokens before it: branches far apart in a row are then as near as their places."""
    return all(kind == "full_attention" for kind in getattr(text_config, "layer_types", None) or ())

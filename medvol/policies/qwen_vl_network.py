"""The network of a Qwen-VL policy: slices and text in, log-probabilities and tokens out."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from functools import partial
from math import prod
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from medvol.core.errors import CheckpointError
from medvol.core.grounding.prompts import PromptSize, PromptTemplate
from medvol.core.types import SliceStack
from medvol.policies.packed_attention import PACKED_ATTENTION
from medvol.policies.packing import Branch, PackedRow, Prefix, Spans, pack_questions, pack_tree, stack_rows
from medvol.policies.patches import to_patches
from medvol.policies.slice_attention import SLICE_ATTENTION
from medvol.policies.slice_features import FeatureStore

END = "<|im_end|>"
"""Ends a turn and so an answer."""
IMAGE = "<|image_pad|>"
"""Holds the place of one feature of a slice."""
log = logging.getLogger(__name__)

_OPENING = "<|im_start|>user\n"
_CLOSING = f"{END}\n<|im_start|>assistant\n"

_ROWS = 64
"""Rows of the vocabulary's scores that exist at a time in training."""


class QwenVLNetwork(nn.Module):
    """A Qwen2.5-VL or Qwen3-VL model with its tokenizer and prompt template.

    Args:
        model: The model of transformers.
        tokenizer: Its tokenizer.
        template: Layout of the prompts.
    """

    model: Any  # PreTrainedModel; its parts are reached by name, which its type does not know
    suppressed: torch.Tensor

    def __init__(self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, template: PromptTemplate) -> None:
        super().__init__()
        self.model = model
        self.tokenizer = tokenizer
        self.template = template
        self.end_id = token_id(tokenizer, END)
        vision = model.config.vision_config
        self.patch, self.merge = int(vision.patch_size), int(vision.spatial_merge_size)
        self.temporal = int(vision.temporal_patch_size)
        if hasattr(vision, "deepstack_visual_indexes"):
            model.model.visual.config._attn_implementation = SLICE_ATTENTION
        self.packs = can_pack(model.config.text_config)
        """True when completions share their prompt; each has a copy of its own otherwise."""
        if self.packs:
            model.model.language_model.config._attn_implementation = PACKED_ATTENTION
        else:
            log.warning(
                "this model looks at a sliding window, so every completion is computed with a prompt of its own"
            )
        self.register_buffer("suppressed", self._suppressed(), persistent=False)
        self.features: FeatureStore | None = None
        """What a frozen vision tower saw; None while the tower may learn."""
        self._layouts: dict[tuple[int, ...], tuple[Prefix, torch.Tensor]] = {}

    @property
    def device(self) -> torch.device:
        """Where the model lies."""
        device: torch.device = self.model.device
        return device

    def encode(self, text: str) -> list[int]:
        """Token ids of a piece of text, no special tokens added."""
        ids: list[int] = self.tokenizer.encode(text, add_special_tokens=False)
        return ids

    def encode_query(self, query: str) -> list[int]:
        """Token ids between the prefix and the answer."""
        return self.encode(f"{query}{_CLOSING}")

    def prefix(self, slices: SliceStack) -> Prefix:
        """Lay out the slices and the instruction; slices dropped from a drawing leave the other positions alone."""
        drawn = slices.drawn or slices.indices
        if drawn not in self._layouts:
            if len(self._layouts) >= 256:
                self._layouts.clear()
            self._layouts[drawn] = self._lay_out(drawn)
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
        pixels = torch.from_numpy(np.concatenate([stack.pixels for stack in stacks])).to(self.device, self.model.dtype)
        grid = self._grid(len(pixels)).to(self.device)
        patches = to_patches(pixels, self.patch, self.merge, self.temporal)
        return self.model.model.get_image_features(patches, grid, return_dict=True)

    def freeze_vision(self) -> None:
        """Leave the vision tower out of training."""
        self.model.model.visual.requires_grad_(False)
        self.features = FeatureStore()

    def share_vision(self, other: QwenVLNetwork) -> None:
        """See with the vision tower of another network, and what it has seen, in place of an equal one."""
        self.model.model.visual, self.features = other.model.model.visual, other.features

    def hidden_states(self, rows: Sequence[PackedRow], seen: Any, cache: Any = None) -> torch.Tensor:
        """Last hidden states (B, L, C) of packed rows that hold the images in ``seen``, row by row.

        Of a model that does not pack, each row is one line from the prefix to the end of a completion.
        """
        ids, positions, mask = stack_rows(rows, self.end_id)
        output = self.model.model(
            input_ids=ids.to(self.device),
            position_ids=positions.to(self.device),
            attention_mask=self.additive(mask) if self.packs else None,
            mm_encoder_outputs={"image": seen},
            cache=cache,
            use_cache=cache is not None,
        )
        hidden: torch.Tensor = output.last_hidden_state
        return hidden

    def additive(self, mask: torch.Tensor) -> torch.Tensor:
        """Turn a bool mask into the additive one that every attention implementation takes."""
        zeros = torch.zeros(mask.shape, dtype=self.model.dtype, device=self.device)
        return zeros.masked_fill_(~mask.to(self.device), torch.finfo(self.model.dtype).min)

    def token_log_probs(self, hidden: torch.Tensor, temperature: float = 1.0) -> torch.Tensor:
        """Log-probabilities (..., V) of the next token, in float32; tokens an answer cannot hold have none."""
        logits = self.model.lm_head(hidden).float().masked_fill_(self.suppressed, float("-inf"))
        return torch.log_softmax(logits if temperature == 1 else logits / temperature, dim=-1)

    def chosen_log_probs(self, hidden: torch.Tensor, chosen: torch.Tensor, temperature: float) -> torch.Tensor:
        """Log-probabilities (N,) of the tokens that follow.

        Scores of the whole vocabulary exist for a few rows at a time, in the backward pass too: they are computed again
        there, which costs little, as the head is one of many layers, and they would be the largest tensor of all.

        Args:
            hidden: (N, C) states that predict them.
            chosen: (N,) token ids.
            temperature: See ``log_probs``.
        """

        def choose(states: torch.Tensor, ids: torch.Tensor) -> torch.Tensor:
            return self.token_log_probs(states, temperature).gather(-1, ids[:, None])[:, 0]

        choose_again = partial(checkpoint, choose, use_reentrant=False, preserve_rng_state=False)
        return torch.cat(list(map(choose_again, hidden.split(_ROWS), chosen.split(_ROWS))))

    def measure(self, slices: SliceStack, query: str) -> PromptSize:
        """Count what a prompt fills; slices are of one size, so one of them is encoded."""
        ids = self.prefix(slices).ids
        with torch.no_grad():
            (features,) = self.see([slices.keep([0])]).pooler_output
        return PromptSize(
            tokens=len(ids) + len(self.encode_query(query)),
            image_tokens=int((ids == self.model.config.image_token_id).sum()),
            image_features=len(features) * len(slices.indices),
            limit=int(self.model.config.text_config.max_position_embeddings),
        )

    def log_probs(
        self,
        groups: Sequence[tuple[SliceStack, Sequence[tuple[str, Sequence[Sequence[int]]]]]],
        temperature: float = 1.0,
    ) -> list[list[list[torch.Tensor]]]:
        """Log-probability of every token of every completion.

        Args:
            groups: For each drawing of slices, its queries, each with the token ids of its completions.
            temperature: Of the sampling whose probabilities are asked for.

        Returns:
            In the same nesting, tensors (T,).
        """
        if not self.packs:
            return [self._score_alone(slices, questions, temperature) for slices, questions in groups]
        return self._score_packed(groups, temperature)

    def _score_alone(
        self, slices: SliceStack, questions: Sequence[tuple[str, Sequence[Sequence[int]]]], temperature: float
    ) -> list[list[torch.Tensor]]:
        """Log-probabilities of all completions about one drawing of slices, each behind a prompt of its own."""
        prefix, seen = self.prefix(slices), self.see([slices])

        def score(query: str, ids: Sequence[int]) -> torch.Tensor:
            row = pack_tree(prefix, [Branch([*self.encode_query(query), *ids])])
            hidden = self.hidden_states([row], seen)[0, -len(ids) - 1 : -1]
            return self.chosen_log_probs(hidden, torch.tensor(ids, device=self.device), temperature)

        return [[score(query, ids) for ids in completions] for query, completions in questions]

    def _score_packed(
        self, groups: Sequence[tuple[SliceStack, Sequence[tuple[str, Sequence[Sequence[int]]]]]], temperature: float
    ) -> list[list[list[torch.Tensor]]]:
        """Log-probabilities of all completions, one row a drawing of slices."""
        rows, spans = self.pack_groups(groups)
        hidden = self.hidden_states(rows, self.see([slices for slices, _ in groups]))
        return self.read_scores(hidden, spans, temperature)

    def pack_groups(
        self, groups: Sequence[tuple[SliceStack, Sequence[tuple[str, Sequence[Sequence[int]]]]]]
    ) -> tuple[list[PackedRow], list[Spans]]:
        """One row a drawing of slices, and where its completions are predicted."""
        packed = [
            pack_questions(self.prefix(slices), [(self.encode_query(query), answers) for query, answers in questions])
            for slices, questions in groups
        ]
        return [row for row, _ in packed], [span for _, span in packed]

    def read_scores(
        self, hidden: torch.Tensor, spans: Sequence[Spans], temperature: float
    ) -> list[list[list[torch.Tensor]]]:
        """Log-probabilities of all completions from the hidden states of their rows."""
        flat = [
            (b, source) for b, span in enumerate(spans) for query in span for sources, _ in query for source in sources
        ]
        index = torch.tensor(flat, device=self.device).T
        targets = [t for span in spans for query in span for _, ids in query for t in ids]
        chosen = torch.tensor(targets, device=self.device)
        scores = self.chosen_log_probs(hidden[index[0], index[1]], chosen, temperature)
        pieces = iter(scores.split([len(ids) for span in spans for query in span for _, ids in query]))
        return [[[next(pieces) for _ in query] for query in span] for span in spans]

    def _lay_out(self, indices: tuple[int, ...]) -> tuple[Prefix, torch.Tensor]:
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

    def token_grid(self) -> tuple[int, int]:
        """Image tokens along y and x of a slice."""
        side = self.patch * self.merge
        return self.template.height_px // side, self.template.width_px // side

    def _suppressed(self) -> torch.Tensor:
        """True for every token that an answer cannot hold: special ones but the end, and unused rows."""
        config = self.model.config
        size = self.model.get_input_embeddings().weight.shape[0]
        suppressed = torch.zeros(size, dtype=torch.bool)
        special = {*self.tokenizer.all_special_ids, config.image_token_id, config.video_token_id}
        special |= {config.vision_start_token_id, config.vision_end_token_id}
        suppressed[[i for i in special if i is not None and 0 <= i < size]] = True
        suppressed[len(self.tokenizer) :] = True
        suppressed[self.end_id] = False
        return suppressed


def can_pack(text_config: Any) -> bool:
    """True when every layer sees all tokens before it: branches far apart in a row are then as near as their places."""
    return all(kind == "full_attention" for kind in getattr(text_config, "layer_types", None) or ())


def token_id(tokenizer: PreTrainedTokenizerBase, token: str) -> int:
    """Id of one token.

    Raises:
        CheckpointError: The tokenizer does not have it.
    """
    number = tokenizer.convert_tokens_to_ids(token)
    if not isinstance(number, int) or number == tokenizer.unk_token_id:
        raise CheckpointError(f"the tokenizer has no token {token!r}; it does not belong to a Qwen-VL model")
    return number

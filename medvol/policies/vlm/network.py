"""The network of a vision-language policy: slices and text in, log-probabilities and tokens out.

Packing, scoring and what a frozen tower saw are the same for every family. A family says how its prompt is laid out,
how its vision tower is fed and how its language model is run.
"""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from collections.abc import Sequence
from functools import partial
from typing import Any, ClassVar

import numpy as np
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from medvol.core.errors import CheckpointError
from medvol.core.prompts import PromptSize, PromptTemplate
from medvol.core.types import SliceStack
from medvol.policies.slice_subset import drawn_indices, keep_slices
from medvol.policies.vlm.packed_attention import PACKED_ATTENTION
from medvol.policies.vlm.packing import Branch, PackedRow, Prefix, Spans, pack_questions, pack_tree, stack_rows
from medvol.policies.vlm.slice_features import FeatureStore

log = logging.getLogger(__name__)

_ROWS = 64
"""Rows of the vocabulary's scores that exist at a time in training."""


class VLMNetwork(nn.Module, ABC):
    """A vision-language model with its tokenizer and prompt template.

    Args:
        model: The model of transformers.
        tokenizer: Its tokenizer.
        template: Layout of the prompts.
    """

    image_token: ClassVar[str]
    """Holds the place of one feature of a slice."""

    end_token: ClassVar[str]
    """Ends a turn and so an answer."""

    closing: ClassVar[str]
    """Text between a query and its answer."""

    vision_path: ClassVar[str]
    """Where the vision tower lies in the model (``model.visual``)."""

    model: Any  # PreTrainedModel; its parts are reached by name, which its type does not know
    suppressed: torch.Tensor
    narrow: torch.dtype | None = None
    """Type that weights kept in float32 are computed with and saved in; None where all are as they are."""

    def __init__(self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, template: PromptTemplate) -> None:
        super().__init__()
        self.model = model
        self.tokenizer = tokenizer
        self.template = template
        self.end_id = token_id(tokenizer, self.end_token)
        self.image_id = token_id(tokenizer, self.image_token)
        self.packs = can_pack(model.config.text_config)
        """True when completions share their prompt; each has a copy of its own otherwise."""
        if self.packs:
            self.model.model.language_model.config._attn_implementation = PACKED_ATTENTION
        else:
            log.warning(
                "this model looks at a sliding window, so every completion is computed with a prompt of its own"
            )
        self.register_buffer("suppressed", self._suppressed(), persistent=False)
        self.features: FeatureStore | None = None
        """What a frozen vision tower saw; None while the tower may learn."""
        self._layouts: dict[tuple[int, ...], tuple[Prefix, torch.Tensor]] = {}

    @abstractmethod
    def token_grid(self) -> tuple[int, int]:
        """Image tokens along y and x of a slice."""

    @abstractmethod
    def lay_out(self, indices: tuple[int, ...]) -> tuple[Prefix, torch.Tensor]:
        """Prefix of a full drawing, and for each token the position of its slice in the drawing (-1 for text)."""

    @abstractmethod
    def encode_pixels(self, pixels: torch.Tensor) -> Any:
        """Run the vision tower over slices (S, 3, H, W) in [0, 1]; the answer has the fields of ``SliceFeatures``."""

    @abstractmethod
    def run(
        self, ids: torch.Tensor, positions: torch.Tensor, mask: torch.Tensor | None, seen: Any, cache: Any
    ) -> torch.Tensor:
        """Last hidden states (B, L, C) of a prompt and what follows it.

        Args:
            ids: (B, L) token ids, image tokens among them.
            positions: (3, B, L) of time, row and column; of text all three are the same.
            mask: Additive, see ``attend_packed``; None for plain causal attention.
            seen: Features of the slices, from ``encode_pixels`` or a ``FeatureStore``.
            cache: Filled with keys and values; None keeps none.
        """

    @abstractmethod
    def run_on(self, ids: torch.Tensor, positions: torch.Tensor, mask: torch.Tensor | None, cache: Any) -> torch.Tensor:
        """Last hidden states (B, R, C) of further tokens of text, behind what the cache holds."""

    @abstractmethod
    def placeholders(self) -> set[int]:
        """Ids of the tokens that stand for images and their borders, which no answer holds."""

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
        return self.encode(f"{query}{self.closing}")

    def prefix(self, slices: SliceStack) -> Prefix:
        """Lay out the slices and the instruction; slices dropped from a drawing leave the other positions alone."""
        drawn = drawn_indices(slices)
        if drawn not in self._layouts:
            if len(self._layouts) >= 256:
                self._layouts.clear()
            self._layouts[drawn] = self.lay_out(drawn)
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
        return self.encode_pixels(torch.from_numpy(pixels).to(self.device, self.model.dtype))

    def freeze_vision(self) -> None:
        """Leave the vision tower out of training."""
        self.model.get_submodule(self.vision_path).requires_grad_(False)
        self.features = FeatureStore()

    def share_vision(self, other: VLMNetwork) -> None:
        """See with the vision tower of another network, and what it has seen, in place of an equal one."""
        self.model.set_submodule(self.vision_path, other.model.get_submodule(self.vision_path))
        self.features = other.features

    def hidden_states(self, rows: Sequence[PackedRow], seen: Any, cache: Any = None) -> torch.Tensor:
        """Last hidden states (B, L, C) of packed rows that hold the images in ``seen``, row by row.

        Of a model that does not pack, each row is one line from the prefix to the end of a completion.
        """
        ids, positions, mask = stack_rows(rows, self.end_id)
        additive = self.additive(mask) if self.packs else None
        return self.run(ids.to(self.device), positions.to(self.device), additive, seen, cache)

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
            (features,) = self.see([keep_slices(slices, [0])]).pooler_output
        return PromptSize(
            tokens=len(ids) + len(self.encode_query(query)),
            image_tokens=int((ids == self.image_id).sum()),
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

    def _suppressed(self) -> torch.Tensor:
        """True for every token that an answer cannot hold: special ones but the end, and unused rows."""
        size = self.model.get_input_embeddings().weight.shape[0]
        suppressed = torch.zeros(size, dtype=torch.bool)
        special = {*self.tokenizer.all_special_ids, *self.placeholders()}
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
        raise CheckpointError(f"the tokenizer has no token {token!r}; it belongs to another kind of model")
    return number

"""A prompt as a family's own chat template writes it, in the tokens of its own processor."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable
from itertools import accumulate
from typing import Any

import torch
from transformers import BatchEncoding

from medvol.core.errors import CheckpointError, QueryError
from medvol.core.prompts import PromptTemplate
from medvol.core.reprs import shorten
from medvol.policies.vlm.vocabulary import special_ids, token_id

_STOP, _QUERY = "\ue001", "\ue002"
"""Stand before each slice and the instruction, and in the query's place, while a template is filled in."""


class PromptLayout:
    """Lays out the slices, the instruction and the query of a prompt.

    Args:
        processor: The family's processor; it brings tokenizer and chat template.
        template: Layout of the prompt within the user's turn.
        block: What stands in the prompt for one image, as text.
        inline: Text of an image in a turn, for a template that would write all images before all text; None has the
            template write each in its place.

    Raises:
        CheckpointError: There is no chat template, or it does not write what it is given.
    """

    reword: Callable[[str], str] | None = None
    """Says a query in words that the model knows; None asks it as it is."""

    def __init__(self, processor: Any, template: PromptTemplate, block: str, inline: str | None) -> None:
        self.processor = processor
        self.template = template
        self.block = block
        self.inline = inline
        if not processor.chat_template and not processor.tokenizer.chat_template:
            raise CheckpointError("the model has no chat template; copy chat_template.jinja of the published model")
        tokenizer = processor.tokenizer
        image = token_id(tokenizer, processor.image_token)
        self._controls = {*special_ids(tokenizer), image} - {tokenizer.unk_token_id}
        _, closing = self._render((0,))
        coded = tokenizer(closing, add_special_tokens=False, return_offsets_mapping=True)
        found = zip(coded["input_ids"], coded["offset_mapping"], strict=True)
        start = next((first for token, (first, _) in found if token in self._controls), len(closing))
        self._spoken, self._closing = closing[:start], self.encode_layout(closing[start:])

    def encode_layout(self, text: str) -> list[int]:
        """Token ids of text that medvol or a chat template wrote: special tokens in it are meant."""
        ids: list[int] = self.processor.tokenizer.encode(text, add_special_tokens=False)
        return ids

    def spell(self, text: str) -> BatchEncoding:
        """Token ids and offsets of what somebody says, in which the name of a special token is text like any other.

        Raises:
            QueryError: The tokenizer reads a control token in it all the same, which would steer the model.
        """
        tokenizer = self.processor.tokenizer
        coded: BatchEncoding = tokenizer(
            text, add_special_tokens=False, split_special_tokens=True, return_offsets_mapping=True
        )
        for token, (first, last) in zip(coded["input_ids"], coded["offset_mapping"], strict=True):
            if token in self._controls:
                said = shorten(text, "")
                raise QueryError(
                    f"{said!r} holds {text[first:last]!r}, which this model cannot read as text, because it "
                    "steers the model; use other words"
                )
        return coded

    def encode(self, text: str) -> list[int]:
        """Token ids of what somebody says, see ``spell``."""
        ids: list[int] = self.spell(text)["input_ids"]
        return ids

    def encode_query(self, query: str) -> list[int]:
        """Token ids between the prefix and the answer: the query as text, and the layout that closes its turn."""
        asked = query if self.reword is None else self.reword(query)
        return [*self.encode(f"{asked}{self._spoken}"), *self._closing]

    def lay_out(self, indices: tuple[int, ...]) -> tuple[torch.Tensor, torch.Tensor]:
        """Prefix of a drawing.

        Args:
            indices: Of the slices in the volume.

        Returns:
            (P,) token ids, and for each of them the position of its slice in the drawing, -1 for other text.
        """
        pieces, _ = self._render(indices)
        text, starts = "".join(pieces), list(accumulate(map(len, pieces), initial=0))[:-1]
        tokenizer = self.processor.tokenizer
        begun = bool(tokenizer.bos_token) and text.startswith(tokenizer.bos_token)
        coded = tokenizer(text, add_special_tokens=not begun, return_offsets_mapping=True)
        found = torch.tensor([bisect_right(starts, first) - 2 for first, _ in coded["offset_mapping"]])
        return torch.tensor(coded["input_ids"]), found.where(found < len(indices), -1)

    def _render(self, indices: tuple[int, ...]) -> tuple[list[str], str]:
        """Text before the first slice, of each slice with its tag, and of the instruction; text behind the query."""
        text = self.processor.apply_chat_template(
            [{"role": "user", "content": self._content(indices)}],
            chat_template=None if self.processor.chat_template else self.processor.tokenizer.chat_template,
            add_generation_prompt=True,
            tokenize=False,
        )
        prefix, *closing = text.split(_QUERY)
        pieces = prefix.split(_STOP)
        image = self.processor.image_token
        whole = [piece.count(image) for piece in pieces] == [0, *[1] * len(indices), 0]
        if len(closing) != 1 or not whole:
            raise CheckpointError(
                "the model's chat template does not write slices and text in their order; use that of a published model"
            )
        return [piece.replace(image, self.block) for piece in pieces], closing[0]

    def _content(self, indices: tuple[int, ...]) -> list[dict[str, str]]:
        tags = [f"{_STOP}{self.template.slice_tag.format(index=index)}" for index in indices]
        ending = f"{_STOP}{self.template.request}\n{_QUERY}"
        if self.inline is not None:
            return [{"type": "text", "text": "".join([*(f"{tag}{self.inline}" for tag in tags), ending])}]
        slices = [part for tag in tags for part in ({"type": "text", "text": tag}, {"type": "image"})]
        return [*slices, {"type": "text", "text": ending}]

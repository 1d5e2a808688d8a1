"""Tokens by name, and those that no answer holds."""

from __future__ import annotations

from typing import Any

import torch
from transformers import PreTrainedTokenizerBase

from medvol.core.errors import CheckpointError


def token_id(tokenizer: PreTrainedTokenizerBase, token: str) -> int:
    """Id of one token.

    Raises:
        CheckpointError: The tokenizer does not have it.
    """
    number = tokenizer.convert_tokens_to_ids(token)
    if not isinstance(number, int) or number == tokenizer.unk_token_id:
        raise CheckpointError(f"the tokenizer has no token {token!r}; it belongs to another kind of model")
    return number


def special_ids(tokenizer: PreTrainedTokenizerBase) -> set[int]:
    """Ids of all tokens that steer a model and say nothing."""
    added = {i for i, token in tokenizer.added_tokens_decoder.items() if token.special}
    return {*tokenizer.all_special_ids, *added}


def suppressed_tokens(model: Any, tokenizer: PreTrainedTokenizerBase, end_id: int) -> torch.Tensor:
    """True (V,) for every token that an answer cannot hold: special ones but the end, images, and unused rows."""
    size = model.get_input_embeddings().weight.shape[0]
    suppressed = torch.zeros(size, dtype=torch.bool)
    images = {getattr(model.config, name, None) for name in ("image_token_id", "video_token_id")}
    suppressed[[i for i in {*special_ids(tokenizer), *images} if i is not None and 0 <= i < size]] = True
    suppressed[len(tokenizer) :] = True
    suppressed[end_id] = False
    return suppressed

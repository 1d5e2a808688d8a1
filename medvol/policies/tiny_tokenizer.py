"""The tiny policy's own tokenizer: trained on the query bank and the answer grammar.

Numbers and the fixed pieces of an answer are one token each, so an answer with two boxes has about 35 tokens. Bytes
are the fallback: any text can be written.
"""

from __future__ import annotations

from collections.abc import Iterable

from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

NUMBERS = tuple(dict.fromkeys([*range(200), *range(200, 1001, 20)]))
"""Numbers that are one token: slice indices, and coordinates in steps of 20."""

SPECIAL = (
    "<|endoftext|>",
    "<|im_start|>",
    "<|im_end|>",
    "<|vision_start|>",
    "<|vision_end|>",
    "<|image_pad|>",
    "<|video_pad|>",
)
CHAT = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n"
    "{% if message.content is string %}{{ message.content }}{% else %}{% for part in message.content %}"
    "{% if part.type == 'image' %}<|vision_start|><|image_pad|><|vision_end|>{% else %}{{ part.text }}{% endif %}"
    "{% endfor %}{% endif %}<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
"""Layout of a conversation, as Qwen3-VL's."""

_PIECES = (
    "<think>",
    "</think>",
    "<answer>[]</answer>",
    '<answer>[{"slice": ',
    ', "bbox_2d_list": [[',
    "], [",
    "]]}]</answer>",
    ", ",
    "user\n",
    "\n",
    "assistant\n",
)


def train_tokenizer(texts: Iterable[str], vocabulary: int = 4000) -> PreTrainedTokenizerFast:
    """Train the tokenizer; the same texts give the same tokens.

    Args:
        texts: Queries and rationales; every word in them that is seen becomes one token while there is room.
        vocabulary: Upper bound on its size.
    """
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=list(SPECIAL),
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(sorted(set(texts)), trainer)
    pieces = [*_PIECES, *map(str, NUMBERS)]
    tokenizer.add_tokens([AddedToken(piece, normalized=False) for piece in pieces])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        additional_special_tokens=list(SPECIAL),
        clean_up_tokenization_spaces=False,
    )

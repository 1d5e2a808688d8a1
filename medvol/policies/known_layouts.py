"""Layouts of published models that are known without a file of theirs, so that a run can be planned far from the hub.

Sizes are those of the published configurations. The tokenizer is a stand-in that cuts text as Qwen's does, into words
and single digits, with every word of the prompt as one token; so the number of text tokens is an estimate, and that of
image tokens is exact.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import torch
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast, Qwen3VLConfig, Qwen3VLForConditionalGeneration

from medvol.core.prompts import PromptTemplate
from medvol.policies.families.qwen_vl import Qwen3VLNetwork
from medvol.policies.tiny_network import make_processor
from medvol.policies.tiny_tokenizer import SPECIAL
from medvol.policies.vlm.network import VLMNetwork
from medvol.policies.vlm.vocabulary import token_id

_TEXT = {"num_hidden_layers": 36, "num_attention_heads": 32, "num_key_value_heads": 8, "head_dim": 128}
_VISION = {"depth": 24, "hidden_size": 1024, "intermediate_size": 4096, "num_heads": 16}
_ROPE = {"rope_type": "default", "rope_theta": 5e6, "mrope_section": [24, 20, 20], "mrope_interleaved": True}

KNOWN = ("Qwen/Qwen3-VL-4B-Instruct",)
"""Names on the hub."""

_ANSWERS = (
    '<think>The liver is the large organ on the right.</think><answer>[{"slice": 1, "bbox_2d_list": [[1, 2, 3, 4], '
    "[1, 2, 3, 4]]}]</answer> segment the left and right kidney, spleen, pancreas, tumour, lesion, which, one, in this"
)


def is_known(model: str) -> bool:
    """True for a published model whose layout is known, where no folder of that name exists."""
    return model in KNOWN and not Path(model).is_dir()


def outline_known(model: str, template: PromptTemplate | None, dtype: Literal["float32", "bfloat16"]) -> VLMNetwork:
    """A published model's network on no device.

    Args:
        model: One of ``KNOWN``.
        template: Layout of the prompts.
        dtype: Type of the weights.
    """
    asked = template or PromptTemplate()
    tokenizer = _stand_in(asked)
    config = Qwen3VLConfig(
        text_config={
            **_TEXT,
            "vocab_size": 151_936,
            "hidden_size": 2560,
            "intermediate_size": 9728,
            "max_position_embeddings": 262_144,
            "rope_parameters": _ROPE,
            "tie_word_embeddings": True,
        },
        vision_config={
            **_VISION,
            "patch_size": 16,
            "spatial_merge_size": 2,
            "temporal_patch_size": 2,
            "out_hidden_size": 2560,
            "num_position_embeddings": 2304,
            "deepstack_visual_indexes": [5, 11, 17],
        },
        image_token_id=token_id(tokenizer, "<|image_pad|>"),
        video_token_id=token_id(tokenizer, "<|video_pad|>"),
        vision_start_token_id=token_id(tokenizer, "<|vision_start|>"),
        vision_end_token_id=token_id(tokenizer, "<|vision_end|>"),
        tie_word_embeddings=True,
    )
    config._attn_implementation = "sdpa"
    with torch.device("meta"):
        network = Qwen3VLForConditionalGeneration(config)
    network = network.to(getattr(torch, dtype))
    network.tie_weights()
    return Qwen3VLNetwork(network, make_processor(network, tokenizer), asked)


def _stand_in(template: PromptTemplate) -> PreTrainedTokenizerFast:
    tokenizer = Tokenizer(models.BPE())
    words = Regex(r" ?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+|\s+")
    split = pre_tokenizers.Split(words, "isolated")
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([split, pre_tokenizers.ByteLevel(False, use_regex=False)])
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=4000,
        special_tokens=list(SPECIAL),
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator([template.instruction, template.slice_tag, _ANSWERS, "user\nassistant\n"], trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        additional_special_tokens=list(SPECIAL),
        clean_up_tokenization_spaces=False,
    )

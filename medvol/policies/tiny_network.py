"""The tiny policy: a Qwen3-VL of about three million parameters, built from a configuration on any machine."""

from __future__ import annotations

import math

import torch
from transformers import (
    PreTrainedModel,
    PreTrainedTokenizerFast,
    Qwen2VLImageProcessor,
    Qwen3VLConfig,
    Qwen3VLForConditionalGeneration,
    Qwen3VLProcessor,
    Qwen3VLVideoProcessor,
)

from medvol.core.prompts import PromptTemplate
from medvol.policies.families.qwen_vl import Qwen3VLNetwork
from medvol.policies.tiny_tokenizer import CHAT, NUMBERS, train_tokenizer
from medvol.policies.vlm.vocabulary import token_id
from medvol.queries.query_bank import QueryBank

TINY_TEMPLATE = PromptTemplate(
    num_slices=24, height_px=96, width_px=96, slice_tag="{index}", instruction="", coordinate_step=20
)
"""Its prompt: 24 slices of 16 tokens each and no instruction, since it learns its one task from scratch."""

_PATCH, _MERGE = 12, 2


def build_tiny(template: PromptTemplate, bank: QueryBank, seed: int) -> Qwen3VLNetwork:
    """Build the tiny network with random weights.

    Args:
        template: Its prompt; the sides of a slice are multiples of 24 px.
        bank: Queries whose words the tokenizer should know.
        seed: Seed of the weights; the global random state is left alone.
    """
    words = [f"the {target} spans slices to" for target in bank.targets]
    tokenizer = train_tokenizer([*bank.texts(held_out=False), *words, template.instruction])
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = Qwen3VLForConditionalGeneration(_configure(tokenizer, template))
        _order_numbers(model, tokenizer)
    model.tie_weights()
    model.generation_config.eos_token_id = tokenizer.eos_token_id
    return Qwen3VLNetwork(model, make_processor(model, tokenizer), template)


def make_processor(model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast) -> Qwen3VLProcessor:
    """Processor of a network of random weights: slices of any size, scaled to -1..1."""
    vision = model.config.vision_config
    sizes = {
        "patch_size": vision.patch_size,
        "merge_size": vision.spatial_merge_size,
        "temporal_patch_size": vision.temporal_patch_size,
        "size": {"shortest_edge": 1, "longest_edge": 2**26},
    }
    half = [0.5] * 3
    images = Qwen2VLImageProcessor(image_mean=half, image_std=half, **sizes)
    return Qwen3VLProcessor(images, tokenizer, Qwen3VLVideoProcessor(**sizes), chat_template=CHAT)


def _configure(tokenizer: PreTrainedTokenizerFast, template: PromptTemplate) -> Qwen3VLConfig:
    hidden, heads = 192, 4
    half = hidden // heads // 2
    third = half // 3
    side = max(template.height_px, template.width_px) // _PATCH
    config = Qwen3VLConfig(
        text_config={
            "vocab_size": len(tokenizer),
            "hidden_size": hidden,
            "intermediate_size": 512,
            "num_hidden_layers": 4,
            "num_attention_heads": heads,
            "num_key_value_heads": 2,
            "head_dim": hidden // heads,
            "max_position_embeddings": 8192,
            "rope_parameters": {
                "rope_type": "default",
                "rope_theta": 10000.0,
                "mrope_section": [half - 2 * third, third, third],
                "mrope_interleaved": True,
            },
            "pad_token_id": tokenizer.pad_token_id,
            "tie_word_embeddings": True,
        },
        vision_config={
            "depth": 4,
            "hidden_size": 128,
            "intermediate_size": 256,
            "num_heads": 4,
            "patch_size": _PATCH,
            "spatial_merge_size": _MERGE,
            "temporal_patch_size": 1,
            "in_channels": 3,
            "out_hidden_size": hidden,
            "num_position_embeddings": side**2,
            "deepstack_visual_indexes": [2],
        },
        image_token_id=token_id(tokenizer, "<|image_pad|>"),
        video_token_id=token_id(tokenizer, "<|video_pad|>"),
        vision_start_token_id=token_id(tokenizer, "<|vision_start|>"),
        vision_end_token_id=token_id(tokenizer, "<|vision_end|>"),
        tie_word_embeddings=True,
    )
    config._attn_implementation = "sdpa"
    return config


@torch.no_grad()
def _order_numbers(model: Qwen3VLForConditionalGeneration, tokenizer: PreTrainedTokenizerFast) -> None:
    """Start the embeddings of numbers near their neighbours', so that coordinates are an order from the beginning."""
    embedding: torch.Tensor = model.model.language_model.embed_tokens.weight
    values = torch.tensor(NUMBERS) / 1000
    angles = values[:, None] * math.pi * 2 ** (torch.arange(16) / 2)
    waves = torch.cat([angles.sin(), angles.cos()], dim=1)
    mix = torch.randn(waves.shape[1], embedding.shape[1]) / math.sqrt(waves.shape[1])
    ids = torch.tensor([token_id(tokenizer, str(number)) for number in NUMBERS])
    embedding[ids] += 0.03 * (waves @ mix)

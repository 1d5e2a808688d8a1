"""Small Qwen-VL networks of both families, and prompts about a noisy volume."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from transformers import Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration

from medvol.core.prompts import PromptTemplate
from medvol.grounding.prompts import build_prompts
from medvol.imaging.geometry import make_volume
from medvol.policies.families.qwen_vl import Qwen2_5_VLNetwork, Qwen3VLNetwork
from medvol.policies.tiny import TinyPolicy
from medvol.policies.tiny_network import TINY_TEMPLATE, make_processor
from medvol.policies.tiny_tokenizer import train_tokenizer
from medvol.queries.query_bank import QueryBank

SMALL_TEMPLATE = replace(TINY_TEMPLATE, num_slices=5, instruction="box the target on one slice")


def build_qwen2_5(window: int | None = None) -> Qwen2_5_VLNetwork:
    """A Qwen2.5-VL of the published layout (patch 14, two frames a patch, windowed vision attention), made small.

    Args:
        window: Tokens that the last layer looks back at; None looks back at all.
    """
    bank = QueryBank.load()
    tokenizer = train_tokenizer(bank.texts(held_out=False))
    token = tokenizer.convert_tokens_to_ids
    config = Qwen2_5_VLConfig(
        text_config={
            "vocab_size": len(tokenizer),
            "hidden_size": 64,
            "intermediate_size": 128,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "max_position_embeddings": 4096,
            "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [2, 3, 3]},
            "pad_token_id": tokenizer.pad_token_id,
            **({"use_sliding_window": True, "sliding_window": window, "max_window_layers": 1} if window else {}),
        },
        vision_config={
            "depth": 2,
            "hidden_size": 32,
            "intermediate_size": 64,
            "num_heads": 2,
            "out_hidden_size": 64,
            "fullatt_block_indexes": [1],
            "window_size": 56,
        },
        image_token_id=token("<|image_pad|>"),
        video_token_id=token("<|video_pad|>"),
        vision_start_token_id=token("<|vision_start|>"),
        vision_end_token_id=token("<|vision_end|>"),
    )
    config._attn_implementation = "sdpa"
    torch.manual_seed(0)
    model = Qwen2_5_VLForConditionalGeneration(config)
    template = PromptTemplate(num_slices=5, height_px=84, width_px=112, instruction="box the target on one slice")
    return Qwen2_5_VLNetwork(model, make_processor(model, tokenizer), template)


def widen(network: Qwen3VLNetwork) -> Qwen3VLNetwork:
    """Weights so large that attention and vision matter in every number that is compared."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if parameter.ndim > 1:
                parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.08)
            elif "bias" in name:
                parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.02)
    network.model.tie_weights()
    return network.eval()


@pytest.fixture(params=["qwen3_vl", "qwen2_5_vl", "sliding"])
def policy(request: pytest.FixtureRequest) -> TinyPolicy:
    """A policy of each family with random weights, and one that cannot share a prompt."""
    made = TinyPolicy(template=SMALL_TEMPLATE)
    if request.param != "qwen3_vl":
        made._network = build_qwen2_5(window=40 if request.param == "sliding" else None)
    widen(made.load())
    return made


@pytest.fixture
def prompts(policy: TinyPolicy) -> list:
    """Three queries about one volume and one about another, in the policy's own layout."""
    return ask(policy.template)


def ask(template: PromptTemplate) -> list:
    """Three queries about one volume and one about another."""
    rng = np.random.default_rng(0)
    first, second = (make_volume(rng.normal(0, 200, (9, 40, 50)).astype(np.float32), (5, 1, 1)) for _ in range(2))
    asked = ["the organ that produces bile", "the left kidney", "where is the xylophone"]
    return [*build_prompts(first, asked, template), *build_prompts(second, ["the spleen"], template)]

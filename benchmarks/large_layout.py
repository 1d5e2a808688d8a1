"""Qwen3-VL-4B's own layout with random weights, and a small one to prove a program with; nothing is downloaded.

All policies of one layout share their frozen weights; each has its own adapters.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedModel, PreTrainedTokenizerFast, Qwen3VLConfig, Qwen3VLForConditionalGeneration

from medvol.core.prompts import PromptTemplate
from medvol.core.types import Case
from medvol.datasets.phantom import PhantomDataset
from medvol.policies.families.qwen_vl import Qwen3VLNetwork
from medvol.policies.tiny_network import make_processor
from medvol.policies.tiny_tokenizer import SPECIAL
from medvol.policies.vlm.policy import VLMPolicy


@dataclass(frozen=True)
class Layout:
    """A model and what it is asked.

    Args:
        text: Configuration of the language model.
        vision: Configuration of the vision tower.
        template: Layout of the prompt.
        rank: Of the adapters.
        dtype: Of the frozen weights.
    """

    text: Mapping[str, Any]
    vision: Mapping[str, Any]
    template: PromptTemplate
    rank: int
    dtype: torch.dtype


QWEN3_VL_4B = Layout(
    text={
        "vocab_size": 151_936,
        "hidden_size": 2560,
        "intermediate_size": 9728,
        "num_hidden_layers": 36,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
        "head_dim": 128,
        "max_position_embeddings": 262_144,
        "rope_parameters": {
            "rope_type": "default",
            "rope_theta": 5_000_000,
            "mrope_section": [24, 20, 20],
            "mrope_interleaved": True,
        },
    },
    vision={
        "depth": 24,
        "hidden_size": 1024,
        "intermediate_size": 4096,
        "num_heads": 16,
        "out_hidden_size": 2560,
        "num_position_embeddings": 2304,
        "deepstack_visual_indexes": [5, 11, 17],
    },
    template=PromptTemplate(num_slices=64, height_px=256, width_px=256),
    rank=64,
    dtype=torch.bfloat16,
)
"""As the ``config.json`` of Qwen/Qwen3-VL-4B-Instruct has it: 4.4 billion weights, 64 tokens for a slice of 256 px."""

SMALL = Layout(
    text={
        "vocab_size": 1500,
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 16,
        "max_position_embeddings": 4096,
        "initializer_range": 0.1,
        "rope_parameters": {
            "rope_type": "default",
            "rope_theta": 10_000,
            "mrope_section": [2, 3, 3],
            "mrope_interleaved": True,
        },
    },
    vision={
        "depth": 2,
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_heads": 2,
        "out_hidden_size": 64,
        "num_position_embeddings": 64,
        "deepstack_visual_indexes": [0],
    },
    template=PromptTemplate(num_slices=8, height_px=64, width_px=64),
    rank=4,
    dtype=torch.float32,
)
"""The same parts, small enough for a CPU."""


class LayoutPolicy(VLMPolicy):
    """A policy of a layout; its answers never end early, and its adapters already say something.

    Args:
        base: Frozen weights, shared with others of the same layout.
        layout: What the base was built from.
        gradient_checkpointing: Layers are computed again in the backward pass.
    """

    model = None

    def __init__(self, base: PreTrainedModel, layout: Layout, gradient_checkpointing: bool = False) -> None:
        super().__init__(layout.template, lora_rank=layout.rank, gradient_checkpointing=gradient_checkpointing)
        self.base = base
        self.layout = layout

    def folder_settings(self) -> Mapping[str, Any]:
        """None: it is never saved."""
        return {}

    def build_network(self) -> Qwen3VLNetwork:
        """Build the network around the shared weights."""
        model = share(self.base)
        return Qwen3VLNetwork(model, make_processor(model, make_tokenizer(self.layout)), self.layout.template)

    def load(self) -> Qwen3VLNetwork:
        """Load as every policy does; let no answer end, and let the adapters say something."""
        fresh = self._network is None
        network: Any = super().load()
        if fresh:
            network.to(self.base.device)
            network.suppressed[network.end_id] = True
            stir_adapters(network.model)
        return network


def build_base(layout: Layout, device: str) -> PreTrainedModel:
    """A model of random weights on a device."""
    tokenizer = make_tokenizer(layout)
    token = tokenizer.convert_tokens_to_ids
    config = Qwen3VLConfig(
        text_config={**layout.text, "pad_token_id": tokenizer.pad_token_id, "tie_word_embeddings": True},
        vision_config={**layout.vision},
        image_token_id=token("<|image_pad|>"),
        video_token_id=token("<|video_pad|>"),
        vision_start_token_id=token("<|vision_start|>"),
        vision_end_token_id=token("<|vision_end|>"),
        tie_word_embeddings=True,
    )
    torch.manual_seed(0)
    with torch.device(device):
        model = Qwen3VLForConditionalGeneration._from_config(config, dtype=layout.dtype, attn_implementation="sdpa")
    model.generation_config.eos_token_id = tokenizer.eos_token_id
    return model.requires_grad_(False).eval()


def share(model: PreTrainedModel) -> PreTrainedModel:
    """A model of its own settings and layers around the same weights."""
    kept = [*model.parameters(), *model.buffers()]
    return copy.deepcopy(model, {id(tensor): tensor for tensor in kept})


@torch.no_grad()
def stir_adapters(model: torch.nn.Module) -> None:
    """Fill the adapters of a model with the same numbers every time; fresh ones add nothing to what the model says."""
    generator = torch.Generator().manual_seed(0)
    for name, parameter in model.named_parameters():
        if ".lora_" in name:
            parameter.copy_(0.02 * torch.randn(parameter.shape, generator=generator))


def make_tokenizer(layout: Layout) -> PreTrainedTokenizerFast:
    """Byte-level BPE that knows the prompt's words, filled up with words that no text holds to the layout's size."""
    template = layout.template
    trained = Tokenizer(models.BPE())
    trained.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    trained.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=1000,
        special_tokens=list(SPECIAL),
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tags = [template.slice_tag.format(index=index) for index in range(template.num_slices)]
    trained.train_from_iterator([template.instruction, *tags], trainer)
    content = json.loads(trained.to_str())
    vocabulary = content["model"]["vocab"]
    vocabulary |= {f"w{i}": i for i in range(len(vocabulary), layout.text["vocab_size"])}
    return PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer.from_str(json.dumps(content)),
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        clean_up_tokenization_spaces=False,
    )


def make_case(layout: Layout) -> Case:
    """A synthetic scan with as many slices as the prompt has."""
    return PhantomDataset("train", 1, shape=(layout.template.num_slices, 64, 64))[0]

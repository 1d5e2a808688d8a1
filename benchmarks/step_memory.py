"""The memory that a training step really takes, beside what ``medvol plan`` says: one setting, one fresh process.

A model folder is written with random weights, then SFTModule or GRPOModule takes a step on synthetic scans. The
optimiser's moments are there before it, as in every step but the first. On a CPU, the peak is that of torch's
allocator: its allocations and frees as ``torch.profiler`` records them, added to the weights that were there before.
On a GPU it is ``torch.cuda.max_memory_allocated``. The answers that were scored are counted, and the step is planned
with their mean length. Used by ``plan_error.py`` and ``memory_levers.py``.
"""

from __future__ import annotations

import argparse
import json
import logging
import resource
import subprocess
import sys
import tempfile
import time
import warnings
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from torch.profiler import ProfilerActivity, profile
from transformers import Qwen3VLConfig, Qwen3VLForConditionalGeneration

from medvol.core.prompts import PromptTemplate
from medvol.datasets.phantom import PhantomDataset
from medvol.datasets.settings import CacheSettings
from medvol.evaluation.settings import EvaluationSettings
from medvol.planning.step import Step
from medvol.planning.trace import trace
from medvol.policies.tiny_network import make_processor
from medvol.policies.tiny_tokenizer import train_tokenizer
from medvol.policies.vision_language import QwenVLPolicy
from medvol.policies.vlm import scoring
from medvol.policies.vlm.vocabulary import token_id
from medvol.propagators.extrude import ExtrudePropagator
from medvol.queries.query_bank import QueryBank
from medvol.rewards.format import FormatReward
from medvol.training.data import CaseDataModule
from medvol.training.grpo import GRPOModule
from medvol.training.settings import GRPOOptimizerSettings, LossSettings, RolloutSettings, StartSettings
from medvol.training.sft import SFTModule

_ROWS = scoring._ROWS
"""As medvol sets it."""


@dataclass(frozen=True)
class Setting:
    """What is measured.

    Args:
        name: In the tables.
        method: ``SFT`` or ``GRPO``.
        hidden: Channels of the language model; 64 to a head, two heads to a key head.
        layers: Of the language model.
        vision_hidden: Channels of the vision tower.
        vision_layers: Of the vision tower.
        slices: Of a prompt.
        side_px: Of a slice; a token is 32 px wide.
        batch: Volumes a step.
        queries: A volume.
        answers: A query.
        answer_tokens: Most tokens of an answer.
        dtype: Type of the weights.
        policy: Further settings of the policy.
        beta: Of GRPO; above 0 there is a reference.
        volumes_per_pass: Of GRPO.
        vocabulary: Least number of rows of the vocabulary.
        score_rows: Rows of the vocabulary's scores that exist at a time; as medvol sets it when None.
        moments: Where AdamW keeps its moments. Only a step with moments on the device is measured; all can be planned.
    """

    name: str
    method: str = "GRPO"
    hidden: int = 128
    layers: int = 4
    vision_hidden: int = 128
    vision_layers: int = 4
    slices: int = 24
    side_px: int = 128
    batch: int = 1
    queries: int = 1
    answers: int = 8
    answer_tokens: int = 32
    dtype: str = "float32"
    policy: dict[str, Any] | None = None
    beta: float = 0.01
    volumes_per_pass: int | None = None
    vocabulary: int = 0
    score_rows: int | None = None
    moments: str = "device"


def write_model(setting: Setting, folder: Path, weights: bool = True) -> None:
    """Write a Qwen3-VL of that size with random weights, or its configuration and processor alone."""
    tokenizer = train_tokenizer(QueryBank.load().texts(held_out=False), vocabulary=1500)
    config = Qwen3VLConfig(
        text_config={
            "vocab_size": max(len(tokenizer), setting.vocabulary),
            "hidden_size": setting.hidden,
            "intermediate_size": 3 * setting.hidden,
            "num_hidden_layers": setting.layers,
            "num_attention_heads": setting.hidden // 64,
            "num_key_value_heads": setting.hidden // 128,
            "head_dim": 64,
            "max_position_embeddings": 16_384,
            "rope_parameters": {
                "rope_type": "default",
                "rope_theta": 1e6,
                "mrope_section": [12, 10, 10],
                "mrope_interleaved": True,
            },
            "pad_token_id": tokenizer.pad_token_id,
            "tie_word_embeddings": True,
        },
        vision_config={
            "depth": setting.vision_layers,
            "hidden_size": setting.vision_hidden,
            "intermediate_size": 4 * setting.vision_hidden,
            "num_heads": setting.vision_hidden // 64,
            "patch_size": 16,
            "spatial_merge_size": 2,
            "temporal_patch_size": 2,
            "out_hidden_size": setting.hidden,
            "num_position_embeddings": (setting.side_px // 16) ** 2,
            "deepstack_visual_indexes": [1],
        },
        image_token_id=token_id(tokenizer, "<|image_pad|>"),
        video_token_id=token_id(tokenizer, "<|video_pad|>"),
        vision_start_token_id=token_id(tokenizer, "<|vision_start|>"),
        vision_end_token_id=token_id(tokenizer, "<|vision_end|>"),
        tie_word_embeddings=True,
    )
    torch.manual_seed(0)
    with torch.device("cpu" if weights else "meta"):
        network = Qwen3VLForConditionalGeneration(config).to(getattr(torch, setting.dtype))
    network.generation_config.eos_token_id = tokenizer.eos_token_id
    if weights:
        network.save_pretrained(folder)
    else:
        network.config.save_pretrained(folder)
    make_processor(network, tokenizer).save_pretrained(folder)


def make_policy(setting: Setting, folder: Path) -> QwenVLPolicy:
    """The policy, not loaded."""
    template = PromptTemplate(
        num_slices=setting.slices,
        height_px=setting.side_px,
        width_px=setting.side_px,
        slice_tag="{index}",
        instruction="",
    )
    return QwenVLPolicy(str(folder), template, setting.dtype, **(setting.policy or {}))  # type: ignore[arg-type]


class Moments(pl.Callback):
    """Gives AdamW its moments before the first step, and gradients of an earlier one."""

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Make them, all of zeros."""
        for optimizer in trainer.optimizers:
            for group in optimizer.param_groups:
                for parameter in group["params"]:
                    moments = {name: torch.zeros_like(parameter) for name in ("exp_avg", "exp_avg_sq")}
                    optimizer.state[parameter] = {"step": torch.tensor(0.0), **moments}
                    parameter.grad = torch.zeros_like(parameter)


class Heard:
    """Notes how long the answers are that a policy scores, and what they answer."""

    def __init__(self, policy: QwenVLPolicy) -> None:
        self.lengths: list[int] = []
        self.query = ""
        self._score = policy.log_probs
        policy.log_probs = self.score  # type: ignore[method-assign]

    def score(self, prompts: Any, completions: Any, temperature: float = 1.0) -> Any:
        """Score as the policy does."""
        self.lengths = [len(c.token_ids) for row in completions for c in row]
        self.query = max((prompt.query for prompt in prompts), key=len)
        return self._score(prompts, completions, temperature)


def make_module(setting: Setting, policy: QwenVLPolicy) -> pl.LightningModule:
    """The module that trains it."""
    if setting.method == "SFT":
        return SFTModule(policy, ExtrudePropagator())
    return GRPOModule(
        policy,
        ExtrudePropagator(),
        [FormatReward()],
        rollouts=RolloutSettings(group_size=setting.answers),
        loss=LossSettings(beta=setting.beta),
        optimizer=GRPOOptimizerSettings(volumes_per_pass=setting.volumes_per_pass),
        start=StartSettings(min_parse_rate=0.0),
        evaluation=EvaluationSettings(max_new_tokens=setting.answer_tokens),
    )


def size_step(setting: Setting, answer_tokens: int, query: str, shape: tuple[int, int, int]) -> Step:
    """The step as ``medvol plan`` takes it."""
    return Step(
        method=setting.method,  # type: ignore[arg-type]
        batch=setting.batch,
        queries=setting.queries,
        answers=setting.answers if setting.method == "GRPO" else 1,
        answer_tokens=answer_tokens,
        query=query,
        scan_shape=shape,
        volumes_per_pass=setting.volumes_per_pass,
        reference=setting.method == "GRPO" and setting.beta > 0,
        moments=setting.moments,  # type: ignore[arg-type]
    )


def plan(setting: Setting, device: str) -> int:
    """Planned peak in bytes; nothing is run."""
    scoring._ROWS = setting.score_rows or _ROWS
    with tempfile.TemporaryDirectory() as place:
        write_model(setting, Path(place), weights=False)
        step = size_step(setting, setting.answer_tokens, "the left kidney", (300, 512, 512))
        return trace(make_policy(setting, Path(place)), step, "cpu" if device == "cpu" else "cuda").peak.peak.total


def measure(setting: Setting, device: str) -> dict[str, Any]:
    """Take a step; the peak in bytes, and the same as planned."""
    scoring._ROWS = setting.score_rows or _ROWS
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place) / "model"
        write_model(setting, folder)
        policy = make_policy(setting, folder)
        heard = Heard(policy)
        networks = [policy.load_for_training()]
        if setting.method == "GRPO" and setting.beta and not policy.lora_rank:
            networks.append(policy.load_reference())
        before = sum({p.untyped_storage().data_ptr(): p.nbytes for n in networks for p in n.parameters()}.values())
        shape = (max(24, setting.slices), 48, 48)
        data = PhantomDataset("train", setting.batch, shape=shape, cache=CacheSettings(scans=setting.batch))
        cases = CaseDataModule(train=data, batch_size=setting.batch, queries_per_volume=setting.queries)
        trainer = pl.Trainer(
            max_steps=1,
            callbacks=[Moments()],
            accelerator="cpu" if device == "cpu" else "gpu",
            devices=1,
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            default_root_dir=place,
        )
        module = make_module(setting, policy)
        started, resident = time.process_time(), _resident()
        peak = _peak_of_fit(trainer, module, cases, device) + (before if device == "cpu" else 0)
        seconds, grown = time.process_time() - started, _resident() - resident
        step = size_step(setting, round(sum(heard.lengths) / len(heard.lengths)), heard.query, shape)
        planned = trace(make_policy(setting, folder), step, "cpu" if device == "cpu" else "cuda")
    most = planned.peak.peak.total
    return {
        **asdict(setting),
        "measured_bytes": peak,
        "planned_bytes": most,
        "error": most / peak - 1,
        "planned_phase": planned.peak.name,
        "planned_parts": {name: size for name, size in planned.peak.peak.parts.items() if size},
        "resident_growth_bytes": grown,
        "prompt_tokens": planned.tokens.total,
        "answer_tokens_mean": step.answer_tokens,
        "cpu_seconds": seconds,
        "device": device if device == "cpu" else torch.cuda.get_device_name(),
    }


def _peak_of_fit(trainer: pl.Trainer, module: pl.LightningModule, data: CaseDataModule, device: str) -> int:
    if device != "cpu":
        torch.cuda.reset_peak_memory_stats()
        trainer.fit(module, data)
        return int(torch.cuda.max_memory_allocated())
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True, acc_events=True) as recorded:
        trainer.fit(module, data)
    events = [event for event in recorded.profiler.kineto_results.events() if event.name() == "[memory]"]
    now = peak = 0
    for event in sorted(events, key=lambda event: event.start_ns()):
        now += event.nbytes()
        peak = max(peak, now)
    return peak


def _resident() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def measure_apart(setting: Setting, device: str = "cpu") -> dict[str, Any]:
    """Measure in a fresh process."""
    command = [sys.executable, __file__, json.dumps(asdict(setting)), "--device", device]
    print(f"measuring {setting.name}", file=sys.stderr, flush=True)
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{setting.name}: {done.stderr[-3000:]}")
    found: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return found


def main() -> None:
    """Measure one setting, given as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("setting")
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    print(json.dumps(measure(Setting(**json.loads(options.setting)), options.device)))


if __name__ == "__main__":
    main()

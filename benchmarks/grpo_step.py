"""One GRPO step of GRPOModule against TRL's GRPOTrainer: same network, prompt, group and lengths.

A step is generation, rewards, log-probabilities, backward and optimiser. Both draw 8 completions of 64 tokens each for
one prompt of 16 or 64 slices; the reward is the same cheap function. Steps take turns, times are processor seconds of
one thread. TRL works through the group one copy at a time, which was faster and smaller than all at once.

``bound_share`` compares forward and backward of one packed group with 8 rows of one completion each, our code in both,
and divides by the arithmetic bound G (V + P + C) / (V + P + G C): V, P and C are multiplications for the slices, the
rest of the prompt and one completion. ``group_memory_ratio`` is the peak of a packed group over that of one row.

The last line is one JSON object. ``--quick`` measures the first ratio only.

    python benchmarks/grpo_step.py [--quick] [--steps 5]
"""

from __future__ import annotations

import argparse
import json
import logging
import multiprocessing
import os
import tempfile
import time
import warnings
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Any

import torch
from grpo_turns import Arrangement, OurSteps, ask, make_trainer, train_in_turns
from meter import Ledger, Meter
from peers import need

from medvol.core.prompts import Prompt, PromptTemplate
from medvol.core.types import Case, Completion, Sampling
from medvol.datasets.phantom import PhantomDataset
from medvol.policies.tiny import TinyPolicy
from medvol.policies.tiny_network import TINY_TEMPLATE

G, C = 8, 64
SIDE = 192
"""Pixels a side: 64 tokens a slice."""


def template(slices: int) -> PromptTemplate:
    """Prompt of so many slices."""
    return replace(TINY_TEMPLATE, num_slices=slices, height_px=SIDE, width_px=SIDE)


def make_case(slices: int) -> Case:
    """A phantom of so many slices."""
    return PhantomDataset("train", 1, shape=(slices, 64, 64))[0]


def make_policy(slices: int) -> TinyPolicy:
    """The tiny policy, which never ends an answer early."""
    policy = TinyPolicy(template=template(slices))
    policy.load().suppressed[policy.load().end_id] = True
    return policy


def compare_steps(slices: int, steps: int) -> dict[str, Any]:
    """TRL's step over ours."""
    ledger = Ledger(None)
    mine, theirs = (Meter(name, time.process_time, ledger) for name in ("medvol", "trl"))
    policy, other, case = make_policy(slices), make_policy(slices), make_case(slices)
    prompt = ask(policy, case)
    model = other.load().model
    for part in (model.model.visual, model.model.language_model):
        part.config._attn_implementation = "sdpa"
    with tempfile.TemporaryDirectory() as folder:
        ours = OurSteps(policy, case, G, C, mine, Path(folder), "cpu")
        trainer = make_trainer(other, model, prompt, G, C, Arrangement(1, False), steps + 1, Path(folder), theirs)
        train_in_turns(trainer, theirs, ours.take)
        ours.finish()
    pairs = [(their.seconds, my.seconds) for their, my in zip(theirs.steps, mine.steps, strict=True)][1:]
    return {
        "prompt_tokens": policy.measure_prompt(prompt).tokens,
        "trl_seconds": round(median(their for their, _ in pairs), 2),
        "seconds": round(median(my for _, my in pairs), 2),
        "ratio": round(median(their / my for their, my in pairs), 2),
        "ratios": [round(their / my, 2) for their, my in pairs],
    }


def draw_prompt(slices: int) -> tuple[TinyPolicy, Prompt, list[Completion]]:
    """A policy, a prompt, and a group of completions that it wrote."""
    policy = make_policy(slices)
    prompt = ask(policy, make_case(slices))
    return policy, prompt, policy.generate([prompt], G, Sampling(1.0, C))[0]


def train_once(policy: TinyPolicy, prompt: Prompt, completions: list[Completion]) -> None:
    """Forward and backward of completions in one row."""
    scores = policy.log_probs([prompt], [completions])[0]
    torch.stack([row.sum() for row in scores]).sum().backward()


def measure_bound_share(slices: int, rounds: int) -> dict[str, float]:
    """Separate rows over the packed group, and how much of the arithmetic bound that is."""
    policy, prompt, completions = draw_prompt(slices)
    apart, packed = [], []
    train_once(policy, prompt, completions)
    for _ in range(rounds):
        started = time.process_time()
        for completion in completions:
            train_once(policy, prompt, [completion])
        middle = time.process_time()
        train_once(policy, prompt, completions)
        packed.append(time.process_time() - middle)
        apart.append(middle - started)
    ratio = median(a / p for a, p in zip(apart, packed, strict=True))
    bound = arithmetic_bound(policy, prompt)
    return {"train_ratio": round(ratio, 2), "bound": round(bound, 2), "bound_share": round(ratio / bound, 3)}


def arithmetic_bound(policy: TinyPolicy, prompt: Prompt) -> float:
    """G (V + P + C) / (V + P + G C) in multiplications of matrices."""
    config = policy.load().model.config
    text, vision = config.text_config, config.vision_config
    size = policy.measure_prompt(prompt)
    patches = size.image_tokens * vision.spatial_merge_size**2
    a_slice = patches // len(prompt.slices.indices)
    width = vision.hidden_size
    a_patch = 4 * width**2 + 2 * width * vision.intermediate_size + 2 * a_slice * width
    merged = width * vision.spatial_merge_size**2
    mergers = (1 + len(vision.deepstack_visual_indexes)) * (merged**2 + merged * vision.out_hidden_size)
    embed = vision.in_channels * vision.temporal_patch_size * vision.patch_size**2 * width
    v = patches * (vision.depth * a_patch + embed) + size.image_tokens * mergers
    queries, keys = text.num_attention_heads * text.head_dim, text.num_key_value_heads * text.head_dim
    linear = text.hidden_size * (2 * queries + 2 * keys) + 3 * text.hidden_size * text.intermediate_size
    depth, p = text.num_hidden_layers, size.tokens
    prompt_part = depth * (p * linear + queries * p * p)
    head = text.hidden_size * text.vocab_size
    completion = depth * (C * linear + 2 * queries * C * (p + C / 2)) + C * head
    return G * (v + prompt_part + completion) / (v + prompt_part + G * completion)


RETURN_FREED = {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536", "MALLOC_TOP_PAD_": "0"}
"""Have glibc give freed blocks back at once: what it would keep moves a peak of 250 MiB by 30 from run to run."""


def peak_mib(slices: int, count: int) -> float:
    """Growth of the resident peak while ``count`` completions are trained in one row, in a process of its own."""
    os.environ.update(RETURN_FREED)
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(_peak_here, (slices, count))


def _peak_here(slices: int, count: int) -> float:
    torch.set_num_threads(1)
    policy, prompt, completions = draw_prompt(slices)
    before = _status("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")
    train_once(policy, prompt, completions[:count])
    return _status("VmHWM") - before


def _status(field: str) -> float:
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(field))
    return int(line.split()[1]) / 1024


def main() -> None:
    """Run the comparisons and print them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--steps", type=int, default=5)
    options = parser.parse_args()
    need("trl", "datasets")
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    short = compare_steps(16, 1 if options.quick else options.steps)
    print(f"16 slices: {short}", flush=True)
    found: dict[str, Any] = {"step_ratio_p1080": short["ratio"]}
    if not options.quick:
        long = compare_steps(64, options.steps)
        print(f"64 slices: {long}", flush=True)
        shares = {slices: measure_bound_share(slices, options.steps) for slices in (16, 64)}
        print(f"training against its bound: {shares}", flush=True)
        peaks = {(slices, count): peak_mib(slices, count) for slices in (16, 64) for count in (1, G)}
        print(f"peaks in MiB by slices and completions: {peaks}", flush=True)
        found |= {
            "step_ratio_p4250": long["ratio"],
            "bound_share": min(share["bound_share"] for share in shares.values()),
            "group_memory_ratio": round(max(peaks[s, G] / peaks[s, 1] for s in (16, 64)), 3),
        }
    print(json.dumps(found))


if __name__ == "__main__":
    main()

"""Whether our log-probabilities of some answers, TRL's and PrefixGrouper's are the same: is the same work timed?"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from grouped_training import GroupedTraining
from grpo_turns import Arrangement, ask, make_trainer
from large_layout import LayoutPolicy, share, stir_adapters
from meter import Ledger, Meter
from transformers import PreTrainedModel

from medvol.core.prompts import Prompt
from medvol.core.types import Case, Completion, Sampling

G, C = 8, 12
TOLERANCES = {torch.float32: 1e-4, torch.bfloat16: 0.25}
"""Largest difference that rounding explains; in bfloat16 a score of -12 is itself known to a sixteenth only."""


@torch.no_grad()
def compare_scores(
    build: Callable[[], LayoutPolicy], base: PreTrainedModel, peers: Sequence[str], case: Case, folder: Path
) -> dict[str, Any]:
    """Score the same answers in all ways, over the whole vocabulary.

    Args:
        build: Makes a policy.
        base: The weights that all share.
        peers: ``trl`` and ``prefix_grouper``, as far as they are installed.
        case: Asked about.
        folder: Empty.

    Returns:
        For each peer the largest and the mean difference and whether it agrees; and the mean difference that another
        drawing of the slices makes, which says how much the comparison would notice.
    """
    policy = build()
    prompt = ask(policy, case)
    completions = policy.generate([prompt], G, Sampling(1.0, C))[0]
    policy.load().suppressed.zero_()
    ours = torch.stack(policy.log_probs([prompt], [completions])[0])
    turned = replace(prompt, slices=replace(prompt.slices, pixels=prompt.slices.pixels[:, :, ::-1].copy()))
    other = torch.stack(policy.log_probs([turned], [completions])[0])
    tolerance = TOLERANCES[base.dtype]
    found: dict[str, Any] = {
        "prompt_tokens": policy.measure_prompt(prompt).tokens,
        "image_tokens": policy.measure_prompt(prompt).image_tokens,
        "tolerance": tolerance,
        "other_slices_mean": float((other - ours).abs().mean()),
    }
    for peer in peers:
        scores = _score_with_trl if peer == "trl" else _score_grouped
        apart = [(score - ours).abs() for score in scores(build, base, prompt, completions, folder)]
        largest = max(float(one.max()) for one in apart)
        mean = max(float(one.mean()) for one in apart)
        found[peer] = {"largest": largest, "mean": mean, "agrees": largest <= tolerance and mean <= tolerance / 4}
    return found


def _score_grouped(
    build: Callable[[], LayoutPolicy],
    base: PreTrainedModel,
    prompt: Prompt,
    completions: list[Completion],
    folder: Path,
) -> list[torch.Tensor]:
    grouped = GroupedTraining(build())
    grouped.network.suppressed.zero_()
    seen = grouped.network.see([prompt.slices])
    return [grouped.log_probs(prompt, completions, seen, lean) for lean in (False, True)]


def _score_with_trl(
    build: Callable[[], LayoutPolicy],
    base: PreTrainedModel,
    prompt: Prompt,
    completions: list[Completion],
    folder: Path,
) -> list[torch.Tensor]:
    """TRL's trainer, fed with our token ids and slices."""
    policy, model = build(), share(base)
    unused = Meter("agreement", lambda: 0.0, Ledger(None))
    trainer = make_trainer(policy, model, prompt, G, C, Arrangement(1, False), 1, folder, unused)
    stir_adapters(model)
    network = policy.load()
    begin = [*network.prefix(prompt.slices).ids.tolist(), *network.encode_query(prompt.query)]
    (own,), _, _ = trainer._tokenize_prompts([_with_pictures(trainer.train_dataset[0])])
    if abs(len(own) - len(begin)) > 2:
        raise ValueError(f"TRL's prompt has {len(own)} tokens, and ours {len(begin)}")
    ids = torch.tensor([[*begin, *completion.token_ids.tolist()] for completion in completions], device=model.device)
    images = network.prepare(torch.from_numpy(prompt.slices.pixels)).to(model.device)
    scores, _, _ = trainer._get_per_token_logps_and_entropies(
        trainer.model,
        ids,
        torch.ones_like(ids),
        C,
        batch_size=1,
        pixel_values=images["pixel_values"].repeat(G, 1),
        image_grid_thw=images["image_grid_thw"].repeat(G, 1),
        num_images=[len(prompt.slices.indices)] * G,
        mm_token_type_ids=(ids == network.image_id).int(),
    )
    return [scores.float()]


def _with_pictures(row: dict[str, Any]) -> list[dict[str, Any]]:
    from trl.data_utils import prepare_multimodal_messages

    messages: list[dict[str, Any]] = prepare_multimodal_messages(row["prompt"], row["images"])
    return messages

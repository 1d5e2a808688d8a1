"""Decoding all queries of a volume, and all completions of a query, against one prefix kept at batch 1."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from transformers import DynamicCache

from medvol.core.types import Completion, Sampling, SliceStack
from medvol.policies.vlm.network import VLMNetwork
from medvol.policies.vlm.packing import Branch, pack_tree


@dataclass
class _Line:
    """One completion while it is being written."""

    query: int
    branch: int
    next_position: int
    hidden: torch.Tensor
    ids: list[int] = field(default_factory=list)
    log_probs: list[float] = field(default_factory=list)


@torch.no_grad()
def decode(
    network: VLMNetwork,
    slices: SliceStack,
    queries: Sequence[str],
    n: int,
    sampling: Sampling,
    generator: torch.Generator,
) -> list[list[tuple[list[int], list[float]]]]:
    """Write ``n`` completions for every query about one drawing of slices.

    The prefix is computed once. Every step feeds the last token of each unfinished completion as one row; a mask
    keeps the completions apart, so no part of the cache is ever repeated.

    Returns:
        For each query and completion its token ids, end token included when it was written, and their
        log-probabilities at the sampling temperature.
    """
    if not network.packs:
        return [_decode_alone(network, slices, query, n, sampling, generator) for query in queries]
    prefix = network.prefix(slices)
    branches = [Branch(network.encode_query(query)) for query in queries]
    row = pack_tree(prefix, branches)
    cache = new_cache(network)
    hidden = network.hidden_states([row], network.see([slices]), cache)[0]
    owner = torch.cat(
        [torch.zeros(len(prefix.ids), dtype=torch.long)]
        + [torch.full((len(branch.ids),), i + 1) for i, branch in enumerate(branches)]
    )
    places = row.positions[0]
    lines = [
        _Line(
            query=i,
            branch=1 + len(queries) + i * n + k,
            next_position=prefix.next_position + len(branches[i].ids),
            hidden=hidden[row.starts[i] + len(branches[i].ids) - 1],
        )
        for i in range(len(queries))
        for k in range(n)
    ]
    active = lines
    for step in range(sampling.max_new_tokens):
        _write_token(network, active, sampling, generator)
        active = [line for line in active if line.ids[-1] != network.end_id]
        if not active or step + 1 == sampling.max_new_tokens:
            break
        owner, places = _read_tokens(network, active, owner, places, cache)
    return [[(line.ids, line.log_probs) for line in lines if line.query == i] for i in range(len(queries))]


def as_completion(network: VLMNetwork, ids: Sequence[int], log_probs: Sequence[float]) -> Completion:
    """What was written, as text in the grammar's units."""
    text = network.read_boxes(str(network.tokenizer.decode(ids, skip_special_tokens=True)))
    return Completion(text, np.array(ids, np.int64), np.array(log_probs, np.float32))


def new_cache(network: VLMNetwork) -> DynamicCache:
    """An empty cache of keys and values, of the kinds that the layers of a network want."""
    return DynamicCache() if network.packs else DynamicCache(config=network.model.config.text_config)


def _decode_alone(
    network: VLMNetwork,
    slices: SliceStack,
    query: str,
    n: int,
    sampling: Sampling,
    generator: torch.Generator,
) -> list[tuple[list[int], list[float]]]:
    """Write ``n`` completions of one query, each with a copy of the prompt's keys and values."""
    prefix = network.prefix(slices)
    ids = network.encode_query(query)
    cache = new_cache(network)
    hidden = network.hidden_states([pack_tree(prefix, [Branch(ids)])], network.see([slices]), cache)[0, -1]
    _keep(cache, [0] * n, network.device)
    first = prefix.next_position + len(ids)
    active = lines = [_Line(query=0, branch=i, next_position=first, hidden=hidden) for i in range(n)]
    for step in range(sampling.max_new_tokens):
        _write_token(network, active, sampling, generator)
        going_on = [i for i, line in enumerate(active) if line.ids[-1] != network.end_id]
        if not going_on or step + 1 == sampling.max_new_tokens:
            break
        if len(going_on) < len(active):
            _keep(cache, going_on, network.device)
            active = [active[i] for i in going_on]
        position = torch.full((3, len(active), 1), first + step, device=network.device)
        tokens = torch.tensor([line.ids[-1:] for line in active], device=network.device)
        for line, state in zip(active, network.run_on(tokens, position, None, cache)[:, 0], strict=True):
            line.hidden = state
    return [(line.ids, line.log_probs) for line in lines]


def _keep(cache: Any, lines: Sequence[int], device: torch.device) -> None:
    """Have a cache hold these of its lines, in this order; one may come several times."""
    cache.reorder_cache(torch.tensor(lines, device=device))


def _write_token(network: VLMNetwork, lines: Sequence[_Line], sampling: Sampling, generator: torch.Generator) -> None:
    scores = network.token_log_probs(torch.stack([line.hidden for line in lines]), sampling.temperature or 1.0)
    if sampling.temperature > 0:
        chosen = torch.multinomial(scores.exp().cpu(), 1, generator=generator)[:, 0].to(scores.device)
    else:
        chosen = scores.argmax(dim=-1)
    picked = scores.gather(-1, chosen[:, None])[:, 0]
    for line, token, score in zip(lines, chosen.tolist(), picked.tolist(), strict=True):
        line.ids.append(token)
        line.log_probs.append(score)


def _read_tokens(
    network: VLMNetwork, lines: Sequence[_Line], owner: torch.Tensor, places: torch.Tensor, cache: DynamicCache
) -> tuple[torch.Tensor, torch.Tensor]:
    """Feed the token just written of every line; returns the owners and positions of all cached tokens."""
    branches = torch.tensor([line.branch for line in lines])
    owner = torch.cat([owner, branches])
    queries = torch.tensor([line.query + 1 for line in lines])
    visible = (owner == 0) | (owner == queries[:, None]) | (owner == branches[:, None])
    here = torch.tensor([line.next_position + len(line.ids) - 1 for line in lines])
    places = torch.cat([places, here])
    mask = network.layer_masks(visible[None, None], places[None], torch.zeros(1, len(places), dtype=torch.bool))
    ids = torch.tensor([[line.ids[-1] for line in lines]], device=network.device)
    states = network.run_on(ids, here.expand(3, 1, -1).to(network.device), mask, cache)
    for line, hidden in zip(lines, states[0], strict=True):
        line.hidden = hidden
    return owner, places

"""Scoring completions: all of a drawing in one row, or each behind a prompt of its own."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import torch
from torch.utils.checkpoint import checkpoint

from medvol.core.errors import ConfigError
from medvol.core.types import Completion, SliceStack
from medvol.policies.vlm.network import VLMNetwork
from medvol.policies.vlm.packing import Branch, PackedRow, Spans, pack_questions, pack_tree

_ROWS = 64
"""Rows of the vocabulary's scores that exist at a time in training."""

Groups = Sequence[tuple[SliceStack, Sequence[tuple[str, Sequence[Sequence[int]]]]]]
"""Drawings of slices, each with its queries and the token ids of their completions."""


def require_scorable(completions: Sequence[Sequence[Completion]], temperature: float) -> None:
    """Refuse what has no log-probability.

    Raises:
        ConfigError: A completion has no tokens, or some that are not known; or the temperature is not above 0.
    """
    if not temperature > 0:
        raise ConfigError(f"log-probabilities are asked for at temperature {temperature}; it must be above 0")
    for completion in (one for group in completions for one in group):
        if not len(completion.token_ids) or (completion.token_ids < 0).any():
            raise ConfigError(
                f"the tokens of the completion {completion.text[:80]!r} are not known, so it has no log-probability; "
                "encode its text first (policy.encode)"
            )


def chosen_log_probs(
    network: VLMNetwork, hidden: torch.Tensor, chosen: torch.Tensor, temperature: float
) -> torch.Tensor:
    """Log-probabilities (N,) of the tokens that follow.

    Scores of the whole vocabulary exist for a few rows at a time, in the backward pass too: they are computed again
    there, which costs little, as the head is one of many layers, and they would be the largest tensor of all.

    Args:
        network: The network.
        hidden: (N, C) states that predict them.
        chosen: (N,) token ids.
        temperature: See ``score``.
    """

    def choose(states: torch.Tensor, ids: torch.Tensor) -> torch.Tensor:
        return network.token_log_probs(states, temperature).gather(-1, ids[:, None])[:, 0]

    choose_again = partial(checkpoint, choose, use_reentrant=False, preserve_rng_state=False)
    return torch.cat(list(map(choose_again, hidden.split(_ROWS), chosen.split(_ROWS))))


def score(
    network: VLMNetwork,
    groups: Groups,
    temperature: float = 1.0,
) -> list[list[list[torch.Tensor]]]:
    """Log-probability of every token of every completion.

    Args:
        network: The network.
        groups: For each drawing of slices, its queries, each with the token ids of its completions.
        temperature: Of the sampling whose probabilities are asked for.

    Returns:
        In the same nesting, tensors (T,).
    """
    if not network.packs:
        return [_score_alone(network, slices, questions, temperature) for slices, questions in groups]
    rows, spans = pack_groups(network, groups)
    hidden = network.hidden_states(rows, network.see([slices for slices, _ in groups]))
    return read_scores(network, hidden, spans, temperature)


def _score_alone(
    network: VLMNetwork,
    slices: SliceStack,
    questions: Sequence[tuple[str, Sequence[Sequence[int]]]],
    temperature: float,
) -> list[list[torch.Tensor]]:
    """Log-probabilities of all completions about one drawing of slices, each behind a prompt of its own."""
    prefix, seen = network.prefix(slices), network.see([slices])

    def score_one(query: str, ids: Sequence[int]) -> torch.Tensor:
        row = pack_tree(prefix, [Branch([*network.encode_query(query), *ids])])
        hidden = network.hidden_states([row], seen)[0, -len(ids) - 1 : -1]
        return chosen_log_probs(network, hidden, torch.tensor(ids, device=network.device), temperature)

    return [[score_one(query, ids) for ids in completions] for query, completions in questions]


def pack_groups(network: VLMNetwork, groups: Groups) -> tuple[list[PackedRow], list[Spans]]:
    """One row a drawing of slices, and where its completions are predicted."""
    packed = [
        pack_questions(network.prefix(slices), [(network.encode_query(query), answers) for query, answers in questions])
        for slices, questions in groups
    ]
    return [row for row, _ in packed], [span for _, span in packed]


def read_scores(
    network: VLMNetwork, hidden: torch.Tensor, spans: Sequence[Spans], temperature: float
) -> list[list[list[torch.Tensor]]]:
    """Log-probabilities of all completions from the hidden states of their rows."""
    flat = [(b, source) for b, span in enumerate(spans) for query in span for sources, _ in query for source in sources]
    index = torch.tensor(flat, device=network.device).T
    targets = [t for span in spans for query in span for _, ids in query for t in ids]
    chosen = torch.tensor(targets, device=network.device)
    scores = chosen_log_probs(network, hidden[index[0], index[1]], chosen, temperature)
    pieces = iter(scores.split([len(ids) for span in spans for query in span for _, ids in query]))
    return [[[next(pieces) for _ in query] for query in span] for span in spans]

"""Where a network looks while it writes: the attention of its language model's middle layer."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn.functional import adaptive_avg_pool2d

from medvol.core.errors import ConfigError
from medvol.policies.vlm.network import VLMNetwork
from medvol.policies.vlm.packed_attention import record_attention
from medvol.policies.vlm.scoring import Groups, pack_groups, read_scores

Look = tuple[int, int, NDArray[np.bool_]]
"""Token of a completion, position of a slice among those shown, and where on it to look: (Y, X) bool."""

_WELL = 0.4
"""A mask fills an image token well when it covers this share of it."""


def score_with_gaze(
    network: VLMNetwork,
    groups: Groups,
    looks: Sequence[Sequence[Sequence[Look]]],
) -> tuple[list[list[list[torch.Tensor]]], torch.Tensor]:
    """Score one completion a query, and read how much of its attention each token gives to where it should.

    The layer in the middle is asked: those before it bring what the query means to the token that looks, those behind
    it make a number of what was seen.

    Args:
        network: The network.
        groups: As for ``score``.
        looks: For each drawing and query, what to look at during its completion.

    Returns:
        What ``score`` returns, and the log of the share of attention for all looks in order, (N,).

    Raises:
        ConfigError: The model does not pack.
    """
    if not network.packs:
        raise ConfigError("this model looks at a sliding window and does not tell where; set gaze_weight to 0")
    rows, spans = pack_groups(network, groups)
    with record_attention((network.model.config.text_config.num_hidden_layers - 1) // 2) as record:
        hidden = network.hidden_states(rows, network.see([slices for slices, _ in groups]))
    sources: list[tuple[int, int]] = []
    wanted: list[torch.Tensor] = []
    for b, (row, span, questions) in enumerate(zip(rows, spans, looks, strict=True)):
        image_tokens = torch.nonzero(row.ids == network.image_id).view(-1, prod(network.token_grid()))
        for query, look in zip(span, questions, strict=True):
            places, _ = query[0]
            for token, position, mask in look:
                sources.append((b, places[token]))
                here = image_tokens[position, filled_tokens(network, mask)]
                wanted.append(torch.zeros(hidden.shape[1], dtype=torch.bool).index_fill_(0, here, True))
    scores = read_scores(network, hidden, spans, 1.0)
    if not wanted:
        return scores, hidden.new_zeros(0)
    index = torch.tensor(sources, device=network.device).T
    return scores, record.log_shares(index[0], index[1], torch.stack(wanted).to(network.device))


def filled_tokens(network: VLMNetwork, mask: NDArray[np.bool_]) -> torch.Tensor:
    """Image tokens of a slice that a mask fills well, or better than half as well as it fills any: bool."""
    share = adaptive_avg_pool2d(torch.from_numpy(mask.astype(np.float32))[None], network.token_grid()).flatten()
    return share >= min(_WELL, float(share.max()) / 2)

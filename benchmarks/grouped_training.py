"""Log-probabilities and backward of a group with PrefixGrouper (Liu et al., arXiv 2506.05433), for the same model.

PrefixGrouper also reads the prompt once for a group. It takes rows, keys and values apart in every layer, and copies
the prompt's keys and values for every completion. Attention is torch's own, aligned to the last key, so that no mask
is kept. Its README scores the whole row over the whole vocabulary; ``lean`` gives it our head for the answers instead.
"""

from __future__ import annotations

from typing import Any

import torch
from torch.nn.attention.bias import causal_lower_right
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface
from transformers.masking_utils import AttentionMaskInterface

from medvol.core.prompts import Prompt
from medvol.core.types import Completion
from medvol.policies.vlm.policy import VLMPolicy
from medvol.policies.vlm.precision import arithmetic
from medvol.policies.vlm.scoring import chosen_log_probs

GROUPED_ATTENTION = "benchmark_prefix_grouper"


def attend_grouped(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float | None = None,
    prefix_grouper: Any = None,
    **kwargs: Any,
) -> tuple[torch.Tensor, None]:
    """Attention of one layer through PrefixGrouper; arguments are those of transformers' attention functions."""

    def attend(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        shared = q.shape[1] // k.shape[1]
        k, v = (x.repeat_interleave(shared, dim=1) for x in (k, v))
        bias: Any = causal_lower_right(q.shape[2], k.shape[2])  # rows are of one length, so padding needs no mask
        return scaled_dot_product_attention(q, k, v, attn_mask=bias, scale=scaling).transpose(1, 2)

    return prefix_grouper.forward(attend, query, key, value), None


AttentionInterface.register(GROUPED_ATTENTION, attend_grouped)
AttentionMaskInterface.register(GROUPED_ATTENTION, lambda *arguments, **named: None)


class GroupedTraining:
    """Scores the completions of one prompt with PrefixGrouper.

    Args:
        policy: Its network is changed to attend through PrefixGrouper.
    """

    def __init__(self, policy: VLMPolicy) -> None:
        self.network = policy.load_for_training()
        self.network.language.config._attn_implementation = GROUPED_ATTENTION

    def log_probs(self, prompt: Prompt, completions: list[Completion], seen: Any, lean: bool) -> torch.Tensor:
        """Log-probabilities (G, C).

        Args:
            prompt: The prompt.
            completions: G of one length C.
            seen: Features of the slices, from the network's ``see``.
            lean: Score the answers only, a few rows of the vocabulary at a time; else the whole row, as in the README.
        """
        from prefix_grouper import PrefixGrouper

        network = self.network
        prefix = network.prefix(prompt.slices)
        start = torch.cat([prefix.ids, torch.tensor(network.encode_query(prompt.query))])[None].to(network.device)
        answers = torch.tensor([completion.token_ids.tolist() for completion in completions], device=network.device)
        masks = torch.ones_like(start), torch.ones_like(answers)
        grouper = PrefixGrouper.from_ungrouped_masks(*masks, group_sizes=len(answers), device=network.device)
        ids = grouper.concat_input(start, masks[0], answers, masks[1])
        first = prefix.next_position + start.shape[1] - len(prefix.ids)
        tail = torch.arange(prefix.next_position, first)
        behind = torch.arange(first, first + answers.shape[1]).repeat(len(answers))
        positions = torch.cat([prefix.positions, tail.expand(3, -1), behind.expand(3, -1)], dim=1)[:, None]
        with arithmetic(network.device, network.narrow):
            hidden = network.model.model(
                input_ids=ids,
                position_ids=positions.to(network.device),
                mm_encoder_outputs={"image": seen},
                use_cache=False,
                prefix_grouper=grouper,
            ).last_hidden_state
            if lean:
                _, _, states, _ = grouper.split_output(hidden, include_prefix_last=1)
                rows = states[:, :-1].flatten(0, 1)
                return chosen_log_probs(network, rows, answers.flatten(), 1.0).view_as(answers)
            logits = network.model.lm_head(hidden)
            _, _, scores, _ = grouper.split_output(logits, include_prefix_last=1)
            scores = scores[:, :-1]
            return scores.gather(-1, answers[..., None])[..., 0].float() - scores.float().logsumexp(-1)

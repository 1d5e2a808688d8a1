"""EngineWatch: sees that an engine answers with the weights that are trained."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields
from typing import Any

import torch

from medvol.core.errors import EngineError
from medvol.core.roles import TrainablePolicy
from medvol.evaluation.ranks import gather_ranks
from medvol.training.token_table import TokenTable

_GAPS = {True: 0.1, False: 0.01}
_NOISE = {True: 5e-3, False: 1e-5}
"""Largest mean gap and least noise of log-probabilities, in nats a token: in narrow types, and in float32."""

_SLOPE_ERROR = 0.1
_CLEAR = 3.0
"""The change has to be so many times the noise before a part of it could be missed."""

_MISSING = 0.1

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Gaps:
    """Sums over the tokens of a batch of rollouts.

    Args:
        tokens: How many there are.
        size: Differences between the log-probabilities of policy and engine.
        square: Their squares.
        weight: Weights that correct them.
        capped: Tokens whose weight was cut off.
    """

    tokens: float = 0.0
    size: float = 0.0
    square: float = 0.0
    weight: float = 0.0
    capped: float = 0.0


class EngineWatch:
    """Compares the log-probabilities at sampling with those of the policy.

    *Agreement.* On the rollouts of every step the mean difference must stay small. The first step finds an engine with
    another model, other pictures, another temperature or another chat template.

    *Weights.* That weights reach the engine cannot be seen in the mean difference: one update changes
    log-probabilities by less than rounding does, so a run would go on for long with an engine that never gets new
    weights. So the weights of the first step are kept (in the memory of the host; those that are trained only), and
    the tokens of later rollouts are also scored under them. With ``d`` the change from the old to the new
    log-probabilities of the policy, and ``e`` the distance of the engine's from the old ones:

    - The slope of ``e`` on ``d`` is 1 for an engine that has the new weights, and 0 for one that has the old ones. Once
      it is known to 0.1, it must be above 0.5.
    - Once ``d`` is three times the noise, the engine must be nearer to the new weights than half of the way from the
      old ones, and as the change grows, nearer than a tenth of it. An engine that took only a part of the weights
      stays behind. When that holds, the kept weights are let go.

    The noise is the difference of the first rollouts, where both surely have the same weights, and at least what
    rounding makes. As long as the change is too small to tell, nothing is concluded, and the next step looks again;
    changes add up, as the old weights stay those of the first step.

    Args:
        policy: Trained.
        largest_gap: See ``StartSettings.max_sampler_gap``.
    """

    def __init__(self, policy: TrainablePolicy, largest_gap: float | None) -> None:
        narrow = _computes_narrow(policy)
        self.policy = policy
        self.largest_gap = _GAPS[narrow] if largest_gap is None else largest_gap
        self.confirmed = False
        """True when the new weights were seen in the engine's answers."""
        self._noise = _NOISE[narrow]
        self._kept: list[torch.Tensor] | None = None

    def judge(
        self,
        tables: Sequence[TokenTable],
        new: Sequence[torch.Tensor],
        weights: Sequence[torch.Tensor | None],
        cap: float | None,
        temperature: float,
    ) -> dict[str, float]:
        """Judge the rollouts of a step, before its first update; all processes have to call it.

        Args:
            tables: What this process has of them.
            new: (N, T) log-probabilities of the policy for each table.
            weights: Of ``sampler_weights`` for each table; None where nothing is corrected.
            cap: Largest weight.
            temperature: Of sampling.

        Returns:
            ``sampler_gap``: mean difference of log-probabilities; ``sampler_ratio``: mean weight; ``sampler_capped``:
            share of tokens whose weight was cut off.

        Raises:
            EngineError: The engine answers with other weights than the policy has.
        """
        parts = gather_ranks(_sum_gaps(tables, new, weights, cap))
        total = Gaps(**{f.name: sum(getattr(part, f.name) for part in parts) for f in fields(Gaps)})
        if not total.tokens:
            return {}
        mean = total.size / total.tokens
        if not mean <= self.largest_gap:
            raise EngineError(
                f"the engine's log-probabilities differ from the policy's by {mean:.3g} nats a token, and "
                f"start.max_sampler_gap is {self.largest_gap:g}: it has other weights, another model folder, or reads "
                "other pictures; see what it serves, and its log"
            )
        if not self.confirmed:
            self._look_for_new_weights(tables, new, total, temperature)
        known = {"sampler_gap": mean}
        if cap is None:
            return known
        return {**known, "sampler_ratio": total.weight / total.tokens, "sampler_capped": total.capped / total.tokens}

    def _look_for_new_weights(
        self, tables: Sequence[TokenTable], new: Sequence[torch.Tensor], total: Gaps, temperature: float
    ) -> None:
        trained = list(self.policy.trainable_parameters())
        if self._kept is None:
            self._kept = [parameter.detach().to("cpu", copy=True) for parameter in trained]
            self._noise = max(self._noise, math.sqrt(total.square / total.tokens))
            return
        with torch.no_grad(), _exchanged(trained, self._kept):
            old = [table.pad(self.policy.log_probs(table.prompts, table.completions, temperature)) for table in tables]
        sums = [
            (float(change.square().sum()), float((change * (table.sampled - before) * table.mask).sum()))
            for table, after, before in zip(tables, new, old, strict=True)
            for change in [(after - before) * table.mask]
        ]
        parts = gather_ranks((sum(square for square, _ in sums), sum(product for _, product in sums)))
        squares, products = (sum(values) for values in zip(*parts, strict=True))
        self._conclude(squares, products, total)

    def _conclude(self, squares: float, products: float, total: Gaps) -> None:
        """Decide whether the engine has the new weights, or wait."""
        if not squares or self._noise / math.sqrt(squares) > _SLOPE_ERROR:
            return
        slope = products / squares
        change = math.sqrt(squares / total.tokens)
        missing = math.sqrt(total.square / squares)
        clear = change >= _CLEAR * self._noise
        if slope < 0.5 or (clear and missing > max(_MISSING, 0.5 * _CLEAR * self._noise / change)):
            raise EngineError(
                f"the engine does not answer with the weights that are trained: of what they changed since the first "
                f"step, {slope:.0%} is in its log-probabilities, and they are {missing:.0%} of that change away; the "
                "weights do not reach it, or only some of them"
            )
        if clear:
            self.confirmed = True
            self._kept = None
            log.info(
                "the engine answers with the weights that are trained: %.0f%% of their change is seen", 100 * slope
            )


def _sum_gaps(
    tables: Sequence[TokenTable],
    new: Sequence[torch.Tensor],
    weights: Sequence[torch.Tensor | None],
    cap: float | None,
) -> Gaps:
    found = Gaps()
    for table, scores, weight in zip(tables, new, weights, strict=True):
        gap = (scores - table.sampled).abs() * table.mask
        spread = table.mask if weight is None else weight * table.mask
        capped = spread >= cap if cap is not None else torch.zeros_like(table.mask)
        found = Gaps(
            found.tokens + float(table.mask.sum()),
            found.size + float(gap.sum()),
            found.square + float(gap.square().sum()),
            found.weight + float(spread.sum()),
            found.capped + float((capped * table.mask).sum()),
        )
    return found


@contextmanager
def _exchanged(parameters: Sequence[torch.nn.Parameter], others: Sequence[torch.Tensor]) -> Iterator[None]:
    """Give parameters other values for the length of a ``with`` block, and their own, bit for bit, afterwards."""
    own = [parameter.detach().to("cpu", copy=True) for parameter in parameters]

    def put(values: Sequence[torch.Tensor]) -> None:
        with torch.no_grad():
            for parameter, value in zip(parameters, values, strict=True):
                parameter.copy_(value)

    put(others)
    try:
        yield
    finally:
        put(own)


def _computes_narrow(policy: TrainablePolicy) -> bool:
    """True when a network computes in a type that is narrower than float32."""
    network: Any = policy.load()
    kinds = {parameter.dtype for parameter in network.parameters() if parameter.is_floating_point()}
    return getattr(network, "narrow", None) is not None or bool(kinds - {torch.float32, torch.float64})

"""What every trainable policy promises besides."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from medvol.core.roles import TrainablePolicy
from medvol.core.types import Completion, Prompt
from medvol.testing.contract import require
from medvol.testing.fixtures import make_case, make_prompts, write_answer

if TYPE_CHECKING:
    import torch

_SAME = 1e-4


def check_encode(policy: TrainablePolicy) -> None:
    """An encoded answer has tokens and keeps its text."""
    text = write_answer(make_case())
    completion = policy.encode(text)
    require(completion.text == text, "text of an encoded answer", repr(text), repr(completion.text), "keep the text")
    require(len(completion.token_ids) > 0, "tokens of an encoded answer", "at least one", 0, "tokenise the text")


def check_log_probs_shape(policy: TrainablePolicy) -> None:
    """There is one value for every token of every completion."""
    prompts, completions = _scored(policy)
    expected = [[(len(completion.token_ids),) for completion in row] for row in completions]
    got = [[tuple(scores.shape) for scores in row] for row in policy.log_probs(prompts, completions)]
    require(got == expected, "shapes of log_probs", expected, got, "return one tensor (T,) a completion")


def check_log_probs_are_logarithms(policy: TrainablePolicy) -> None:
    """Every value is finite and at most 0."""
    for row in policy.log_probs(*_scored(policy)):
        for scores in row:
            good = bool(scores.isfinite().all() and (scores <= 1e-6).all())
            require(good, "log_probs", "finite values <= 0", scores.detach().tolist(), "return log-softmax values")


def check_packing_changes_nothing(policy: TrainablePolicy) -> None:
    """Scoring prompts together gives what scoring each alone gives."""
    prompts, completions = _scored(policy)
    together = policy.log_probs(prompts, completions)
    apart = [policy.log_probs([prompt], [row])[0] for prompt, row in zip(prompts, completions, strict=True)]
    pairs = [(a, b) for one, other in zip(together, apart, strict=True) for a, b in zip(one, other, strict=True)]
    gap = max(float((a - b).detach().abs().max()) for a, b in pairs)
    require(gap < _SAME, "log_probs of packed prompts", f"within {_SAME} of separate ones", gap, "mask other branches")


def check_gradient_reaches_parameters(policy: TrainablePolicy) -> None:
    """The gradient reaches trainable parameters."""
    network, reached = _backward(policy)
    trainable = {id(parameter) for parameter in policy.trainable_parameters()}
    names = [name for name, parameter in network.named_parameters() if id(parameter) in trainable]
    require(bool(names), "trainable_parameters", "at least one of load()'s network", "none", "return its parameters")
    require(bool(reached & set(names)), "gradient", "some trainable parameter reached", "none", "detach nothing")


def check_gradient_spares_the_rest(policy: TrainablePolicy) -> None:
    """The gradient reaches no parameter but the trainable ones."""
    network, reached = _backward(policy)
    trainable = {id(parameter) for parameter in policy.trainable_parameters()}
    names = {name for name, parameter in network.named_parameters() if id(parameter) not in trainable}
    stray = sorted(reached & names)
    require(not stray, "gradient of frozen parameters", "none", stray[:3], "call requires_grad_(False) on them")


def check_reference_has_no_gradient(policy: TrainablePolicy) -> None:
    """The reference's values are finite, fit the tokens and carry no gradient."""
    prompts, completions = _scored(policy)
    for scores, completion in zip(policy.reference_log_probs(prompts, completions)[0], completions[0], strict=True):
        require(not scores.requires_grad, "reference_log_probs", "no gradient", "one", "use torch.no_grad()")
        good = tuple(scores.shape) == completion.token_ids.shape and bool(scores.isfinite().all())
        require(good, "reference_log_probs", "one finite value a token", scores.tolist(), "score every token")


def check_load_returns_one_network(policy: TrainablePolicy) -> None:
    """``load`` builds once and returns the same network afterwards."""
    require(policy.load() is policy.load(), "two calls of load", "the same network", "two", "keep the first one")


def _scored(policy: TrainablePolicy) -> tuple[list[Prompt], list[list[Completion]]]:
    truth = policy.encode(write_answer(make_case()))
    absent = policy.encode("<answer>[]</answer>")
    return make_prompts(policy), [[truth, absent], [absent]]


def _backward(policy: TrainablePolicy) -> tuple[torch.nn.Module, set[str]]:
    """The network, its gradients cleared again, and the names of the parameters that had one."""
    network = policy.load()
    network.zero_grad(set_to_none=True)
    scores = policy.log_probs(*_scored(policy))
    sum(part.sum() for row in scores for part in row).backward()  # type: ignore[union-attr]
    reached = {
        name
        for name, parameter in network.named_parameters()
        if parameter.grad is not None and np.any(parameter.grad.float().cpu().numpy() != 0)
    }
    network.zero_grad(set_to_none=True)
    return network, reached


CHECKS = (
    check_encode,
    check_log_probs_shape,
    check_log_probs_are_logarithms,
    check_packing_changes_nothing,
    check_gradient_reaches_parameters,
    check_gradient_spares_the_rest,
    check_reference_has_no_gradient,
    check_load_returns_one_network,
)

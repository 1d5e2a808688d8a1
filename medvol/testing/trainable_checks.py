"""What a policy with parameters promises besides."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from medvol.core.errors import MedvolError
from medvol.core.prompts import Prompt
from medvol.core.roles import TrainablePolicy
from medvol.core.specs import rebuild
from medvol.core.types import Completion, Sampling
from medvol.testing.component_checks import require
from medvol.testing.policy_checks import make_prompts
from medvol.weights.folder_policy import find_policy

if TYPE_CHECKING:
    import torch

_SAME = 1e-4
ANSWERS = (
    '<think>it is bright</think><answer>[{"slice": 4, "bbox_2d_list": [[500, 300, 700, 500]]}]</answer>',
    "<think>nothing is there</think><answer>[]</answer>",
)


def check_encode(policy: TrainablePolicy) -> None:
    """An answer becomes a text with its tokens, end token included."""
    completion = policy.encode(ANSWERS[0])
    ids = completion.token_ids
    require(completion.text == ANSWERS[0], f"the text {ANSWERS[0]!r}", repr(completion.text), "keep the text")
    fine = ids.ndim == 1 and ids.dtype == np.int64 and len(ids) > 1
    require(fine, "token ids (T,) int64, T > 1", f"{ids.dtype} {ids.shape}", "encode text and end token")


def check_log_probs_form(policy: TrainablePolicy) -> None:
    """Every completion gets one log-probability a token."""
    prompts, completions = _answered(policy)
    scores = policy.log_probs(prompts, completions)
    shapes = [[tuple(row.shape) for row in rows] for rows in scores]
    expected = [[completion.token_ids.shape for completion in rows] for rows in completions]
    require(shapes == expected, f"tensors of the shapes {expected}", shapes, "score the answer's tokens only")


def check_log_probs_are_logarithms(policy: TrainablePolicy) -> None:
    """Log-probabilities are finite and <= 0."""
    values = np.concatenate([row.detach().float().cpu().numpy() for row in _scores(policy)])
    fine = bool(np.isfinite(values).all()) and float(values.max()) <= 1e-6
    require(fine, "finite values <= 0", f"{values.min()} to {values.max()}", "take the log-softmax over the vocabulary")


def check_packing_changes_nothing(policy: TrainablePolicy) -> None:
    """Scoring prompts together gives what scoring each alone gives."""
    prompts, completions = _answered(policy)
    together = policy.log_probs(prompts, completions)
    apart = [policy.log_probs([prompt], [row])[0] for prompt, row in zip(prompts, completions, strict=True)]
    pairs = [pair for rows in zip(together, apart, strict=True) for pair in zip(*rows, strict=True)]
    gap = max(float((first - second).detach().abs().max()) for first, second in pairs)
    require(gap < _SAME, f"scores within {_SAME} of those of each prompt alone", gap, "mask packed prompts")


def check_loads_once(policy: TrainablePolicy) -> None:
    """``load`` builds the network once and returns it ever after."""
    first, second = policy.load(), policy.load()
    require(first is second, "one network from load()", "two", "keep the first one")


def check_gradient_reaches_parameters(policy: TrainablePolicy) -> None:
    """Gradients of the log-probabilities reach the trainable parameters."""
    _backward(policy)
    gradients = [parameter.grad for parameter in policy.trainable_parameters()]
    policy.load().zero_grad()
    reached = sum(bool((gradient != 0).any()) for gradient in gradients if gradient is not None)
    require(
        reached > 0.5 * len(gradients),
        f"a gradient in most of {len(gradients)} trainable parameters",
        f"one in {reached}",
        "keep the graph from the parameters to the log-probabilities",
    )


def check_gradient_stays_in_trainable_parameters(policy: TrainablePolicy) -> None:
    """No other parameter of the network receives a gradient."""
    trainable = {id(parameter) for parameter in policy.trainable_parameters()}
    _backward(policy)
    leaks = [n for n, p in policy.load().named_parameters() if p.grad is not None and id(p) not in trainable]
    policy.load().zero_grad()
    require(not leaks, "gradients in trainable parameters only", leaks[:3], "freeze the rest by requires_grad_(False)")


def check_reference_has_no_gradient(policy: TrainablePolicy) -> None:
    """The reference scores the same tokens, without gradient."""
    prompts, completions = _answered(policy)
    scores = policy.reference_log_probs(prompts, completions)
    shapes = [[tuple(row.shape) for row in rows] for rows in scores]
    expected = [[completion.token_ids.shape for completion in rows] for rows in completions]
    require(shapes == expected, f"tensors of the shapes {expected}", shapes, "score the same tokens")
    tracked = any(row.requires_grad for rows in scores for row in rows)
    require(not tracked, "scores without gradient", "scores that ask for one", "work under torch.no_grad()")


def check_folder_opens(policy: TrainablePolicy) -> None:
    """A saved folder is opened by the policy that wrote it, which answers as before."""
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place) / "model"
        policy.save(folder)
        try:
            again = rebuild(find_policy(folder))
        except MedvolError as error:
            mend = "take the folder as the setting model, and keep in folder_settings what else opens it"
            raise AssertionError(f"expected a folder that can be opened; got {error}; {mend}") from error
        require(type(again) is type(policy), f"a {type(policy).__name__}", type(again).__name__, "leave save as it is")
        before, after = _greedy(policy), _greedy(again)
        require(after == before, f"the same greedy answers, {before}", after, "write all weights, and read them")


def _greedy(policy: TrainablePolicy) -> list[str]:
    return [row[0].text for row in policy.generate(make_prompts(policy), 1, Sampling(max_new_tokens=24))]


def _answered(policy: TrainablePolicy) -> tuple[list[Prompt], list[list[Completion]]]:
    return make_prompts(policy), [[policy.encode(text) for text in ANSWERS], [policy.encode(ANSWERS[1])]]


def _scores(policy: TrainablePolicy) -> list[torch.Tensor]:
    return [row for rows in policy.log_probs(*_answered(policy)) for row in rows]


def _backward(policy: TrainablePolicy) -> None:
    import torch

    policy.load().zero_grad()
    total = torch.cat(_scores(policy)).sum()
    require(total.requires_grad, "log-probabilities with gradient", "none", "do not detach them")
    total.backward()


TRAINABLE_CHECKS: tuple[Callable[[TrainablePolicy], None], ...] = (
    check_encode,
    check_log_probs_form,
    check_log_probs_are_logarithms,
    check_packing_changes_nothing,
    check_loads_once,
    check_gradient_reaches_parameters,
    check_gradient_stays_in_trainable_parameters,
    check_reference_has_no_gradient,
    check_folder_opens,
)

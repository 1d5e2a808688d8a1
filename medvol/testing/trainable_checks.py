"""What a policy with parameters promises besides."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

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
_ROUGH = 0.05
"""Of networks that compute in bfloat16."""
_FEW = 0.1
"""Share of a change of the weights that rounding may make of it."""
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
    ends = [policy.encode(text).token_ids.tolist() for text in ANSWERS]
    ended = len({ids[-1] for ids in ends}) == 1 and all(ids[-1] not in ids[:-1] for ids in ends)
    last = [ids[-1] for ids in ends]
    require(ended, "one end token, at the end of every answer and nowhere else", last, "add the end token")


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


def check_reference_stays(policy: TrainablePolicy) -> None:
    """The reference scores as it did, however the weights move."""
    prompts, completions = _answered(policy)
    before, was = _flat(policy.reference_log_probs(prompts, completions)), _flat(policy.log_probs(prompts, completions))
    with moved_weights(policy):
        gap = _gap(before, _flat(policy.reference_log_probs(prompts, completions)))
        moved = _gap(was, _flat(policy.log_probs(prompts, completions)))
    require(
        gap <= max(_SAME, _FEW * moved),
        "reference scores that stay when the weights move",
        f"a change of {gap:.3g} where the policy's own scores change by {moved:.3g}",
        "score under a frozen copy of the weights at the start",
    )


def check_log_probs_are_those_of_the_draw(policy: TrainablePolicy) -> None:
    """What was drawn at a temperature has the log-probabilities that it was drawn with, where the policy tells them."""
    prompts, warm = make_prompts(policy), 0.7
    answers = policy.generate(prompts, 2, Sampling(warm, 24, seed=3))
    if any(answer.log_probs is None for rows in answers for answer in rows):
        return
    drawn = np.concatenate([np.asarray(answer.log_probs) for rows in answers for answer in rows])
    gap = _gap(drawn, _flat(policy.log_probs(prompts, answers, warm)))
    require(
        gap <= _ROUGH,
        f"log-probabilities within {_ROUGH} of those that generate gives at temperature {warm}",
        f"{gap:.3g}",
        "divide the scores by the temperature in both",
    )


def check_folder_opens(policy: TrainablePolicy) -> None:
    """A saved folder is opened by the policy that wrote it, which scores and answers as before, after training too."""
    untrained = _flat(policy.log_probs(*_answered(policy)))
    with moved_weights(policy), tempfile.TemporaryDirectory() as place:
        folder = Path(place) / "model"
        policy.save(folder)
        try:
            again = rebuild(find_policy(folder))
        except MedvolError as error:
            mend = "take the folder as the setting model, and keep in folder_settings what else opens it"
            raise AssertionError(f"expected a folder that can be opened; got {error}; {mend}") from error
        require(type(again) is type(policy), f"a {type(policy).__name__}", type(again).__name__, "leave save as it is")
        before, after = _greedy(policy), _greedy(again)
        scores, mend = _flat(policy.log_probs(*_answered(policy))), "write all weights as they are now, and read them"
        gap, moved = _gap(scores, _flat(again.log_probs(*_answered(again)))), _gap(scores, untrained)
        fine = gap <= max(_SAME, _FEW * moved)
        require(fine, "the same log-probabilities", f"ones that are {gap:.3g} apart", mend)
        require(after == before, f"the same greedy answers, {before}", after, mend)


@contextmanager
def moved_weights(policy: TrainablePolicy) -> Iterator[None]:
    """Let every trainable parameter be another one in the block, as after some training."""
    import torch

    parameters = list(policy.trainable_parameters())
    before = [parameter.detach().clone() for parameter in parameters]
    move_weights(policy)
    try:
        yield
    finally:
        with torch.no_grad():
            for parameter, value in zip(parameters, before, strict=True):
                parameter.copy_(value)


def move_weights(policy: TrainablePolicy) -> None:
    """Change every trainable parameter a little."""
    import torch

    with torch.no_grad(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(7)
        for parameter in policy.trainable_parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))


def _flat(scores: list[list[torch.Tensor]]) -> NDArray[np.float64]:
    return np.concatenate([row.detach().float().cpu().numpy().astype(np.float64) for rows in scores for row in rows])


def _gap(one: NDArray[Any], other: NDArray[Any]) -> float:
    return float(np.abs(one - other).max()) if one.shape == other.shape else float("inf")


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
    check_reference_stays,
    check_log_probs_are_those_of_the_draw,
    check_folder_opens,
)

"""How many weights move at the first step, what counts, and that a run in which hardly any does is stopped."""

import pytest
import torch

from medvol.core.errors import ConfigError
from medvol.training.module import TrainingModule
from medvol.training.movement import Movement, MovementWatch
from medvol.training.schedule import warm_up_then_cosine
from medvol.training.sft import SFTModule

RATE = 1e-6


def weights(kind: torch.dtype, count: int = 4000) -> torch.nn.Parameter:
    """Weights as those of a network are spread."""
    return torch.nn.Parameter((torch.randn(count, generator=torch.Generator().manual_seed(0)) * 0.02).to(kind))


def step(parameter: torch.nn.Parameter, optimizer: torch.optim.Optimizer, gradient: float = 0.01) -> None:
    parameter.grad = torch.full_like(parameter, gradient)
    optimizer.step()


def watch(parameter: torch.nn.Parameter, rate: float = RATE) -> tuple[torch.optim.AdamW, list[Movement]]:
    optimizer, told = torch.optim.AdamW([parameter], lr=rate, weight_decay=0.0), []
    MovementWatch(optimizer, told.append)
    return optimizer, told


def test_float32_moves_and_is_told_once() -> None:
    parameter = weights(torch.float32)
    optimizer, told = watch(parameter)
    for _ in range(3):
        step(parameter, optimizer)
    (movement,) = told
    assert str(movement) == "weights move (all 4,000 with a gradient that were checked changed)"


def test_bfloat16_does_not_and_stops_the_run() -> None:
    parameter = weights(torch.bfloat16)
    optimizer, told = watch(parameter)
    with pytest.raises(ConfigError, match=r"only \d\.\d% of the trained weights moved .* 1e-06; they are of bfloat16"):
        step(parameter, optimizer)
    assert told[0].moved < 0.05 * told[0].felt


def test_bfloat16_at_a_rate_that_it_holds_goes_on() -> None:
    parameter = weights(torch.bfloat16)
    optimizer, told = watch(parameter, rate=1e-3)
    step(parameter, optimizer)
    assert told[0].share > 0.99


def test_a_step_without_a_rate_or_a_gradient_is_no_first_step() -> None:
    parameter = weights(torch.float32)
    optimizer, told = watch(parameter, rate=0.0)
    step(parameter, optimizer)
    optimizer.param_groups[0]["lr"] = RATE
    step(parameter, optimizer, gradient=0.0)
    optimizer.state.clear()
    assert not told
    step(parameter, optimizer)
    assert told[0].rate == RATE


def test_a_warm_up_is_judged_near_its_end() -> None:
    """A rate of a ten-thousandth of the peak moves nothing in bfloat16 and is no reason to stop; half of it is."""
    parameter = weights(torch.bfloat16)
    optimizer, told = watch(parameter)
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, warm_up_then_cosine(10, 100, 0.0))
    for _ in range(4):
        step(parameter, optimizer)
        scheduler.step()
    assert len(told) == 1
    assert told[0].rate == pytest.approx(RATE / 10)
    with pytest.raises(ConfigError, match="only"):
        step(parameter, optimizer)


def test_the_end_of_a_schedule_is_not_judged() -> None:
    """A run that goes on for its last steps only, at a rate that is nearly 0."""
    parameter = weights(torch.bfloat16)
    optimizer, told = watch(parameter)
    optimizer.param_groups[0]["initial_lr"] = 1.0
    step(parameter, optimizer)
    assert len(told) == 1


def test_weights_without_a_gradient_do_not_count() -> None:
    """Words that are not read, and what is frozen."""
    table, frozen = torch.nn.Embedding(100, 8), torch.nn.Parameter(torch.zeros(5), requires_grad=False)
    optimizer, told = torch.optim.AdamW([table.weight, frozen], lr=RATE), []
    MovementWatch(optimizer, told.append)
    table(torch.tensor([3, 5])).sum().backward()
    optimizer.step()
    assert (told[0].moved, told[0].felt) == (16, 16)


def test_of_a_large_parameter_some_values_are_looked_at() -> None:
    parameter = weights(torch.float32, 25_000)
    optimizer, told = watch(parameter)
    step(parameter, optimizer)
    assert str(told[0]) == "weights move (all 8,334 with a gradient that were checked changed)"


def test_the_hooks_are_gone_after_the_verdict() -> None:
    parameter = weights(torch.float32)
    optimizer, _ = watch(parameter)
    step(parameter, optimizer)
    assert not optimizer._optimizer_step_pre_hooks
    assert not optimizer._optimizer_step_post_hooks


def test_every_training_module_is_watched() -> None:
    assert SFTModule.optimise is TrainingModule.optimise

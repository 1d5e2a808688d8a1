"""Settings that save memory, in the order in which they cost least: first those that change no result."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from inspect import signature
from typing import Any

from medvol.planning.step import Step
from medvol.policies.vlm.policy import VLMPolicy

Change = Callable[[VLMPolicy, Step], tuple[VLMPolicy, Step] | None]


@dataclass(frozen=True)
class Lever:
    """A setting that saves memory.

    Args:
        setting: As YAML or the command line has it.
        costs: What it changes, or what it takes.
        policy: With it.
        step: With it.
    """

    setting: str
    costs: str
    policy: VLMPolicy
    step: Step


def find_levers(policy: VLMPolicy, step: Step) -> Iterator[Lever]:
    """Settings that are not taken yet, each on top of those before it."""
    for setting, costs, change in _LEVERS:
        changed = change(policy, step)
        if changed is not None:
            policy, step = changed
            yield Lever(setting.format(step=step, policy=policy), costs, policy, step)


def _switch(name: str, value: Any, wanted: Callable[[VLMPolicy, Step], bool]) -> Change:
    """A setting of the policy, where it has it."""

    def change(policy: VLMPolicy, step: Step) -> tuple[VLMPolicy, Step] | None:
        if name not in signature(type(policy).__init__).parameters or not wanted(policy, step):
            return None
        return policy.unloaded(**{name: value}), step

    return change


def _size(**sizes: Callable[[Step], Any]) -> Change:
    """Sizes of the step, where that makes one of them another."""

    def change(policy: VLMPolicy, step: Step) -> tuple[VLMPolicy, Step] | None:
        other = replace(step, **{name: size(step) for name, size in sizes.items()})
        return None if other == step else (policy, other)

    return change


def _halve(value: int | None, least: int) -> int | None:
    return value if value is None or value <= least else max(least, value // 2)


def _copies(policy: VLMPolicy, step: Step) -> bool:
    return step.reference and not policy.lora_rank and not policy.offload_reference


def _keep_on_host(policy: VLMPolicy, step: Step) -> tuple[VLMPolicy, Step] | None:
    """Moments of all weights, on one device; several share them out, and those of adapters are small."""
    wanted = step.moments == "device" and step.devices == 1 and not policy.lora_rank
    return (policy, replace(step, moments="host")) if wanted else None


_SAME = "the same result"
_LEVERS: tuple[tuple[str, str, Change], ...] = (
    (
        "model.policy.gradient_checkpointing: true",
        f"{_SAME}; about a third more time",
        _switch("gradient_checkpointing", True, lambda policy, step: not policy.gradient_checkpointing),
    ),
    (
        "model.optimizer.volumes_per_pass: 1",
        f"{_SAME}, one volume at a time",
        _size(volumes_per_pass=lambda step: 1 if step.draws and step.at_once > 1 else step.volumes_per_pass),
    ),
    (
        "model.policy.offload_reference: true",
        f"{_SAME}; the weights travel twice a step",
        _switch("offload_reference", True, _copies),
    ),
    (
        "model.optimizer.moments: host",
        f"{_SAME}; the optimiser's two moments travel twice a step",
        _keep_on_host,
    ),
    (
        "trainer.strategy: fsdp2",
        f"{_SAME}; layers travel between devices",
        _size(sharded=lambda step: step.sharded or step.devices > 1),
    ),
    (
        "model.policy.dtype: bfloat16",
        "computes in bfloat16",
        _switch("dtype", "bfloat16", lambda policy, step: getattr(policy, "dtype", "bfloat16") == "float32"),
    ),
    (
        "model.policy.freeze_vision: true",
        "the vision tower does not learn",
        _switch("freeze_vision", True, lambda policy, step: not policy.freeze_vision and not policy.lora_rank),
    ),
    (
        "model.policy.lora_rank: 64",
        "only adapters learn",
        _switch("lora_rank", 64, lambda policy, step: not policy.lora_rank),
    ),
    (
        "model.policy.quantised: true",
        "frozen layers are rounded to 4 bits",
        _switch("quantised", True, lambda policy, step: not policy.quantised),
    ),
    (
        "data.queries_per_volume: {step.queries}",
        "fewer queries a step",
        _size(queries=lambda step: _halve(step.queries, 1)),
    ),
    (
        "data.batch_size: {step.batch}",
        "a smaller batch",
        _size(batch=lambda step: max(step.devices, step.batch // 2)),
    ),
    (
        "model.evaluation.max_new_tokens: {step.answer_tokens}",
        "longer answers are cut off",
        _size(answer_tokens=lambda step: _halve(step.answer_tokens, 64) if step.draws else step.answer_tokens),
    ),
    (
        "model.policy.template.num_slices: {step.slices}",
        "half of the slices; train again from the cold start",
        _size(slices=lambda step: _halve(step.slices, 8)),
    ),
)

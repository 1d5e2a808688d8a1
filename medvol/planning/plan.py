"""A plan: what a training step of an experiment needs, and what to change when it does not fit."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from medvol.core.errors import ConfigError
from medvol.core.roles import TrainablePolicy
from medvol.planning.arithmetic import Work, count_work
from medvol.planning.levers import find_levers
from medvol.planning.memory import PhaseMemory, divide
from medvol.planning.phases import Trace
from medvol.planning.prompt_tokens import PromptTokens
from medvol.planning.shadow import Device
from medvol.planning.step import Step
from medvol.planning.trace import trace
from medvol.policies.vlm.policy import VLMPolicy

ROOM = 0.9
"""Share of a device's memory that is planned with: the driver, the libraries and gaps between tensors take the rest."""


@dataclass(frozen=True)
class Saving:
    """A setting, and what it saves on top of those before it.

    Args:
        setting: As YAML has it.
        costs: What it changes, or what it takes.
        saved_bytes: Of the peak.
        peak_bytes: With it and all before it.
    """

    setting: str
    costs: str
    saved_bytes: int
    peak_bytes: int


@dataclass(frozen=True)
class Plan:
    """What a training step needs.

    Args:
        step: Sizes of the step.
        device: Where it would run.
        tokens: Of a prompt.
        answer_tokens: Of an answer.
        trained: Number of trained weights.
        work: What a batch takes.
        phases: Memory of every phase.
        host_bytes: Scans of the batch, and of those that are read ahead, in the memory of the host.
        memory_bytes: Of a device; None where it was not said.
        savings: Settings to change, in order.
    """

    step: Step
    device: Device
    tokens: PromptTokens
    answer_tokens: int
    trained: int
    work: Work
    phases: list[PhaseMemory]
    host_bytes: int
    memory_bytes: int | None = None
    savings: list[Saving] = field(default_factory=list)

    @property
    def peak(self) -> PhaseMemory:
        """The phase of most memory."""
        return max(self.phases, key=lambda phase: phase.total)

    @property
    def fits(self) -> bool | None:
        """Whether a step fits; None where the memory was not said."""
        return None if self.memory_bytes is None else self.peak.total <= ROOM * self.memory_bytes

    def to_dict(self) -> dict[str, Any]:
        """Plain values."""
        prompt = {**asdict(self.tokens), "prefix": self.tokens.prefix, "total": self.tokens.total}
        return {
            "method": self.step.method,
            "device": self.device,
            "prompt": prompt,
            "answer_tokens": self.answer_tokens,
            "trained_weights": self.trained,
            "step": {**asdict(self.step), **self.work.to_dict()},
            "memory": {
                "peak_bytes": self.peak.total,
                "peak_phase": self.peak.name,
                "phases": [phase.to_dict() for phase in self.phases],
                "host_bytes": self.host_bytes,
                "available_bytes": self.memory_bytes,
                "fits": self.fits,
            },
            "savings": [asdict(saving) for saving in self.savings],
        }


def require_plannable(policy: TrainablePolicy) -> None:
    """Refuse a policy that cannot be planned.

    Raises:
        ConfigError: It runs no vision-language model.
    """
    if not isinstance(policy, VLMPolicy):
        raise ConfigError(
            f"{type(policy).__name__} cannot be planned; a policy that runs a vision-language model can, such as "
            "QwenVLPolicy or TinyPolicy"
        )


def make_plan(
    policy: TrainablePolicy,
    step: Step,
    device: Device,
    propagator: int = 0,
    memory: int | None = None,
    all_levers: bool = False,
    hear: Callable[[str], None] = lambda setting: None,
) -> Plan:
    """Plan a training step.

    Args:
        policy: Its settings count; what it has loaded stays as it is.
        step: Sizes of the step.
        device: Where it would run.
        propagator: Bytes of the propagator's weights on the device.
        memory: Bytes of a device; settings are tried until a step fits.
        all_levers: Try all settings, whether they are needed or not.
        hear: Called with every setting before it is tried.

    Raises:
        ConfigError: The policy's network cannot be planned, or prompt and drawn answer are longer than it takes.
        CheckpointError: There is no such model.
    """
    require_plannable(policy)
    assert isinstance(policy, VLMPolicy)

    known: list[tuple[Any, Trace]] = []

    def run(own: VLMPolicy, size: Step) -> tuple[Trace, list[PhaseMemory]]:
        traced = (vars(own.unloaded(offload_reference=False)), replace(size, sharded=False))
        found = next((found for other, found in known if other == traced), None)
        if found is None:
            found = trace(own.unloaded(), size, device)
            known.append((traced, found))
        return found, divide(found, size, device, own.offload_reference, propagator)

    found, phases = run(policy, step)
    full = _named(step, found)
    work = count_work(step, found.tokens, found.answer_tokens)
    host = _host_bytes(step)
    plan = Plan(step, device, found.tokens, found.answer_tokens, found.trained, work, phases, host, memory)
    peak = plan.peak.total
    if plan.fits or (memory is None and not all_levers):
        return plan
    for lever in find_levers(policy, full):
        hear(lever.setting)
        _, with_it = run(lever.policy, lever.step)
        total = max(phase.total for phase in with_it)
        if total < peak:
            plan.savings.append(Saving(lever.setting, lever.costs, peak - total, total))
            peak = total
        if not all_levers and memory is not None and peak <= ROOM * memory:
            break
    return plan


def _named(step: Step, found: Trace) -> Step:
    """The step with what it left open, so that it can be halved."""
    return replace(step, slices=found.tokens.slices, answer_tokens=found.answer_tokens)


def _host_bytes(step: Step) -> int:
    """Voxels in float32 and a mask for each query; each worker has two batches ahead."""
    z, y, x = step.scan_shape
    one = z * y * x * (4 + step.queries)
    return one * step.volumes * (1 + 2 * step.workers)

"""Memory of each phase on the device that has most to do, with what several devices share out or keep twice."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from medvol.planning.live_bytes import REST
from medvol.planning.phases import DRAWING, LEARNING, REFERRING, Phase, Trace
from medvol.planning.shadow import Device
from medvol.planning.step import Step

LANGUAGE = "language model"
_GATHERED = 2
"""Layers that FSDP2 has whole at a time: the one that runs, and the next one."""

ORDER = (
    "frozen weights",
    "trained weights",
    "gradients",
    "optimiser",
    "reference",
    "propagator",
    "vision",
    "language model, prompt",
    "language model, answers",
    "key and value cache",
    "scores of the vocabulary",
    "backward pass",
    "optimiser's workspace",
    "weights to write",
    "layers gathered by fsdp2",
    "buckets of ddp",
    REST,
)
"""Parts in the order in which they are shown."""


@dataclass(frozen=True)
class PhaseMemory:
    """What a device has alive at the peak of a phase.

    Args:
        name: Of the phase.
        parts: Bytes by what they are for.
    """

    name: str
    parts: dict[str, int]

    @property
    def total(self) -> int:
        """Bytes."""
        return sum(self.parts.values())

    def to_dict(self) -> dict[str, Any]:
        """Plain values."""
        return {"name": self.name, "total_bytes": self.total, "parts": self.parts}


def divide(trace: Trace, step: Step, device: Device, offloaded: bool, propagator: int) -> list[PhaseMemory]:
    """Memory of every phase.

    Args:
        trace: Of one device with everything whole.
        step: Sizes of the step.
        device: Where it would run.
        offloaded: The reference is kept in the memory of the host while it is not used.
        propagator: Bytes of the propagator's weights on the device.
    """
    return [_divide(phase, trace, step, device, offloaded, propagator) for phase in trace.phases]


def _divide(phase: Phase, trace: Trace, step: Step, device: Device, offloaded: bool, propagator: int) -> PhaseMemory:
    parts = {name: size for name, size in phase.peak.parts.items() if size}
    parts["propagator"] = propagator
    if offloaded and device == "cuda" and phase.name != REFERRING:
        parts.pop("reference", None)
    language = parts.pop(LANGUAGE, 0)
    share = _share_of_prompt(phase, trace, step)
    parts["language model, prompt"] = round(language * share)
    parts["language model, answers"] = language - parts["language model, prompt"]
    if step.devices > 1 and step.sharded:
        _share_out(parts, phase, trace, step.devices)
    elif step.devices > 1:
        parts["buckets of ddp"] = 4 * trace.trained
    return PhaseMemory(phase.name, {name: parts[name] for name in ORDER if parts.get(name)})


def _share_of_prompt(phase: Phase, trace: Trace, step: Step) -> float:
    """Share of a row's tokens that come before the queries."""
    prefix, query = trace.tokens.prefix, trace.tokens.query
    behind = step.queries * query
    if phase.name in (REFERRING, LEARNING):
        behind += step.queries * step.taught * trace.answer_tokens
    return prefix / (prefix + behind)


def _share_out(parts: dict[str, int], phase: Phase, trace: Trace, devices: int) -> None:
    """Take from the layers what lies on other devices; while answers are drawn, their weights are whole."""
    gone = 1 - 1 / devices
    whole = {"gradients": 4 * trace.trained, "optimiser's workspace": 4 * trace.trained}
    for name, size in trace.layers.items():
        if name not in parts or (phase.name == DRAWING and name.endswith("weights")):
            continue
        there = parts[name] * size / whole[name] if whole.get(name) else size
        parts[name] -= round(min(there, size) * gone)
    if phase.name != DRAWING:
        parts["layers gathered by fsdp2"] = _GATHERED * trace.largest_layer

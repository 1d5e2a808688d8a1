"""One training step as far as its size goes: what a device reads, writes and keeps."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Method = Literal["SFT", "GRPO", "rejection sampling"]


@dataclass(frozen=True)
class Step:
    """Sizes of a training step.

    Args:
        method: Learns from true answers, from the rewards of drawn ones, or from the best of those.
        batch: Volumes of a batch, of all devices together.
        queries: Of each volume.
        answers: Of each query: the group that is drawn, 1 in SFT.
        answer_tokens: Of each answer, end token included; of drawn ones the longest that is allowed. None takes the
            length of a usual true answer.
        query: Text of a query.
        scan_shape: (Z, Y, X) of a volume in voxels.
        slices: Shown of a volume; those of the template when None.
        volumes_per_pass: Volumes that go through the network together; all of a device when None.
        reference: A divergence from the policy before training is measured.
        updates: Optimiser steps on a batch.
        accumulation: Batches whose gradients are added up before an optimiser step.
        devices: That share a batch.
        sharded: They share out the layers of the language model (``fsdp2``).
        workers: Processes that read scans ahead.
        moments: Where the optimiser keeps its two values for every trained weight: ``device``, ``host`` or ``8bit``.
    """

    method: Method
    batch: int = 1
    queries: int = 1
    answers: int = 1
    answer_tokens: int | None = None
    query: str = "Segment the left kidney in this scan."
    scan_shape: tuple[int, int, int] = (300, 512, 512)
    slices: int | None = None
    volumes_per_pass: int | None = None
    reference: bool = False
    updates: int = 1
    accumulation: int = 1
    devices: int = 1
    sharded: bool = False
    workers: int = 0
    moments: Literal["device", "host", "8bit"] = "device"

    @property
    def draws(self) -> bool:
        """Whether answers are drawn before the policy learns."""
        return self.method != "SFT"

    @property
    def taught(self) -> int:
        """Answers to each query that the policy learns from: all of a group in GRPO, the best one in other methods."""
        return self.answers if self.method == "GRPO" else 1

    @property
    def volumes(self) -> int:
        """Volumes of a batch on the device that has most of them."""
        return -(-self.batch // self.devices)

    @property
    def at_once(self) -> int:
        """Volumes that go through the network together."""
        return min(self.volumes, self.volumes_per_pass or self.volumes)

    @property
    def passes(self) -> int:
        """Backward passes for an optimiser step."""
        return -(-self.volumes // self.at_once)

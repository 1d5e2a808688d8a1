"""Rows of ``gpu_step.py``: one GRPO step beside TRL's, training beside PrefixGrouper, propagation beside upstream's."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import torch
from grouped_training import GroupedTraining
from grpo_turns import PARTS, Arrangement, OurSteps, ask, make_trainer, train_in_turns
from large_layout import Layout, LayoutPolicy, build_base, make_case, share
from meter import SHARED, CudaMemory, Ledger, Meter, Step, device_clock

from medvol.core.types import Sampling

G = 8
ARRANGEMENTS = (Arrangement(1, False), Arrangement(8, True), Arrangement(2, False))
LAST_RESORT = Arrangement(1, True)


@dataclass
class Bench:
    """What all rows use.

    Args:
        layout: Of the model.
        device: ``cuda`` or ``cpu``.
        folder: Empty.
        steps: Measured steps of each program.
    """

    layout: Layout
    device: str
    folder: Path
    steps: int

    def __post_init__(self) -> None:
        """Build the weights."""
        self.now = device_clock(self.device)
        self.ledger = Ledger(CudaMemory() if self.device == "cuda" else None)
        self.case = make_case(self.layout)
        with self.ledger.turn(SHARED):
            self.base = build_base(self.layout, self.device)

    def meter(self, name: str) -> Meter:
        """A meter on this device."""
        return Meter(name, self.now, self.ledger)

    def policy(self, checkpointing: bool = False) -> LayoutPolicy:
        """A policy with adapters of its own, loaded."""
        policy = LayoutPolicy(self.base, self.layout, checkpointing)
        policy.load_for_training()
        return policy


def ran_out(error: BaseException | None) -> bool:
    """Whether an error comes from too little memory."""
    while error is not None and not isinstance(error, torch.OutOfMemoryError):
        error = error.__cause__ or error.__context__
    return error is not None


def release() -> None:
    """Give back what nothing holds any more."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


@contextmanager
def our_steps(bench: Bench, length: int) -> Iterator[tuple[OurSteps, LayoutPolicy]]:
    """Our trainer after its first step, with checkpointing only if it does not fit without."""
    for checkpointing in (False, True):
        meter = bench.meter("medvol")
        with bench.ledger.turn(meter.name):
            policy = bench.policy(checkpointing)
        accelerator = "gpu" if bench.device == "cuda" else "cpu"
        steps = OurSteps(policy, bench.case, G, length, meter, bench.folder, accelerator)
        try:
            steps.take()
        except Exception as error:
            if checkpointing or not ran_out(error):
                raise
        else:
            try:
                yield steps, policy
            finally:
                steps.finish()
            return
        del steps, policy
        release()


def describe(steps: list[Step]) -> dict[str, Any]:
    """Medians of some steps."""
    peaks = [step.peak for step in steps if step.peak is not None]
    return {
        "seconds": round(median(step.seconds for step in steps), 3),
        **{part: round(median(step.parts.get(part, 0.0) for step in steps), 3) for part in PARTS},
        "peak_gib": round(max(peaks) / 2**30, 2) if peaks else None,
    }


def compare_steps(bench: Bench, length: int, in_time: Callable[[], bool]) -> dict[str, Any]:
    """Our step and TRL's in turns; TRL works through the group in each way that fits."""
    found: dict[str, Any] = {}
    with our_steps(bench, length) as (ours, policy):
        for arrangement in (*ARRANGEMENTS, LAST_RESORT):
            if not in_time() or (found and arrangement == LAST_RESORT):
                break
            first = len(ours.meter.steps)
            try:
                theirs = run_trl(bench, length, policy, arrangement, ours)
            except Exception as error:
                if ours.error is not None or not ran_out(error):
                    raise
                print(f"TRL, {arrangement}: it does not fit", flush=True)
            else:
                mine = ours.meter.steps[first + 1 :]
                pairs = zip(theirs, mine, strict=True)
                found[str(arrangement)] = {
                    "ours": describe(mine),
                    "trl": describe(theirs),
                    "ratio": median(their.seconds / my.seconds for their, my in pairs),
                }
            release()
        if not found:
            raise RuntimeError("TRL fits in no way, or the time was over")
        fastest = min(found, key=lambda name: found[name]["trl"]["seconds"])
        peaks = [found[fastest][who]["peak_gib"] for who in ("ours", "trl")]
        return {
            "fastest": fastest,
            "our_checkpointing": policy.gradient_checkpointing,
            "step_ratio_trl": round(found[fastest]["ratio"], 2),
            "peak_ratio_trl": None if None in peaks else round(peaks[0] / peaks[1], 3),
            "ways": found,
        }


def run_trl(bench: Bench, length: int, policy: LayoutPolicy, arrangement: Arrangement, ours: OurSteps) -> list[Step]:
    """Steps of TRL, each followed by one of ours; the first is not returned."""
    meter = bench.meter(f"trl, {arrangement}")
    count = bench.steps + 1
    with bench.ledger.turn(meter.name):
        model, prompt = share(bench.base), ask(policy, bench.case)
        trainer = make_trainer(policy, model, prompt, G, length, arrangement, count, bench.folder, meter)
    train_in_turns(trainer, meter, ours.take)
    return meter.steps[1:]


def compare_training(bench: Bench, length: int) -> dict[str, Any]:
    """Training of one group, with checkpointing in all programs only if one does not fit without."""
    try:
        return time_training(bench, length, checkpointing=False)
    except Exception as error:
        if not ran_out(error):
            raise
    release()
    return time_training(bench, length, checkpointing=True)


def time_training(bench: Bench, length: int, checkpointing: bool) -> dict[str, Any]:
    """Log-probabilities and backward of one group: ours, PrefixGrouper as in its README, and with our head."""
    policy, other = bench.policy(checkpointing), bench.policy(checkpointing)
    prompt = ask(policy, bench.case)
    grouped = GroupedTraining(other)
    completions = policy.generate([prompt], G, Sampling(1.0, length))[0]
    seen = other.load().see([prompt.slices])
    for trained in (policy, other):
        trained.load().train()  # layers are computed again in training mode only
    ways: dict[str, Callable[[], torch.Tensor]] = {
        "ours": lambda: torch.stack(policy.log_probs([prompt], [completions])[0]),
        "readme": lambda: grouped.log_probs(prompt, completions, seen, lean=False),
        "lean": lambda: grouped.log_probs(prompt, completions, seen, lean=True),
    }
    meters = {name: bench.meter(name) for name in ways}
    for _ in range(bench.steps + 1):
        for name, work in ways.items():
            with meters[name].step():
                with meters[name].part("log-probs"):
                    loss = work().sum()
                with meters[name].part("backward"):
                    loss.backward()
            for parameter in (*policy.trainable_parameters(), *other.trainable_parameters()):
                parameter.grad = None
    times = {name: [step.seconds for step in meter.steps[1:]] for name, meter in meters.items()}
    ratios = {name: median(t / o for t, o in zip(times[name], times["ours"], strict=True)) for name in times}
    return {
        "train_ratio_prefixgrouper": round(ratios["readme"], 2),
        "train_ratio_lean": round(ratios["lean"], 2),
        "checkpointing": checkpointing,
        **{name: describe(meter.steps[1:]) for name, meter in meters.items()},
    }


def compare_propagation(bench: Bench, quick: bool) -> dict[str, Any]:
    """MedSAM2's propagation of a group of anchors, nothing cached, beside upstream's way."""
    from propagation import WINDOW, draw_question, our_logits, upstream_logits, write_weights

    from medvol.propagators.medsam2 import MedSAM2Propagator
    from medvol.propagators.sam2 import SAM2Propagator

    checkpoint, folder, package = write_weights(bench.folder, quick)
    volume, evidences, ranges = draw_question(2 if quick else G, quick)
    shared: dict[str, Any] = {"window": WINDOW, "series": "range", "device": bench.device}
    upstream = SAM2Propagator(str(checkpoint), **shared, **package)

    def build() -> MedSAM2Propagator:
        return MedSAM2Propagator(str(folder), **shared)

    build().propagate(volume, evidences[0], ranges[0])  # both have run once before the clock starts
    expected = upstream_logits(upstream, volume, evidences[0], ranges[0])
    found = our_logits(build(), volume, evidences[0], ranges[0])
    apart = max(float((found[z].cpu() - logits.cpu()).abs().max()) for z, logits in expected.items())
    seconds: dict[str, list[float]] = {"upstream": [], "ours": []}
    for _ in range(bench.steps):
        ours = build()
        assert ours._network
        start = bench.now()
        for evidence, z_range in zip(evidences, ranges, strict=True):
            upstream_logits(upstream, volume, evidence, z_range)
        middle = bench.now()
        ours.propagate_many(volume, evidences, z_ranges=ranges)
        seconds["upstream"].append(middle - start)
        seconds["ours"].append(bench.now() - middle)
    ratio = median(u / o for u, o in zip(seconds["upstream"], seconds["ours"], strict=True))
    medians = {f"{name}_seconds": round(median(taken), 3) for name, taken in seconds.items()}
    return {"propagation_ratio": round(ratio, 2), "max_logit_difference": apart, "anchors": len(evidences), **medians}

"""One GRPO step of a large model on one GPU: ours, TRL's GRPOTrainer, and the training part with PrefixGrouper.

The model is Qwen3-VL-4B's own layout with random weights in bfloat16 and adapters of rank 64. The prompt has 64 slices
of 256 px (4,096 image tokens); a group is 8 answers of 64 or 256 tokens. First the log-probabilities of the same
answers are compared, so that the same work is timed. Then the steps take turns. TRL works through the group in several
ways; the fastest that fits is compared. MedSAM2's propagation of 8 anchors is compared with upstream's.

The last line is one JSON object, printed anew after every row, so a run that is cut off has one, too. What was not
measured is null, and ``reasons`` says why. ``step_ratio_trl`` is TRL's time over ours, ``peak_ratio_trl`` our peak
memory over TRL's, ``train_ratio_prefixgrouper`` PrefixGrouper's time over ours for log-probabilities and backward as
its README writes it (``train_ratio_lean``: with our head). Each is the worse one of both lengths. No new row starts
after ``--minutes``.

    python benchmarks/gpu_step.py [--minutes 9] [--quick]

``--quick`` proves the program on a CPU, with a small model.
"""

from __future__ import annotations

import argparse
import gc
import json
import logging
import os
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

import torch
from agreement import compare_scores
from grouped_training import GroupedTraining
from grpo_turns import PARTS, Arrangement, OurSteps, ask, make_trainer, train_in_turns
from large_layout import QWEN3_VL_4B, SMALL, Layout, LayoutPolicy, build_base, make_case, share
from meter import SHARED, CudaMemory, Ledger, Meter, Step, device_clock
from peers import missing, refuse

from medvol.core.types import Sampling

G = 8
ARRANGEMENTS = (Arrangement(1, False), Arrangement(8, True), Arrangement(2, False))
LAST_RESORT = Arrangement(1, True)
HEADLINES = ("step_ratio_trl", "train_ratio_prefixgrouper", "train_ratio_lean", "peak_ratio_trl", "propagation_ratio")


@dataclass
class Figures:
    """What was measured, and why the rest was not.

    Args:
        minutes: No row starts after them.
    """

    minutes: float
    rows: dict[str, Any] = field(default_factory=dict)
    ratios: dict[str, list[float]] = field(default_factory=dict)
    reasons: dict[str, str] = field(default_factory=dict)
    device: str = "cpu"
    started: float = field(default_factory=time.monotonic)

    def in_time(self) -> bool:
        """Whether another row may start."""
        return time.monotonic() - self.started < 60 * self.minutes

    def keep(self, row: str, found: dict[str, Any]) -> None:
        """Keep a row and its ratios, and print all that is known."""
        self.rows[row] = found
        for name in HEADLINES:
            if found.get(name) is not None:
                self.ratios.setdefault(name, []).append(found[name])
        print(f"{row}: {json.dumps(found)}", flush=True)
        print(self.to_json(), flush=True)

    def measure(self, row: str, headlines: tuple[str, ...], work: Callable[[], dict[str, Any]]) -> None:
        """Do the work of a row when there is time; say why not otherwise."""
        if not self.in_time():
            self.miss(headlines, f"{row}: the {self.minutes:g} minutes were over")
            return
        try:
            self.keep(row, work())
        except Exception as error:
            self.miss(
                headlines, f"{row}: {'it does not fit' if ran_out(error) else f'{type(error).__name__}: {error}'}"
            )
        release()

    def miss(self, headlines: tuple[str, ...], reason: str) -> None:
        """Say why figures are missing."""
        print(reason, flush=True)
        for name in headlines:
            self.reasons[name] = "; ".join(filter(None, (self.reasons.get(name), reason)))

    def to_json(self) -> str:
        """One JSON object; of both lengths the worse ratio."""
        worse = {name: (max if name == "peak_ratio_trl" else min) for name in HEADLINES}
        found = {name: worse[name](self.ratios[name]) if name in self.ratios else None for name in HEADLINES}
        for name in HEADLINES:
            if found[name] is None:
                self.reasons.setdefault(name, "it was not reached")
        reasons = {name: text for name, text in self.reasons.items() if found[name] is None or "minutes" in text}
        return json.dumps({**found, "device": self.device, "reasons": reasons, "rows": self.rows})


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
            del steps, policy
            release()
            continue
        yield steps, policy
        steps.finish()
        return


def describe(steps: list[Step]) -> dict[str, Any]:
    """Medians of some steps."""
    peaks = [step.peak for step in steps if step.peak is not None]
    return {
        "seconds": round(median(step.seconds for step in steps), 3),
        **{part: round(median(step.parts.get(part, 0.0) for step in steps), 3) for part in PARTS},
        "peak_gib": round(max(peaks) / 2**30, 2) if peaks else None,
    }


def compare_steps(bench: Bench, length: int, figures: Figures) -> dict[str, Any]:
    """Our step and TRL's in turns; TRL works through the group in each way that fits."""
    found: dict[str, Any] = {}
    with our_steps(bench, length) as (ours, policy):
        for arrangement in (*ARRANGEMENTS, LAST_RESORT):
            if not figures.in_time() or (found and arrangement == LAST_RESORT):
                break
            first = len(ours.meter.steps)
            try:
                theirs = run_trl(bench, length, policy, arrangement, ours)
            except Exception as error:
                if not ran_out(error):
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
    """Log-probabilities and backward of one group: ours, PrefixGrouper as in its README, and with our head."""
    policy, other = bench.policy(), bench.policy()
    prompt = ask(policy, bench.case)
    grouped = GroupedTraining(other)
    completions = policy.generate([prompt], G, Sampling(1.0, length))[0]
    seen = other.load().see([prompt.slices])
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


def run(figures: Figures, bench: Bench, lengths: tuple[int, ...], quick: bool) -> None:
    """Measure all rows for which there is time, the most wanted first."""
    trl = missing("trl", "datasets", "peft")
    grouper = missing("prefix_grouper", "peft")
    sam2 = missing("sam2")
    train, steps = ("train_ratio_prefixgrouper", "train_ratio_lean"), ("step_ratio_trl", "peak_ratio_trl")
    peers = [name for name, gone in (("trl", trl), ("prefix_grouper", grouper)) if gone is None]
    if bench.ledger.memory is None:
        figures.miss(("peak_ratio_trl",), "memory is counted on a GPU only")
    figures.measure("agreement", (), lambda: compare_scores(bench.policy, bench.base, peers, bench.case, bench.folder))
    said = figures.rows.get("agreement", {})
    for names, gone, peer in ((steps, trl, "trl"), (train, grouper, "prefix_grouper")):
        if gone is None and not said.get(peer, {}).get("agrees"):
            gone = "its log-probabilities of the same answers differ from ours, or could not be compared"
        if gone is not None:
            figures.miss(names, gone)
            continue
        for length in lengths if peer == "trl" else ():
            figures.measure(f"steps of {length} tokens", names, lambda n=length: compare_steps(bench, n, figures))
        for length in lengths if peer == "prefix_grouper" else ():
            figures.measure(f"training of {length} tokens", names, lambda n=length: compare_training(bench, n))
    if sam2 is not None:
        figures.miss(("propagation_ratio",), sam2)
    else:
        figures.measure("propagation", ("propagation_ratio",), lambda: compare_propagation(bench, quick))


def main() -> None:
    """Read the options, measure, and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a small model on the CPU: does the program run?")
    parser.add_argument("--minutes", type=float, default=9.0, help="no row starts after them")
    parser.add_argument("--steps", type=int, default=2, help="measured steps of each program")
    options = parser.parse_args()
    if not options.quick and not torch.cuda.is_available():
        refuse("this machine has no CUDA device; run it on one that has, or with --quick to prove the program here")
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    warnings.simplefilter("ignore")
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    device, layout = ("cpu", SMALL) if options.quick else ("cuda", QWEN3_VL_4B)
    figures = Figures(options.minutes, device=torch.cuda.get_device_name() if device == "cuda" else "cpu")
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(layout, device, Path(folder), options.steps)
        run(figures, bench, (6, 12) if options.quick else (64, 256), options.quick)
    print(figures.to_json())


if __name__ == "__main__":
    main()

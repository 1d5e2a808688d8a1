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
import json
import logging
import os
import tempfile
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch
from agreement import compare_scores
from large_layout import QWEN3_VL_4B, SMALL
from peers import missing, refuse
from step_rows import Bench, compare_propagation, compare_steps, compare_training, ran_out, release

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


def run(figures: Figures, bench: Bench, lengths: tuple[int, ...], quick: bool) -> None:
    """Measure all rows for which there is time, the most wanted first."""
    trl, grouper = missing("trl", "datasets", "peft"), missing("prefix_grouper", "peft")
    peers = [name for name, gone in (("trl", trl), ("prefix_grouper", grouper)) if gone is None]
    if bench.ledger.memory is None:
        figures.miss(("peak_ratio_trl",), "memory is counted on a GPU only")
    figures.measure("agreement", (), lambda: compare_scores(bench.policy, bench.base, peers, bench.case, bench.folder))
    said = figures.rows.get("agreement", {})
    differs = "its log-probabilities of the same answers differ from ours, or could not be compared"
    trl = trl or (None if said.get("trl", {}).get("agrees") else differs)
    grouper = grouper or (None if said.get("prefix_grouper", {}).get("agrees") else differs)
    works: list[tuple[str, str | None, tuple[str, ...], Callable[[], dict[str, Any]]]] = []
    for n in lengths:
        steps, training = partial(compare_steps, bench, n, figures.in_time), partial(compare_training, bench, n)
        works.append((f"steps of {n} tokens", trl, ("step_ratio_trl", "peak_ratio_trl"), steps))
        works.append((f"training of {n} tokens", grouper, ("train_ratio_prefixgrouper", "train_ratio_lean"), training))
    propagation = partial(compare_propagation, bench, quick)
    works.insert(2, ("propagation", missing("sam2"), ("propagation_ratio",), propagation))
    for row, gone, headlines, work in works:
        if gone is None:
            figures.measure(row, headlines, work)
        else:
            figures.miss(headlines, f"{row}: {gone}")


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
    for library in ("lightning.pytorch", "transformers"):
        logging.getLogger(library).setLevel(logging.ERROR)
    device, layout = ("cpu", SMALL) if options.quick else ("cuda", QWEN3_VL_4B)
    figures = Figures(options.minutes, device=torch.cuda.get_device_name() if device == "cuda" else "cpu")
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(layout, device, Path(folder), options.steps)
        run(figures, bench, (6, 12) if options.quick else (64, 256), options.quick)
    print(figures.to_json())


if __name__ == "__main__":
    main()

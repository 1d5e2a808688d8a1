"""The paper's tables in miniature: what GRPO brings on synthetic scans, beside equal compute spent on more SFT.

All rows start from one base, which stands for a pretrained model: a slice encoder that learned what lies where, and a
language model that learned to read answers about single slices off it. What follows is trained with at least three
seeds of data and draws. Choices were made on validation volumes (``--split val``, which keeps nothing); the table is of
test volumes, asked in phrasings heard in training and in held-out ones. Failures count as 0. Budgets are steps, so a
busy machine changes nothing; a run that is stopped goes on, and a cell that lies in ``benchmarks/results/miniature`` is
not trained again.

    python benchmarks/miniature.py                        # all rows and seeds
    python benchmarks/miniature.py --rows sft sft_grpo --seeds 0
    python benchmarks/miniature.py --report               # table, plot and JSON from the cells there are

The last line is one JSON object with the two paired differences. ``--quick`` trains every row for two steps.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
from cells import (
    PHRASINGS,
    RESULTS,
    Cell,
    add_options,
    be_quiet,
    difference,
    evaluate,
    fill,
    make_cell,
    mean_interval,
    show,
    sum_up,
    train,
)

from medvol.core.json_file import write_json
from medvol.core.roles import Policy, RewardTerm, TrainablePolicy
from medvol.datasets.phantom import PhantomDataset
from medvol.datasets.settings import CacheSettings, PhrasingSettings
from medvol.evaluation.settings import EvaluationSettings
from medvol.policies.oracle import OraclePolicy
from medvol.policies.tiny import TinyPolicy
from medvol.policies.tiny_network import TINY_TEMPLATE
from medvol.propagators.region import RegionPropagator
from medvol.rewards.axial import AxialReward
from medvol.rewards.consistency import ConsistencyReward
from medvol.rewards.format import FormatReward
from medvol.rewards.spatial import SpatialReward
from medvol.rewards.volume_dice import VolumeDiceReward
from medvol.training.data import CaseDataModule
from medvol.training.grpo import GRPOModule
from medvol.training.module import TrainingModule
from medvol.training.scratch.module import ScratchModule
from medvol.training.scratch.settings import CurriculumSettings, GazeSettings, OccupancySettings, PerceptionSettings
from medvol.training.settings import (
    AdvantageSettings,
    AnswerSettings,
    GRPOOptimizerSettings,
    LossSettings,
    OptimizerSettings,
    RolloutSettings,
    StartSettings,
)

PLOT = Path(__file__).parents[1] / "docs" / "images" / "miniature.png"

SEE_STEPS, POINT_STEPS, COLD_STEPS, RL_STEPS, MORE_STEPS, LONG_STEPS = 5000, 2500, 400, 100, 100, 300
"""Steps of the base's two stages, of the cold start, of GRPO, of SFT that costs as much as GRPO, and of long rows."""

_LEARNED = 0.2
"""DSC below which a row has learned nothing and would only squeeze the plot."""

TEMPLATE = replace(TINY_TEMPLATE, height_px=144, width_px=144)
"""Slices of 36 tokens; a lesion of a few pixels is lost in the 16 of the tiny policy's own prompt."""


@dataclass(frozen=True)
class Row:
    """One way of training.

    Args:
        title: What the table says.
        start: Row whose weights it goes on from; None starts from random weights.
        make: Builds the module from a policy and a seed; None answers with the true anchor.
        steps: Optimiser steps.
        batch_size: Volumes a step.
        queries: Queries a volume and step.
        sees: Its slice encoder learns too.
        shared: Trained with one seed, as a pretrained model is one for all who start from it; not in the table.
        others: Added to the seed of its volumes.
    """

    title: str
    start: str | None
    make: Callable[[TrainablePolicy, int], TrainingModule] | None
    steps: int
    batch_size: int = 4
    queries: int = 12
    sees: bool = False
    shared: bool = False
    others: int = 0


def see(policy: TrainablePolicy, seed: int) -> TrainingModule:
    """The slice encoder alone, on what lies at every point of a slice and how far it reaches."""
    return ScratchModule(
        policy,
        RegionPropagator(),
        optimizer=OptimizerSettings(learning_rate=1.5e-3),
        perception=PerceptionSettings(steps=SEE_STEPS),
        occupancy=OccupancySettings(classes=13, balance=0.35, extent_weight=0.2),
        seed=seed,
    )


def point(policy: TrainablePolicy, seed: int) -> TrainingModule:
    """Answers about one slice at a time, with the slice encoder as it is."""
    return ScratchModule(
        policy,
        RegionPropagator(),
        optimizer=OptimizerSettings(learning_rate=1.5e-3),
        answers=AnswerSettings(label_rule="largest"),
        reword=0.6,
        curriculum=CurriculumSettings(steps=POINT_STEPS, slices=1, rows=6, queries=8),
        gaze=GazeSettings(weight=0.3),
        seed=seed,
    )


def sft(labels: str, curriculum: int = 0, rate: float = 5e-4) -> Callable[[TrainablePolicy, int], TrainingModule]:
    """SFT on the paper's key slice (upper median of the ten largest) or on the ``largest``."""

    def make(policy: TrainablePolicy, seed: int) -> TrainingModule:
        return ScratchModule(
            policy,
            RegionPropagator(),
            optimizer=OptimizerSettings(learning_rate=rate),
            answers=AnswerSettings(label_rule=labels),
            reword=0.6,
            curriculum=CurriculumSettings(steps=curriculum, rows=4),
            gaze=GazeSettings(weight=0.3),
            evaluation=EvaluationSettings(max_new_tokens=64),
            seed=seed,
        )

    return make


def reinforce(
    policy: TrainablePolicy,
    seed: int,
    rewards: Sequence[RewardTerm],
    weights: Mapping[str, float],
    beta: float,
    rate: float,
    group_size: int = 8,
    **settings: Any,
) -> GRPOModule:
    """GRPO with what all of its rows have in common."""
    return GRPOModule(
        policy,
        RegionPropagator(),
        rewards,
        weights,
        rollouts=RolloutSettings(group_size=group_size),
        loss=LossSettings(beta=beta),
        optimizer=GRPOOptimizerSettings(learning_rate=rate, warmup_steps=10),
        reword=0.6,
        evaluation=EvaluationSettings(max_new_tokens=64),
        seed=seed,
        **settings,
    )


def grpo(
    leave_out: str | None = None, delta: int = 5, whole: bool = False, fast: bool = False, min_parse_rate: float = 0.5
) -> Callable[[TrainablePolicy, int], TrainingModule]:
    """GRPO on the four rewards of the paper, all of one weight, or on three of them.

    Args:
        leave_out: Class of a term that is only logged.
        delta: Slices to either side of the key slice on which masks are compared.
        whole: Compare masks on all slices instead.
        fast: Thrice the rate and half the penalty, which served a weaker cold start better.
        min_parse_rate: See ``StartSettings``.
    """

    def make(policy: TrainablePolicy, seed: int) -> TrainingModule:
        last = VolumeDiceReward() if whole else ConsistencyReward(delta)
        rewards = [FormatReward(), AxialReward(), SpatialReward(coordinate_step=20), last]
        weights = {type(term).__name__: 0.0 if type(term).__name__ == leave_out else 0.25 for term in rewards}
        beta, rate = (0.01, 3e-4) if fast else (0.02, 1e-4)
        start = StartSettings(min_parse_rate=min_parse_rate)
        return reinforce(policy, seed, rewards, weights, beta, rate, start=start)

    return make


def dice(policy: TrainablePolicy, seed: int) -> TrainingModule:
    """GRPO on the whole volume's Dice, free to leave the cold start: no divergence, advantages in units of reward."""
    weights = {"FormatReward": 0.1, "VolumeDiceReward": 0.9}
    rewards = [FormatReward(), VolumeDiceReward()]
    advantages = AdvantageSettings(scale="none")
    return reinforce(policy, seed, rewards, weights, beta=0.0, rate=1e-4, advantages=advantages)


def rl(
    title: str,
    start: str,
    make: Callable[[TrainablePolicy, int], TrainingModule],
    steps: int = RL_STEPS,
    others: int = 0,
) -> Row:
    """A row of GRPO."""
    return Row(title, start, make, steps, batch_size=2, queries=4, others=others)


def more(title: str, start: str, labels: str, steps: int = MORE_STEPS, others: int = 0) -> Row:
    """A row of SFT that costs as much."""
    return Row(title, start, sft(labels), steps, others=others)


ROWS = {
    "see": Row("base, first stage: perception", None, see, SEE_STEPS, 3, 1, sees=True, shared=True),
    "point": Row("base, second stage: single slices", "see", point, POINT_STEPS, 1, 36, shared=True),
    "truth": Row("true anchor", None, None, 0),
    "sft": Row("SFT, the paper's labels (cold start)", "point", sft("paper", 40, 1e-3), COLD_STEPS),
    "sft_grpo": rl("SFT + GRPO", "sft", grpo()),
    "sft_same": more("SFT + as much SFT, same labels", "sft", "paper"),
    "sft_clean": more("SFT + as much SFT, best-slice labels", "sft", "largest"),
    "clean_dice": rl("best-slice SFT + GRPO, Dice of the whole volume", "sft_clean", grpo(whole=True)),
    "clean_more": more("best-slice SFT + as much of it again", "sft_clean", "largest"),
    "fast_grpo": rl("SFT + fast GRPO", "sft", grpo(fast=True)),
    "fast_clean": rl("best-slice SFT + fast GRPO", "sft_clean", grpo(fast=True)),
    "fast_dice": rl("best-slice SFT + fast GRPO, Dice of the whole volume", "sft_clean", grpo(whole=True, fast=True)),
    "no_format": rl("SFT + fast GRPO without format", "sft", grpo("FormatReward", fast=True)),
    "no_axial": rl("SFT + fast GRPO without axial", "sft", grpo("AxialReward", fast=True)),
    "no_spatial": rl("SFT + fast GRPO without spatial", "sft", grpo("SpatialReward", fast=True)),
    "no_consistency": rl("SFT + fast GRPO without consistency", "sft", grpo("ConsistencyReward", fast=True)),
    "delta_2": rl("SFT + fast GRPO, window of 2 slices", "sft", grpo(delta=2, fast=True)),
    "delta_10": rl("SFT + fast GRPO, window of 10 slices", "sft", grpo(delta=10, fast=True)),
    "long_dice": rl("SFT + long GRPO on Dice alone", "sft", dice, LONG_STEPS, others=100),
    "long_same": more("long SFT: SFT + as much SFT as that", "sft", "paper", LONG_STEPS, others=100),
    "longer_dice": rl("long SFT + long GRPO on Dice alone", "long_same", dice, LONG_STEPS, others=100),
    "longer_same": more("longer SFT: long SFT + as much SFT as that", "long_same", "paper", LONG_STEPS, others=100),
    "longest_dice": rl("longer SFT + long GRPO on Dice alone", "longer_same", dice, LONG_STEPS, others=100),
    "longest_same": more("longer SFT + as much SFT as that", "longer_same", "paper", LONG_STEPS, others=100),
    "grpo_alone": rl("fast GRPO without SFT", "point", grpo(fast=True, min_parse_rate=0.0)),
}
"""Rows in the order of their worth; terms and windows are compared with ``fast_grpo``."""


def training_data(row: Row, seed: int, workers: int = 0) -> CaseDataModule:
    """Volumes with a lesion each, never the same twice in a run; a row sees others than the one it starts from."""
    drawn, start = seed + row.others, row.start
    while start:
        drawn, start = drawn + 100, ROWS[start].start
    cases = PhantomDataset(
        "train", num_volumes=row.batch_size * row.steps, seed=drawn, lesion_share=1.0, cache=CacheSettings(scans=8)
    )
    return CaseDataModule(
        train=cases, batch_size=row.batch_size, queries_per_volume=row.queries, num_workers=workers, seed=seed
    )


def model_of(name: str, seed: int, options: argparse.Namespace) -> tuple[Path, float]:
    """Model folder of a row, trained when it is not there, and the processor seconds that it took."""
    row = ROWS[name]
    seed = 0 if row.shared else seed
    folder = options.out / f"{name}-{seed}"
    start = str(model_of(row.start, seed, options)[0]) if row.start else None
    policy = TinyPolicy(model=start, template=TEMPLATE, seed=seed, freeze_vision=not row.sees)
    assert row.make is not None, "the true anchor has no model"
    module = row.make(policy, seed)
    seconds = train(module, training_data(row, seed, options.workers), row.steps, folder, options.quick)
    return folder / "model", seconds


def run_cell(name: str, seed: int, options: argparse.Namespace) -> Cell:
    """Train and evaluate one row with one seed."""
    policy: Policy = OraclePolicy(TEMPLATE.num_slices, TEMPLATE.coordinate_step)
    seconds = 0.0
    if ROWS[name].make is not None:
        model, seconds = model_of(name, seed, options)
        policy = TinyPolicy(model=str(model))
    volumes = 1 if options.quick else 36
    cases = PhantomDataset(
        options.split,
        num_volumes=volumes,
        seed=0 if options.split == "test" else 7,
        questions=PhrasingSettings(phrasing="both"),
    )
    folder = options.out / f"{name}-{seed}" / options.split
    scores = evaluate(policy, RegionPropagator(), cases, folder)
    return make_cell(name, seed, ROWS[name].steps, seconds, scores)


def summarise(cells: dict[str, dict[int, Cell]]) -> dict[str, Any]:
    """What is committed: every row with its intervals, and the paired differences on held-out phrasings."""
    kept = {name: list(cells[name].values()) for name in ROWS if name in cells}
    targets = sorted({target for row in kept.values() for cell in row for own in cell.dsc.values() for target in own})
    rows = {
        name: {
            "title": ROWS[name].title,
            "seeds": [cell.seed for cell in own],
            "steps": ROWS[name].steps,
            "devices": sorted({cell.device for cell in own}),
            **sum_up(own),
            **{phrasing: mean_interval(own, phrasing) for phrasing in PHRASINGS},
            "targets": {
                target: {phrasing: mean_interval(own, phrasing, target)["mean"] for phrasing in PHRASINGS}
                for target in targets
            },
        }
        for name, own in kept.items()
    }
    pairs = {
        "grpo_minus_sft": ("sft", "sft_grpo"),
        "grpo_minus_same_sft": ("sft_same", "sft_grpo"),
        "grpo_minus_clean_sft": ("sft_clean", "sft_grpo"),
        "grpo_minus_clean_start": ("sft_clean", "clean_dice"),
        "grpo_minus_clean_more": ("clean_more", "clean_dice"),
        "grpo_minus_best_sft": ("longest_same", "longest_dice"),
        "long_dice_minus_sft": ("sft", "long_dice"),
        "long_dice_minus_long_same": ("long_same", "long_dice"),
        "long_same_minus_sft": ("sft", "long_same"),
        "longer_dice_minus_long_same": ("long_same", "longer_dice"),
        "longer_same_minus_long_same": ("long_same", "longer_same"),
        "longer_dice_minus_longer_same": ("longer_same", "longer_dice"),
        "longest_dice_minus_longer_same": ("longer_same", "longest_dice"),
        "longest_same_minus_longer_same": ("longer_same", "longest_same"),
        "fast_grpo_minus_sft": ("sft", "fast_grpo"),
        "fast_grpo_minus_grpo": ("sft_grpo", "fast_grpo"),
        **{f"{name}_minus_fast_grpo": ("fast_grpo", name) for name in ROWS if name.startswith(("no_", "delta_"))},
    }
    found = {name: (kept.get(first), kept.get(second)) for name, (first, second) in pairs.items()}
    differences = {
        name: {**difference(first, second, "held_out"), "seen": difference(first, second, "seen")}
        for name, (first, second) in found.items()
        if first and second
    }
    return {"command": "python benchmarks/miniature.py", "test_volumes": 36, "rows": rows, **differences}


def print_table(summary: dict[str, Any]) -> None:
    """The rows as Markdown; lesions by seen and by held-out phrasings."""
    print("| training | seeds | steps | format | key slice | box IoU | lesion | DSC seen | DSC held out |")
    print("|---|---|---|---|---|---|---|---|---|")
    for row in summary["rows"].values():
        means = " | ".join(f"{row['means'][key]:.3f}" for key in ("format_rate", "key_slice", "box_iou"))
        scores = " | ".join(show(row[phrasing]) for phrasing in PHRASINGS)
        lesion = row["targets"].get("kidney lesion", {})
        lesions = " / ".join(f"{lesion[phrasing]:.2f}" for phrasing in PHRASINGS if phrasing in lesion)
        print(f"| {row['title']} | {len(row['seeds'])} | {row['steps']} | {means} | {lesions} | {scores} |")


def plot(summary: dict[str, Any], path: Path) -> None:
    """DSC of every row with its interval, both phrasings; a row that learned nothing is told in words."""
    rows = list(summary["rows"].values())[::-1]
    figure, axes = plt.subplots(figsize=(8, 0.45 * len(rows) + 1.2))
    for offset, phrasing, colour in ((0.12, "seen", "tab:gray"), (-0.12, "held_out", "tab:blue")):
        means = [row[phrasing]["mean"] for row in rows]
        errors = [
            [row[phrasing]["mean"] - row[phrasing]["low"] for row in rows],
            [row[phrasing]["high"] - row[phrasing]["mean"] for row in rows],
        ]
        places = [place + offset for place in range(len(rows))]
        axes.errorbar(means, places, xerr=errors, fmt="o", color=colour, capsize=3, label=phrasing.replace("_", " "))
    low = min(row[phrasing]["low"] for row in rows for phrasing in PHRASINGS if row[phrasing]["mean"] > _LEARNED)
    axes.set_xlim(low - 0.02)
    for place, row in enumerate(rows):
        if row["seen"]["mean"] <= _LEARNED:
            axes.text(low - 0.015, place, f"{row['seen']['mean']:.2f}, {row['held_out']['mean']:.2f}", va="center")
    axes.set_yticks(range(len(rows)), [row["title"] for row in rows])
    axes.set_xlabel("DSC on 36 held-out volumes, 95 % interval by volume")
    axes.legend(loc="lower right")
    axes.grid(axis="x", alpha=0.3)
    figure.savefig(path, dpi=120, bbox_inches="tight", metadata={"Software": None})
    plt.close(figure)


def main() -> None:
    """Train what is missing, then report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_options(parser, [name for name, row in ROWS.items() if not row.shared], Path("runs/miniature"))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    options = parser.parse_args()
    be_quiet()
    if options.quick:
        options.out, options.seeds = options.out / "quick", [0]
    kept = options.out / options.split if options.quick or options.split == "val" else RESULTS / "miniature"
    seeds = {name: options.seeds if ROWS[name].make is not None else [0] for name in options.rows}
    wanted = [] if options.report else [(name, seed) for name in options.rows for seed in seeds[name]]
    summary = summarise(fill(kept, wanted, lambda name, seed: run_cell(name, seed, options)))
    if kept == RESULTS / "miniature":
        write_json(RESULTS / "miniature.json", summary)
        plot(summary, PLOT)
    print_table(summary)
    print(json.dumps({name: summary.get(name) for name in ("grpo_minus_sft", "grpo_minus_best_sft")}))


if __name__ == "__main__":
    main()

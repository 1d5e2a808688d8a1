"""Does GRPO gain where labelled volumes are few and repeat? Synthetic scans, from the bundled base.

A fixed list of 16, 48 or 144 training volumes is seen again and again, each target asked for in 4 phrasings or in all
12. Supervised fine-tuning (SFT) goes on until the DSC on validation volumes stops rising (its plateau), and beyond.
From the plateau three ways go on with about the same processor time: more SFT, GRPO with rewards on the same volumes,
and rejection sampling, which is SFT on the best of the policy's own answers. All are tested on 200 other volumes, in
phrasings that were heard and in 6 held-out ones a target. Choices are made on validation volumes only.

    python benchmarks/finite.py                                        # 16 volumes, 4 phrasings, seeds 0 to 2
    python benchmarks/finite.py --volumes 48 --phrasings 12 --seeds 0
    python benchmarks/finite.py --labels any                           # a cold start that leaves room to explore
    python benchmarks/finite.py --report                               # tables of the cells there are

A run that is stopped goes on, and a cell in ``benchmarks/results/finite`` is not computed again. The last line is one
JSON object. ``--quick`` takes two steps a row, to see that everything runs.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from cells import RESULTS, Patience, add_options, be_quiet, evaluate, train, train_to_plateau
from finite_cells import ROWS, FiniteCell, best_difference, print_tables, read_cells, sort_scores, summarise
from finite_questions import HEARD, Setting, other_cases, training_cases
from miniature import TEMPLATE, reinforce
from peers import refuse

from medvol.core.bundled import BASE
from medvol.core.json_file import write_json
from medvol.core.roles import TrainablePolicy
from medvol.evaluation.settings import EvaluationSettings
from medvol.policies.tiny import TinyPolicy
from medvol.propagators.region import RegionPropagator
from medvol.rewards.format import FormatReward
from medvol.rewards.volume_dice import VolumeDiceReward
from medvol.training.data import CaseDataModule
from medvol.training.module import TrainingModule
from medvol.training.rejection import RejectionModule
from medvol.training.scratch.module import ScratchModule
from medvol.training.scratch.settings import CurriculumSettings, GazeSettings
from medvol.training.settings import (
    AdvantageSettings,
    AnswerSettings,
    GRPOOptimizerSettings,
    OptimizerSettings,
    RolloutSettings,
)

CELLS = RESULTS / "finite"

PATIENCE = Patience(most_steps=400, every=40, checks=5)
"""Of the cold start.

Three checks were tried: at a high rate the validation DSC went 0.57, 0.67, 0.60 from step 80 on, which is no plateau.
"""

RL_STEPS, MORE_STEPS, REJECT_STEPS = 150, 260, 230
"""Steps from the plateau, which take about the same processor time; the cells say how much they took."""


GENTLE, CHOSEN = (
    Patience(most_steps=MORE_STEPS, every=20, checks=MORE_STEPS),
    Patience(most_steps=RL_STEPS, every=15, checks=RL_STEPS),
)
"""Of SFT at GRPO's rate, and of GRPO, whose best model by validation is kept; neither ends early.

At a higher rate more SFT loses what the plateau had, so a lower one has to be among what GRPO is compared with.
"""

VAL_VOLUMES, TEST_VOLUMES = 12, 200
ANSWERS = EvaluationSettings(max_new_tokens=64, surface=None, lesions="none", masks_gib=0)
WEIGHTS = {"FormatReward": 0.1, "VolumeDiceReward": 0.9}


def supervise(
    policy: TrainablePolicy, setting: Setting, seed: int, cold: bool = False, rate: float = 5e-4
) -> TrainingModule:
    """SFT as in the miniature."""
    explore = setting.labels == "any"
    return ScratchModule(
        policy,
        RegionPropagator(),
        optimizer=OptimizerSettings(learning_rate=rate),
        answers=AnswerSettings(label_rule="any" if explore else "paper", jitter=0.1 if explore else 0.0),
        reword=0.6,
        curriculum=CurriculumSettings(steps=40 if cold else 0, rows=4),
        gaze=GazeSettings(weight=0.3),
        evaluation=ANSWERS,
        seed=seed,
    )


def grpo(policy: TrainablePolicy, seed: int, group_size: int) -> TrainingModule:
    """GRPO on the Dice of the whole volume, as the miniature's long rows."""
    rewards = [FormatReward(), VolumeDiceReward()]
    advantages = AdvantageSettings(scale="none")
    return reinforce(policy, seed, rewards, WEIGHTS, 0.0, 2e-4, group_size, advantages=advantages)


def reject(policy: TrainablePolicy, seed: int) -> TrainingModule:
    """SFT on the best of 8 answers of the policy itself."""
    return RejectionModule(
        policy,
        RegionPropagator(),
        [FormatReward(), VolumeDiceReward()],
        WEIGHTS,
        rollouts=RolloutSettings(group_size=8),
        optimizer=GRPOOptimizerSettings(learning_rate=2e-4, warmup_steps=10),
        evaluation=ANSWERS,
        least_reward=0.15,
        reword=0.6,
        seed=seed,
    )


def cold_start(setting: Setting, seed: int, options: argparse.Namespace) -> dict[str, Any]:
    """Train to the plateau and beyond; ``plateau`` and ``model`` in the folder are the two models.

    Returns:
        Processor seconds, the curve, and the steps of both models.
    """
    policy = TinyPolicy(model=BASE, template=TEMPLATE, seed=seed, freeze_vision=True)
    val = other_cases("val", setting, seed, 1 if options.quick else VAL_VOLUMES)
    data = CaseDataModule(
        training_cases(setting, seed), val, batch_size=2, queries_per_volume=12, num_workers=options.workers, seed=seed
    )
    module = supervise(policy, setting, seed, True, 1e-3)
    return train_to_plateau(module, data, PATIENCE, options.out / f"{setting.name}-cold-{seed}", options.quick)


def go_on(row: str, setting: Setting, seed: int, options: argparse.Namespace) -> tuple[Path, int, float]:
    """Train a row from the plateau; its model, its steps, and the processor seconds that it took."""
    start = options.out / f"{setting.name}-cold-{seed}" / "plateau"
    policy = TinyPolicy(model=str(start), seed=seed, freeze_vision=True)
    if row in ("more_sft", "gentle_sft"):
        rate = 5e-4 if row == "more_sft" else 2e-4
        module, steps, batch, queries = supervise(policy, setting, seed, rate=rate), MORE_STEPS, 2, 12
    elif row == "rejection":
        module, steps, batch, queries = reject(policy, seed), REJECT_STEPS, 2, 4
    else:
        size = 8 if row in ("grpo", "grpo_best") else int(row.removeprefix("grpo_"))
        module, steps, batch, queries = grpo(policy, seed, size), RL_STEPS * 8 // size, 2, 4
    data = CaseDataModule(
        training_cases(setting, seed),
        other_cases("val", setting, seed, 1 if options.quick else VAL_VOLUMES),
        batch_size=batch,
        queries_per_volume=queries,
        num_workers=options.workers,
        seed=seed + 1,
    )
    folder = options.out / f"{setting.name}-{row}-{seed}"
    if row in ("gentle_sft", "grpo_best"):
        patience = GENTLE if row == "gentle_sft" else CHOSEN
        found = train_to_plateau(module, data, patience, folder, options.quick)
        return folder / "plateau", found["steps"][0], found["cpu_s"]
    seconds = train(module, data, steps, folder, options.quick)
    return folder / "model", steps, seconds


def run_cell(row: str, setting: Setting, seed: int, options: argparse.Namespace) -> FiniteCell:
    """Train what is missing, and test it."""
    cold = cold_start(setting, seed, options)
    home = options.out / f"{setting.name}-cold-{seed}"
    curve: Sequence[Sequence[float]] = []
    if row in ("plateau", "beyond"):
        place = ("plateau", "beyond").index(row)
        model, steps = home / ("plateau", "model")[place], cold["steps"][place]
        seconds, curve = cold["cpu_s"], cold["curve"]
    else:
        model, steps, seconds = go_on(row, setting, seed, options)
    volumes = 2 if options.quick else VAL_VOLUMES if options.split == "val" else TEST_VOLUMES
    cases = other_cases(options.split, setting, seed, volumes)
    folder = options.out / f"{setting.name}-{row}-{seed}" / options.split
    scores = evaluate(TinyPolicy(model=str(model)), RegionPropagator(), cases, folder, ANSWERS)
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu"
    means = {
        "format_rate": round(float(np.mean([score.parsed for score in scores])), 4),
        "key_slice": round(float(np.mean([score.key_slice_score for score in scores])), 4),
        "box_iou": round(float(np.mean([score.box_iou for score in scores])), 4),
    }
    return FiniteCell(setting.name, row, seed, steps, round(seconds, 1), curve, means, sort_scores(scores), device)


def main() -> None:
    """Compute what is missing, then report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_options(parser, list(ROWS), Path("runs/finite"))
    parser.set_defaults(rows=["plateau", "grpo", "more_sft", "gentle_sft", "rejection", "beyond"])
    parser.add_argument("--volumes", type=int, choices=[16, 48, 144], default=16)
    parser.add_argument("--phrasings", type=int, choices=[4, HEARD], default=4)
    parser.add_argument("--labels", choices=["paper", "any"], default="paper")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    options = parser.parse_args()
    be_quiet()
    if options.quick:
        options.out, options.seeds = options.out / "quick", options.seeds[:1]
    kept = options.out / options.split if options.quick or options.split == "val" else CELLS
    setting = Setting(options.volumes, options.phrasings, options.labels)
    for seed, row in [] if options.report else [(seed, row) for seed in options.seeds for row in options.rows]:
        path = kept / f"{setting.name}-{row}-{seed}.json"
        if not path.exists():
            write_json(path, asdict(run_cell(row, setting, seed, options)))
            print(f"{path.stem} is done", file=sys.stderr)
    cells = read_cells(kept)
    if not cells:
        refuse(f"there is no cell in {kept}; run without --report first")
    summary = summarise(cells)
    if kept == CELLS:
        write_json(RESULTS / "finite.json", {**summary, "grpo_minus_best_sft": best_difference(summary)})
    print_tables(summary)
    print(json.dumps({"grpo_minus_best_sft": best_difference(summary)}))


if __name__ == "__main__":
    main()

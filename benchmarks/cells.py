"""A cell of a table: one way of training with one seed, trained once, evaluated once, and kept.

Training goes on from its last checkpoint after a stop. What a cell scored is a small file under ``benchmarks/results``,
so that tables and intervals can be worked out again without training, on another machine and at another time.
"""

from __future__ import annotations

import argparse
import json
import logging
import sys
import time
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.callbacks import EarlyStopping, WeightAveraging
from numpy.typing import NDArray
from peers import refuse

from medvol.core.json_file import write_json
from medvol.core.roles import CaseDataset, Policy, Propagator
from medvol.evaluation.archive import read_evaluation
from medvol.evaluation.case_score import CaseScore
from medvol.evaluation.module import EvaluationModule
from medvol.evaluation.settings import EvaluationSettings
from medvol.evaluation.statistics import bootstrap_interval
from medvol.training.checkpoint import SpecCheckpoint, load_policy, read_checkpoint
from medvol.training.data import CaseDataModule
from medvol.training.export import export_model
from medvol.training.grpo import GRPOModule
from medvol.training.module import TrainingModule

RESULTS = Path(__file__).parent / "results"
PHRASINGS = ("seen", "held_out")


@dataclass(frozen=True)
class Cell:
    """What one cell scored.

    Args:
        row: Name of the way of training.
        seed: Of weights, data and draws; for folds, which of them.
        steps: Optimiser steps of its own, those of its start not counted.
        cpu_s: Processor seconds of its own training, those of a GPU not counted.
        means: Mean format rate, key-slice score and box IoU over all cases.
        dsc: By patient, then by target, then by phrasing; a failed answer is 0.
        device: What the network ran on.
    """

    row: str
    seed: int
    steps: int
    cpu_s: float
    means: Mapping[str, float]
    dsc: Mapping[str, Mapping[str, Mapping[str, float]]]
    device: str = "cpu"


class Clock(Callback):
    """Counts the processor seconds of training, also of a run that was stopped and went on."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self._last = 0.0

    def on_train_batch_start(self, *args: Any) -> None:
        """Start counting."""
        self._last = time.process_time()

    def on_train_batch_end(self, *args: Any) -> None:
        """Add a step."""
        self.seconds += time.process_time() - self._last

    def state_dict(self) -> dict[str, float]:
        """Kept in checkpoints."""
        return {"seconds": self.seconds}

    def load_state_dict(self, state: dict[str, float]) -> None:
        """Go on counting."""
        self.seconds = state["seconds"]


class Curve(Callback):
    """Keeps the validation DSC by step, also of a run that was stopped and went on."""

    def __init__(self) -> None:
        self.points: list[list[float]] = []

    def on_validation_end(self, trainer: Any, pl_module: Any) -> None:
        """Add a point."""
        if not trainer.sanity_checking:
            self.points.append([trainer.global_step, round(float(trainer.callback_metrics["val/dsc"]), 4)])

    def state_dict(self) -> dict[str, Any]:
        """Kept in checkpoints."""
        return {"points": self.points}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from there."""
        self.points = state["points"]


@dataclass(frozen=True)
class Patience:
    """When a training has reached its plateau.

    Args:
        most_steps: Optimiser steps after which it ends in any case.
        every: Steps between two validations.
        checks: Validations without a gain in DSC after which it ends.
    """

    most_steps: int
    every: int
    checks: int


def be_quiet() -> None:
    """One thread, and no remarks of the libraries."""
    torch.set_num_threads(1)
    warnings.filterwarnings("ignore")
    for name in ("lightning.pytorch", "lightning.pytorch.utilities.rank_zero"):
        logging.getLogger(name).setLevel(logging.ERROR)


def add_options(parser: argparse.ArgumentParser, rows: Sequence[str], out: Path) -> None:
    """Options that both programs have."""
    parser.add_argument("--rows", nargs="+", choices=rows, default=list(rows))
    parser.add_argument("--split", choices=["test", "val"], default="test")
    parser.add_argument("--out", type=Path, default=out)
    parser.add_argument("--workers", type=int, default=0, help="processes that prepare volumes; 0: the main one")
    parser.add_argument("--report", action="store_true", help="compute nothing")
    parser.add_argument("--quick", action="store_true", help="two steps a row, once, to see that everything runs")


def fill(
    folder: Path, wanted: Iterable[tuple[str, int]], run: Callable[[str, int], Cell]
) -> dict[str, dict[int, Cell]]:
    """Compute the cells (row, seed) that a folder lacks, and read all that it then holds."""
    done = read_cells(folder)
    for row, seed in wanted:
        if seed not in done.get(row, {}):
            write_cell(run(row, seed), folder)
            print(f"{row}-{seed} is done", file=sys.stderr)
    cells = read_cells(folder)
    if not cells:
        refuse(f"there is no cell in {folder}; run without --report first")
    return cells


def make_trainer(folder: Path, **settings: Any) -> Trainer:
    """A silent trainer on the CUDA device there is, or on the CPU."""
    return Trainer(
        default_root_dir=folder,
        accelerator="cuda" if torch.cuda.is_available() else "cpu",
        devices=1,
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        **settings,
    )


def start_anyway(module: TrainingModule) -> None:
    """Let GRPO start from a policy that a few steps of SFT have taught no grammar."""
    if isinstance(module, GRPOModule):
        module.start = replace(module.start, min_parse_rate=0.0)


def train(
    module: TrainingModule, data: CaseDataModule, steps: int, folder: Path, quick: bool, averaged: bool = False
) -> float:
    """Train for so many steps, or go on where an earlier run was stopped; the model lies in ``folder/model``.

    Args:
        module: Trained.
        data: What it learns from.
        steps: Optimiser steps.
        folder: Of this run alone.
        quick: Take two steps.
        averaged: The model is the mean of the weights after each step.

    Returns:
        Processor seconds.
    """
    done = folder / "training.json"
    if done.exists() and (folder / "model").is_dir():
        return float(json.loads(done.read_text())["cpu_s"])
    if quick:
        start_anyway(module)
    clock, keeper = Clock(), SpecCheckpoint(every_n_train_steps=20)
    keeper.dirpath = str(folder / "checkpoints")
    trainer = make_trainer(
        folder,
        max_steps=2 if quick else steps,
        max_epochs=-1,
        gradient_clip_val=1.0 if module.automatic_optimization else None,
        limit_val_batches=0,
        callbacks=[clock, keeper, *([WeightAveraging(use_buffers=False)] if averaged else [])],
    )
    last = folder / "checkpoints" / "last.ckpt"
    trainer.fit(module, data, ckpt_path=last if last.exists() else None)
    write_json(done, {"cpu_s": round(clock.seconds, 1), "steps": steps})
    return clock.seconds


def train_to_plateau(
    module: TrainingModule, data: CaseDataModule, patience: Patience, folder: Path, quick: bool
) -> dict[str, Any]:
    """Train until validation stops rising, or go on where an earlier run was stopped.

    The best model by validation DSC lies in ``folder/plateau``, the last one in ``folder/model``.

    Args:
        module: Trained.
        data: What it learns from, and what it is validated on.
        patience: When it ends.
        folder: Of this run alone.
        quick: Take four steps.

    Returns:
        Processor seconds, the curve of validation, and the steps of both models.
    """
    done = folder / "plateau.json"
    if done.exists():
        kept: dict[str, Any] = json.loads(done.read_text())
        return kept
    if quick:
        start_anyway(module)
    clock, curve, keeper = Clock(), Curve(), SpecCheckpoint(every_n_train_steps=20)
    keeper.dirpath = str(folder / "checkpoints")
    trainer = make_trainer(
        folder,
        max_steps=4 if quick else patience.most_steps,
        max_epochs=-1,
        gradient_clip_val=1.0 if module.automatic_optimization else None,
        num_sanity_val_steps=0,
        val_check_interval=2 if quick else patience.every,
        check_val_every_n_epoch=None,
        callbacks=[clock, curve, EarlyStopping("val/dsc", mode="max", patience=patience.checks), keeper],
    )
    last, best = (folder / "checkpoints" / f"{name}.ckpt" for name in ("last", "best"))
    trainer.fit(module, data, ckpt_path=last if last.exists() else None)
    chosen = load_policy(best)
    export_model(chosen, folder / "plateau", chosen.training_data)
    steps = [int(read_checkpoint(best)["global_step"]), trainer.global_step]
    found = {"cpu_s": round(clock.seconds, 1), "curve": curve.points, "steps": steps}
    write_json(done, found)
    return found


def evaluate(
    policy: Policy,
    propagator: Propagator,
    cases: CaseDataset,
    folder: Path,
    settings: EvaluationSettings = EvaluationSettings(max_new_tokens=64),
) -> Sequence[CaseScore]:
    """Answer every case greedily and score it, or read what an earlier run scored."""
    if not (folder / "evaluation.json").exists():
        trainer = make_trainer(folder, enable_checkpointing=False)
        module = EvaluationModule(policy, propagator, settings)
        trainer.test(module, CaseDataModule(test=cases), verbose=False)
    return read_evaluation(folder).scores


def phrasing_of(score: CaseScore) -> str:
    """One of ``PHRASINGS``."""
    return PHRASINGS[score.held_out]


def make_cell(
    row: str,
    seed: int,
    steps: int,
    cpu_s: float,
    scores: Sequence[CaseScore],
    phrasing_of: Callable[[CaseScore], str] = phrasing_of,
) -> Cell:
    """Sum an evaluation up; several cases of one patient, target and phrasing are averaged."""
    dsc = average((score.patient_id, score.target, phrasing_of(score), score.dsc) for score in scores)
    means = {
        "format_rate": float(np.mean([score.parsed for score in scores])),
        "key_slice": float(np.mean([score.key_slice_score for score in scores])),
        "box_iou": float(np.mean([score.box_iou for score in scores])),
    }
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu"
    kept = {name: round(value, 4) for name, value in means.items()}
    return Cell(row, seed, steps, round(cpu_s, 1), kept, dsc, device)


def average(scores: Iterable[tuple[str, str, str, float]]) -> dict[str, dict[str, dict[str, float]]]:
    """Mean DSC by patient, target and phrasing, from those three and the DSC of every case."""
    found: dict[str, dict[str, dict[str, list[float]]]] = {}
    for patient, target, phrasing, dsc in scores:
        found.setdefault(patient, {}).setdefault(target, {}).setdefault(phrasing, []).append(dsc)
    return {
        patient: {
            target: {phrasing: round(float(np.mean(values)), 4) for phrasing, values in phrasings.items()}
            for target, phrasings in targets.items()
        }
        for patient, targets in found.items()
    }


def write_cell(cell: Cell, folder: Path) -> None:
    """Keep a cell."""
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / f"{cell.row}-{cell.seed}.json", asdict(cell))


def read_cells(folder: Path) -> dict[str, dict[int, Cell]]:
    """All cells that were kept, by row and seed."""
    cells: dict[str, dict[int, Cell]] = {}
    for path in sorted(folder.glob("*-*.json")):
        cell = Cell(**json.loads(path.read_text(encoding="utf-8")))
        cells.setdefault(cell.row, {})[cell.seed] = cell
    return cells


def table(cell: Cell, phrasing: str, target: str | None = None) -> dict[tuple[str, str], float]:
    """DSC of one phrasing by patient and target, of one target or of all."""
    return {
        (patient, name): phrasings[phrasing]
        for patient, targets in cell.dsc.items()
        for name, phrasings in targets.items()
        if phrasing in phrasings and target in (None, name)
    }


def mean_interval(cells: Sequence[Cell], phrasing: str, target: str | None = None) -> dict[str, float | None]:
    """Mean over patients, targets and seeds, with the interval by patient."""
    return _interval([table(cell, phrasing, target) for cell in cells], (0.0, 1.0))


def difference(first: Sequence[Cell], second: Sequence[Cell], phrasing: str) -> dict[str, Any]:
    """``second - first`` in DSC points over the same patients, targets and seeds, with the interval by patient."""
    befores, afters = {cell.seed: cell for cell in first}, {cell.seed: cell for cell in second}
    seeds = sorted(befores.keys() & afters.keys())
    pairs = [(table(befores[seed], phrasing), table(afters[seed], phrasing)) for seed in seeds]
    gains = [{key: 100 * (after[key] - before[key]) for key in before} for before, after in pairs]
    return {
        **_interval(gains, (-100.0, 100.0)),
        "by_seed": [round(float(np.mean(list(gain.values()))), 2) for gain in gains],
    }


def differences(
    kept: Mapping[str, Sequence[Cell]], pairs: Mapping[str, tuple[str, str]], phrasing: str
) -> dict[str, dict[str, Any]]:
    """``difference`` of each named pair of rows that have a seed in common."""
    seeds = {name: {cell.seed for cell in cells} for name, cells in kept.items()}
    return {
        name: difference(kept[first], kept[second], phrasing)
        for name, (first, second) in pairs.items()
        if seeds.get(first, set()) & seeds.get(second, set())
    }


def sum_up(cells: Sequence[Cell]) -> dict[str, Any]:
    """Mean cost and mean scores of the cells of a row."""
    means = {key: round(sum(cell.means[key] for cell in cells) / len(cells), 4) for key in cells[0].means}
    return {"cpu_s": round(sum(cell.cpu_s for cell in cells) / len(cells)), "means": means}


def show(interval: Mapping[str, float | None]) -> str:
    """A mean with its interval; of one patient there is none."""
    mean, low, high = (interval[key] for key in ("mean", "low", "high"))
    return f"{mean:.3f}" if low is None else f"{mean:.3f} [{low:.3f}, {high:.3f}]"


def _interval(
    tables: Sequence[Mapping[tuple[str, str], float]], limits: tuple[float, float]
) -> dict[str, float | None]:
    keys = [key for values in tables for key in values]
    values: NDArray[np.float64] = np.array([value for values in tables for value in values.values()])
    interval = bootstrap_interval(values, [patient for patient, _ in keys], limits=limits)
    return {
        name: None if value is None else round(value, 4)
        for name, value in (("mean", interval.mean), ("low", interval.low), ("high", interval.high))
    }

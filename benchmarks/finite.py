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
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from cells import RESULTS, Clock, add_options, be_quiet, evaluate, make_trainer, train
from crossed import crossed_interval
from lightning.pytorch import Callback
from lightning.pytorch.callbacks import EarlyStopping
from miniature import TEMPLATE, reinforce
from peers import refuse

from medvol.core.bundled import BASE
from medvol.core.json_file import write_json
from medvol.core.roles import CaseDataset, TrainablePolicy
from medvol.core.types import Case
from medvol.datasets.phantom import PhantomDataset
from medvol.datasets.settings import CacheSettings, PhrasingSettings
from medvol.evaluation.case_score import CaseScore
from medvol.evaluation.settings import EvaluationSettings
from medvol.policies.tiny import TinyPolicy
from medvol.propagators.region import RegionPropagator
from medvol.rewards.format import FormatReward
from medvol.rewards.volume_dice import VolumeDiceReward
from medvol.training.checkpoint import SpecCheckpoint, load_policy, read_checkpoint
from medvol.training.data import CaseDataModule
from medvol.training.export import export_model
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
BANK = Path(__file__).with_name("finite_queries.yaml")
HEARD = 12
"""Training phrasings of every target."""

COLD_STEPS, CHECK_EVERY, PATIENCE = 400, 40, 3
"""Most steps of the cold start, steps between validations, and validations without a gain after which it ends."""

RL_STEPS, MORE_STEPS, REJECT_STEPS = 150, 260, 230
"""Steps from the plateau, which take about the same processor time; the cells say how much they took."""

SEEDED = 3000
"""Added to the seed of training volumes; the base has seen others."""

VAL_VOLUMES, TEST_VOLUMES = 12, 200
ANSWERS = EvaluationSettings(max_new_tokens=64, surface=None, lesions="none", masks_gib=0)
WEIGHTS = {"FormatReward": 0.1, "VolumeDiceReward": 0.9}
PHRASINGS = ("seen", "held_out")

Scores = Mapping[str, Mapping[str, Mapping[str, Mapping[str, float]]]]
"""DSC by ``PHRASINGS``, target, phrasing and number of the volume; a failed answer is 0."""


@dataclass(frozen=True)
class Setting:
    """What is trained on.

    Args:
        volumes: Training volumes, which repeat.
        phrasings: Training phrasings of each target, drawn with the seed.
        labels: ``paper``, or ``any``: the label's slice is drawn among the visible ones, and its boxes are jittered.
    """

    volumes: int
    phrasings: int
    labels: str

    @property
    def name(self) -> str:
        """In names of files."""
        return f"{self.volumes}x{self.phrasings}" + ("" if self.labels == "paper" else f"-{self.labels}")


@dataclass(frozen=True)
class FiniteCell:
    """What one row scored with one seed.

    Args:
        setting: Name of the setting.
        row: Name of the row.
        seed: Of volumes, phrasings and draws.
        steps: Optimiser steps of its own.
        cpu_s: Processor seconds of its own training.
        curve: Validation DSC by optimiser step; of the cold start only.
        means: Mean format rate, key-slice score and box IoU.
        dsc: Every test score.
        device: What the network ran on.
    """

    setting: str
    row: str
    seed: int
    steps: int
    cpu_s: float
    curve: Sequence[Sequence[float]]
    means: Mapping[str, float]
    dsc: Scores
    device: str = "cpu"


class Asked(CaseDataset):
    """Some questions about synthetic volumes, of which every target is asked in given phrasings.

    Args:
        cases: All questions about all volumes.
        chosen: Tells of a volume's number, a target and its phrasings which of these are asked.
    """

    drawn = True

    def __init__(
        self, cases: PhantomDataset, chosen: Callable[[int, str, Sequence[tuple[bool, str]]], set[str]]
    ) -> None:
        self.cases = cases
        groups: dict[tuple[str, str], list[int]] = {}
        for index in range(len(cases)):
            groups.setdefault((cases.volume_key(index), cases.target(index)), []).append(index)
        numbers = {key: number for number, key in enumerate(dict.fromkeys(key for key, _ in groups))}
        self.places = []
        for (key, target), places in groups.items():
            texts = sorted((cases.query(place).held_out, cases.query(place).text) for place in places)
            wanted = chosen(numbers[key], target, texts)
            self.places += [place for place in places if cases.query(place).text in wanted]

    def __len__(self) -> int:
        return len(self.places)

    def __getitem__(self, index: int) -> Case:
        return self.cases[self.places[index]]

    def volume_key(self, index: int) -> str:
        """Of the volume."""
        return self.cases.volume_key(self.places[index])

    def patient_id(self, index: int) -> str:
        """Every volume is a patient."""
        return self.volume_key(index)


def heard_texts(target: str, texts: Sequence[tuple[bool, str]], setting: Setting, seed: int) -> list[str]:
    """Training phrasings of a target that are used with this seed."""
    known = [text for held_out, text in texts if not held_out]
    rng = np.random.default_rng([seed, *target.encode()])
    return [known[i] for i in sorted(rng.permutation(len(known))[: setting.phrasings])]


def ask_all(split: str, volumes: int, seed: int, phrasing: str, lesions: float) -> PhantomDataset:
    """Every question about every volume, in all phrasings."""
    return PhantomDataset(
        split,  # type: ignore[arg-type]
        volumes,
        seed=seed,
        lesion_share=lesions,
        questions=PhrasingSettings(phrasing=phrasing, phrasings_per_target=99, query_bank=str(BANK)),  # type: ignore[arg-type]
        cache=CacheSettings(scans=min(volumes, 144)),
    )


def training_cases(setting: Setting, seed: int) -> Asked:
    """The volumes that repeat, each target in all phrasings of the setting."""
    cases = ask_all("train", setting.volumes, SEEDED + seed, "train", 1.0)
    return Asked(cases, lambda number, target, texts: set(heard_texts(target, texts, setting, seed)))


def other_cases(split: str, setting: Setting, seed: int, volumes: int) -> Asked:
    """Half of the targets of a volume in a heard phrasing and the others in a held-out one, by turns."""

    def choose(number: int, target: str, texts: Sequence[tuple[bool, str]]) -> set[str]:
        held_out = (number + len(target)) % 2 == 1
        own = [text for held, text in texts if held] if held_out else heard_texts(target, texts, setting, seed)
        return {own[number // 2 % len(own)]}

    return Asked(ask_all(split, volumes, 7 if split == "val" else 0, "both", 0.6), choose)


def supervise(policy: TrainablePolicy, setting: Setting, seed: int, cold: bool) -> TrainingModule:
    """SFT as in the miniature."""
    explore = setting.labels == "any"
    rate, share = (1e-3, 0.1) if cold else (5e-4, 0.02)
    return ScratchModule(
        policy,
        RegionPropagator(),
        optimizer=OptimizerSettings(learning_rate=rate, final_share=share),
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


ROWS = {
    "plateau": "SFT to its plateau",
    "beyond": "SFT beyond it",
    "more_sft": "plateau + more SFT",
    "grpo": "plateau + GRPO",
    "rejection": "plateau + rejection sampling",
    "grpo_16": "plateau + GRPO, groups of 16",
    "grpo_32": "plateau + GRPO, groups of 32",
}


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


def cold_start(setting: Setting, seed: int, options: argparse.Namespace) -> dict[str, Any]:
    """Train to the plateau and beyond; ``plateau`` and ``model`` in the folder are the two models.

    Returns:
        Processor seconds, the curve, and the steps of both models.
    """
    folder = options.out / f"{setting.name}-cold-{seed}"
    done = folder / "cold.json"
    if done.exists():
        found: dict[str, Any] = json.loads(done.read_text())
        return found
    policy = TinyPolicy(model=BASE, template=TEMPLATE, seed=seed, freeze_vision=True)
    val = other_cases("val", setting, seed, 1 if options.quick else VAL_VOLUMES)
    data = CaseDataModule(
        training_cases(setting, seed), val, batch_size=2, queries_per_volume=12, num_workers=options.workers, seed=seed
    )
    clock, curve, keeper = Clock(), Curve(), SpecCheckpoint(every_n_train_steps=20)
    keeper.dirpath = str(folder / "checkpoints")
    every = 2 if options.quick else CHECK_EVERY
    trainer = make_trainer(
        folder,
        max_steps=4 if options.quick else COLD_STEPS,
        max_epochs=-1,
        gradient_clip_val=1.0,
        num_sanity_val_steps=0,
        val_check_interval=every,
        check_val_every_n_epoch=None,
        callbacks=[clock, curve, EarlyStopping("val/dsc", mode="max", patience=PATIENCE), keeper],
    )
    last, best = (folder / "checkpoints" / f"{name}.ckpt" for name in ("last", "best"))
    trainer.fit(supervise(policy, setting, seed, True), data, ckpt_path=last if last.exists() else None)
    chosen = load_policy(best)
    export_model(chosen, folder / "plateau", chosen.training_data)
    steps = int(read_checkpoint(best)["global_step"])
    found = {"cpu_s": round(clock.seconds, 1), "curve": curve.points, "steps": [steps, trainer.global_step]}
    write_json(done, found)
    return found


def go_on(row: str, setting: Setting, seed: int, options: argparse.Namespace) -> tuple[Path, int, float]:
    """Train a row from the plateau; its model, its steps, and the processor seconds that it took."""
    start = options.out / f"{setting.name}-cold-{seed}" / "plateau"
    policy = TinyPolicy(model=str(start), seed=seed, freeze_vision=True)
    if row == "more_sft":
        module, steps, batch, queries = supervise(policy, setting, seed, False), MORE_STEPS, 2, 12
    elif row == "rejection":
        module, steps, batch, queries = reject(policy, seed), REJECT_STEPS, 2, 4
    else:
        size = int(row.partition("_")[2] or 8)
        module, steps, batch, queries = grpo(policy, seed, size), RL_STEPS * 8 // size, 2, 4
    data = CaseDataModule(
        training_cases(setting, seed),
        batch_size=batch,
        queries_per_volume=queries,
        num_workers=options.workers,
        seed=seed + 1,
    )
    folder = options.out / f"{setting.name}-{row}-{seed}"
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


def sort_scores(scores: Sequence[CaseScore]) -> Scores:
    """The DSC of every question."""
    found: dict[str, dict[str, dict[str, dict[str, float]]]] = {}
    for score in scores:
        targets = found.setdefault(PHRASINGS[score.held_out], {})
        own = targets.setdefault(score.target, {}).setdefault(score.query, {})
        own[str(int(score.patient_id.rpartition("-")[2]))] = round(score.dsc, 4)
    return found


def read_cells(folder: Path) -> dict[str, dict[str, dict[int, FiniteCell]]]:
    """All cells that were kept, by setting, row and seed."""
    cells: dict[str, dict[str, dict[int, FiniteCell]]] = {}
    for path in sorted(folder.glob("*.json")):
        cell = FiniteCell(**json.loads(path.read_text(encoding="utf-8")))
        cells.setdefault(cell.setting, {}).setdefault(cell.row, {})[cell.seed] = cell
    return cells


def list_scores(cell: FiniteCell, phrasing: str) -> Iterator[tuple[tuple[str, str, str], float]]:
    """Volume, target and phrasing of every question, with its DSC."""
    for target, texts in cell.dsc.get(phrasing, {}).items():
        for text, volumes in texts.items():
            for volume, value in volumes.items():
                yield (volume, target, text), value


def mean_of(cells: Mapping[int, FiniteCell], phrasing: str) -> dict[str, float | None]:
    """Mean DSC with its interval over volumes, phrasings and seeds."""
    rows = [(seed, key, value) for seed, cell in cells.items() for key, value in list_scores(cell, phrasing)]
    return _interval(rows)


def difference(
    first: Mapping[int, FiniteCell], second: Mapping[int, FiniteCell], phrasing: str | None = None
) -> dict[str, Any]:
    """``second - first`` in points over the seeds of both; over all questions when no phrasing is named."""
    rows: list[tuple[int, tuple[str, str, str], float]] = []
    seeds = sorted(first.keys() & second.keys())
    for seed in seeds:
        for name in (phrasing,) if phrasing else PHRASINGS:
            before, after = (dict(list_scores(cells[seed], name)) for cells in (first, second))
            rows += [(seed, key, 100 * (after[key] - before[key])) for key in before]
    by_seed = [round(float(np.mean([gain for own, _, gain in rows if own == seed])), 2) for seed in seeds]
    return {**_interval(rows), "by_seed": by_seed}


def _interval(rows: Sequence[tuple[int, tuple[str, str, str], float]]) -> dict[str, float | None]:
    """Over volumes, phrasings and seeds; without the seeds where there is one, which the table then says."""
    kinds: list[Sequence[Any]] = [[key[0] for _, key, _ in rows], [key[1:] for _, key, _ in rows]]
    seeds = [seed for seed, _, _ in rows]
    if len(set(seeds)) > 1:
        kinds.append(seeds)
    found = crossed_interval([value for _, _, value in rows], *kinds)
    return {
        name: None if value is None else round(value, 4)
        for name, value in zip(("mean", "low", "high"), found, strict=True)
    }


def summarise(cells: Mapping[str, Mapping[str, Mapping[int, FiniteCell]]]) -> dict[str, Any]:
    """What is committed: every row of every setting, and GRPO against the best SFT and against rejection sampling."""
    return {
        "command": "python benchmarks/finite.py",
        "settings": {name: _setting(rows) for name, rows in cells.items()},
    }


def _setting(rows: Mapping[str, Mapping[int, FiniteCell]]) -> dict[str, Any]:
    found: dict[str, Any] = {"rows": {}}
    for row in (row for row in ROWS if row in rows):
        own = rows[row]
        found["rows"][row] = {
            "title": ROWS[row],
            "seeds": sorted(own),
            "steps": [own[seed].steps for seed in sorted(own)],
            "cpu_s": [round(own[seed].cpu_s) for seed in sorted(own)],
            "means": {key: round(float(np.mean([c.means[key] for c in own.values()])), 4) for key in _MEANS},
            **{phrasing: mean_of(own, phrasing) for phrasing in PHRASINGS},
        }
    if "grpo" in rows and "plateau" in rows:
        found["grpo_minus_plateau"] = _compare(rows["plateau"], rows["grpo"])
    for name in ("more_sft", "rejection"):
        if "grpo" in rows and name in rows:
            found[f"grpo_minus_{name}"] = _compare(rows[name], rows["grpo"])
    return found


_MEANS = ("format_rate", "key_slice", "box_iou")


def _compare(first: Mapping[int, FiniteCell], second: Mapping[int, FiniteCell]) -> dict[str, Any]:
    return {**difference(first, second), **{name: difference(first, second, name) for name in PHRASINGS}}


def best_difference(summary: Mapping[str, Any]) -> dict[str, Any] | None:
    """GRPO against the best SFT: in every setting the better of plateau and more SFT; of all settings the largest."""
    found = []
    for name, setting in summary["settings"].items():
        pairs = [setting[key] for key in ("grpo_minus_plateau", "grpo_minus_more_sft") if key in setting]
        if len(pairs) == 2:
            least = min(pairs, key=lambda pair: pair["mean"])
            found.append({**{key: least[key] for key in ("mean", "low", "high", "by_seed")}, "setting": name})
    return max(found, key=lambda row: row["mean"], default=None)


def show(interval: Mapping[str, float | None], digits: int = 3) -> str:
    """A mean with its interval."""
    mean, low, high = (interval[key] for key in ("mean", "low", "high"))
    return f"{mean:.{digits}f}" + ("" if low is None else f" [{low:.{digits}f}, {high:.{digits}f}]")


def print_tables(summary: Mapping[str, Any]) -> None:
    """Every setting as Markdown."""
    for name, setting in summary["settings"].items():
        print(
            f"\n{name}\n\n| training | seeds | steps | cpu s | format | key slice | box IoU | DSC seen | DSC held out |"
        )
        print("|---|---|---|---|---|---|---|---|---|")
        for row in setting["rows"].values():
            lists = [", ".join(map(str, row[key])) for key in ("seeds", "steps", "cpu_s")]
            means = [f"{row['means'][key]:.3f}" for key in _MEANS]
            print(f"| {' | '.join([row['title'], *lists, *means, *(show(row[key]) for key in PHRASINGS)])} |")
        for key, value in setting.items():
            if "_minus_" in key:
                parts = {"all": value, **{name: value[name] for name in PHRASINGS}}
                print(f"{key}: " + "; ".join(f"{part} {show(own, 1)} {own['by_seed']}" for part, own in parts.items()))


def main() -> None:
    """Compute what is missing, then report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_options(parser, list(ROWS), Path("runs/finite"))
    parser.set_defaults(rows=["plateau", "beyond", "more_sft", "grpo", "rejection"])
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

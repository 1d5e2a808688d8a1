"""Several anchors an answer against one, on synthetic scans with two to four nodules at different heights.

    python benchmarks/several_anchors.py --seeds 0 1 2   # all rows; about an hour on one core
    python benchmarks/several_anchors.py --report          # the table again, from the committed cells

No slice shows two nodules well, so one anchor answers for one of them: the rows from true anchors say what that costs
and what up to four true anchors reach. The rows ``sft_*`` go on from ``bundled:best``, which never saw a nodule, with a
short SFT: one anchor an answer, or up to four. The rows ``base_*`` start from a base that is trained once: from
``bundled:best`` it learns to see nodules, and to box them on single slices, where one anchor and several are the same.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from cells import (
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
from medvol.core.prompts import PromptTemplate
from medvol.core.roles import CaseDataset, Policy
from medvol.core.types import Case
from medvol.datasets.phantom import NODULE_TARGET, PhantomDataset
from medvol.datasets.phantom_anatomy import LABEL_NAMES
from medvol.datasets.settings import CacheSettings, PhrasingSettings
from medvol.evaluation.settings import EvaluationSettings
from medvol.policies.oracle import OraclePolicy
from medvol.policies.tiny import TinyPolicy
from medvol.propagators.region import RegionPropagator
from medvol.training.data import CaseDataModule
from medvol.training.scratch.module import ScratchModule
from medvol.training.scratch.settings import CurriculumSettings, GazeSettings, OccupancySettings
from medvol.training.settings import AnswerSettings, OptimizerSettings

START = "bundled:best"
STEPS, BASE_STEPS, FROM_BASE_STEPS = 120, 300, 450
"""Of SFT from ``bundled:best``, of the base, and of SFT from the base."""
BASE_SEED = 500
"""Of the volumes that the base sees."""
BATCH, QUERIES = 2, 2
VOLUMES = 16
TOKENS = 192
"""Room for an answer of four anchors; their second to fourth opening bracket is written letter by letter."""


@dataclass(frozen=True)
class Row:
    """A row of the table.

    Args:
        title: What it is.
        max_anchors: Most anchors in an answer.
        steps: Steps of SFT; 0 for true anchors and for the model as it comes.
        true: Answers are true anchors.
        base: Starts from the base; from ``bundled:best`` otherwise.
    """

    title: str
    max_anchors: int
    steps: int = 0
    true: bool = False
    base: bool = False


ROWS = {
    "true_one": Row("one true anchor", 1, true=True),
    "true_four": Row("up to four true anchors", 4, true=True),
    "start": Row("bundled:best as it comes", 1),
    "sft_one": Row("bundled:best + SFT, one anchor", 1, STEPS),
    "sft_four": Row("bundled:best + SFT, up to four anchors", 4, STEPS),
    "base_one": Row("base + SFT, one anchor", 1, FROM_BASE_STEPS, base=True),
    "base_four": Row("base + SFT, up to four anchors", 4, FROM_BASE_STEPS, base=True),
}


class Nodules(CaseDataset):
    """The questions about nodules alone.

    Args:
        phantoms: Asked for everything.
    """

    drawn = True

    def __init__(self, phantoms: PhantomDataset) -> None:
        self.phantoms = phantoms
        targets = [phantoms.target(index) for index in range(len(phantoms))]
        self.places = [index for index, target in enumerate(targets) if target == NODULE_TARGET]

    def __len__(self) -> int:
        return len(self.places)

    def __getitem__(self, index: int) -> Case:
        return self.phantoms[self.places[index]]

    def volume_key(self, index: int) -> str:
        """Identity of the volume of a case."""
        return self.phantoms.volume_key(self.places[index])

    def patient_id(self, index: int) -> str:
        """Patient of a case."""
        return self.phantoms.patient_id(self.places[index])


def draw(split: Any, volumes: int, seed: int, **questions: Any) -> Nodules:
    """Volumes with nodules and no other lesion."""
    return Nodules(
        PhantomDataset(
            split,
            volumes,
            seed,
            lesion_share=0.0,
            nodule_share=1.0,
            questions=PhrasingSettings(**questions),
            cache=CacheSettings(scans=4),
        )
    )


def template_of(row: Row) -> PromptTemplate:
    """The model's own, with the row's number of anchors."""
    return replace(TinyPolicy(model=START).template, max_anchors=row.max_anchors)


def base_of(options: argparse.Namespace) -> Path:
    """Model folder of the base, trained when it is not there."""
    module = ScratchModule(
        TinyPolicy(model=START),
        RegionPropagator(),
        answers=AnswerSettings(label_rule="largest"),
        optimizer=OptimizerSettings(learning_rate=1e-3, warmup_steps=20),
        curriculum=CurriculumSettings(steps=BASE_STEPS, slices=1, queries=8),
        occupancy=OccupancySettings(weight=1.0, classes=len(LABEL_NAMES), balance=0.35, extent_weight=0.2),
        gaze=GazeSettings(weight=0.3),
        reword=0.6,
    )
    cases = draw("train", BATCH * BASE_STEPS, BASE_SEED, phrasings_per_target=QUERIES)
    data = CaseDataModule(train=cases, batch_size=BATCH, queries_per_volume=QUERIES, num_workers=options.workers)
    train(module, data, BASE_STEPS, options.out / "base", options.quick)
    return options.out / "base" / "model"


def answerer(name: str, seed: int, options: argparse.Namespace) -> tuple[Policy, float]:
    """Who answers in a row, trained when it is not there, and the processor seconds that it took."""
    row = ROWS[name]
    template = template_of(row)
    if row.true:
        return OraclePolicy(template.num_slices, template.coordinate_step, row.max_anchors), 0.0
    start = str(base_of(options)) if row.base else START
    policy = TinyPolicy(model=start, template=template, freeze_vision=row.base)
    if not row.steps:
        return policy, 0.0
    module = ScratchModule(
        policy,
        RegionPropagator(),
        answers=AnswerSettings(label_rule="largest"),
        optimizer=OptimizerSettings(learning_rate=1e-3, warmup_steps=15),
        gaze=GazeSettings(weight=0.3),
        reword=0.6,
        seed=seed,
    )
    cases = draw("train", BATCH * row.steps, 100 + seed, phrasings_per_target=QUERIES)
    data = CaseDataModule(
        train=cases, batch_size=BATCH, queries_per_volume=QUERIES, num_workers=options.workers, seed=seed
    )
    folder = options.out / f"{name}-{seed}"
    seconds = train(module, data, row.steps, folder, options.quick)
    return TinyPolicy(model=str(folder / "model")), seconds


def run_cell(name: str, seed: int, options: argparse.Namespace) -> Cell:
    """Train and evaluate one row with one seed."""
    policy, seconds = answerer(name, seed, options)
    volumes = 2 if options.quick else VOLUMES
    cases = draw(options.split, volumes, 0 if options.split == "test" else 7, phrasing="both")
    folder = options.out / f"{name}-{seed}" / options.split
    scores = evaluate(policy, RegionPropagator(), cases, folder, EvaluationSettings(max_new_tokens=TOKENS))
    return make_cell(name, seed, ROWS[name].steps, seconds, scores)


def summarise(cells: dict[str, dict[int, Cell]]) -> dict[str, Any]:
    """What is committed: every row with its intervals, and the paired differences."""
    kept = {name: list(cells[name].values()) for name in ROWS if name in cells}
    rows = {
        name: {
            "title": ROWS[name].title,
            "max_anchors": ROWS[name].max_anchors,
            "seeds": [cell.seed for cell in own],
            "steps": ROWS[name].steps,
            **sum_up(own),
            "seen": mean_interval(own, "seen"),
            "held_out": mean_interval(own, "held_out"),
        }
        for name, own in kept.items()
    }
    pairs = {f"{kind}_four_minus_one": (f"{kind}_one", f"{kind}_four") for kind in ("true", "sft", "base")}
    differences = {
        name: {"seen": difference(*own, "seen"), "held_out": difference(*own, "held_out")}
        for name, own in ((name, _both(kept, *pair)) for name, pair in pairs.items())
        if own
    }
    command = "python benchmarks/several_anchors.py"
    return {"command": command, "start": START, "test_volumes": VOLUMES, "rows": rows, **differences}


def _both(kept: dict[str, list[Cell]], first: str, second: str) -> Sequence[list[Cell]]:
    return (kept[first], kept[second]) if first in kept and second in kept else ()


def print_table(summary: dict[str, Any]) -> None:
    """The rows as Markdown."""
    print("| answers | seeds | steps | format | key slice | box IoU | DSC seen | DSC held out |")
    print("|---|---|---|---|---|---|---|---|")
    for row in summary["rows"].values():
        means = " | ".join(f"{row['means'][key]:.3f}" for key in ("format_rate", "key_slice", "box_iou"))
        scores = f"{show(row['seen'])} | {show(row['held_out'])}"
        print(f"| {row['title']} | {len(row['seeds'])} | {row['steps']} | {means} | {scores} |")
    for name in ("true_four_minus_one", "sft_four_minus_one", "base_four_minus_one"):
        if name in summary:
            print(f"{name}, DSC points: " + "; ".join(f"{key} {show(own)}" for key, own in summary[name].items()))


def main() -> None:
    """Train what is missing, then report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_options(parser, list(ROWS), Path("runs/several_anchors"))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    options = parser.parse_args()
    be_quiet()
    if options.quick:
        options.out, options.seeds = options.out / "quick", [0]
    kept = options.out / options.split if options.quick or options.split == "val" else RESULTS / "several_anchors"
    seeds = {name: options.seeds if ROWS[name].steps else [0] for name in options.rows}
    wanted = [] if options.report else [(name, seed) for name in options.rows for seed in seeds[name]]
    summary = summarise(fill(kept, wanted, lambda name, seed: run_cell(name, seed, options)))
    if kept == RESULTS / "several_anchors":
        write_json(RESULTS / "several_anchors.json", summary)
    print_table(summary)


if __name__ == "__main__":
    main()

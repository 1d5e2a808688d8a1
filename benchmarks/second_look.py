"""A second look at synthetic scans: what it could bring, what training brings, and what it costs.

All rows start from ``bundled:best``. Bounds need no training: the second answer is then the true anchor, written in the
region around a first answer, and it is followed through the whole scan or through the region alone. Trained rows learn
from whole scans and views of them (``SecondLookDataset``), or from whole scans alone for as many steps. Each model
answers with one look and with two. Choices were made on validation volumes (``--split val``); failures count as 0.

    python benchmarks/second_look.py                          # all rows and seeds
    python benchmarks/second_look.py --rows one two bound_scan
    python benchmarks/second_look.py --cost                   # seconds and tokens of one look and of two
    python benchmarks/second_look.py --report                 # table and JSON from the cells there are

A run that is stopped goes on, and a cell that lies in ``benchmarks/results/second_look`` is not computed again. The
last line is one JSON object with the paired differences. ``--quick`` trains every row for two steps.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from cells import (
    PHRASINGS,
    RESULTS,
    Cell,
    add_options,
    average,
    be_quiet,
    differences,
    evaluate,
    fill,
    make_cell,
    mean_interval,
    show,
    sum_up,
    train,
)
from numpy.typing import NDArray

from medvol.core.bundled import BEST
from medvol.core.json_file import write_json
from medvol.core.looks import Region
from medvol.core.metrics import dice
from medvol.core.roles import CaseDataset, Policy
from medvol.core.types import Case, Evidence
from medvol.datasets.phantom import PhantomDataset
from medvol.datasets.second_look import SecondLookDataset
from medvol.datasets.settings import CacheSettings, PhrasingSettings
from medvol.evaluation.settings import EvaluationSettings
from medvol.grounding.anchors import KeySliceRule, label_anchor
from medvol.grounding.grammar import format_evidence, parse_evidence
from medvol.grounding.prompts import build_prompt
from medvol.grounding.regions import RegionSettings, move_out, region_around
from medvol.imaging.crops import crop_volume
from medvol.policies.second_look import SecondLookPolicy
from medvol.policies.tiny import TinyPolicy
from medvol.propagators.region import RegionPropagator
from medvol.rollouts.groups import ask
from medvol.training.data import CaseDataModule
from medvol.training.scratch.module import ScratchModule
from medvol.training.scratch.settings import GazeSettings, OccupancySettings
from medvol.training.settings import AnswerSettings, OptimizerSettings
from medvol.training.volume_loader import group_by_volume

REGION = RegionSettings(margin_mm=30.0, range_mm=30.0)
STEPS, BATCH, QUERIES, VIEWS, COMPANIONS = 300, 4, 12, 0.34, 5
STEP = 20
"""Coordinates of the tiny policy are multiples of this."""

LESION = "kidney lesion"


@dataclass(frozen=True)
class Row:
    """One way to answer.

    Args:
        title: What the table says.
        looks: One or two.
        model: Which trained model answers; None is ``bundled:best``.
        bound: The second answer is the true anchor, followed through the ``scan`` or the ``region``.
        first: First answer of a bound: the ``policy``'s, or the ``truth``.
    """

    title: str
    looks: int = 1
    model: str | None = None
    bound: str = ""
    first: str = "policy"


@dataclass(frozen=True)
class Lesson:
    """How a model is trained.

    Args:
        views: It learns from views too, and not from whole scans alone.
        start: Model that it goes on from; None is ``bundled:best``.
    """

    views: bool
    start: str | None = None


LESSONS = {
    "views": Lesson(True),
    "more_views": Lesson(True, "views"),
    "same": Lesson(False),
    "more_same": Lesson(False, "same"),
}

ROWS = {
    "one": Row("bundled:best, one look"),
    "two": Row("bundled:best, two looks, untrained", 2),
    "truth": Row("true anchor, one look", bound="none", first="truth"),
    "bound_scan": Row("first look of bundled:best, then the true anchor, followed in the scan", bound="scan"),
    "bound_region": Row("the same, followed in the region", bound="region"),
    "true_scan": Row("region of the true anchor, then the true anchor, followed in the scan", 2, None, "scan", "truth"),
    "true_region": Row("the same, followed in the region", 2, None, "region", "truth"),
    **{
        f"{name}_{word}": Row(f"{title}, {word} look{'s'[: looks > 1]}", looks, name)
        for name, title in (
            ("same", "SFT on whole scans"),
            ("views", "SFT on whole scans and views"),
            ("more_same", "as much SFT on whole scans again"),
            ("more_views", "as much SFT on both again"),
        )
        for looks, word in ((1, "one"), (2, "two"))
        if looks == 1 or LESSONS[name].views
    },
}


def model_of(name: str | None, seed: int, options: argparse.Namespace) -> tuple[str, float, int]:
    """Model of a row, trained when it is not there, with the processor seconds and steps of all its stages."""
    if name is None:
        return BEST, 0.0, 0
    lesson, folder = LESSONS[name], options.out / f"{name}-{seed}"
    start, seconds, steps = model_of(lesson.start, seed, options)
    module = ScratchModule(
        TinyPolicy(model=start),
        RegionPropagator(),
        optimizer=OptimizerSettings(learning_rate=5e-4),
        answers=AnswerSettings(label_rule="paper"),
        reword=0.6,
        gaze=GazeSettings(weight=0.3),
        occupancy=OccupancySettings(weight=1.0, classes=13, balance=0.35, extent_weight=0.2),
        evaluation=EvaluationSettings(max_new_tokens=64),
        seed=seed,
    )
    first = 2000 + 100 * seed + 50 * (lesson.start is not None)
    whole = PhantomDataset(
        "train", num_volumes=BATCH * STEPS, seed=first, lesion_share=1.0, cache=CacheSettings(scans=8)
    )
    cases: CaseDataset = whole
    if lesson.views:
        cases = SecondLookDataset(whole, views=VIEWS, companions=COMPANIONS, region=REGION, seed=seed)
    data = CaseDataModule(
        train=cases, batch_size=BATCH, queries_per_volume=QUERIES, num_workers=options.workers, seed=seed
    )
    return str(folder / "model"), seconds + train(module, data, STEPS, folder, options.quick), steps + STEPS


def test_cases(options: argparse.Namespace) -> PhantomDataset:
    """The volumes of ``miniature.py``, so that the tables can be compared."""
    return PhantomDataset(
        options.split,
        num_volumes=1 if options.quick else 36,
        seed=0 if options.split == "test" else 7,
        questions=PhrasingSettings(phrasing="both"),
    )


def run_cell(name: str, seed: int, options: argparse.Namespace) -> Cell:
    """Answer and score all cases by one row."""
    row = ROWS[name]
    if row.bound:
        return bound_cell(name, options)
    model, seconds, steps = model_of(row.model, seed, options)
    policy: Policy = TinyPolicy(model=model)
    if row.looks == 2:
        policy = SecondLookPolicy(policy, REGION)
    scores = evaluate(policy, RegionPropagator(), test_cases(options), options.out / f"{name}-{seed}" / options.split)
    return make_cell(name, seed, steps, seconds, scores)


def bound_cell(name: str, options: argparse.Namespace) -> Cell:
    """Score true anchors as a row writes and follows them."""
    row = ROWS[name]
    return score_masks(
        name, 0, first_answers(test_cases(options), row), lambda case, first: bound_mask(case, first, row)
    )


def score_masks(
    name: str,
    seed: int,
    asked: Iterable[tuple[Case, Evidence | None]],
    make: Callable[[Case, Evidence | None], NDArray[np.bool_]],
) -> Cell:
    """A cell of the masks that are made from first answers."""
    start = time.process_time()
    dsc = average(
        (case.patient_id, case.query.target, PHRASINGS[case.query.held_out], dice(make(case, first), require(case)))
        for case, first in asked
    )
    return Cell(name, seed, 0, round(time.process_time() - start, 1), {}, dsc)


def first_answers(cases: PhantomDataset, row: Row) -> Iterator[tuple[Case, Evidence | None]]:
    """Every case with its first answer."""
    policy = TinyPolicy(model=BEST)
    for indices in group_by_volume(cases):
        asked = [cases[i] for i in indices]
        if row.first == "truth":
            yield from ((case, rounded(label_anchor(require(case)), case.volume.shape)) for case in asked)
        else:
            yield from ((group.case, group.answer.evidence) for group in ask(policy, asked))


def bound_mask(case: Case, first: Evidence | None, row: Row) -> NDArray[np.bool_]:
    """Mask of the true anchor, written in the region around a first answer; empty where that misses the target."""
    volume, empty = case.volume, np.zeros(case.volume.shape, bool)
    if row.bound == "none":
        return empty if first is None or first.absent else RegionPropagator().propagate(volume, first)
    second = true_second(case, first)
    if second is None:
        return empty
    region, true = second
    if row.bound == "scan":
        return RegionPropagator().propagate(volume, move_out(true, region))
    rows, columns = region.plane
    empty[:, rows, columns] = RegionPropagator().propagate(crop_volume(volume, region), true)
    return empty


def true_second(case: Case, first: Evidence | None, rule: KeySliceRule = "paper") -> tuple[Region, Evidence] | None:
    """Region around a first answer, and the true anchor in it; None without a second look, or with no target in it."""
    if first is None or first.absent:
        return None
    region = region_around(first, case.volume.shape, case.volume.spacing, REGION)
    rows, columns = region.plane
    inside = np.ascontiguousarray(require(case)[:, rows, columns])
    true = label_anchor(inside, range(*region.z), rule)
    return None if true.absent else (region, rounded(true, inside.shape))


def rounded(anchor: Evidence, shape: tuple[int, int, int]) -> Evidence:
    """An anchor as the policy can write it."""
    return parse_evidence(format_evidence(anchor, shape[1], shape[2], STEP), shape)


def require(case: Case) -> NDArray[np.bool_]:
    """The true mask, which every phantom has."""
    assert case.target is not None
    return case.target


def measure_cost(options: argparse.Namespace) -> dict[str, Any]:
    """Processor seconds a question with one look and with two, and tokens of the prompts of both looks."""
    cases = PhantomDataset("test", num_volumes=1 if options.quick else 4, questions=PhrasingSettings(phrasing="both"))
    inner, tokens, seconds = TinyPolicy(model=BEST), {"first": list[int](), "second": list[int]()}, dict[str, float]()
    inner.load()
    for name, policy in (("one", inner), ("two", SecondLookPolicy(inner, REGION))):
        start = time.process_time()
        groups = [ask(policy, [cases[i] for i in indices]) for indices in group_by_volume(cases)]
        seconds[name] = (time.process_time() - start) / len(cases)
    for group in (group for groups_of_volume in groups for group in groups_of_volume):
        tokens["first"].append(inner.measure_prompt(group.prompt).tokens)
        for look in group.answer.completion.looks[1:]:
            crop = crop_volume(group.case.volume, look.region)
            tokens["second"].append(inner.measure_prompt(build_prompt(crop, group.prompt.query, inner.template)).tokens)
    return {
        "questions": len(cases),
        "questions_a_scan": round(len(cases) / len(group_by_volume(cases)), 1),
        "cpu_s_a_question": {name: round(value, 3) for name, value in seconds.items()},
        "prompt_tokens": {name: round(float(np.mean(counts))) for name, counts in tokens.items()},
    }


def summarise(cells: Mapping[str, Mapping[int, Cell]]) -> dict[str, Any]:
    """What is committed: every row with its intervals, and the paired differences on held-out phrasings."""
    kept = {name: list(cells[name].values()) for name in ROWS if name in cells}
    rows = {
        name: {
            "title": ROWS[name].title,
            "looks": ROWS[name].looks,
            "seeds": [cell.seed for cell in own],
            "steps": own[0].steps,
            **sum_up(own),
            **{phrasing: mean_interval(own, phrasing) for phrasing in PHRASINGS},
            LESION: {phrasing: mean_interval(own, phrasing, LESION) for phrasing in PHRASINGS},
        }
        for name, own in kept.items()
    }
    pairs = {
        "two_minus_one": ("views_one", "views_two"),
        "two_minus_same": ("same_one", "views_two"),
        "more_two_minus_one": ("more_views_one", "more_views_two"),
        "more_two_minus_more_same": ("more_same_one", "more_views_two"),
        "bound_minus_one": ("one", "bound_scan"),
    }
    return {
        "command": "python benchmarks/second_look.py",
        "test_volumes": 36,
        "rows": rows,
        **differences(kept, pairs, "held_out"),
    }


def print_table(summary: Mapping[str, Any]) -> None:
    """The rows as Markdown; lesions by seen and by held-out phrasings."""
    print("| answers | seeds | steps | cpu s | lesion seen | lesion held out | DSC seen | DSC held out |")
    print("|---|---|---|---|---|---|---|---|")
    for row in summary["rows"].values():
        scores: Sequence[str] = [show(row[LESION][phrasing]) for phrasing in PHRASINGS]
        scores = [*scores, *(show(row[phrasing]) for phrasing in PHRASINGS)]
        print(f"| {row['title']} | {len(row['seeds'])} | {row['steps']} | {row['cpu_s']} | {' | '.join(scores)} |")


def main() -> None:
    """Compute what is missing, then report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_options(parser, list(ROWS), Path("runs/second_look"))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--cost", action="store_true", help="measure what a second look costs, and nothing else")
    options = parser.parse_args()
    be_quiet()
    if options.cost:
        cost = measure_cost(options)
        write_json((options.out / "quick" if options.quick else RESULTS / "second_look") / "cost.json", cost)
        print(json.dumps(cost))
        return
    if options.quick:
        options.out, options.seeds = options.out / "quick", [0]
    kept = options.out / options.split if options.quick or options.split == "val" else RESULTS / "second_look"
    seeds = {name: options.seeds if ROWS[name].model else [0] for name in options.rows}
    wanted = [] if options.report else [(name, seed) for name in options.rows for seed in seeds[name]]
    summary = summarise(fill(kept, wanted, lambda name, seed: run_cell(name, seed, options)))
    if kept == RESULTS / "second_look":
        write_json(RESULTS / "second_look.json", summary)
    print_table(summary)
    print(json.dumps({name: value for name, value in summary.items() if "_minus_" in name}))


if __name__ == "__main__":
    main()

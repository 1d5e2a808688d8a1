"""``medvol plan``: what a training step of an experiment needs, before any weights are loaded."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

from rich.table import Table
from rich.text import Text

from medvol.cli.json_document import print_document
from medvol.cli.parsing import ComponentParser
from medvol.cli.path_options import require_path_options
from medvol.core.errors import ConfigError
from medvol.terminal.console import Console
from medvol.terminal.progress import Work

if TYPE_CHECKING:
    from medvol.cli.planned_experiment import PlannedExperiment
    from medvol.planning.plan import Plan

SCHEMA = "medvol-plan/1"
_UNITS = {"": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "KIB": 2**10, "MIB": 2**20, "GIB": 2**30}
_WIDE = 200


def run(verb: str, arguments: Sequence[str]) -> int:
    """Plan an experiment; 1 when a step does not fit into the memory that was said.

    Raises:
        ConfigError: The experiment cannot be planned, or a setting is at fault.
        CheckpointError: The policy's model is not there, and its layout is not known.
    """
    options = _parser(verb).parse_args(list(arguments))
    require_path_options(options, "EXPERIMENT", "--model")
    memory = None if options.memory is None else read_bytes(options.memory)
    for name in ("devices", "answer_tokens", "queries"):
        value = getattr(options, name)
        if value is not None and value < 1:
            raise ConfigError(f"--{name} is {value}; give 1 or more")
    from medvol.cli.planned_experiment import read_experiment
    from medvol.planning.plan import make_plan
    from medvol.planning.propagator_weights import count_propagator

    with Work("planning") as work:
        work.advance(0, "the experiment")
        planned = read_experiment(options.experiment, options)
        held = count_propagator(planned.module.propagator, planned.device, planned.assumptions)
        work.advance(0, "a step")
        plan = make_plan(
            planned.policy,
            planned.step,
            planned.device,
            held,
            memory,
            options.levers,
            lambda setting: work.advance(0, setting),
        )
    if options.json:
        print_document(SCHEMA, _document(plan, planned, options.experiment))
    else:
        show_plan(plan, planned)
    return 1 if plan.fits is False else 0


def read_bytes(text: str) -> int:
    """Bytes of a size such as ``24GB`` or ``80GiB``.

    Raises:
        ConfigError: It is none.
    """
    found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([KMG]i?B)?\s*", text, re.IGNORECASE)
    size = float(found[1]) * _UNITS[(found[2] or "").upper()] if found else 0.0
    if not size:
        raise ConfigError(f"--memory is {text!r}; give the memory of a device, such as 24GB or 80GiB")
    return int(size)


def _parser(verb: str) -> ComponentParser:
    parser = ComponentParser(
        prog=f"medvol {verb}",
        description="Say what a training step needs: tokens, memory and passes. No weights are loaded or fetched.",
    )
    parser.add_argument("experiment", type=str, help="YAML file of a fit with SFTModule, GRPOModule or RejectionModule")
    parser.add_argument("--memory", type=str | None, default=None, help="memory of a device, such as 24GB")
    parser.add_argument(
        "--device", type=Literal["cpu", "cuda"] | None, default=None, help="where it would run, in place of the file's"
    )
    parser.add_argument("--devices", type=int | None, default=None, help="number of devices, in place of the file's")
    parser.add_argument("--model", type=str | None, default=None, help="folder or hub name, in place of the file's")
    parser.add_argument("--answer_tokens", type=int | None, default=None, help="tokens of an answer")
    parser.add_argument("--queries", type=int | None, default=None, help="queries of a volume")
    parser.add_argument("--levers", action="store_true", help="try all settings that save memory")
    parser.add_argument("--json", action="store_true", help="print the plan as JSON")
    return parser


def count_steps(planned: PlannedExperiment) -> dict[str, int | None]:
    """Batches of an epoch, and optimiser steps of the run; None where the data or the trainer leave it open."""
    trainer, step = planned.trainer, planned.step
    batches = None if planned.volumes is None else math.ceil(planned.volumes / step.batch)
    limit = trainer.get("limit_train_batches")
    if batches is not None and limit is not None:
        batches = min(batches, limit) if isinstance(limit, int) else int(batches * limit)  # a share when it is a float
    most, epochs = trainer.get("max_steps", -1), trainer.get("max_epochs")
    ends = [most] if isinstance(most, int) and most >= 0 else []
    if batches is not None and isinstance(epochs, int) and epochs >= 0:
        ends.append(epochs * math.ceil(batches / step.accumulation) * step.updates)
    return {
        "volumes_per_epoch": planned.volumes,
        "batches_per_epoch": batches,
        "optimiser_steps": min(ends, default=None),
    }


def _document(plan: Plan, planned: PlannedExperiment, experiment: str) -> Mapping[str, Any]:
    return {
        "experiment": experiment,
        "policy": type(planned.policy).__name__,
        "model": vars(planned.policy).get("model"),
        **plan.to_dict(),
        "run": count_steps(planned),
        "assumptions": planned.assumptions,
    }


def show_plan(plan: Plan, planned: PlannedExperiment) -> None:
    """Print a plan: prompt, work, memory by part and phase, and what to change."""
    console = Console()
    if not console.is_terminal:
        console = Console(width=_WIDE)
    for line in [*_describe_step(plan, planned), ""]:
        console.print(Text(line), soft_wrap=True)
    console.print(_tabulate(plan))
    for line in _describe_fit(plan):
        console.print(Text(line), soft_wrap=True)
    if plan.savings:
        table = Table("setting", "saves", "peak then", "costs", box=None, header_style="bold", pad_edge=False)
        for saving in plan.savings:
            sizes = (say_bytes(saving.saved_bytes), say_bytes(saving.peak_bytes))
            table.add_row(Text(saving.setting), *sizes, saving.costs)
        console.print(table)
    for assumption in planned.assumptions:
        console.print(Text(f"assumed: {assumption}"), soft_wrap=True)


def _describe_step(plan: Plan, planned: PlannedExperiment) -> list[str]:
    tokens, step, work = plan.tokens, plan.step, plan.work
    steps = count_steps(planned)
    lines = [
        f"{plan.step.method} of {type(planned.policy).__name__} on {step.devices} x {plan.device}: "
        f"{plan.trained:,} trained weights",
        f"prompt: {tokens.total:,} tokens: {tokens.image:,} of {tokens.slices} slices, {tokens.text:,} of text, "
        f"{tokens.query:,} of the query; the model takes {tokens.limit:,}",
        f"batch: {step.batch} volume(s), {step.queries} query(s) each, {step.answers} answer(s) to a query of "
        f"{plan.answer_tokens:,} tokens; rows of {work.row_tokens:,} tokens",
    ]
    if work.draws:
        lines.append(
            f"drawing: {work.draws} answers, at most {work.tokens_drawn:,} tokens behind {work.tokens_read:,} read;"
            f" {work.tokens_referred:,} tokens through the reference"
        )
    lines.append(f"learning: {work.tokens_learned:,} tokens forward and backward for an optimiser step")
    if steps["optimiser_steps"] is not None:
        epoch = "" if steps["batches_per_epoch"] is None else f", {steps['batches_per_epoch']:,} batches an epoch"
        lines.append(f"run: {steps['optimiser_steps']:,} optimiser steps{epoch}")
    return lines


def _tabulate(plan: Plan) -> Table:
    names = list(dict.fromkeys(name for phase in plan.phases for name in phase.parts))
    table = Table(
        "memory of a device", *(phase.name for phase in plan.phases), box=None, header_style="bold", pad_edge=False
    )
    for name in names:
        table.add_row(name, *(say_bytes(phase.parts.get(name, 0)) for phase in plan.phases))
    table.add_row(Text("peak", "bold"), *(Text(say_bytes(phase.total), "bold") for phase in plan.phases))
    return table


def _describe_fit(plan: Plan) -> list[str]:
    from medvol.planning.plan import ROOM

    lines = [
        f"peak: {say_bytes(plan.peak.total)} a device, while {plan.peak.name}; scans on the host: "
        f"{say_bytes(plan.host_bytes)} a process"
    ]
    if plan.memory_bytes is not None:
        room = f"{ROOM:.0%} of {say_bytes(plan.memory_bytes)}"
        lines.append(f"a step fits into {room}" if plan.fits else f"a step does not fit into {room}")
    if plan.fits is False:
        enough = bool(plan.savings) and plan.savings[-1].peak_bytes <= ROOM * (plan.memory_bytes or 0)
        lines.append("change these, in this order:" if enough else "even with all of these it does not fit:")
    return lines


def say_bytes(size: int) -> str:
    """Bytes in words: ``12.3 GB``."""
    if size == 0:
        return "-"
    return f"{size / 1e9:.1f} GB" if size >= 1e9 else f"{size / 1e6:.1f} MB"

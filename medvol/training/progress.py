"""How far a run of the trainer is, in one display for all of its parts."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import ProgressBar

from medvol.terminal.progress import Work
from medvol.training.module import TrainingModule
from medvol.training.schedule import count_steps

_NOTE_INTERVAL_S = 1.0
"""Figures are read from the device at most this often."""

_NAMES = {"dsc": "DSC", "format_rate": "format rate", "zero_spread": "zero spread"}


class TrainingProgress(ProgressBar):
    """Tells the steps, the loss, the reward and the last validation of a fit, and how far an evaluation is.

    Args:
        work: The run; it has started.
        clock: Seconds from any start.
    """

    def __init__(self, work: Work, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self._work = work
        self._part: Work | None = None
        self._clock = clock
        self._noted = -math.inf

    def disable(self) -> None:
        """Show nothing; ranks but the first do."""
        self._work.finish()

    def enable(self) -> None:
        """Show it again."""
        self._work.start()

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Count the steps of the fit, those of an earlier run included."""
        steps = _planned_steps(trainer, pl_module)
        self._work.say(_describe_start(trainer, pl_module, steps))
        self._work.count(steps, "steps", trainer.global_step)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Count the step, with what it cost and earned."""
        now = self._clock()
        due = now - self._noted >= _NOTE_INTERVAL_S
        self._noted = now if due else self._noted
        note = describe_figures({**_loss(trainer, outputs), **trainer.progress_bar_metrics}) if due else None
        self._work.advance(trainer.global_step - self._work.done, note)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """What is left is to write the model."""
        self._work.count(None)
        self._work.advance(0, "writing the model")

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Count the volumes of a validation: a part of a fit, or the run itself."""
        if trainer.state.fn == "fit":
            self._part = Work("first validation, a trial" if trainer.sanity_checking else "validation")
            self._part.start()
        batches = trainer.num_sanity_val_batches if trainer.sanity_checking else trainer.num_val_batches
        self._counted.count(_sum(batches), _unit(trainer))

    def on_validation_batch_end(self, *args: Any, **kwargs: Any) -> None:
        """Count a volume."""
        self._counted.advance()

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Tell what the validation of a fit found."""
        if self._part is None:
            return
        self._part.finish()
        self._part = None
        figures = {key: value for key, value in trainer.progress_bar_metrics.items() if key.startswith("val/")}
        if figures and not trainer.sanity_checking:
            of_all = f" of {self._work.total}" if self._work.total else ""
            self._work.say(f"step {trainer.global_step}{of_all}: {describe_figures(figures)}")

    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Count the volumes."""
        self._work.count(_sum(trainer.num_test_batches), _unit(trainer))

    def on_test_batch_end(self, *args: Any, **kwargs: Any) -> None:
        """Count a volume."""
        self._work.advance()

    def on_predict_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Count the volumes."""
        self._work.count(_sum(trainer.num_predict_batches), _unit(trainer))

    def on_predict_batch_end(self, *args: Any, **kwargs: Any) -> None:
        """Count a volume."""
        self._work.advance()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Take what is shown away."""
        if self._part is not None:
            self._part.finish()

    @property
    def _counted(self) -> Work:
        return self._part or self._work


def describe_figures(figures: Mapping[str, Any]) -> str:
    """``loss 2.95, reward 0.412, val DSC 0.610``; ``train/`` goes without saying."""
    parts = []
    for key, value in figures.items():
        stage, _, name = key.rpartition("/")
        words = [stage] if stage not in ("", "train") else []
        parts.append(" ".join([*words, _NAMES.get(name, name.replace("_", " ")), f"{float(value):.3g}"]))
    return ", ".join(parts)


def _describe_start(trainer: Trainer, module: LightningModule, steps: int | None) -> str:
    """``fit runs/a: 520 steps, 3,386,000 parameters, all of them trained, on cpu``."""
    counts = [parameter.numel() for parameter in module.parameters()]
    trained = sum(parameter.numel() for parameter in module.parameters() if parameter.requires_grad)
    share = "all of them" if trained == sum(counts) else f"{trained:,} of them"
    begin = f"from step {trainer.global_step} to {steps}" if trainer.global_step else f"{steps} steps"
    length = begin if steps is not None else "without an end"
    where = f"{module.device.type}, {trainer.world_size} processes" if trainer.world_size > 1 else module.device.type
    return f"fit {trainer.default_root_dir}: {length}, {sum(counts):,} parameters, {share} trained, on {where}"


def _loss(trainer: Trainer, outputs: Any) -> dict[str, Any]:
    """The loss of a step: what the module returned, or logged where it optimises by itself."""
    loss = outputs.get("loss") if isinstance(outputs, Mapping) else outputs
    loss = trainer.callback_metrics.get("train/loss") if loss is None else loss
    return {} if loss is None else {"train/loss": loss}


def _planned_steps(trainer: Trainer, module: LightningModule) -> int | None:
    """Optimiser steps of the whole fit; None without an end."""
    steps = count_steps(trainer, module.updates_per_batch if isinstance(module, TrainingModule) else 1)
    return int(steps) if math.isfinite(steps) else None


def _unit(trainer: Trainer) -> str:
    """What a batch of an evaluation is: a volume for each process."""
    return "volumes" if trainer.world_size == 1 else f"rounds of {trainer.world_size} volumes"


def _sum(batches: int | float | list[int | float]) -> int | None:
    total = sum(batches) if isinstance(batches, list) else batches
    return int(total) if math.isfinite(total) else None

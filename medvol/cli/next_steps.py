"""What a fit leaves, and the commands that come next."""

from __future__ import annotations

import shlex
from pathlib import Path

from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import ModelCheckpoint

from medvol.training.data import CaseDataModule


def describe_fit(trainer: Trainer, data: object) -> list[str]:
    """Lines for the end of a fit: the model folder, the checkpoints, what can be done with them."""
    run = Path(trainer.default_root_dir)
    last, best = _checkpoint(trainer, "last"), _checkpoint(trainer, "best")
    rows = [("model", str(run / "model"))] if (run / "model").is_dir() else []
    rows += [(name, str(path)) for name, path in (("last", last), ("best", best)) if path is not None]
    commands = []
    has_model = (run / "model").is_dir()
    if has_model and not (isinstance(data, CaseDataModule) and data.splits["test"] is None):
        commands.append(f"medvol test --config {_quote(_config(trainer))} --model.policy {_quote(run / 'model')}")
    if has_model:
        commands.append(f'medvol segment SCAN "QUERY" --policy {_quote(run / "model")}')
    rows += [("next" if index == 0 else "", command) for index, command in enumerate(commands)]
    return [f"{name:<6} {text}" for name, text in rows]


def describe_stop(trainer: Trainer) -> str:
    """What an interrupted fit leaves, and how it goes on."""
    last = _checkpoint(trainer, "last")
    if trainer.global_step == 0 or last is None:
        return "stopped; no checkpoint was written"
    command = f"medvol fit --config {_quote(_config(trainer))} --ckpt_path {_quote(last)}"
    return f"stopped at step {trainer.global_step}; the checkpoint is {last}; go on with: {command}"


def describe_end(step: int) -> str:
    """Why a fit trained no step.

    Args:
        step: Where it started.
    """
    if not step:
        return "max_steps, max_epochs or max_time ends at once"
    ends = "max_steps, max_epochs, early stopping, or max_time, which counts the time of earlier starts too"
    return f"the run had come to its end at step {step} ({ends})"


def _checkpoint(trainer: Trainer, name: str) -> Path | None:
    """A checkpoint of that name, of the run's own folders."""
    savers = [saver for saver in trainer.checkpoint_callbacks if isinstance(saver, ModelCheckpoint)]
    folders = [Path(saver.dirpath) for saver in savers if saver.dirpath is not None]
    found = [folder / f"{name}.ckpt" for folder in folders if (folder / f"{name}.ckpt").is_file()]
    return found[0] if found else None


def _config(trainer: Trainer) -> Path:
    return Path(trainer.default_root_dir) / "fit.yaml"


def _quote(path: Path) -> str:
    return shlex.quote(str(path))

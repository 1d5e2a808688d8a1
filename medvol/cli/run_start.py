"""Where a run starts: its folder, and the checkpoint that it goes on from."""

from __future__ import annotations

import logging
import shlex
import sys
from pathlib import Path
from typing import Any, NamedTuple

from jsonargparse import Namespace
from lightning.pytorch.utilities import rank_zero_only

from medvol.cli.saved_settings import refuse_to_delete_sources
from medvol.core.errors import CheckpointError, ConfigError
from medvol.core.ownership import SETTINGS_MARK, require_own
from medvol.core.ranges import require_paths
from medvol.core.visible_text import show
from medvol.training.checkpoint import read_checkpoint
from medvol.training.former_run import FormerRun
from medvol.training.run_folder import RunFolder

log = logging.getLogger(__name__)

_LEFT = {
    "validate": "no scores were written",
    "test": "no scores were written, and those of an earlier test are as they were",
    "predict": "the answers that were written are kept",
}
"""What a verb leaves when it is stopped."""


_OTHER_FOLDER = "choose another run folder (--trainer.default_root_dir FOLDER)"


class Start(NamedTuple):
    """Where a run starts.

    Args:
        checkpoint: File that it starts from; None for nothing.
        step: Optimiser steps that were taken before.
    """

    checkpoint: Path | None = None
    step: int = 0


def choose_folder(settings: Namespace, verb: str | None) -> RunFolder:
    """The folder of a run, in which nothing is left of a fit that was killed.

    Args:
        settings: Where they name no folder, it is put there: ``runs/`` and the name of the configuration.
        verb: What will write there; None for nothing.

    Raises:
        ConfigError: The name of the folder is empty.
        RecordError: It holds a configuration that medvol did not write, where that of the run belongs.
    """
    trainer = settings.trainer
    if trainer.default_root_dir is None:
        files = settings.get("config") or []
        name = Path(str(files[-1])).stem if files else "experiment"
        trainer.default_root_dir = str(Path("runs") / name)
    require_paths(**{"trainer.default_root_dir": trainer.default_root_dir})
    folder = RunFolder(trainer.default_root_dir)
    if is_first_process():
        folder.recover()
        if verb and not trainer.fast_dev_run:
            require_own(folder.path / f"{verb}.yaml", SETTINGS_MARK, _OTHER_FOLDER)
    return folder


def find_start(folder: RunFolder, word: str | None, trains: bool) -> Start:
    """The checkpoint to start from, looked at before anything is built.

    Args:
        folder: Where ``best`` and ``last`` are looked for.
        word: What ``--ckpt_path`` was given; None starts from nothing.
        trains: The run goes on with the optimiser too.

    Raises:
        CheckpointError: It is missing, or is none, or holds no optimiser to go on with.
    """
    if word is None:
        return Start()
    path = folder.find_checkpoint(word)
    checkpoint = read_checkpoint(path)
    step = checkpoint.get("global_step")
    if trains and "optimizer_states" not in checkpoint:
        raise CheckpointError(
            f"{path} holds weights and no state of an optimiser, so a fit cannot go on from it; make a model of it with"
            f" `medvol convert {shlex.quote(str(path))} FOLDER`, and set the policy to that folder"
        )
    if is_first_process():
        print(f"checkpoint {show(str(path))}{'' if step is None else f', step {step}'}")
    return Start(path, step if isinstance(step, int) else 0)


def enter_folder(folder: RunFolder, checkpoint: Path | None, settings: Namespace) -> dict[str, Any]:
    """Go on with the run in the folder, replace it, or refuse.

    Args:
        folder: Of the fit.
        checkpoint: What the fit starts from.
        settings: Of the fit.

    Returns:
        For ``SaveSettings``: the run that ``--overwrite`` replaces, and whether the run that is in the folder goes on.

    Raises:
        ConfigError: The fit would mix with the run that is in the folder, or delete what it reads.
        CheckpointError: Its model would replace something that is no model folder.
    """
    folder.require_model_place()
    goes_on = checkpoint is not None and folder.holds(checkpoint)
    if settings.overwrite:
        if goes_on:
            raise ConfigError(f"--overwrite would delete {checkpoint}, which --ckpt_path reads; drop one")
        doomed = folder.find()
        refuse_to_delete_sources(settings.as_dict(), folder, doomed)
        return {"former": FormerRun(folder.path, doomed), "goes_on": False}
    if not goes_on:
        folder.require_free()
    elif folder.find(("evaluation.json",)):
        log.warning("%s: evaluation.json is of the weights before this fit; test again after it", folder.path)
    return {"former": None, "goes_on": goes_on}


def end_stopped(verb: str, code: int) -> int:
    """Say what a run leaves that was stopped from outside; a fit says that itself.

    Returns:
        The exit code: 0 in the processes that do not speak.
    """
    if not is_first_process():
        return 0
    if verb in _LEFT:
        print(f"medvol: interrupted; {_LEFT[verb]}", file=sys.stderr)
    return code


def is_first_process() -> bool:
    """True in the process that speaks and writes for all."""
    return not getattr(rank_zero_only, "rank", 0)

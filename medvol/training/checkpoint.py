"""Checkpoints: best and last while training, and the policy of one."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback, EarlyStopping, ModelCheckpoint
from lightning.pytorch.callbacks.early_stopping import EarlyStoppingReason
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities.exceptions import SIGTERMException

from medvol.core.containment import contained, say
from medvol.core.errors import CheckpointError, MedvolError
from medvol.core.notices import tell_once
from medvol.core.ranges import require_least, require_whole
from medvol.core.roles import TrainablePolicy
from medvol.core.specs import describe_component, rebuild
from medvol.terminal.stops import Stops
from medvol.training.accumulation import within_accumulation
from medvol.training.checkpoint_files import use_whole_files
from medvol.training.export import NETWORK
from medvol.training.former_run import CHECKPOINTS
from medvol.training.gathering import read_trained_on
from medvol.weights.model_loading import require_same_kinds
from medvol.weights.tensor_file import read_tensors

Network = TypeVar("Network")

SPEC = "medvol_spec"
"""Key of the module's spec in a checkpoint."""

LAST = "last.ckpt"
"""The checkpoint that a stopped run goes on from."""


class SpecCheckpoint(ModelCheckpoint):
    """Keeps the best checkpoint by validation DSC and the last one, each with the spec of its module.

    ``last.ckpt`` is only ever written between two steps, so a run that goes on from it is the run that was not
    stopped: after each validation, at intervals, at the end, and when SIGINT or SIGTERM asks for a stop. A
    signal acts at the next such moment, when ``last.ckpt`` is written. A second one acts at once, and the earlier file
    stays.

    Args:
        every_n_train_steps: Also keep the last one after this many optimiser steps; None leaves it to the clock.
        every_n_minutes: Also keep it when this much time has gone by; None leaves it to steps and validations.
    """

    def __init__(self, every_n_train_steps: int | None = None, every_n_minutes: float | None = 10.0) -> None:
        require_whole(1, every_n_train_steps=every_n_train_steps)
        require_least(0, every_n_minutes=every_n_minutes)
        super().__init__(
            monitor="val/dsc",
            mode="max",
            filename="best",
            save_on_train_epoch_end=False,
            enable_version_counter=False,
            auto_insert_metric_name=False,
        )
        self.steps_between = every_n_train_steps
        self.minutes_between = every_n_minutes
        self._stops = _stops_of_fit()
        self._leaving = False
        self._kept_step = 0
        self._kept_time = 0.0

    @property
    def state_key(self) -> str:
        """One name whatever is monitored, so that a resumed run finds its state."""
        return type(self).__name__

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Keep files in ``checkpoints`` of the run folder, wherever the loggers write."""
        if self.dirpath is None:
            self.dirpath = str(Path(trainer.default_root_dir) / CHECKPOINTS)
        super().setup(trainer, pl_module, stage)
        self._stops = _stops_of_fit()
        self._leaving = False
        use_whole_files(trainer, read_checkpoint)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Know the best one again where the run folder was moved or is named in another way."""
        best = Path(str(self.dirpath)) / Path(state_dict["best_model_path"]).name
        if best.is_file():
            moved = dict.fromkeys(("best_model_path", "kth_best_model_path"), str(best))
            scores = {str(best): score for score in state_dict["best_k_models"].values()}
            state_dict = {**state_dict, **moved, "dirpath": self.dirpath, "best_k_models": scores}
        super().load_state_dict(state_dict)

    def on_sanity_check_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Listen for signals; Lightning has set its own handlers by now, and gives the former ones back at the end."""
        self._stops.listen()

    def on_validation_batch_start(self, trainer: Trainer, *args: Any, **kwargs: Any) -> None:
        """Stop in the sanity check, when nothing was trained yet."""
        if trainer.sanity_checking:
            self._leaving = self._is_asked(trainer)
            self._leave()

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Keep only the last checkpoint when nothing is validated."""
        if not any(trainer.num_val_batches):
            self.monitor, self.save_top_k = None, 0
        _settle_early_stops(trainer)
        super().on_train_start(trainer, pl_module)
        self._stops.listen()
        self._kept_step, self._kept_time = trainer.global_step, time.monotonic()
        self._leaving = self._is_asked(trainer)

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Stop before an epoch."""
        self._leave()

    def on_train_batch_start(self, *args: Any, **kwargs: Any) -> None:
        """Stop before a step; what the one before it logged is written by now."""
        self._leave()

    def on_train_batch_end(self, trainer: Trainer, *args: Any, **kwargs: Any) -> None:
        """Keep the last checkpoint when it is time, when the fit ends here, or when a stop is asked for."""
        if not within_accumulation(trainer):
            self._reach_boundary(trainer, self._is_due(trainer) or _is_ending(trainer))

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Keep the best checkpoint, and the last one with what is the best."""
        if self.monitor is None or trainer.sanity_checking or self.monitor in trainer.callback_metrics:
            super().on_validation_end(trainer, pl_module)
        else:
            tell_once(f"{self.monitor} is not known: no validation case shows its target, so no checkpoint is the best")
        if trainer.state.fn == TrainerFn.FITTING and not trainer.sanity_checking and not within_accumulation(trainer):
            self._reach_boundary(trainer, True)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Keep the last checkpoint of a fit that the end of an epoch ends."""
        if trainer.should_stop and self._kept_step != trainer.global_step:
            self._reach_boundary(trainer, True)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Stop after the last step, before a model is exported."""
        self._leave()

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Add the spec."""
        checkpoint[SPEC] = describe_component(pl_module)

    def _reach_boundary(self, trainer: Trainer, keep: bool) -> None:
        asked = self._is_asked(trainer)
        if (keep or asked) and not getattr(trainer, "fast_dev_run", False):
            trainer.save_checkpoint(Path(str(self.dirpath)) / LAST, weights_only=False)
            self._kept_step, self._kept_time = trainer.global_step, time.monotonic()
        self._leaving = asked

    def _is_asked(self, trainer: Trainer) -> bool:
        """Whether any rank was asked to stop; every rank must ask."""
        return trainer.strategy.reduce_boolean_decision(self._stops.signal is not None, all=False)

    def _leave(self) -> None:
        """Leave the fit when that was decided.

        Raises:
            KeyboardInterrupt: After SIGINT.
            SIGTERMException: After SIGTERM, or when it was another rank that was asked.
        """
        if self._leaving:
            self._stops.check()
            raise SIGTERMException

    def _is_due(self, trainer: Trainer) -> bool:
        if self.steps_between and trainer.global_step // self.steps_between != self._kept_step // self.steps_between:
            return True
        if self.minutes_between is None:
            return False
        late = time.monotonic() - self._kept_time >= 60 * self.minutes_between
        return bool(trainer.strategy.broadcast(late))  # clocks differ between ranks


def add_checkpoints(callbacks: list[Callback]) -> list[Callback]:
    """Add the usual checkpoints to callbacks that save none."""
    saving = any(isinstance(callback, ModelCheckpoint) for callback in callbacks)
    return callbacks if saving else [*callbacks, SpecCheckpoint()]


def _stops_of_fit() -> Stops:
    return Stops(terminated=SIGTERMException, place="at the end of this step")


def _settle_early_stops(trainer: Trainer) -> None:
    """Let early stopping judge a validation before the checkpoint of it is written, and end a run that it had ended.

    By itself Lightning's callback may wait for the end of the epoch, whose measures a resumed run does not have, and
    a run that goes on from its end would train on.
    """
    for callback in trainer.callbacks:  # type: ignore[attr-defined]
        if not isinstance(callback, EarlyStopping):
            continue
        if any(trainer.num_val_batches) and callback.monitor.startswith("val/"):
            callback._check_on_train_epoch_end = False
        if callback.stopping_reason is not EarlyStoppingReason.NOT_STOPPED:
            trainer.should_stop = True


def _is_ending(trainer: Trainer) -> bool:
    """Whether the step just taken is the last one."""
    last_epoch = trainer.max_epochs is not None and 0 <= trainer.max_epochs <= trainer.current_epoch + 1
    last_step = 0 <= trainer.max_steps <= trainer.global_step
    return trainer.should_stop or last_step or (last_epoch and trainer.is_last_batch)


def read_checkpoint(path: str | Path) -> dict[str, Any]:
    """Read a checkpoint file without running anything in it.

    Raises:
        CheckpointError: The file is missing, not a checkpoint of medvol, or holds more than plain values and tensors.
    """
    path = Path(path)
    if not path.is_file():
        raise CheckpointError(f"there is no checkpoint at {path}; give the path of a .ckpt file")
    checkpoint = read_tensors(path)
    if not (isinstance(checkpoint, dict) and isinstance(checkpoint.get("state_dict"), dict)):
        raise CheckpointError(f"{path} is not a checkpoint: it holds no state_dict")
    state = checkpoint["state_dict"]
    if not all(isinstance(name, str) and isinstance(value, torch.Tensor) for name, value in state.items()):
        raise CheckpointError(f"{path} is not a checkpoint: its state_dict holds other things than named tensors")
    return checkpoint


def load_policy(path: str | Path) -> TrainablePolicy:
    """Rebuild only the policy of a checkpoint file, with its weights; rewards and propagator stay unbuilt.

    Raises:
        CheckpointError: The file cannot be used, or holds no policy with weights.
    """
    checkpoint = read_checkpoint(path)
    settings = _spec(checkpoint, path).get("settings")
    policy = rebuild(settings.get("policy") if isinstance(settings, dict) else None)
    if not isinstance(policy, TrainablePolicy):
        raise CheckpointError(f"{str(path)!r} holds a {type(policy).__name__}, which has no weights to write")
    own = {
        name.removeprefix(NETWORK): value
        for name, value in checkpoint["state_dict"].items()
        if name.startswith(NETWORK)
    }
    _load_weights(_build_network(policy.load_for_training, path), own, path)
    policy.training_data = read_trained_on(checkpoint) or policy.training_data
    return policy


def _build_network(build: Callable[[], Network], path: str | Path) -> Network:
    """Build what the settings in the checkpoint describe; they may be of any type."""

    def refuse(error: BaseException) -> CheckpointError:
        return CheckpointError(f"{path}: no network can be built from its settings: {say(error)}")

    with contained(refuse, MedvolError, OSError):
        return build()


def _spec(checkpoint: dict[str, Any], path: str | Path) -> dict[str, Any]:
    spec = checkpoint.get(SPEC)
    if not isinstance(spec, dict):
        raise CheckpointError(f"{path} names no module; it was not written by medvol fit")
    return spec


def _load_weights(module: torch.nn.Module, state: dict[str, torch.Tensor], path: str | Path) -> None:
    """All of the weights, of the same kind of number, and no others."""
    try:
        require_same_kinds(module, state)
        module.load_state_dict(state, strict=True)
    except (RuntimeError, CheckpointError) as error:
        reason = " ".join(str(error).split())
        raise CheckpointError(f"{path}: its weights do not fit the policy that it names: {reason[:300]}") from error

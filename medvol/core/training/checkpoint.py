"""Checkpoints: best and last while training, and rebuilding a module from one."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.callbacks import Callback, ModelCheckpoint

from medvol.core.errors import CheckpointError
from medvol.core.evaluation.module import EvaluationModule
from medvol.core.roles import TrainablePolicy
from medvol.core.specs import describe_component, rebuild
from medvol.core.tensor_file import read_tensors
from medvol.core.training.gathering import read_trained_on

SPEC = "medvol_spec"
"""Key of the module's spec in a checkpoint."""

_NETWORK = "network."
"""Start of the names of the policy's weights in a module."""


class SpecCheckpoint(ModelCheckpoint):
    """Keeps the best checkpoint by validation DSC and the last one, each with the spec of its module.

    Args:
        every_n_train_steps: Also save after this many steps; None saves after validation only.
    """

    def __init__(self, every_n_train_steps: int | None = None) -> None:
        super().__init__(
            monitor="val/dsc",
            mode="max",
            filename="best",
            save_last=True,
            enable_version_counter=False,
            auto_insert_metric_name=False,
            every_n_train_steps=every_n_train_steps,
        )

    @property
    def state_key(self) -> str:
        """One name whatever is monitored, so that a resumed run finds its state."""
        return type(self).__name__

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        """Keep only the last checkpoint when nothing is validated."""
        if not any(trainer.num_val_batches):
            self.monitor, self.save_top_k = None, 0
        super().on_train_start(trainer, pl_module)

    def on_train_batch_end(self, *args: Any, **kwargs: Any) -> None:
        """Save after so many steps; a run goes on from the weights after a step, whoever calls the optimiser."""
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Using ModelCheckpoint with manual optimization")
            super().on_train_batch_end(*args, **kwargs)

    def on_validation_end(self, trainer: Any, pl_module: Any) -> None:
        """Save the last checkpoint, be it the best or not; Lightning saves it only together with a new best one."""
        super().on_validation_end(trainer, pl_module)
        if not self._should_save_on_train_epoch_end(trainer):
            self._keep_last(trainer)

    def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:
        """The same where validation comes at the end of an epoch; a fit that ends within one is left to Lightning."""
        super().on_train_epoch_end(trainer, pl_module)
        whole_epoch = trainer.fit_loop.epoch_loop.batch_progress.is_last_batch
        if self.monitor and whole_epoch and self._should_save_on_train_epoch_end(trainer):
            self._keep_last(trainer)

    def _keep_last(self, trainer: Any) -> None:
        if not self._should_skip_saving_checkpoint(trainer):
            self._save_last_checkpoint(trainer, self._monitor_candidates(trainer))

    def on_exception(self, trainer: Any, pl_module: Any, exception: BaseException) -> None:
        """Save the last checkpoint when a fit is interrupted; the best one stays what it is."""
        interrupted = isinstance(exception, KeyboardInterrupt | SystemExit) and not trainer.fast_dev_run
        if interrupted and self.dirpath and trainer.global_step and not trainer.sanity_checking:
            trainer.save_checkpoint(Path(self.dirpath) / f"{self.CHECKPOINT_NAME_LAST}.ckpt")

    def on_save_checkpoint(self, trainer: Any, pl_module: Any, checkpoint: dict[str, Any]) -> None:
        """Add the spec."""
        checkpoint[SPEC] = describe_component(pl_module)


def default_callbacks() -> list[Callback]:
    """Callbacks that every ``medvol fit`` gets."""
    return [SpecCheckpoint()]


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


def load_module(path: str | Path) -> EvaluationModule:
    """Rebuild a module with its weights from a checkpoint file, however it was made.

    Raises:
        CheckpointError: The file cannot be used, names something that is not a component, or lacks weights.
    """
    checkpoint = read_checkpoint(path)
    module: EvaluationModule = rebuild(_spec(checkpoint, path), EvaluationModule)
    module.configure_model()
    _load_weights(module, checkpoint["state_dict"], path)
    module.policy.training_data = read_trained_on(checkpoint) or module.policy.training_data
    return module


def load_policy(path: str | Path) -> TrainablePolicy:
    """Rebuild only the policy of a checkpoint file, with its weights; rewards and propagator stay unbuilt.

    Raises:
        CheckpointError: The file cannot be used, or holds no policy with weights.
    """
    checkpoint = read_checkpoint(path)
    settings = _spec(checkpoint, path).get("init_args")
    policy = rebuild(settings.get("policy") if isinstance(settings, dict) else None)
    if not isinstance(policy, TrainablePolicy):
        raise CheckpointError(f"{str(path)!r} holds a {type(policy).__name__}, which has no weights to write")
    own = {
        name.removeprefix(_NETWORK): value
        for name, value in checkpoint["state_dict"].items()
        if name.startswith(_NETWORK)
    }
    _load_weights(policy.load(), own, path)
    policy.training_data = read_trained_on(checkpoint) or policy.training_data
    return policy


def _spec(checkpoint: dict[str, Any], path: str | Path) -> dict[str, Any]:
    spec = checkpoint.get(SPEC)
    if not isinstance(spec, dict):
        raise CheckpointError(f"{path} names no module; it was not written by medvol fit")
    return spec


def _load_weights(module: torch.nn.Module, state: dict[str, torch.Tensor], path: str | Path) -> None:
    """All of the weights, and no others."""
    try:
        module.load_state_dict(state, strict=True)
    except RuntimeError as error:
        reason = " ".join(str(error).split())
        raise CheckpointError(f"{path}: its weights do not fit the policy that it names: {reason[:300]}") from error

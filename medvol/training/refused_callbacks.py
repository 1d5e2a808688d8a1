"""Callbacks of Lightning that would change what a fit learns, or what it learns when it is resumed."""

from __future__ import annotations

from collections.abc import Iterable

from lightning.pytorch.callbacks import (
    BaseFinetuning,
    BatchSizeFinder,
    GradientAccumulationScheduler,
    LearningRateFinder,
    StochasticWeightAveraging,
)

from medvol.core.errors import ConfigError

_TUNERS = (
    "tries the training out before it begins, so a resumed run would draw otherwise; ask `medvol plan` for the batch "
    "size, and try rates in short runs"
)
# Lightning leaves ``on_train_epoch_start`` out where a run goes on in the middle of an epoch.
_REFUSED = {
    BatchSizeFinder: _TUNERS,
    LearningRateFinder: _TUNERS,
    GradientAccumulationScheduler: (
        "is not asked again where a run goes on in the middle of an epoch, and no schedule of the learning rate knows "
        "its steps; leave it out and set trainer.accumulate_grad_batches"
    ),
    BaseFinetuning: (
        "is not asked again where a run goes on in the middle of an epoch; choose by the settings of the policy what "
        "is trained, and make a run of each stage"
    ),
    StochasticWeightAveraging: (
        "looks for weights before they are loaded and would average none; take "
        "lightning.pytorch.callbacks.WeightAveraging or EMAWeightAveraging"
    ),
}


def require_sound_callbacks(kinds: Iterable[type]) -> None:
    """Refuse callbacks that cannot be used in a fit.

    Args:
        kinds: Classes of the trainer's callbacks.

    Raises:
        ConfigError: One of them is such a callback, or inherits from one.
    """
    for kind in kinds:
        for refused, reason in _REFUSED.items():
            if issubclass(kind, refused):
                raise ConfigError(f"trainer.callbacks has {kind.__name__}, which {reason}")

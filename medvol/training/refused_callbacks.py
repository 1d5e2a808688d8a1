"""Callbacks of Lightning that would change what a fit learns, or what it learns when it is resumed."""

from __future__ import annotations

from collections.abc import Iterable

from lightning.pytorch.callbacks import (
    BaseFinetuning,
    BatchSizeFinder,
    GradientAccumulationScheduler,
    LearningRateFinder,
    StochasticWeightAveraging,
    WeightAveraging,
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
        "lightning.pytorch.callbacks.WeightAveraging or EMAWeightAveraging, with use_buffers false"
    ),
}


def require_sound_callbacks(callbacks: Iterable[tuple[type, bool]]) -> None:
    """Refuse callbacks that cannot be used in a fit.

    Args:
        callbacks: Class of each of the trainer's callbacks, and whether its setting ``use_buffers`` is true.

    Raises:
        ConfigError: One of them is such a callback, or inherits from one.
    """
    for kind, use_buffers in callbacks:
        for refused, reason in _REFUSED.items():
            if issubclass(kind, refused):
                raise ConfigError(f"trainer.callbacks has {kind.__name__}, which {reason}")
        if issubclass(kind, WeightAveraging) and use_buffers:
            raise ConfigError(
                f"trainer.callbacks has {kind.__name__}, which averages buffers too, and those of a policy are "
                "constants that a mean would round to others; set its use_buffers to false"
            )

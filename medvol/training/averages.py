"""Callbacks of the trainer that average weights over the steps of a fit."""

from __future__ import annotations

from collections.abc import Sequence

from lightning.pytorch.callbacks import Callback, StochasticWeightAveraging

from medvol.core.errors import ConfigError


def require_filled_averages(callbacks: Sequence[Callback]) -> None:
    """Refuse a callback that copies a module before its network is loaded: it would average nothing.

    Args:
        callbacks: Of the trainer.

    Raises:
        ConfigError: There is one.
    """
    if any(isinstance(callback, StochasticWeightAveraging) for callback in callbacks):
        raise ConfigError(
            "trainer.callbacks has StochasticWeightAveraging, which looks for weights before they are loaded and would "
            "average none; take lightning.pytorch.callbacks.WeightAveraging or EMAWeightAveraging"
        )

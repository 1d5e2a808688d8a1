"""Dropout, which no policy uses: a resumed run is the run that was not stopped, and a score is that of its answer."""

from __future__ import annotations

from torch import nn


def switch_off_dropout(model: nn.Module) -> None:
    """Let a network answer in training mode as in evaluation mode, in what learns and in what is frozen alike.

    Training mode is then free to say what else it says in transformers: that layers may be computed again.

    Args:
        model: Changed in place; its configuration stays as it is.
    """
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
        for name in [name for name, value in vars(module).items() if "drop" in name and isinstance(value, float)]:
            setattr(module, name, 0.0)

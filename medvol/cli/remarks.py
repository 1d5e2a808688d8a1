"""Hides Lightning's advertisements, and its remarks that are meant for authors of training scripts."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

_REMARKS = (
    r"(?s).*(JsonargparseDeprecationWarning|removed\s+in\s+v5)",  # LightningCLI calls what jsonargparse 5 removes
    "LightningCLI's args parameter is intended",  # this module is the command line
    r".*isinstance\(treespec, LeafSpec\)",  # Lightning calls what torch deprecates
    "You have overridden `transfer_batch_to_device`",  # on purpose: cases stay as they are
    "Couldn't infer the batch indices",  # predictions are written by the module
    "Be aware that when using `ckpt_path`, callbacks",  # a test needs no callback that saves
    ".*does not have many workers",  # num_workers is the user's choice
    "You're using the WeightAveraging callback with a model that overrides",  # no layer is shared out here
    "Total length of `list` across ranks is zero",  # validation cases are optional
    "You defined a `validation_step` but have no `val_dataloader`",  # the same
)

_CONSOLES = (
    "lightning.fabric.utilities.distributed",
    "lightning.pytorch.utilities.rank_zero",
    "lightning.fabric.utilities.rank_zero",
    "lightning.fabric.utilities.seed",
)

_KEPT = ("Time limit reached",)
"""Beginnings of information that nothing else tells."""


@contextmanager
def calm() -> Iterator[None]:
    """Leave out what a user can do nothing about: remarks on Lightning's own code, its devices, advertisements."""
    consoles = [logging.getLogger(name) for name in _CONSOLES]
    for console in consoles:
        console.addFilter(_is_told)
    with warnings.catch_warnings():
        for message in _REMARKS:
            warnings.filterwarnings("ignore", message=message)
        try:
            yield
        finally:
            for console in consoles:
                console.removeFilter(_is_told)


def _is_told(record: logging.LogRecord) -> bool:
    return record.levelno >= logging.WARNING or record.getMessage().startswith(_KEPT)

"""Trained policies that come with medvol. ``bundled:NAME`` stands for one wherever a model folder is asked for."""

from __future__ import annotations

import os
import shlex
from pathlib import Path

from medvol.core.errors import CheckpointError
from medvol.core.suggestions import suggest

BASE = "bundled:base"
"""It reads single slices of synthetic scans: a start for training, as a published vision-language model is one."""

BEST = "bundled:best"
"""It answers questions about synthetic scans, and is taken where no policy is named."""

_PREFIX = "bundled:"
_PLACE = Path(__file__).parents[1] / "bundled"


def is_model(name: str | Path) -> bool:
    """True for the name of a bundled model, known or not, and for the path of a folder."""
    return str(name).startswith(_PREFIX) or os.path.isdir(name)


def model_folder(name: str | Path) -> Path:
    """Folder of a bundled model; any other path as it is, whether it is there or not.

    Args:
        name: ``bundled:base``, ``bundled:best``, or a path.

    Raises:
        CheckpointError: There is no such bundled model.
    """
    if not str(name).startswith(_PREFIX):
        return Path(name)
    if str(name) not in (BASE, BEST):
        near = suggest(str(name), (BASE, BEST))
        raise CheckpointError(f"there is no model {str(name)!r}; medvol comes with {BASE} and {BEST}{near}")
    return _PLACE / str(name).removeprefix(_PREFIX)


def hint_at_checkpoint(model: str) -> str:
    """What a message adds where a run's checkpoint is given in place of a model folder; nothing for other names."""
    return f"; `medvol convert {shlex.quote(model)} FOLDER` makes one" if model.endswith(".ckpt") else ""

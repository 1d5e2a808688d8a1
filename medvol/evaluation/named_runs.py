"""Runs of a report by their names, which tell them apart and say no more of where they lie."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from medvol.core.errors import ConfigError
from medvol.evaluation.archive import Evaluation, read_evaluation


def read_runs(folders: Sequence[str | Path]) -> dict[str, Evaluation]:
    """Read evaluations; each is labelled by the name of its folder, see ``name_folders``.

    Raises:
        ConfigError: There is no folder, or one is named twice.
        RecordError: A file is missing, damaged, or of another version.
    """
    paths = [Path(folder) for folder in folders]
    if not paths or len({path.resolve() for path in paths}) < len(paths):
        raise ConfigError(f"a report needs one or more different run folders; got {[str(path) for path in paths]}")
    return dict(zip(name_folders(paths), map(read_evaluation, paths), strict=True))


def name_folders(paths: Sequence[Path]) -> list[str]:
    """The shortest ending of each path that no other one has: ``model``, or ``a/model`` beside ``b/model``.

    Args:
        paths: Different folders.
    """
    parts = [Path(os.path.abspath(path)).parts for path in paths]  # "." has a name then; a link keeps its own
    return [_name(own, [other for j, other in enumerate(parts) if j != i]) for i, own in enumerate(parts)]


def _name(own: tuple[str, ...], others: Sequence[tuple[str, ...]]) -> str:
    lengths = range(1, len(own) + 1)
    fits = (length for length in lengths if all(other[-length:] != own[-length:] for other in others))
    return Path(*own[-next(fits, len(own)) :]).as_posix()

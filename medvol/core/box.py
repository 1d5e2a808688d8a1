"""The box: trained policies that come with medvol. ``box:NAME`` stands for one wherever a model folder is asked for."""

from __future__ import annotations

from pathlib import Path

from medvol.core.errors import CheckpointError
from medvol.core.suggestions import suggest

BASE = "box:base"
"""It reads single slices of drawn scans: a start for training, as a published vision-language model is one."""

BEST = "box:best"
"""It answers questions about drawn scans, and is taken where no policy is named."""

_PREFIX = "box:"
_PLACE = Path(__file__).parents[1] / "box"


def is_model(name: str | Path) -> bool:
    """True for a name in the box, known or not, and for the path of a folder."""
    return str(name).startswith(_PREFIX) or Path(name).is_dir()


def model_folder(name: str | Path) -> Path:
    """Folder of a model in the box; any other path as it is, whether it is there or not.

    Args:
        name: ``box:base``, ``box:best``, or a path.

    Raises:
        CheckpointError: The box holds no such model.
    """
    if not str(name).startswith(_PREFIX):
        return Path(name)
    if str(name) not in (BASE, BEST):
        near = suggest(str(name), (BASE, BEST))
        raise CheckpointError(f"there is no model {str(name)!r}; the box holds {BASE} and {BEST}{near}")
    return _PLACE / str(name).removeprefix(_PREFIX)

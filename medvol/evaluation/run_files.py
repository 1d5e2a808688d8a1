"""What an evaluation is called in a run folder, and whether what has these names there is one."""

from __future__ import annotations

from pathlib import Path

from medvol.core.atomic_files import find_leftover
from medvol.core.errors import RecordError
from medvol.core.ownership import is_own

SCHEMA = "medvol-evaluation/1"
CASES_FILE = "cases.json"
SUMMARY_FILE = "evaluation.json"
MASKS_FOLDER = "masks"


def is_evaluated(folder: Path) -> bool:
    """Whether cases and masks in a folder are of an evaluation of medvol, even of one that was killed."""
    place = folder / SUMMARY_FILE
    found = place if place.exists() else find_leftover(folder, SUMMARY_FILE)
    return found is not None and is_own(found, SCHEMA)


def require_replaceable(folder: Path) -> None:
    """Refuse to replace what belongs to no evaluation of medvol.

    Raises:
        RecordError: The folder holds such a file, or such masks.
    """
    names = () if is_evaluated(folder) else (SUMMARY_FILE, CASES_FILE, MASKS_FOLDER)
    if foreign := next((path for name in names if _holds_something(path := folder / name)), None):
        raise RecordError(
            f"{foreign} is there already and belongs to no evaluation of medvol, which would replace it; move it away, "
            "or choose another run folder"
        )


def _holds_something(path: Path) -> bool:
    return any(path.iterdir()) if path.is_dir() else path.exists()

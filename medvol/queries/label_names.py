"""Names of the labels of a map, from the file that people write beside it."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from medvol.core.errors import DatasetError, QueryError
from medvol.core.json_file import parse_json
from medvol.queries.query_bank import target_name

NAMES_FILE = "labels.json"
"""File of label names, beside the label map or in a folder above it: ``{"1": "spleen", ...}``."""


def find_names_file(label_map: Path) -> Path | None:
    """The nearest file of label names: beside a label map, or in a folder above it; None where there is none."""
    whole = Path(os.path.abspath(label_map))  # the parents of a relative path end where the program was started
    return next((file for folder in whole.parents if (file := folder / NAMES_FILE).is_file()), None)


def read_label_names(path: Path) -> dict[int, str]:
    """Read names by label.

    Args:
        path: JSON such as ``{"1": "spleen"}``; a name of 0 is passed over, since 0 is the background.

    Returns:
        Names as ``target_name`` writes them, in the order of the file.

    Raises:
        DatasetError: The file cannot be read, a label is no whole number, or two labels have one name; the message
            names the file, what it holds and what to do.
    """
    try:
        content = parse_json(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError) as error:
        raise _refuse(path, f"it cannot be read ({error})") from error
    return name_labels(path, content)


def name_labels(where: str | Path, content: Any) -> dict[int, str]:
    """Names by label of what stands in a file.

    Args:
        where: The file, and the place in it, for a message.
        content: As ``read_label_names`` reads it.

    Raises:
        DatasetError: As for ``read_label_names``.
    """
    if not isinstance(content, Mapping):
        raise _refuse(where, f"it holds {content!r:.80}")
    names: dict[int, str] = {}
    for label, name in content.items():
        if not re.fullmatch(r"[0-9]{1,9}", label):
            raise _refuse(where, f"{label!r:.80} is no label; write a whole number")
        if int(label) in names:
            raise _refuse(where, f"the label {int(label)} has two names; keep one")
        if int(label) == 0:
            continue
        try:
            names[int(label)] = target_name(name)
        except (QueryError, TypeError) as error:
            raise _refuse(where, f"the label {int(label)} is called {name!r:.80}; write a name") from error
    require_single_names(where, names)
    return names


def require_single_names(where: str | Path, names: Mapping[int, str]) -> None:
    """Refuse two labels of one name: each would be taken for all of it.

    Args:
        where: As for ``name_labels``.
        names: Names by label, as they are asked for.

    Raises:
        DatasetError: Two labels have one name.
    """
    counts = Counter(names.values())
    repeated = next((name for name in names.values() if counts[name] > 1), None)
    if repeated is not None:
        labels = " and ".join(str(label) for label, name in names.items() if name == repeated)
        raise _refuse(where, f"the labels {labels} are all called {repeated!r}; give each a name of its own")


def _refuse(where: str | Path, found: str) -> DatasetError:
    return DatasetError(f'{where}: expected names by label, such as {{"1": "spleen"}}; {found}')

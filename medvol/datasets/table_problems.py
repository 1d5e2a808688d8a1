"""What is wrong with a table, row by row and between rows; no scan is read."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from medvol.core.errors import DatasetError
from medvol.datasets.nifti_table import TargetRow, read_row, read_rows, unread_columns
from medvol.datasets.sheet import SheetRow

Problem = tuple[str, str, str]
"""Name in the catalogue, place, and what was found, as ``CaseDataset.find_problems`` gives them."""

_USUAL = 3
"""So many rows make a label the usual one of a target."""


def find_table_problems(path: Path, root: Path) -> list[Problem]:
    """Every row of a table that cannot be used, and rows that do not go together.

    Args:
        path: The table.
        root: Folder that the paths in the table are relative to.
    """
    try:
        rows = read_rows(path)
    except DatasetError as error:
        return [("bad_layout", str(path), str(error).removeprefix(f"{path}: "))]
    unread = ", ".join(map(repr, unread_columns(rows)))
    problems = [("unread_column", str(path), f"nothing reads the column {unread}")] if unread else []
    if not any(_there(row, path, root) for row in rows):
        return [*problems, ("bad_layout", str(path), _nowhere(rows, path, root))]
    read: list[TargetRow] = []
    for row in rows:
        try:
            read.append(read_row(row, root))
        except DatasetError as error:
            problems.append(("bad_row", row.where, str(error).removeprefix(f"{row.where}: ")))
    return [*problems, *_find_repeats(read), *_find_odd_labels(read), *_find_unshown(read), *_find_strangers(read)]


def _there(row: SheetRow, path: Path, root: Path) -> bool:
    """True when the row's image exists, or is not said."""
    text = str(row.cells.get("image") or "").strip()
    try:
        return not text or (root / text).exists()
    except (OSError, ValueError):
        return False


def _nowhere(rows: Sequence[SheetRow], path: Path, root: Path) -> str:
    """No image exists: the folder is at fault, not the rows."""
    text = str(rows[0].cells["image"]).strip()
    near = [place for place in (path.parent, *path.resolve().parents[1:3], Path.cwd()) if _there(rows[0], path, place)]
    hint = f"set root to {str(near[0])!r}, where it lies" if near else "paths start at root"
    number = "image" if len(rows) == 1 else f"none of the {len(rows)} images"
    what = f"the {number} is not" if len(rows) == 1 else f"{number} is"
    return f"{what} in {root}, such as {text!r:.200} of {rows[0].where.removeprefix(f'{path}: ')}; {hint}"


def _find_repeats(rows: Iterable[TargetRow]) -> Iterator[Problem]:
    """Rows that ask the same of a scan, and rows that call one label by two names."""
    asked: dict[tuple[object, ...], TargetRow] = {}
    called: dict[tuple[object, ...], TargetRow] = {}
    for row in rows:
        question = row.query or row.target
        first = asked.setdefault((row.image, question), row)
        if first is not row:
            same = (first.mask, first.labels, first.absent) == (row.mask, row.labels, row.absent)
            what = "again; delete one of them" if same else "with another label, mask or absent; one of them is wrong"
            yield "repeated_row", row.where, f"it asks for {question!r} in the scan of {_short(first, row)} {what}"
            continue
        if row.mask is None or not row.target:
            continue
        other = called.setdefault((row.image, row.mask, row.labels), row)
        if other.target != row.target:
            label = f"label {';'.join(map(str, row.labels))}" if row.labels else "all labels"
            what = f"it says {row.target!r} of {label} of {row.mask.name}, {_short(other, row)} says {other.target!r}"
            yield "other_name", row.where, f"{what}; check which is right"


def _find_odd_labels(rows: Sequence[TargetRow]) -> Iterator[Problem]:
    """A label that is usually another target's, under a target that usually has another label."""
    plain = [row for row in rows if row.target and len(row.labels) == 1]
    by_target: dict[str, Counter[int]] = defaultdict(Counter)
    by_label: dict[int, Counter[str]] = defaultdict(Counter)
    for row in plain:
        by_target[row.target][row.labels[0]] += 1
        by_label[row.labels[0]][row.target] += 1
    for row in plain:
        label, times = by_target[row.target].most_common(1)[0]
        target, turns = by_label[row.labels[0]].most_common(1)[0]
        if label != row.labels[0] and target != row.target and min(times, turns) >= _USUAL:
            yield (
                "other_name",
                row.where,
                f"its label {row.labels[0]} is {target!r} in {turns} rows, and {row.target!r} is label {label} in "
                f"{times}; check which is right",
            )


def _find_unshown(rows: Sequence[TargetRow]) -> Iterator[Problem]:
    """Labels that rows say to be absent, and that no row finds in a mask: a slip in one of them looks like absence."""
    known = {label for row in rows if not row.absent for label in row.labels}
    for row in rows:
        for label in row.labels:
            if label not in known:
                known.add(label)
                what = f"no row asks for the label {label} where it is shown, so nothing tells that it is that of"
                yield "unseen_target", row.where, f"{what} {row.target or row.query!r}; check the number"


def _find_strangers(rows: Iterable[TargetRow]) -> Iterator[Problem]:
    """One scan of two patients, whom a split may part."""
    known: dict[Path, TargetRow] = {}
    for row in rows:
        first = known.setdefault(row.image, row)
        if first.patient != row.patient:
            yield (
                "bad_row",
                row.where,
                f"patient is {row.patient!r}, and {_short(first, row)} says {first.patient!r} of the same scan",
            )


def _short(other: TargetRow, row: TargetRow) -> str:
    """How one row is called beside another of the same table: ``row 2``."""
    return other.where if other.number is None else f"row {other.number}"

"""Tables of labelled scans: CSV or JSON, one target a row."""

from __future__ import annotations

import csv
import difflib
import json
import os
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

from medvol.core.errors import DatasetError, QueryError
from medvol.core.grounding.instances import Seed
from medvol.core.grounding.queries import target_name
from medvol.core.types import Modality

COLUMNS = {
    "image": "path of the scan, or of a folder of DICOM, relative to root",
    "mask": "path of the mask, label map or DICOM segmentation; empty when there is none",
    "label": "values of the target in the mask, such as 2 or 2;3; every value but 0 when empty",
    "target": "name of the target; asks with the query bank when there is no query",
    "query": "the question itself",
    "patient": "patients stay in one split; the image when empty",
    "modality": "CT, MR or other; CT promises Hounsfield units",
    "case": "name of the case in results; the image when empty",
}
"""Columns of a table and what they mean; only ``image`` is needed, and a target or a query. Others are left alone."""


@dataclass(frozen=True)
class TargetRow:
    """One target of one scan.

    Args:
        image: The scan.
        mask: The mask or label map; None when there is none.
        labels: Values of the target in the mask; every value but 0 when empty.
        target: Name of the target; empty when only a query is given.
        query: The question; empty to ask with the query bank.
        patient: Patient of the scan.
        modality: See ``Modality``; None leaves it to the reader.
        case: Start of the case's id.
        seed: Voxel (z, y, x) in LPS; only the connected part of the mask that holds it is the target.
        meaning: Structure that a relational target turns out to be.
        absent: True for a target that the scan does not show.
    """

    image: Path
    mask: Path | None
    labels: tuple[int, ...]
    target: str
    query: str
    patient: str
    modality: Modality | None
    case: str
    seed: Seed | None = None
    meaning: str = ""
    absent: bool = False


def read_table(path: Path, root: Path) -> list[TargetRow]:
    """Read a table.

    Args:
        path: CSV with a header line, or JSON with a list of objects.
        root: Folder that the paths in the table are relative to.

    Raises:
        DatasetError: The file, a row or a cell cannot be used; the message names file, row, column and what to do.
    """
    return [row.read() for row in _rows(path, root)]


def find_bad_rows(path: Path, root: Path) -> list[tuple[str, str, str]]:
    """Every row of a table that cannot be used, as ``CaseDataset.find_problems`` gives them."""
    try:
        rows = _rows(path, root)
    except DatasetError as error:
        return [("bad_layout", str(path), str(error))]
    problems = []
    for row in rows:
        try:
            row.read()
        except DatasetError as error:
            problems.append(("bad_row", row.where, str(error).removeprefix(f"{row.where}: ")))
    return problems


def _rows(path: Path, root: Path) -> list[_Row]:
    try:
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise DatasetError(f"{path}: the table cannot be read ({error.strerror}); check the path") from error
    except UnicodeDecodeError as error:
        raise DatasetError(f"{path}: the table is not UTF-8 text; save it as UTF-8") from error
    cells = _json_rows(path, text) if path.suffix.lower() == ".json" else _csv_rows(path, text)
    if not cells:
        raise DatasetError(f"{path}: the table has no rows; give each target a row with the columns {_columns()}")
    _check_columns(path, dict.fromkeys(column for row in cells for column in row))
    return [_Row(row, f"{path}: row {number}", root) for number, row in enumerate(cells, start=1)]


def _csv_rows(path: Path, text: str) -> list[dict[str, Any]]:
    try:
        rows = list(csv.DictReader(text.splitlines(), strict=True))
    except csv.Error as error:
        raise DatasetError(f"{path}: not a CSV table ({error}); write commas between cells") from error
    for number, row in enumerate(rows, start=1):
        if None in row or None in row.values():
            raise DatasetError(f"{path}: row {number}: not as many cells as the header has; quote cells with commas")
    return rows


def _json_rows(path: Path, text: str) -> list[dict[str, Any]]:
    try:
        rows = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise DatasetError(f"{path}: not JSON ({error})") from error
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise DatasetError(f"{path}: expected a list of objects with the keys {_columns()}")
    return rows


def _check_columns(path: Path, columns: Collection[str]) -> None:
    if "image" not in columns:
        raise DatasetError(f"{path}: no column 'image'; the columns are {_columns()}")
    for column in columns:
        near = difflib.get_close_matches(column, COLUMNS, n=1, cutoff=0.75)
        if column not in COLUMNS and near:
            raise DatasetError(f"{path}: unknown column {column!r}; did you mean {near[0]!r}?")


@dataclass(frozen=True)
class _Row:
    """One row of a table, cell by cell."""

    cells: Mapping[str, Any]
    where: str
    root: Path

    def read(self) -> TargetRow:
        """Check and convert every cell."""
        image, mask = self._file("image"), self._file("mask")
        if image is None:
            raise self._error("image", "is empty; give the path of the scan")
        target, query = self._cell("target", self._target), self._text("query")
        if not (target or query):
            raise self._error("target", "is empty, and so is query; fill in one of them")
        name = image.relative_to(self.root).as_posix() if image.is_relative_to(self.root) else image.name
        return TargetRow(
            image=image,
            mask=mask,
            labels=self._cell("label", self._labels) or (),
            target=target or "",
            query=query,
            patient=self._text("patient") or name,
            modality=self._cell("modality", self._modality),
            case=self._text("case") or scan_name(name),
        )

    def _error(self, column: str, problem: str) -> DatasetError:
        return DatasetError(f"{self.where}: {column} {problem}")

    def _text(self, column: str) -> str:
        value = self.cells.get(column)
        if value is None:
            return ""
        if isinstance(value, list) and column == "label":
            return ";".join(map(str, value))
        if isinstance(value, bool) or not isinstance(value, (str, int)):
            raise self._error(column, f"is {value!r}; write a text")
        return str(value).strip()

    def _cell(self, column: str, convert: Callable[[str, str], Any]) -> Any:
        """Converted cell; None when it is empty."""
        text = self._text(column)
        return convert(column, text) if text else None

    def _file(self, column: str) -> Path | None:
        text = self._text(column)
        if not text:
            return None
        path = self.root / text
        if column == "image" and os.path.isdir(path):
            return path  # of DICOM
        if not os.path.isfile(path):  # unlike Path.is_file it takes names that are too long for a file
            raise self._error(
                column, f"is {text!r:.200}, and there is no such file in {self.root}; paths start at root"
            )
        return path

    def _target(self, column: str, text: str) -> str:
        try:
            return target_name(text)
        except QueryError as error:
            raise self._error(column, f"is {text!r}: {error}") from error

    def _labels(self, column: str, text: str) -> tuple[int, ...]:
        values = [part.strip() for part in text.split(";")]
        if not all(re.fullmatch(r"0*[1-9][0-9]{0,8}", value) for value in values):
            raise self._error(column, f"is {text!r:.200}; write values above 0, such as 2 or 2;3")
        return tuple(int(value) for value in values)

    def _modality(self, column: str, text: str) -> str:
        choices: Sequence[str] = get_args(Modality)
        if text not in choices:
            raise self._error(column, f"is {text!r}; write one of {', '.join(choices)}")
        return text


def scan_name(path: str) -> str:
    """Name of a scan in results: its path without the ending, slashes as dashes."""
    stem = path
    for ending in (".gz", ".nii", ".nrrd", ".mha", ".mhd"):
        stem = stem.removesuffix(ending)
    return stem.replace("/", "-")


def _columns() -> str:
    return ", ".join(COLUMNS)
